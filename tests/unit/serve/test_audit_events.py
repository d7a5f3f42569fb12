"""The event of an act: who, what and why, and no secret that somebody pasted into a query."""

from __future__ import annotations

import pytest

from gatebook.cli.audited import Look, event_of
from gatebook.processors.serve.access.who import Caller
from gatebook.processors.serve.audit import FAILURE, SUCCESS, HttpFacts
from gatebook.producers.scrub import Scrubber
from gatebook.schemas.codec import encode_event

HTTP = HttpFacts("POST", "/api/v1/search", "192.0.2.7", "curl/8", "r1")
ADA = Caller("ada", "Ada", "oidc", frozenset({"analyst"}), frozenset({"acme"}))


def scrubbed(event: dict[str, object]) -> dict[str, object]:
    return Look.scrubbed(event, Scrubber(lambda: b"k" * 32).scrubbed)


def test_an_act_says_who_what_and_from_where() -> None:
    """A caller of one tenant acts within it; the event is one that producers can write."""
    event = event_of(ADA, "search", SUCCESS, {"query": "user.id:x"}, HTTP, "serve")
    assert event["user"] == {"id": "ada", "name": "Ada", "roles": ["analyst"]}
    assert event["organization"] == {"id": "acme"}
    assert event["source"] == {"ip": "192.0.2.7"}
    assert (event["event"]["category"], event["event"]["type"]) == ("database", "access")
    assert event["gatebook"]["identity"]["assurance"] == "verified"
    assert encode_event(event)


@pytest.mark.parametrize(
    ("action", "details", "reason"),
    [
        ("login", {"refused": "expired"}, "unauthenticated"),
        ("login", {"refused": "no_role"}, "forbidden"),
        ("access.refused", {"status": "403"}, "forbidden"),
        ("access.refused", {"status": "429"}, "rate_limited"),
    ],
)
def test_a_refusal_has_a_reason_of_the_closed_list(
    action: str, details: dict[str, str], reason: str
) -> None:
    """So that detectors of failed logins see it like any other."""
    event = event_of(None, action, FAILURE, details, HTTP, "serve")
    assert event["event"]["reason"] == reason
    assert event["event"]["type"] == "denied"
    assert "user" not in event


def test_what_people_wrote_is_scrubbed_and_ids_of_ours_are_not() -> None:
    """A query quotes what is looked for: mail addresses, keys, and tokens of our own."""
    token = "gb_" + "aB-_" * 10 + "abc"
    details = {
        "query": f"user.email:ada@example.org and error.message:{token}",
        "reason": "password: hunter2hunter2",
        "event": "01939a6e-7c00-7000-8000-000000000001",
        "token": "0123456789abcdef",
    }
    found = scrubbed(event_of(ADA, "search", SUCCESS, details, HTTP, "serve"))["attributes"]
    assert isinstance(found, dict)
    for secret in ("ada@example.org", token, "hunter2hunter2"):
        assert secret not in str(found)
    assert found["query"].startswith("user.email:[WITHHELD")
    assert (found["event"], found["token"]) == (details["event"], details["token"])
