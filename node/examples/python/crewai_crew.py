"""A CrewAI crew of two, on the mesh."""

import os

from crewai import LLM, Agent, Crew, Task

model = LLM(
    provider="openai",
    base_url=os.environ.get("LLAMESH_URL", "http://127.0.0.1:5264/v1"),
    api_key=os.environ.get("LLAMESH_KEY", "none"),
    model=os.environ.get("LLAMESH_MODEL", "smollm2"),
    max_tokens=64,
)
writer = Agent(role="Writer", goal="Write one sentence", backstory="You write plainly.", llm=model)
editor = Agent(role="Editor", goal="Shorten it", backstory="You like few words.", llm=model)
draft = Task(description="Say why the sky is blue.", expected_output="one sentence", agent=writer)
final = Task(description="Shorten the sentence.", expected_output="one sentence", agent=editor, context=[draft])
print(Crew(agents=[writer, editor], tasks=[draft, final]).kickoff())
