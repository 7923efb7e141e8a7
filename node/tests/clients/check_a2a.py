"""A2A's own library: every method of its client, over both bindings, and the card's signature."""

import asyncio
import json
import os
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import (
    AgentCard,
    AuthenticationInfo,
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTasksRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
    TaskState,
)
from a2a.utils.errors import A2AError
from a2a.utils.signing import InvalidSignaturesError, create_signature_verifier
from jwt import PyJWK

URL = os.environ["A2A_URL"]
JOB = "urn:llamesh:job:1"
posts = Queue()


class Hook(BaseHTTPRequestHandler):
    """Whoever is posted to."""

    def do_POST(self):
        posts.put((dict(self.headers), json.loads(self.rfile.read(int(self.headers["content-length"])))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def asking(text: str, tokens: int = 4, context: str = "", **configuration) -> SendMessageRequest:
    message = Message(message_id=uuid.uuid4().hex, role=Role.ROLE_USER, parts=[Part(text=text)], context_id=context)
    message.metadata.update({JOB: {"max_tokens": tokens}})
    return SendMessageRequest(message=message, configuration=SendMessageConfiguration(**configuration))


def said(task) -> str:
    return "".join(part.text for artifact in task.artifacts for part in artifact.parts)


async def refusal(call) -> str:
    try:
        await call
    except A2AError as error:
        return type(error).__name__
    raise AssertionError("it was not refused")


async def events(stream) -> list:
    return [event async for event in stream]


async def card_of(http: httpx.AsyncClient) -> AgentCard:
    keys = (await http.get(f"{URL}/.well-known/jwks.json")).json()["keys"]
    known = {key["kid"]: PyJWK.from_dict(key) for key in keys}
    asked = []

    def provide(kid, jku):
        asked.append(jku)
        return known[kid]

    verifier = create_signature_verifier(provide, ["EdDSA"])
    card = await A2ACardResolver(http, URL).get_agent_card(signature_verifier=verifier)
    assert asked == [f"{URL}/.well-known/jwks.json"] and card.skills and card.capabilities.push_notifications
    forged = AgentCard()
    forged.CopyFrom(card)
    forged.name = "somebody else"
    try:
        verifier(forged)
        raise AssertionError("a forged card has passed")
    except InvalidSignaturesError:
        return card


async def sends(whole, streaming) -> None:
    first = (await events(whole.send_message(asking("one two"))))[-1].task
    assert first.status.state == TaskState.TASK_STATE_COMPLETED and said(first).startswith("one two"), first
    assert len(dict(first.artifacts[0].metadata[JOB])["receipt"]) == 64
    again = await whole.get_task(GetTaskRequest(id=first.id, history_length=0))
    assert said(again) == said(first) and not again.history
    second = (await events(whole.send_message(asking("three", context=first.context_id))))[-1].task
    assert second.context_id == first.context_id and second.id != first.id
    listed = await whole.list_tasks(
        ListTasksRequest(context_id=first.context_id, status=TaskState.TASK_STATE_COMPLETED, page_size=1)
    )
    assert [task.id for task in listed.tasks] == [second.id] and listed.total_size == 2
    rest = await whole.list_tasks(
        ListTasksRequest(
            context_id=first.context_id,
            page_size=1,
            page_token=listed.next_page_token,
            include_artifacts=True,
            status_timestamp_after=first.status.timestamp,
        )
    )
    assert [said(task) for task in rest.tasks] == [said(first)] and not rest.next_page_token
    told = await events(streaming.send_message(asking("one two")))
    assert told[0].WhichOneof("payload") == "task"
    assert told[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED
    pieces = [part.text for event in told for part in event.artifact_update.artifact.parts]
    assert "".join(pieces).startswith("one two"), pieces


async def tasks_at_work(whole, streaming) -> None:
    begun = (await events(whole.send_message(asking("slow", tokens=4000, return_immediately=True))))[-1].task
    assert begun.status.state in (TaskState.TASK_STATE_SUBMITTED, TaskState.TASK_STATE_WORKING)
    stream = aiter(streaming.subscribe(SubscribeToTaskRequest(id=begun.id)))
    assert (await anext(stream)).task.id == begun.id
    cancelled = await whole.cancel_task(CancelTaskRequest(id=begun.id))
    assert cancelled.status.state == TaskState.TASK_STATE_CANCELED
    last = [event async for event in stream][-1]
    assert last.status_update.status.state == TaskState.TASK_STATE_CANCELED
    assert await refusal(whole.cancel_task(CancelTaskRequest(id=begun.id))) == "TaskNotCancelableError"
    assert await refusal(events(streaming.subscribe(SubscribeToTaskRequest(id=begun.id)))) == "UnsupportedOperationError"
    for call in (whole.get_task(GetTaskRequest(id="none")), whole.cancel_task(CancelTaskRequest(id="none"))):
        assert await refusal(call) == "TaskNotFoundError"
    picture = SendMessageRequest(message=Message(message_id="p", role=Role.ROLE_USER, parts=[Part(raw=b"x")]))
    assert await refusal(events(whole.send_message(picture))) == "ContentTypeNotSupportedError"


async def webhooks(whole, hook: str) -> None:
    begun = (await events(whole.send_message(asking("slow", tokens=20, return_immediately=True))))[-1].task
    config = TaskPushNotificationConfig(
        id="h",
        task_id=begun.id,
        url=hook,
        token="secret",
        authentication=AuthenticationInfo(scheme="Bearer", credentials="mine"),
    )
    assert await whole.create_task_push_notification_config(config) == config
    named = GetTaskPushNotificationConfigRequest(task_id=begun.id, id="h")
    assert await whole.get_task_push_notification_config(named) == config
    listed = await whole.list_task_push_notification_configs(ListTaskPushNotificationConfigsRequest(task_id=begun.id))
    assert list(listed.configs) == [config]
    while True:
        head, body = await asyncio.to_thread(posts.get, timeout=60)
        assert (head["x-a2a-notification-token"], head["authorization"]) == ("secret", "Bearer mine")
        if body.get("statusUpdate", {}).get("status", {}).get("state") == "TASK_STATE_COMPLETED":
            break
    await whole.delete_task_push_notification_config(DeleteTaskPushNotificationConfigRequest(task_id=begun.id, id="h"))
    assert await refusal(whole.get_task_push_notification_config(named)) == "TaskNotFoundError"


async def check(binding: str, hook: str) -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        card = await card_of(http)

        def client(streaming: bool, card: AgentCard = card):
            config = ClientConfig(
                streaming=streaming, httpx_client=http, supported_protocol_bindings=[binding], use_client_preference=True
            )
            return ClientFactory(config).create(card)

        whole, streaming = client(streaming=False), client(streaming=True)
        await sends(whole, streaming)
        await tasks_at_work(whole, streaming)
        await webhooks(whole, hook)
        # The card says that there is no other one, so the library does not ask; one that thinks otherwise is told.
        assert await whole.get_extended_agent_card(GetExtendedAgentCardRequest()) == card
        mistaken = AgentCard()
        mistaken.CopyFrom(card)
        mistaken.capabilities.extended_agent_card = True
        asked = client(streaming=False, card=mistaken).get_extended_agent_card(GetExtendedAgentCardRequest())
        assert await refusal(asked) == "UnsupportedOperationError"


server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
threading.Thread(target=server.serve_forever, daemon=True).start()
for each in ("JSONRPC", "HTTP+JSON"):
    asyncio.run(check(each, f"http://127.0.0.1:{server.server_port}/hook"))
