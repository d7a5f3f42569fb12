"""Documents of thirty days, as intake renders them, with the spread of fields that traffic has.

40 tenants with three of 24 services each, a service has two of 12 models; 5,000 people of whom a
few are busy, who make some calls at a time; 6 % failures; office hours busier than nights. Every
document is the packaged example of a chat access as intake made it, with its own identity, times,
sizes and outcome. The same seed gives the same documents.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from gatebook.processors.sinks.base import Row
from gatebook.schemas.documents import day_text, timestamp_text

SEED = 11
DAYS = 30
TENANTS = [f"tenant-{number:02d}" for number in range(40)]
SERVICES = [f"{what}-{kind}" for what in ("support", "search", "code", "mail", "legal", "sales")
            for kind in ("assistant", "batch", "agent", "gateway")]  # fmt: skip
MODELS = [
    f"{family}-{size}"
    for family in ("qwen2.5", "llama-3.2", "phi-4", "gemma-3")
    for size in ("1b", "3b", "8b")
]
PEOPLE = 5_000
CALLS_AT_A_TIME = 5
AGENTS = ("OpenAI/Python 2.9.0", "Python/3.12 aiohttp/3.9.1", "Mozilla/5.0 Firefox/140.0",
          "LangChain/0.3", "curl/8.9.1", "node-fetch/3.3")  # fmt: skip
OPERATIONS = ("chat", "chat", "chat", "chat", "chat", "embeddings", "embeddings", "text_completion")
# Outcome, status, reason, error type; and how often of a thousand.
ENDS = (
    ("success", 200, "", "", 940),
    ("failure", 500, "upstream failed", "upstream_error", 15),
    ("failure", 429, "rate limited", "rate_limit", 20),
    ("failure", 401, "authentication failed", "authentication", 10),
    ("failure", 400, "invalid input", "invalid_request", 10),
    ("unknown", 0, "client gone", "", 5),
)
# Work per hour of the day, Monday to Friday; the weekend has a third of it.
HOURS = (2, 1, 1, 1, 1, 2, 4, 8, 14, 18, 19, 17, 15, 17, 19, 18, 16, 12, 8, 6, 5, 4, 3, 2)


def rows(
    count: int, end: datetime | None = None, days: int = DAYS, seed: int = SEED
) -> Iterator[Row]:
    """So many documents in the order of their time, over the days before `end`."""
    last = (end or datetime.now(UTC)).replace(minute=0, second=0, microsecond=0)
    draw = random.Random(seed)
    number = 0
    for begin, share in _hours(last, days, count):
        second = int(begin.timestamp())
        offsets = sorted(draw.randrange(3_600 * 10**9) for _ in range(share))
        for offset in offsets:
            yield _row(number, second * 10**9 + offset, draw)
            number += 1


def _hours(last: datetime, days: int, count: int) -> Iterator[tuple[datetime, int]]:
    hours = [last - timedelta(hours=back) for back in range(days * 24, 0, -1)]
    weights = [HOURS[h.hour] * (1.0 if h.weekday() < 5 else 0.33) for h in hours]
    total, given, passed = sum(weights), 0, 0.0
    for hour, weight in zip(hours, weights, strict=True):
        passed += weight
        share = round(count * passed / total) - given
        given += share
        yield hour, share


def _row(number: int, at_ns: int, draw: random.Random) -> Row:
    document = _document(number, at_ns, draw)
    body = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    event = document["event"]
    return Row("access", day_text(at_ns), event["id"], event["hash"], body)


_END_LIMITS = list(itertools.accumulate(end[4] for end in ENDS))


def _person(number: int) -> int:
    """Who makes a call: eight people at once, some calls each; the first ones come often."""
    turn = number // (8 * CALLS_AT_A_TIME) * 8 + number % 8
    chance = int.from_bytes(hashlib.blake2b(turn.to_bytes(8, "big"), digest_size=4).digest(), "big")
    return int(PEOPLE * (chance / 2**32) ** 2)


def _document(number: int, at_ns: int, draw: random.Random) -> dict[str, Any]:
    person = _person(number)
    tenant = TENANTS[person % len(TENANTS)]
    place = (person % len(TENANTS) * 7 + (person // 40 + draw.randrange(8) // 7) % 3) % len(
        SERVICES
    )
    service = SERVICES[place]
    model = MODELS[(place * 5 + draw.randrange(4) // 3) % len(MODELS)]
    outcome, status, reason, error, _ = ENDS[bisect.bisect(_END_LIMITS, draw.randrange(1_000))]
    duration = int(draw.lognormvariate(20.0, 0.8))  # median 0.5 s
    bits = draw.getrandbits(128)
    user = f"user-{person:05d}@{tenant}.example"
    event: dict[str, Any] = {
        "action": "chat",
        "category": "api",
        "created": timestamp_text(at_ns + duration),
        "duration": duration,
        "end": timestamp_text(at_ns + duration),
        "hash": hashlib.blake2b(bits.to_bytes(16, "big"), digest_size=32).hexdigest(),
        "id": f"{at_ns // 1_000_000:012x}-{bits >> 64:016x}",
        "ingested": timestamp_text(at_ns + duration + 300_000_000),
        "kind": "event",
        "outcome": outcome,
        "type": "access",
    }
    document: dict[str, Any] = {
        "@timestamp": timestamp_text(at_ns),
        "event": event,
        "gatebook": _ours(number, tenant, user, model, person),
        "gen_ai": _model_use(number, model, place, outcome, draw),
        "http": {
            "request": {
                "body": {"bytes": draw.randrange(200, 9_000)},
                "id": f"req-{bits & 0xFFFFFFFFFFFF:012x}",
                "method": "POST",
            }
        },
        "organization": {"id": tenant},
        "service": {
            "environment": "production" if person % 9 else "staging",
            "name": service,
            "node": {"name": f"gpu-{person % 6:02d}:4117"},
            "version": f"2026.{1 + number // 1_000_000}.{person % 4}",
        },
        "session": {"id": f"s-{person:05x}{at_ns // 10**12 % 997:03x}"},
        "source": {"ip": f"10.{person % 40}.{person // 250 % 250}.{person % 250}",
                   "port": 1_024 + draw.randrange(60_000)},
        "span": {"id": f"{bits >> 32 & 0xFFFFFFFFFFFFFFFF:016x}"},
        "trace": {"id": f"{bits:032x}"},
        "url": {"domain": f"models.{tenant}.example", "path": "/v1/chat/completions"},
        "user": {"id": user, "name": f"Person {person:05d}", "roles": ["staff"]},
        "user_agent": {"name": AGENTS[person % 6].partition("/")[0],
                       "original": AGENTS[person % 6]},
    }  # fmt: skip
    if status:
        document["http"]["response"] = {
            "body": {"bytes": draw.randrange(100, 20_000)},
            "status_code": status,
        }
    if reason:
        event["reason"] = reason
    if error:
        document["error"] = {"type": error, "message": f"{reason} at {service}"}
    return document


def _ours(number: int, tenant: str, user: str, model: str, person: int) -> dict[str, Any]:
    return {
        "attributes": {"ticket": f"SUP-{number % 5_000}"},
        "capture": {"level": "metadata", "policy": "default", "policy_version": "sha256:5f1d0c"},
        "component": "inference",
        "content_digest": {
            "input": f"hmac-sha256:k1:{number * 2654435761 & 0xFFFFFFFF:08x}",
            "output": f"hmac-sha256:k1:{number * 40503 & 0xFFFFFFFF:08x}",
        },
        "epoch": 1,
        "identity": {
            "assurance": "verified",
            "issuer": f"https://sso.{tenant}.example",
            "method": "oidc",
        },
        "model": {"engine": "llama.cpp", "engine_version": "b6100", "quantization": "Q4_K_M",
                  "resolved": model, "weights_hash": f"sha256:{hash_of(model)}"},
        "phase": "terminal",
        "principal": f"{tenant}/user:{user}",
        "producer_id": f"producer-{person % 12}",
        "redaction": {"policy_version": "1"},
        "retention": {"metadata": "standard"},
        "sequence": number,
        "source": {"address_class": "private"},
        "subject": f"{person:032x}",
    }  # fmt: skip


def hash_of(text: str) -> str:
    """A short digest, as provenance has."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _model_use(
    number: int, model: str, place: int, outcome: str, draw: random.Random
) -> dict[str, Any]:
    stream = draw.random() < 0.4
    use: dict[str, Any] = {
        "conversation": {"id": f"conv-{number // 5}"},
        "operation": {"name": OPERATIONS[place % len(OPERATIONS)]},
        "provider": {"name": "llama_cpp"},
        "request": {"max_tokens": 256, "message_count": 1 + number % 9, "model": model,
                    "stream": stream, "temperature": 0.2},
    }  # fmt: skip
    if outcome == "success":
        use["response"] = {"finish_reasons": ["stop"], "id": f"cmpl-{number:x}", "model": model}
        use["usage"] = {"input_tokens": draw.randrange(20, 2_000),
                        "output_tokens": draw.randrange(1, 400)}  # fmt: skip
        if stream:
            use["response"]["time_to_first_chunk"] = round(draw.lognormvariate(-1.5, 0.5), 6)
    return use
