"""LangChain: chat models, tools, structured output, embeddings, an agent."""

import os

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

MODEL, EMBEDDER = os.environ["MODEL"], os.environ["EMBEDDER"]
server = {"base_url": os.environ["BASE_URL"], "api_key": "none", "max_retries": 0}


@tool
def weather(city: str) -> str:
    """Weather in a city."""
    return f"rain in {city}"


class Place(BaseModel):
    """A place."""

    name: str = Field(description="its name")


chat = ChatOpenAI(model=MODEL, temperature=0, max_tokens=48, **server)
whole = chat.invoke([("system", "Be brief."), ("human", "Name the capital of Italy.")])
assert whole.content and whole.usage_metadata["total_tokens"] > 0
assert "".join(chunk.content for chunk in chat.stream("Name a river."))

called = chat.bind_tools([weather], tool_choice="weather").invoke("Weather in Rome?")
assert called.tool_calls[0]["name"] == "weather" and "city" in called.tool_calls[0]["args"]
streamed = None
for chunk in chat.bind_tools([weather], tool_choice="required").stream("Weather in Rome?"):
    streamed = chunk if streamed is None else streamed + chunk
assert "city" in streamed.tool_calls[0]["args"]

for method in ("json_schema", "function_calling"):
    assert isinstance(chat.with_structured_output(Place, method=method).invoke("Rome is large."), Place)
assert OpenAI(model=MODEL, max_tokens=4, **server).invoke("One, two,") is not None

embeddings = OpenAIEmbeddings(model=EMBEDDER, check_embedding_ctx_length=False, **server)
assert len(embeddings.embed_documents(["a", "b", "c"])) == 3 and embeddings.embed_query("a")

agent = create_agent(chat, [weather], system_prompt="Use tools.")
assert agent.invoke({"messages": [("user", "Weather in Rome?")]})["messages"][-1].content is not None
