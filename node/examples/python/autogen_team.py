"""Two AutoGen agents that talk to each other, on the mesh."""

import asyncio
import os

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core.models import ModelFamily
from autogen_ext.models.openai import OpenAIChatCompletionClient


async def main() -> None:
    model = OpenAIChatCompletionClient(
        base_url=os.environ.get("LLAMESH_URL", "http://127.0.0.1:5264/v1"),
        api_key=os.environ.get("LLAMESH_KEY", "none"),
        model=os.environ.get("LLAMESH_MODEL", "smollm2"),
        max_tokens=64,
        model_info={
            "vision": False,
            "function_calling": True,
            "json_output": True,
            "structured_output": True,
            "family": ModelFamily.UNKNOWN,
        },
    )
    writer = AssistantAgent("writer", model_client=model, system_message="You write slogans.")
    critic = AssistantAgent("critic", model_client=model, system_message="You judge slogans in one sentence.")
    team = RoundRobinGroupChat([writer, critic], termination_condition=MaxMessageTermination(3))
    async for message in team.run_stream(task="A slogan for a bakery, please."):
        if hasattr(message, "source"):
            print(f"{message.source}: {message.content}")
    await model.close()


asyncio.run(main())
