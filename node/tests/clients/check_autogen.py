"""AutoGen: a client, a required tool, an agent, and two of them in turns."""

import asyncio
import os

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core.models import ModelFamily, UserMessage
from autogen_core.tools import FunctionTool
from autogen_ext.models.openai import OpenAIChatCompletionClient

abilities = {
    "family": ModelFamily.UNKNOWN,
    "function_calling": True,
    "json_output": True,
    "structured_output": True,
    "vision": False,
}


async def weather(city: str) -> str:
    """Weather in a city."""
    return f"rain in {city}"


async def main():
    client = OpenAIChatCompletionClient(
        model=os.environ["MODEL"],
        base_url=os.environ["BASE_URL"],
        api_key="none",
        max_retries=0,
        max_tokens=48,
        model_info=abilities,
    )
    question = [UserMessage(content="Weather in Rome?", source="user")]
    whole = await client.create(question)
    assert whole.content and whole.usage.prompt_tokens > 0
    parts = [part async for part in client.create_stream(question, include_usage=True)]
    assert parts[-1].usage.completion_tokens > 0
    tool = FunctionTool(weather, description="Weather in a city")
    called = await client.create(question, tools=[tool], tool_choice="required")
    assert called.content[0].name == "weather"
    agent = AssistantAgent("forecaster", model_client=client, tools=[weather], model_client_stream=True)
    assert (await agent.run(task="Weather in Rome?")).messages
    pair = [AssistantAgent(name, model_client=client) for name in ("writer", "critic")]
    team = RoundRobinGroupChat(pair, termination_condition=MaxMessageTermination(3))
    assert len((await team.run(task="Write a slogan for otters.")).messages) == 3
    await client.close()


asyncio.run(main())
