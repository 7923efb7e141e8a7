"""A conversation with LlamaIndex, on the mesh."""

import os

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

model = OpenAILike(
    api_base=os.environ.get("LLAMESH_URL", "http://127.0.0.1:5264/v1"),
    api_key=os.environ.get("LLAMESH_KEY", "none"),
    model=os.environ.get("LLAMESH_MODEL", "smollm2"),
    is_chat_model=True,
    context_window=2048,
    max_tokens=64,
)
said = [ChatMessage(role="system", content="Be brief.")]
for question in ["What is the capital of France?", "And of Italy?"]:
    said.append(ChatMessage(role="user", content=question))
    answer = model.chat(said).message
    said.append(answer)
    print(f"{question} {answer.content}")
