"""The event of an act: who, what and why, and no secret that somebody pasted into a query."""

from __future__ import annotations

import hashlib
from typing import Any

import click
import orjson
import pytest

from gatebook.cli.audited import OURS, Look, event_of, failure_of
from gatebook.processors.archive.errors import Differs
from gatebook.processors.detect.engine import DetectionEngine, Limits
from gatebook.processors.detect.registry import load_detector
from gatebook.processors.enrich import Catalog
from gatebook.processors.intake import IntakeContext, Source, process_frame
from gatebook.processors.redact import Redactor
from gatebook.processors.search.query import QueryError
from gatebook.processors.serve.access.tokens import PREFIX, caller_id, short_id
from gatebook.processors.serve.access.who import Caller
from gatebook.processors.serve.audit import FAILURE, SUCCESS, Act, HttpFacts
from gatebook.producers.scrub import Scrubber
from gatebook.schemas.codec import FrameHeader, build_frame, encode_event
from gatebook.schemas.errors import Fatal

HTTP = HttpFacts("POST", "/api/v1/search", "192.0.2.7", "curl/8", "r1")
ADA = Caller("ada", "Ada", "oidc", frozenset({"analyst"}), frozenset({"acme"}))


def scrubbed(event: dict[str, object]) -> dict[str, object]:
    return Look.scrubbed(event, Scrubber(lambda: b"k" * 32).scrubbed)


def test_an_act_says_who_what_and_from_where() -> None:
    """A caller of one tenant acts within it; the event is one that producers can write."""
    event = event_of(Act(ADA, "search", SUCCESS, {"query": "user.id:x"}, HTTP), "serve")
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
        ("search", {"status": "400"}, "invalid_request"),
        ("event.reveal", {"status": "404"}, "not_found"),
        ("search", {"status": "503"}, "unavailable"),
    ],
)
def test_a_refusal_has_a_reason_of_the_closed_list(
    action: str, details: dict[str, str], reason: str
) -> None:
    """So that detectors of failed logins see it like any other."""
    event = event_of(Act(None, action, FAILURE, details, HTTP), "serve")
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
    found = scrubbed(event_of(Act(ADA, "search", SUCCESS, details, HTTP), "serve"))["attributes"]
    assert isinstance(found, dict)
    for secret in ("ada@example.org", token, "hunter2hunter2"):
        assert secret not in str(found)
    assert found["query"].startswith("user.email:[WITHHELD")
    assert (found["event"], found["token"]) == (details["event"], details["token"])


def test_what_a_token_did_is_found_by_its_id_and_is_no_secret() -> None:
    """Neither the producer nor intake takes the id of a token for a key; the token itself, where
    somebody pasted it, is withheld."""
    scrub = Scrubber(lambda: b"k" * 32).scrubbed
    context = IntakeContext(Catalog(), Redactor.default(b"a key for tests only"), partitions=4)
    for number in range(300):
        secret = PREFIX + hashlib.sha256(str(number).encode()).hexdigest()[:43]
        one = short_id(secret)
        who = Caller(caller_id(one), "ci", "api_token", frozenset({"viewer"}), None, one)
        details = {"query": f"user.id:{who.id}", "token": one, "fields": secret}
        event = event_of(Act(who, "search", SUCCESS, details, HTTP), "serve") | {"source": {}}
        event["event"]["id"] = f"id-{number}"
        body = encode_event(Look.scrubbed(event, scrub))
        frame = build_frame(FrameHeader("p", 1, 0, 1, event["timestamp"]), [body])
        source = Source("gatebook.access.v1", 1, number, 0)
        (kept,) = process_frame(frame, source, context, event["timestamp"], 1).documents
        document = orjson.loads(kept.body)
        assert document["user"]["id"] == f"api-token/{one}"
        assert document["gatebook"]["identity"]["key_id"] == one
        assert document["gatebook"]["attributes"]["query"] == f"user.id:api-token/{one}"
        assert document["gatebook"]["attributes"]["token"] == one
        assert "entities" not in document["gatebook"]["redaction"]
        assert secret not in str(document)


def taken_in(event: dict[str, Any]) -> dict[str, Any]:
    """The document that intake makes of an act, as its producer scrubs it."""
    body = encode_event({**scrubbed(event), "source": {}})
    frame = build_frame(FrameHeader("p", 1, 0, 1, event["timestamp"]), [body])
    context = IntakeContext(Catalog(), Redactor.default(b"a key for tests only"), partitions=4)
    source = Source("gatebook.access.v1", 1, 0, 0)
    (kept,) = process_frame(frame, source, context, event["timestamp"], 1).documents
    document: dict[str, Any] = orjson.loads(kept.body)
    return document


def kinds_found(*documents: dict[str, Any]) -> list[str]:
    """The kinds of secrets that the rule of secrets in content names."""
    engine = DetectionEngine((load_detector("secret_in_content"),), Limits())
    return [finding["labels"]["kinds"] for finding in engine.process(0, documents)]


def test_codes_and_ids_of_ours_stand_in_the_log_as_they_are() -> None:
    """Whatever attribute holds an id of Gatebook's own is neither masked nor taken for a secret:
    of `credential` there is none, for intake masks all that stands under such a name."""
    secret = PREFIX + hashlib.sha256(b"one").hexdigest()[:43]
    one = short_id(secret)
    who = Caller(caller_id(one), "ci", "api_token", frozenset({"viewer"}), None, one)
    values = {
        "event": "01939a6e-7c00-7000-8000-000000000001",
        "token": one,
        "method": "api_token",
        "refused": "unknown_expired_or_revoked",
        "status": "404",
        "more_like_it": "12",
        "reveal": "redacted",
        "act": "event.reveal",
        "from": "2026-11-23T10:15:00.000000Z",
        "to": "2026-11-24T10:15:00.000000Z",
        "exit": "1",
    }
    assert values.keys() | {"credential"} >= OURS
    event = event_of(Act(who, "login", SUCCESS, values, HTTP), "serve")
    event["event"]["id"] = values["event"]
    document = taken_in(event)
    assert document["gatebook"]["attributes"] == values
    assert document["gatebook"]["identity"]["key_id"] == one
    assert "entities" not in document["gatebook"]["redaction"]
    assert kinds_found(document) == []


def test_a_secret_in_an_act_is_masked_and_is_in_no_prompt() -> None:
    """What intake masks in an act of a reader, who sent nothing to a model, is no finding; the same
    in an access to a model is one."""
    event = event_of(Act(ADA, "search", SUCCESS, {"credential": "abcdefghijklmnop"}, HTTP), "serve")
    event["event"]["id"] = "one"
    document = taken_in(event)
    assert document["gatebook"]["redaction"]["entities"] == ["api_key"]
    assert kinds_found(document) == []
    document["service"]["name"] = "models"
    assert kinds_found(document) == ["api_key"]


@pytest.mark.parametrize(
    ("action", "error", "status"),
    [
        ("search", None, ""),
        ("search", SystemExit(0), ""),
        ("search", click.exceptions.Exit(0), ""),
        ("search", SystemExit(1), ""),
        ("search.tail", KeyboardInterrupt(), ""),
        ("event.view", BrokenPipeError(), ""),
        ("archive.verify", Differs("a record is not what it was"), ""),
        ("alert.list", Fatal("the topic does not exist"), "500"),
        ("alert.list", ValueError(), "500"),
        ("event.view", SystemExit(1), "404"),
        ("finding.view", SystemExit(1), "404"),
        ("search", SystemExit(2), "400"),
        ("search", click.UsageError("no"), "400"),
        ("search", QueryError("no", "a", 0), "400"),
        ("search", SystemExit(3), "503"),
    ],
)
def test_a_command_that_failed_is_recorded_as_such(
    action: str, error: BaseException | None, status: str
) -> None:
    """Finding nothing is an answer to a search; to a look at one event it is none."""
    assert failure_of(action, error).get("status", "") == status
