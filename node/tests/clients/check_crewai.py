"""CrewAI: two agents, two tasks, one tool."""

import os

for quiet in ("CREWAI_DISABLE_TELEMETRY", "CREWAI_DISABLE_TRACKING", "OTEL_SDK_DISABLED", "CREWAI_TESTING"):
    os.environ[quiet] = "true"
os.environ["CREWAI_TRACING_ENABLED"] = "false"

from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool


@tool("weather")
def weather(city: str) -> str:
    """Weather in a city."""
    return f"rain in {city}"


model = LLM(
    model=os.environ["MODEL"],
    provider="openai",
    base_url=os.environ["BASE_URL"],
    api_key="none",
    max_tokens=48,
    temperature=0,
)
assert model.call("Name a river.")
quiet = {"llm": model, "max_iter": 3, "verbose": False}
forecaster = Agent(role="Forecaster", goal="Tell the weather", backstory="An expert", tools=[weather], **quiet)
writer = Agent(role="Writer", goal="Write", backstory="An expert", **quiet)
told = Task(description="Weather in Rome?", expected_output="one sentence", agent=forecaster)
written = Task(description="Say it again.", expected_output="one sentence", agent=writer, context=[told])
result = Crew(agents=[forecaster, writer], tasks=[told, written], verbose=False).kickoff()
assert str(result).strip() and result.token_usage.total_tokens > 0
