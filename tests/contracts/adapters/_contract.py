"""What every adapter is put through, and the interface of what puts it there.

A module `tests/contracts/adapters/<name>.py` with `harness() -> AdapterUnderTest` is found by its
place; modules that begin with an underscore are helpers.
"""

from __future__ import annotations

import enum
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gatebook.producers.recorder import Recorder

PATH = "/v1/chat/completions"
API_KEY = "sk-planted-key-of-the-caller"
SECRET = "AKIAPLANTEDSECRET0042"
REQUESTED_MODEL = "tiny"
RETURNED_MODEL = "tiny-q4"


class Situation(enum.StrEnum):
    """How an access may go."""

    SUCCESS = "success"
    STREAM = "stream"
    ERROR = "error"
    TIMEOUT = "timeout"
    CLIENT_GONE = "client_gone"
    EXCEPTION = "exception"
    UNAUTHENTICATED = "unauthenticated"
    SECRET_INPUT = "secret_input"


# Where the service answers to the end: the caller gets the same with and without the adapter.
ANSWERED = (
    Situation.SUCCESS,
    Situation.STREAM,
    Situation.ERROR,
    Situation.UNAUTHENTICATED,
    Situation.SECRET_INPUT,
)

# Facts an adapter may be unable to know, each for a reason its harness states.
Fact = Literal["status", "chunks", "caller", "partial"]


def _event(**fields: Any) -> bytes:
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1}
    return b"data: %s\n\n" % json.dumps(common | {"model": RETURNED_MODEL} | fields).encode()


def _delta(finish: str | None = None, **delta: str) -> bytes:
    return _event(choices=[{"index": 0, "delta": delta, "finish_reason": finish}])


STREAM_CHUNKS = (
    _delta(role="assistant", content="Hel"),
    _delta(content="lo"),
    _delta("stop"),
    _event(choices=[], usage={"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}),
    b"data: [DONE]\n\n",
)
ABORTED_CHUNKS = STREAM_CHUNKS[:2]

_ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": RETURNED_MODEL,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
}


def _error(kind: str, message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "code": None}}).encode()


@dataclass(frozen=True)
class Script:
    """What the caller asks and what the service does then.

    `end`: `whole` ends the answer properly; `silence` sends nothing more until the caller or the
    adapter gives up; `exception` fails before anything was sent (an application raises, an upstream
    cuts the connection); `stays` waits after the chunks, for a caller that leaves.
    """

    request: Mapping[str, Any]
    status: int = 200
    content_type: str = "application/json"
    chunks: tuple[bytes, ...] = (json.dumps(_ANSWER).encode(),)
    end: Literal["whole", "silence", "exception", "stays"] = "whole"

    @property
    def body(self) -> bytes:
        """The request's body."""
        return json.dumps(self.request).encode()


def _asked(content: str = "the planted question", **more: Any) -> dict[str, Any]:
    return {
        "model": REQUESTED_MODEL,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0.5,
        **more,
    }


SCRIPTS = {
    Situation.SUCCESS: Script(_asked()),
    Situation.STREAM: Script(
        _asked(stream=True), content_type="text/event-stream", chunks=STREAM_CHUNKS
    ),
    # A service that quotes the question in its error.
    Situation.ERROR: Script(
        _asked(),
        status=400,
        chunks=(_error("invalid_request_error", "bad: the planted question"),),
    ),
    Situation.TIMEOUT: Script(_asked(), chunks=(), end="silence"),
    Situation.CLIENT_GONE: Script(
        _asked(stream=True), content_type="text/event-stream", chunks=ABORTED_CHUNKS, end="stays"
    ),
    Situation.EXCEPTION: Script(_asked(), chunks=(), end="exception"),
    Situation.UNAUTHENTICATED: Script(
        _asked(), status=401, chunks=(_error("authentication_error", "no such key"),)
    ),
    Situation.SECRET_INPUT: Script(_asked(f"my key is {SECRET}", user="end-user-17")),
}


@dataclass(frozen=True)
class Reply:
    """What a caller over HTTP received. `broken`: the answer did not end properly."""

    status: int | None
    content_type: str
    chunks: tuple[bytes, ...]
    broken: str = ""


class AdapterUnderTest(ABC):
    """Drives one adapter through the situations against a scripted service.

    Give the caller API_KEY where callers have keys, SCRIPTS[situation].request as the question, and
    a time-out of a few tenths of a second in Situation.TIMEOUT. One call is one access.
    """

    # Situations it cannot come into, each with the reason.
    absent: Mapping[Situation, str] = {}
    # Facts it cannot know, each with the reason.
    unknown: Mapping[Fact, str] = {}
    # gatebook.stream.chunks after the whole stream, and after the one that was left.
    stream_chunks: int = len(STREAM_CHUNKS)
    aborted_chunks: int = len(ABORTED_CHUNKS)

    @abstractmethod
    def through(self, situation: Situation, recorder: Recorder) -> object:
        """Bring the adapter into the situation and return what the caller received: anything that
        compares equal to what `bare` gives. An exception the caller would see is caught and stands
        in what is returned. The recorder is closed by the test, not here."""

    @abstractmethod
    def bare(self, situation: Situation) -> object:
        """The same without the adapter; called for the situations in ANSWERED only."""
