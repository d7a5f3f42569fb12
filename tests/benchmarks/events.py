"""The events of the benchmarks: the packaged example of a chat access, varied as traffic varies.

Of 5,000 events: each has its own id and request id; 1,000 conversations; 500 users at 200
addresses; one path, two models, three clients.
"""

from __future__ import annotations

import copy
import random
import time
import uuid
from collections.abc import Iterator
from typing import Any

from gatebook.schemas.codec import FrameHeader, build_frame, encode_event
from gatebook.schemas.examples import examples

Event = dict[str, Any]
AGENTS = ("OpenAI/Python 2.9.0", "Python/3.12 aiohttp/3.9.1", "Mozilla/5.0 Firefox/140.0")
SEED = 7


def events(count: int, example: str = "chat") -> Iterator[Event]:
    """So many events, the same every time but for ids and times."""
    base = examples("access_event.v2")[example]
    draw = random.Random(SEED)
    now = time.time_ns()
    for number in range(count):
        yield _varied(base, number, now, draw)


def _varied(base: Event, number: int, now: int, draw: random.Random) -> Event:
    event = copy.deepcopy(base)
    user = draw.randrange(500)
    began = now - draw.randrange(60 * 10**9)
    event["timestamp"] = began
    event["event"] |= {"id": str(uuid.uuid4()), "end": began + 400_000_000, "created": now}
    event["user"]["id"] = f"user-{user}"
    event["source"]["ip"] = f"10.20.4.{user % 200}"
    event["user_agent"] = {"original": AGENTS[user % 3]}
    event["http"]["request"]["id"] = f"req-{draw.getrandbits(48):012x}"
    event["gen_ai"]["request"]["model"] = ("assistant-small", "assistant-tiny")[user % 2]
    event["gen_ai"]["usage"]["output_tokens"] = draw.randrange(10, 400)
    event["gen_ai"]["conversation"] = {"id": f"conv-{number // 5}"}
    return event


def frames(encoded: list[bytes]) -> Iterator[bytes]:
    """The events in frames of 100 to 500, from one producer."""
    draw = random.Random(SEED)
    first = 0
    while first < len(encoded):
        part = encoded[first : first + draw.randint(100, 500)]
        yield build_frame(FrameHeader("bench", 1, first, len(part), time.time_ns()), part)
        first += len(part)


def encoded_events(count: int) -> list[bytes]:
    """So many events as Avro."""
    return [encode_event(event) for event in events(count)]
