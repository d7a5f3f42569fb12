"""A FastAPI service with the middleware added as FastAPI's users add one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import fastapi
import httpx
import pytest
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from gatebook.producers.asgi import GatebookMiddleware, attach

CHAT = "/v1/chat/completions"
CHUNKS = [
    b'data: {"id":"c1","model":"tiny","choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n',
    b"data: [DONE]\n\n",
]


class Chat(BaseModel):
    """What FastAPI checks before the endpoint is called."""

    model: str
    stream: bool = False


def service() -> fastapi.FastAPI:
    """An endpoint with a dependency that checks the key, and a body that is validated."""
    app = fastapi.FastAPI()

    def checked(authorization: Annotated[str, fastapi.Header()] = "") -> None:
        if authorization != "Bearer sk-good":
            raise fastapi.HTTPException(401, "planted words")

    @app.post(CHAT, dependencies=[fastapi.Depends(checked)])
    async def chat(asked: Chat) -> Any:
        async def body() -> AsyncIterator[bytes]:
            for chunk in CHUNKS:
                yield chunk

        if asked.model == "broken":
            raise RuntimeError("planted")
        if asked.stream:
            return StreamingResponse(body(), media_type="text/event-stream")
        return {"id": "c1", "model": "tiny", "choices": [], "usage": {"prompt_tokens": 5}}

    return app


async def call(app: Any, body: dict[str, Any], key: str = "sk-good") -> httpx.Response:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://model.test") as client:
        return await client.post(CHAT, json=body, headers={"authorization": f"Bearer {key}"})


SITUATIONS: dict[str, tuple[dict[str, Any], str, int, str, str]] = {
    "an answer": ({"model": "tiny"}, "sk-good", 200, "", "success"),
    "a stream": ({"model": "tiny", "stream": True}, "sk-good", 200, "", "success"),
    "a refused key": ({"model": "tiny"}, "sk-bad", 401, "unauthenticated", "failure"),
    "an invalid body": ({"stream": True}, "sk-good", 422, "invalid_request", "failure"),
    "an error": ({"model": "broken"}, "sk-good", 500, "server_error", "failure"),
}


def lazily(app: fastapi.FastAPI, recorder: Any) -> None:
    """As any other middleware: made when the first request comes."""
    app.add_middleware(GatebookMiddleware, recorder=recorder)


def at_once(app: fastapi.FastAPI, recorder: Any) -> None:
    """As `gatebook attach fastapi` prints it: made here, where a wrong setting stops the start."""
    attach(app, recorder=recorder)


@pytest.mark.parametrize("add", [lazily, at_once])
@pytest.mark.parametrize("situation", SITUATIONS)
async def test_a_fastapi_service_answers_as_before_and_every_access_is_recorded(
    situation: str, add: Any, make_recorder: Any, published: Any
) -> None:
    """Dependencies, validation and error handling of the framework included."""
    body, key, status, reason, outcome = SITUATIONS[situation]
    recorder, wrapped = make_recorder(), service()
    add(wrapped, recorder)
    bare, found = await call(service(), body, key), await call(wrapped, body, key)

    assert recorder.close(10).complete
    (event,) = published.events()
    assert (found.status_code, found.content) == (bare.status_code, bare.content)
    assert found.status_code == status
    assert (event["event"]["outcome"], event["event"]["reason"]) == (outcome, reason)
    assert event["event"]["action"] == "chat"
    assert event["gen_ai"]["request"]["model"] == body.get("model", "")
    assert "planted" not in repr(event)
    if status == 200:
        assert event["gen_ai"]["usage"]["input_tokens"] == 5
        assert event["http"]["response"]["body"]["bytes"] == len(found.content)
