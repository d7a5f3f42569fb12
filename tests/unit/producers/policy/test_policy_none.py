"""Level none: an event that counts, and names nobody and nothing."""

from __future__ import annotations

from typing import Any

from gatebook.producers.policy.hold import counted, held
from gatebook.producers.policy.match import Facts, Policy
from gatebook.schemas.codec import EVENT_SCHEMA, decode_event, encode_event
from gatebook.schemas.documents import is_group
from gatebook.schemas.registry import Schema, load

PLANTED = "planted"
NONE = Policy.read(
    b'version = 1\nname = "p"\n[retention]\nmetadata = "1y"\n'
    b'[[rule]]\nname = "silent"\nlevel = "none"\n'
)


def filled(schema: Schema) -> dict[str, Any]:
    """An event with something in every field there is."""
    made: dict[str, Any] = {}
    for field in schema["fields"]:
        kind = field["type"]
        if is_group(field):
            made[field["name"]] = filled(kind)
            continue
        kind = next(k for k in kind if k != "null") if isinstance(kind, list) else kind
        kind = kind["type"] if isinstance(kind, dict) else kind
        made[field["name"]] = {
            "string": PLANTED, "long": 424242, "double": 4242.5, "boolean": True,
            "array": [PLANTED], "map": {PLANTED: PLANTED}, "bytes": PLANTED.encode(),
        }[kind]  # fmt: skip
    return made


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {
            k: v for name, one in value.items() for k, v in leaves(one, f"{path}.{name}").items()
        }
    return {path: value}


def test_of_a_full_event_only_the_count_is_left() -> None:
    """Id, times, how it ended, the service; whatever else there was is gone, texts and numbers."""
    given = filled(load(EVENT_SCHEMA).raw)
    found = held(given, NONE.decide(Facts()), b"")
    sent = decode_event(encode_event(found))
    planted = {
        p for p, v in leaves(sent).items() if v in (PLANTED, 424242, 4242.5, True, [PLANTED])
    }
    times = {".timestamp", ".event.id", ".event.created", ".event.end", ".event.duration"}
    service = {f".service.{n}" for n in ("name", "version", "environment", "node.name")}
    assert planted == times | service
    assert (sent["content"], sent["content_encoding"], sent["attributes"]) == (None, "", {})


def test_it_still_says_how_it_ended_and_under_which_policy() -> None:
    """Of closed lists: what somebody typed in their place is not kept."""
    event = {
        "timestamp": 5,
        "event": {"id": "i", "action": "chat", "outcome": "failure", "reason": "timeout"},
        "service": {"name": "slm", "node": {"name": "h:1"}},
        "gatebook": {"phase": "intent"},
    }
    found = counted(event, NONE.decide(Facts()))
    assert found["event"] == {
        "id": "i", "kind": "event", "category": "api", "type": "access", "action": "chat",
        "outcome": "failure", "reason": "timeout",
    }  # fmt: skip
    assert found["gatebook"]["phase"] == "intent"
    capture = found["gatebook"]["capture"]
    assert (capture["level"], capture["policy_version"]) == ("none", NONE.digest)
    assert found["gatebook"]["retention"] == {"metadata": "1y"}
    typed = counted(
        {**event, "event": {"action": "ask ada", "reason": "ada"}}, NONE.decide(Facts())
    )
    assert (typed["event"]["action"], typed["event"]["reason"]) == ("unknown", "")
