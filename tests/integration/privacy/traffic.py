"""Accesses with canaries in them, by every way that text gets into an event."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from tests.canaries import Canary

from gatebook.producers.adapters.call import record_call
from gatebook.producers.asgi import GatebookMiddleware
from gatebook.producers.recorder import Recorder

Send = Callable[[dict[str, Any]], Awaitable[None]]
Answer = Callable[[Send], Awaitable[None]]
Group = Sequence[Canary]
JSON_TYPE = (b"content-type", b"application/json")
STREAM_TYPE = (b"content-type", b"text/event-stream")


def said(group: Group) -> str:
    """The secrets as somebody mentions them."""
    return " ".join(f"My {canary.called} is {canary.text} today." for canary in group)


class Service:
    """A model service that answers as it is told, under the middleware; one request at a time."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._app = GatebookMiddleware(self._serve, recorder)
        self._answer: Answer = plainly({})

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await self._answer(send)

    async def ask(
        self,
        path: str,
        body: dict[str, Any] | bytes,
        answer: Answer,
        *headers: tuple[bytes, bytes],
        query: bytes = b"",
        gone_after: int = 1_000_000,
    ) -> None:
        """One exchange. The client is gone after it has had so many messages."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "headers": [JSON_TYPE, (b"host", b"models.example:8000"), *headers],
            "client": ("10.20.30.40", 50_000),
        }
        self._answer = answer
        requests = [{"type": "http.request", "body": data, "more_body": False}]

        async def receive() -> dict[str, Any]:
            return requests.pop() if requests else {"type": "http.disconnect"}

        left = gone_after

        async def send(_: dict[str, Any]) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError("the client is gone")

        with contextlib.suppress(OSError, RuntimeError, TimeoutError):  # an end like any other
            await self._app(scope, receive, send)


def plainly(body: dict[str, Any], status: int = 200, *headers: tuple[bytes, bytes]) -> Answer:
    """The whole answer at once."""

    async def answer(send: Send) -> None:
        start = {"type": "http.response.start", "status": status}
        await send({**start, "headers": [JSON_TYPE, *headers]})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    return answer


def raising(error: Exception) -> Answer:
    """No answer: the application fails."""

    async def answer(send: Send) -> None:
        raise error

    return answer


def in_chunks(events: Sequence[dict[str, Any]], size: int, fails: bool = False) -> Answer:
    """A stream of server-sent events, its bytes cut anywhere."""
    lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    data = lines.encode() + (b"" if fails else b"data: [DONE]\n\n")

    async def answer(send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [STREAM_TYPE]})
        for at in range(0, len(data), size):
            part = data[at : at + size]
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if fails:
            raise TimeoutError("the model took too long")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return answer


def deltas(text: str, size: int = 3) -> list[dict[str, Any]]:
    """A streamed answer, a few letters each: every secret is split."""
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    return [
        {"model": "slm", "choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces
    ]


def chat(content: str, **more: Any) -> dict[str, Any]:
    return {"model": "slm", "messages": [{"role": "user", "content": content}], **more}


def completion(content: str, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    return {"id": "cmpl-1", "model": "slm", "choices": [choice], "usage": usage}


def tool_call(arguments: str, name: str = "look_up") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"index": 0, "id": "call_1", "type": "function", "function": function}


CHAT = "/v1/chat/completions"
Path = Callable[[Service, Group], Awaitable[None]]


async def success(service: Service, group: Group) -> None:
    """In prompts, instructions and answers."""
    first, second = said(group[::2]), said(group[1::2])
    messages = [
        {"role": "system", "content": said(group[:1])},
        {"role": "user", "content": [{"type": "text", "text": first}]},
        {"role": "assistant", "content": second},
        {"role": "user", "content": "thanks"},
    ]
    answer = plainly(completion(said(group)))
    await service.ask(CHAT, {"model": "slm", "messages": messages}, answer)


async def other_formats(service: Service, group: Group) -> None:
    """In what is sent to other routes."""
    text = said(group)
    done = plainly(completion("ok"))
    await service.ask("/v1/completions", {"model": "slm", "prompt": [text]}, done)
    await service.ask("/v1/embeddings", {"model": "slm", "input": [text]}, done)
    request = {"model": "slm", "input": text, "instructions": text}
    output = [{"type": "message", "content": [{"type": "output_text", "text": text}]}]
    await service.ask("/v1/responses", request, plainly({"id": "r", "output": output}))
    claude = {"type": "message", "content": [{"type": "text", "text": text}]}
    await service.ask("/v1/messages", chat(text, system=text), plainly(claude))
    ollama = {"model": "slm", "message": {"role": "assistant", "content": text}, "done": True}
    await service.ask("/api/chat", chat(text, stream=False), plainly(ollama))


async def failure(service: Service, group: Group) -> None:
    """In what an error quotes, and in a body that is not what it says."""
    text = said(group)
    error = {"error": {"message": f"invalid value: {text}", "type": "invalid_request_error"}}
    for status in (400, 422, 429, 500, 503):
        await service.ask(CHAT, chat(text), plainly(error, status))
    await service.ask(CHAT, chat(text), raising(RuntimeError(f"cannot parse {text}")))
    await service.ask(CHAT, f'{{"messages": [{text}'.encode(), plainly({"detail": text}, 422))


async def stream(service: Service, group: Group) -> None:
    """Split over the pieces of a stream, and over its bytes."""
    request = chat(said(group), stream=True)
    await service.ask(CHAT, request, in_chunks(deltas(said(group)), 7))
    await service.ask(CHAT, request, in_chunks(deltas(said(group), 11), 4096))


async def broken_stream(service: Service, group: Group) -> None:
    """A stream that fails, and one whose client goes."""
    request, events = chat(said(group), stream=True), deltas(said(group), 5)
    await service.ask(CHAT, request, in_chunks(events, 50, fails=True))
    await service.ask(CHAT, request, in_chunks(events, 50), gone_after=12)


async def tools(service: Service, group: Group) -> None:
    """In tools' descriptions, arguments and results; streamed arguments too."""
    given = json.dumps({c.called.replace(" ", "_").lower(): c.text for c in group})
    text = said(group)
    function = {"name": "look_up", "description": text, "parameters": {"default": text}}
    messages = [
        {"role": "user", "content": "look it up"},
        {"role": "assistant", "content": None, "tool_calls": [tool_call(given)]},
        {"role": "tool", "tool_call_id": "call_1", "content": json.dumps({"found": text})},
    ]
    request = {"model": "slm", "messages": messages}
    request["tools"] = [{"type": "function", "function": function}]
    answer = completion("", tool_calls=[tool_call(given)])
    await service.ask(CHAT, request, plainly(answer))
    pieces = [
        {"choices": [{"index": 0, "delta": {"tool_calls": [tool_call(given[at : at + 6])]}}]}
        for at in range(0, len(given), 6)
    ]
    await service.ask(CHAT, {**request, "stream": True}, in_chunks(pieces, 33))


async def headers(service: Service, group: Group) -> None:
    """In headers and the query, one each, as clients leave them there."""
    for canary in group:
        text = f"{canary.called}: {canary.text}".replace("\n", " ")
        raw = text.encode()
        await service.ask(
            CHAT,
            chat("hello"),
            plainly(completion("hi"), 200, (b"x-request-id", raw), (b"set-cookie", raw)),
            (b"user-agent", f"agent/1.0 ({text})".encode()),
            (b"x-request-id", raw),
            (b"authorization", b"Bearer " + raw),
            (b"x-api-key", raw),
            (b"cookie", b"session=" + raw),
            (b"referer", b"https://example.com/?x=" + quote(text).encode()),
            (b"traceparent", raw),
            query=f"q={quote(text)}".encode(),
        )


async def fields(service: Service, group: Group) -> None:
    """In what a request names: model, conversation, tools, stops, path; in an answer's ids and an
    error's codes. Not the end user: who that is stands in the log."""
    for canary in group:
        text = f"{canary.called}: {canary.text}"
        tool = {"type": "function", "function": {"name": text}}
        request = chat("hello", stop=[text], conversation=text, tools=[tool])
        request["model"] = text
        answer = completion("hi", tool_calls=[tool_call("{}", text)])
        answer |= {"id": text, "model": text}
        if canary.kind != "private_key":  # the field is cut at 64 characters: too few for a key
            answer["choices"][0]["finish_reason"] = text
        await service.ask(f"/v1/models/{text}", request, plainly(answer))
        error = {"error": {"message": text, "type": text, "code": text}}
        await service.ask(CHAT, request, plainly(error, 404))


async def calls(service: Service, group: Group) -> None:
    """In calls within the process that end in errors whose texts quote them."""
    text = said(group)
    for error in (TimeoutError(text), ValueError(text), KeyError(text), None):
        with (
            contextlib.suppress(TimeoutError, ValueError, KeyError),
            record_call(model="slm", recorder=service.recorder) as call,
        ):
            call.request(messages=[{"role": "user", "content": text}])
            call.output(text)
            call.tool_call("look_up", json.dumps({"value": text}))
            call.attribute("note", text)
            if error:
                raise error


async def rejected(service: Service, group: Group) -> None:
    """In events that intake rejects: from a time nobody lived in."""
    content = json.dumps({"input_messages": [{"role": "user", "content": said(group)}]}).encode()
    event: dict[str, Any] = {
        "timestamp": 1,
        "event": {"action": "chat", "outcome": "success"},
        "content": content,
        "content_encoding": "json",
    }
    service.recorder.emit(event)
    for canary in group:
        agent = {"original": f"{canary.called}: {canary.text}"}
        service.recorder.emit({**event, "user_agent": agent})


PATHS: tuple[Path, ...] = (
    success,
    other_formats,
    failure,
    stream,
    broken_stream,
    tools,
    headers,
    fields,
    calls,
    rejected,
)


def groups(all_of_them: Sequence[Canary], size: int) -> Iterator[Group]:
    """In groups of at most that size."""
    return (all_of_them[at : at + size] for at in range(0, len(all_of_them), size))


def log_lines(group: Group) -> str:
    """An access log with them in it, as `gatebook import` reads it."""
    return "\n".join(
        json.dumps(
            {
                "timestamp": time.time_ns(),
                "event": {"id": str(uuid.uuid4())},
                "user": {"id": "importer"},
                "user_agent": {"original": f"{canary.called}: {canary.text}"},
                "content": {"input_messages": [{"role": "user", "content": said([canary])}]},
            }
        )
        for canary in group
    )


async def drive(services: Sequence[Service], some: Sequence[Canary], size: int) -> None:
    """Each group by one path, paths and services in turn."""
    for number, group in enumerate(groups(some, size)):
        path = PATHS[number % len(PATHS)]
        await path(services[number // len(PATHS) % len(services)], group)
        await asyncio.sleep(0)  # lets the writer's thread in
