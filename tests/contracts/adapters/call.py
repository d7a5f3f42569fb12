"""The decorator under the contract: a function that calls a scripted model in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gatebook.producers.adapters.call import recorded_call
from gatebook.producers.recorder import Recorder

from ._contract import SCRIPTS, AdapterUnderTest, Fact, Script, Situation


def harness() -> AdapterUnderTest:
    return CallUnderTest()


class Refused(Exception):
    """What a client library raises for an answer that is an error."""

    def __init__(self, script: Script) -> None:
        super().__init__(json.loads(script.chunks[0])["error"]["message"])
        self.status_code = script.status


class CallUnderTest(AdapterUnderTest):
    """One function for whole answers and one for streams."""

    unknown: Mapping[Fact, str] = {
        "status": "no HTTP is seen from inside the process",
        "caller": "a function call carries no key",
    }
    stream_chunks = 4  # the end mark is no chunk of a generator

    def through(self, situation: Situation, recorder: Recorder) -> object:
        return _received(situation, recorded_call("chat", recorder=recorder))

    def bare(self, situation: Situation) -> object:
        return _received(situation, lambda function: function)


def _received(situation: Situation, wrap: Callable[[Any], Any]) -> object:
    script = SCRIPTS[situation]
    streams = script.request.get("stream")
    try:
        if not streams:
            return wrap(_whole(script))(**script.request)
        steps = wrap(_stream(script))(**script.request)
        return [next(steps) for _ in script.chunks if script.end == "stays"] or list(steps)
    except Exception as error:
        return type(error), str(error)


def _whole(script: Script) -> Callable[..., Any]:
    def answer(**request: Any) -> Any:
        if script.end == "silence":
            raise TimeoutError("the model is silent")
        if script.end == "exception":
            raise RuntimeError("the planted question broke it")
        if script.status >= 400:
            raise Refused(script)
        return json.loads(script.chunks[0])

    return answer


def _stream(script: Script) -> Callable[..., Iterator[Any]]:
    def pieces(**request: Any) -> Iterator[Any]:
        for chunk in script.chunks:
            if b"[DONE]" not in chunk:
                yield json.loads(chunk.removeprefix(b"data: "))

    return pieces
