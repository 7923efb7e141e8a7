"""The protocol's own client: every method of it that the mesh serves, over HTTP and over pipes, in both revisions."""

import asyncio
import json
import os
import shlex

from mcp import Client, MCPError, StdioServerParameters

URL, PROGRAM = os.environ["MCP_URL"], shlex.split(os.environ["MCP_PROGRAM"])
TOOLS = {"find_agents", "submit_job", "run_plan", "get_receipt", "verify_receipt"}
REVISIONS = {"auto": "2026-07-28", "legacy": "2025-11-25"}
PLAN = {
    "goal": "two answers in one",
    "nodes": {
        "left": {"generate": {"prompt": "left"}},
        "right": {"generate": {"prompt": "right"}},
        "both": {"concatenate": {"of": "[nodes.left, nodes.right]"}},
    },
}


async def structured(client, tool, arguments, **options):
    result = await client.call_tool(tool, arguments, **options)
    assert not result.is_error and result.content[0].text, result
    return result.structured_content


async def tools(client):
    listed = (await client.list_tools()).tools
    assert {tool.name for tool in listed} == TOOLS
    assert all(tool.output_schema["type"] == "object" and tool.description for tool in listed)
    hints = {tool.name: tool.annotations.read_only_hint for tool in listed}
    assert hints["find_agents"] and hints["verify_receipt"] and not hints["submit_job"]
    found = await structured(client, "find_agents", {"capability": "text.generation", "max_price": 0})
    assert found["agents"][0]["capability"] == "text.generation"


async def jobs(client):
    heard = []

    async def progress(done, total, message):
        heard.append((done, total, message))

    done = await structured(client, "submit_job", {"prompt": "one two three"}, progress_callback=progress)
    assert done["text"] == "one two three" and done["usage"]["completion_tokens"] == 3
    assert heard[-1][0] == 3 and heard == sorted(heard), heard
    named = {"receipt": done["receipt"]}
    assert (await structured(client, "get_receipt", named))["answer"] == done["text"]
    assert (await structured(client, "verify_receipt", named))["verdict"] == "signed"
    heard.clear()
    dry = await structured(client, "run_plan", {"plan": PLAN, "dry_run": True})
    assert dry["affordable"] and dry["least"]["jobs"] == 2
    ran = await structured(client, "run_plan", {"plan": PLAN}, progress_callback=progress)
    assert ran["output"] == "left\nright" and heard[-1][:2] == (3, 3), heard
    return done


async def resources(client, done):
    uris, cursor = [], None
    while True:
        page = await client.list_resources(cursor=cursor)
        uris += [str(resource.uri) for resource in page.resources]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert done["uri"] in uris and any(uri.endswith("/profile") for uri in uris)
    for uri in (done["uri"], next(uri for uri in uris if uri.endswith("/profile"))):
        [content] = (await client.read_resource(uri)).contents
        assert json.loads(content.text) and content.mime_type == "application/json"
    templates = (await client.list_resource_templates()).resource_templates
    assert {template.name for template in templates} == {"receipt", "profile"}
    try:
        await client.read_resource("llamesh://receipts/none")
        raise AssertionError("a receipt that is none was read")
    except MCPError as error:
        assert "templates" in str(error), error


async def mistakes(client):
    wrong = await client.call_tool("submit_job", {"prompt": "x", "max_tokens": 0})
    assert wrong.is_error and "max_tokens" in wrong.content[0].text, wrong
    try:
        await client.call_tool("no_such_tool", {})
        raise AssertionError("a tool that is none was called")
    except MCPError as error:
        assert "no_such_tool" in str(error), error


async def left(client):
    """Whoever does not wait any longer: the job is given up, and the server goes on."""
    slow = client.call_tool("submit_job", {"prompt": "x", "capability": "text.slow", "max_tokens": 30000})
    try:
        await asyncio.wait_for(slow, 1)
        raise AssertionError("the slow agent has answered")
    except TimeoutError:
        pass
    await tools(client)


async def main():
    program = StdioServerParameters(command=PROGRAM[0], args=PROGRAM[1:], env=dict(os.environ))
    for server in (URL, program):
        for mode, revision in REVISIONS.items():
            async with Client(server, mode=mode, read_timeout_seconds=60) as client:
                assert client.protocol_version == revision, (mode, client.protocol_version)
                assert client.server_info.name == "llamesh" and "budget" in client.instructions
                if mode == "legacy":
                    await client.send_ping()
                await tools(client)
                await resources(client, await jobs(client))
                await mistakes(client)
                await left(client)


asyncio.run(main())
