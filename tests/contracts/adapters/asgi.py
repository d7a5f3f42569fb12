"""The ASGI middleware under the contract: a scripted application, driven message by message."""

from __future__ import annotations

import asyncio
from typing import Any

from gatebook.producers.asgi import App, GatebookMiddleware
from gatebook.producers.recorder import Recorder

from ._contract import (
    API_KEY,
    PATH,
    SCRIPTS,
    AdapterUnderTest,
    Reply,
    Script,
    Situation,
)

DEADLINE_SECONDS = 10


def harness() -> AdapterUnderTest:
    return AsgiUnderTest()


class AsgiUnderTest(AdapterUnderTest):
    """The application does by itself what the script says: it raises where it fails."""

    def through(self, situation: Situation, recorder: Recorder) -> Reply:
        app = GatebookMiddleware(scripted_app(SCRIPTS[situation]), recorder=recorder)
        return asyncio.run(drive(app, situation))

    def bare(self, situation: Situation) -> Reply:
        return asyncio.run(drive(scripted_app(SCRIPTS[situation]), situation))


def scripted_app(script: Script) -> App:
    """An application that follows a script."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["body"] == script.body
        if script.end == "silence":
            raise TimeoutError("the model behind the application is silent")
        if script.end == "exception":
            raise RuntimeError("the planted question broke it")
        headers = [(b"content-type", script.content_type.encode())]
        await send({"type": "http.response.start", "status": script.status, "headers": headers})
        for chunk in script.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if script.end == "stays":
            assert (await receive())["type"] == "http.disconnect"
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


async def drive(app: App, situation: Situation) -> Reply:
    """One request to an ASGI application, from a caller that leaves where the situation says."""
    script = SCRIPTS[situation]
    sent: list[Any] = []
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    incoming.put_nowait({"type": "http.request", "body": script.body, "more_body": False})

    async def send(message: Any) -> None:
        sent.append(message)
        if script.end == "stays" and len(_chunks(sent)) == len(script.chunks):
            incoming.put_nowait({"type": "http.disconnect"})

    broken = ""
    try:
        await asyncio.wait_for(app(scope(script), incoming.get, send), DEADLINE_SECONDS)
    except Exception as error:
        broken = type(error).__name__
    start = next((m for m in sent if m["type"] == "http.response.start"), None)
    headers = dict(start["headers"]) if start else {}
    content_type = headers.get(b"content-type", b"").decode()
    return Reply(start["status"] if start else None, content_type, _chunks(sent), broken)


def _chunks(sent: list[Any]) -> tuple[bytes, ...]:
    return tuple(bytes(m["body"]) for m in sent if m.get("body"))


def scope(script: Script) -> dict[str, Any]:
    """The scope of a chat request with a key."""
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"host", b"model.test"),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(script.body)).encode()),
            (b"authorization", f"Bearer {API_KEY}".encode()),
        ],
        "client": ("203.0.113.9", 4321),
        "server": ("model.test", 80),
        "asgi": {"version": "3.0", "spec_version": "2.3"},
    }
