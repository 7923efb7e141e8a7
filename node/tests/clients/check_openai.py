"""OpenAI's own library: what everything else is built on."""

import json
import os
import struct
from base64 import b64decode

from openai import NotFoundError, OpenAI
from pydantic import BaseModel

MODEL, EMBEDDER = os.environ["MODEL"], os.environ["EMBEDDER"]
client = OpenAI(base_url=os.environ["BASE_URL"], api_key="none", max_retries=0)
question = [{"role": "user", "content": "Name the capital of Italy."}]


class Place(BaseModel):
    name: str
    large: bool


def weather(flat: bool) -> dict:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    function = {"name": "weather", "description": "Weather in a city", "parameters": parameters}
    return {"type": "function", **function} if flat else {"type": "function", "function": function}


def models():
    assert {MODEL, EMBEDDER} <= {model.id for model in client.models.list()}
    assert client.models.retrieve(MODEL).id == MODEL
    try:
        client.chat.completions.create(model="no-such-model", messages=question)
        raise AssertionError("an unknown model has answered")
    except NotFoundError as error:
        assert (error.code, error.param) == ("model_not_found", "model")


def chat():
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=question, max_tokens=12, seed=1)
    whole = raw.parse()
    assert whole.id.endswith(raw.headers["x-request-id"]) and len(raw.headers["x-llamesh-receipt"]) == 64
    assert whole.choices[0].message.content and whole.usage.total_tokens > 12
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model=MODEL, messages=question, max_tokens=12, seed=1, **options))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == whole.choices[0].message.content, "the seed makes the answer"
    assert chunks[-1].usage == whole.usage
    several = client.chat.completions.create(
        model=MODEL, messages=question, n=2, logprobs=True, top_logprobs=2, max_tokens=4
    )
    assert [choice.index for choice in several.choices] == [0, 1]
    assert len(several.choices[0].logprobs.content[0].top_logprobs) == 2


def forms():
    parsed = client.chat.completions.parse(
        model=MODEL, messages=question, response_format=Place, max_tokens=48, temperature=0
    )
    assert isinstance(parsed.choices[0].message.parsed, Place)
    chosen = {"type": "function", "function": {"name": "weather"}}
    asked = {"model": MODEL, "messages": question, "tools": [weather(flat=False)], "max_tokens": 48}
    called = client.chat.completions.create(**asked, tool_choice=chosen).choices[0]
    call = called.message.tool_calls[0]
    assert called.finish_reason == "tool_calls" and "city" in json.loads(call.function.arguments)
    told = question + [called.message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    again = client.chat.completions.create(**{**asked, "messages": told}, tool_choice="none")
    assert again.choices[0].message.tool_calls is None
    stream = client.chat.completions.create(**asked, tool_choice="required", stream=True)
    pieces = [call for chunk in stream if chunk.choices for call in chunk.choices[0].delta.tool_calls or []]
    assert "city" in json.loads("".join(piece.function.arguments or "" for piece in pieces))


def completions():
    told = client.completions.create(model=MODEL, prompt="One, two,", max_tokens=3, echo=True, logprobs=1)
    assert told.choices[0].text.startswith("One, two,") and told.choices[0].logprobs.token_logprobs[0] is None


def embeddings():
    # The library asks for base64 by itself, and reads it.
    several = client.embeddings.create(model=EMBEDDER, input=["a cat", "a dog", "a treaty"])
    cat, dog, treaty = [one.embedding for one in several.data]
    plain = client.embeddings.create(model=EMBEDDER, input="a cat", encoding_format="float").data[0].embedding
    assert all(abs(a - b) < 1e-3 for a, b in zip(cat, plain, strict=True))
    cosine = lambda a, b: sum(x * y for x, y in zip(a, b, strict=True))
    assert cosine(cat, dog) > cosine(cat, treaty)
    raw = client.embeddings.with_raw_response.create(model=EMBEDDER, input="a cat", encoding_format="base64")
    encoded = json.loads(raw.content)["data"][0]["embedding"]
    assert abs(struct.unpack("<f", b64decode(encoded)[:4])[0] - plain[0]) < 1e-3


def responses():
    first = client.responses.create(model=MODEL, input="Name a river.", max_output_tokens=12, temperature=0)
    assert first.output_text and first.usage.output_tokens > 0
    stream = client.responses.create(
        model=MODEL, input="And another one.", previous_response_id=first.id, max_output_tokens=12, stream=True
    )
    events = list(stream)
    assert events[0].type == "response.created" and events[-1].response.usage.input_tokens > 0
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == events[-1].response.output_text
    called = client.responses.create(
        model=MODEL, input="Weather in Rome?", tools=[weather(flat=True)], tool_choice="required", max_output_tokens=48
    )
    call = next(item for item in called.output if item.type == "function_call")
    assert "city" in json.loads(call.arguments)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    assert client.responses.create(
        model=MODEL, input=[result], previous_response_id=called.id, max_output_tokens=12
    ).output_text
    parsed = client.responses.parse(model=MODEL, input="A city.", text_format=Place, max_output_tokens=48)
    assert isinstance(parsed.output_parsed, Place)
    assert client.responses.retrieve(first.id).output_text == first.output_text
    client.responses.delete(first.id)


for check in (models, chat, forms, completions, embeddings, responses):
    check()
