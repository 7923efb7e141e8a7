"""LlamaIndex: chat, tools, structured output, and an index that is asked."""

import os

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

server = {"api_base": os.environ["BASE_URL"], "api_key": "none", "max_retries": 0}
chat = OpenAILike(
    model=os.environ["MODEL"],
    is_chat_model=True,
    is_function_calling_model=True,
    context_window=2048,
    max_tokens=48,
    **server,
)
raw = OpenAILike(model=os.environ["MODEL"], is_chat_model=False, max_tokens=4, **server)
embedder = OpenAILikeEmbedding(model_name=os.environ["EMBEDDER"], **server)


def weather(city: str) -> str:
    """Weather in a city."""
    return f"rain in {city}"


class Place(BaseModel):
    """A place."""

    name: str


assert chat.chat([ChatMessage(role="user", content="Name the capital of Italy.")]).message.content
assert "".join(part.delta or "" for part in chat.stream_chat([ChatMessage(role="user", content="Name a river.")]))
assert raw.complete("One, two,").text is not None

tools = [FunctionTool.from_defaults(weather)]
answer = chat.chat_with_tools(tools, user_msg="Weather in Rome?", tool_required=True)
assert "city" in chat.get_tool_calls_from_response(answer)[0].tool_kwargs
assert isinstance(chat.as_structured_llm(Place).complete("Rome is large.").raw, Place)

documents = [Document(text="Otters live in rivers."), Document(text="Treaties are signed by states.")]
index = VectorStoreIndex.from_documents(documents, embed_model=embedder, transformations=[])
found = index.as_retriever(similarity_top_k=1).retrieve("Where do otters live?")
assert "Otters" in found[0].text
assert str(index.as_query_engine(llm=chat).query("Where do otters live?"))
