"""Two small model services under the middleware, for real servers to run. Each answers with its
process's id. Settings by GATEBOOK_* variables."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable
from typing import Any

from gatebook.producers.adapters.wsgi import GatebookWsgiMiddleware
from gatebook.producers.asgi import GatebookMiddleware

THINKING_SECONDS = float(os.environ.get("SERVICE_SECONDS", "0"))


def answer() -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "x" * 2000}}
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    return json.dumps(
        {
            "model": str(os.getpid()),
            "choices": [{**choice, "finish_reason": "stop"}],
            "usage": usage,
        }
    ).encode()


async def service(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application with a lifespan."""
    if scope["type"] == "lifespan":
        for word in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{word}.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    if THINKING_SECONDS:
        await asyncio.sleep(THINKING_SECONDS)  # waits: the model thinks
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer()})


def wsgi_service(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """A WSGI application."""
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    body = answer()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


def make_wsgi() -> GatebookWsgiMiddleware:
    """One middleware of its own, so that a server of one kind makes no recorder of the other."""
    return GatebookWsgiMiddleware(wsgi_service)


def make_asgi() -> GatebookMiddleware:
    """The same for ASGI."""
    return GatebookMiddleware(service)


app: Any = make_wsgi() if os.environ.get("SERVICE_KIND") == "wsgi" else make_asgi()
