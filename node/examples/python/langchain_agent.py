"""A LangChain agent with a tool, on the mesh."""

import os

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


model = ChatOpenAI(
    base_url=os.environ.get("LLAMESH_URL", "http://127.0.0.1:5264/v1"),
    api_key=os.environ.get("LLAMESH_KEY", "none"),
    model=os.environ.get("LLAMESH_MODEL", "smollm2"),
    max_tokens=64,
)
agent = create_agent(model, [weather], system_prompt="Use the tool.")
answer = agent.invoke({"messages": [("user", "What is the weather in Paris?")]})
for message in answer["messages"]:
    print(f"{message.type}: {message.content}")
