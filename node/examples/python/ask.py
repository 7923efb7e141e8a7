"""Asks the mesh with OpenAI's own client, and prints the answer as it comes."""

import os
import sys

from openai import OpenAI

mesh = OpenAI(
    base_url=os.environ.get("LLAMESH_URL", "http://127.0.0.1:5264/v1"),
    api_key=os.environ.get("LLAMESH_KEY", "none"),
)
question = " ".join(sys.argv[1:]) or "Why is the sky blue?"
stream = mesh.chat.completions.create(
    model=os.environ.get("LLAMESH_MODEL", "smollm2"),
    messages=[{"role": "user", "content": question}],
    max_tokens=64,
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
