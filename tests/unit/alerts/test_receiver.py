"""The strict receiver says no to what Alertmanager says no to."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from gatebook.cli.demo.alert_receiver import AlertReceiver, Answer, problems_of

GOOD: dict[str, Any] = {
    "labels": {"alertname": "X", "severity": "error"},
    "annotations": {"summary": "s"},
    "startsAt": "2026-01-05T09:00:00.000000000Z",
    "endsAt": "2026-01-05T10:00:00+01:00",
    "generatorURL": "https://search.example.org/?q=a%20b",
}


def post(url: str, body: bytes, kind: str = "application/json") -> int:
    """The status of a POST, whatever it is."""
    request = urllib.request.Request(  # our own loopback address
        url + "/api/v2/alerts", data=body, headers={"Content-Type": kind}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_good_alert_has_no_problem() -> None:
    """Everything the API knows, and the least it wants."""
    assert problems_of(json.dumps([GOOD, {"labels": {"a": "b"}}]).encode()) == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"labels": {}}, "at least one label pair required"),
        ({"labels": {"a": ""}}, "at least one label pair required"),
        ({"labels": ["a"]}, "labels is not an object"),
        ({"labels": {"rule-id": "x"}}, "name 'rule-id' is not valid"),
        ({"labels": {"a": "b", "1x": "x"}}, "name '1x' is not valid"),
        ({"labels": {"a": 5}}, "not a string"),
        ({"labels": {"a": "\ud800"}}, "not valid UTF-8"),
        ({"annotations": {"a.b": "x"}}, "name 'a.b' is not valid"),
        ({"annotations": {"a": None}}, "not a string"),
        ({"startsAt": "2026-01-05 09:00:00"}, "startsAt is not an RFC 3339 time"),
        ({"startsAt": 1767603600}, "startsAt is not an RFC 3339 time"),
        ({"endsAt": "2026-02-30T09:00:00Z"}, "endsAt is not an RFC 3339 time"),
        ({"endsAt": "2026-01-05T08:00:00Z"}, "start time must be before end time"),
        ({"generatorURL": "not a link"}, "generatorURL is not a URI"),
        ({"startAt": "2026-01-05T09:00:00Z"}, "property 'startAt' is not known"),
    ],
)
def test_a_wrong_alert_is_told(changed: dict[str, Any], told: str) -> None:
    """One wrong thing at a time, named."""
    body = json.dumps([GOOD, {**GOOD, **changed}]).encode()
    (problem,) = problems_of(body)
    assert problem.startswith("alert 1: ")
    assert told in problem


def test_without_labels_an_alert_is_refused() -> None:
    """Labels are the identity; they must be there."""
    assert problems_of(b'[{"startsAt": "2026-01-05T09:00:00Z"}]')


@pytest.mark.parametrize("body", [b"", b"{}", b"[5]", b"null", b"\xff", b'[{"labels":'])
def test_a_body_that_is_no_list_of_alerts_is_refused(body: bytes) -> None:
    """Whatever is not a list of objects in UTF-8."""
    assert problems_of(body)


def test_it_answers_over_http() -> None:
    """Good alerts are kept once per set of labels, bad ones refused with 400."""
    with AlertReceiver() as receiver:
        assert post(receiver.url, json.dumps([GOOD]).encode()) == 200
        assert post(receiver.url, json.dumps([GOOD]).encode()) == 200
        assert post(receiver.url, b"[{}]") == 400
        assert post(receiver.url, b"[]", kind="text/plain") == 415
        assert post(receiver.url + "/x", b"[]") == 404
        assert receiver.alerts == [GOOD]
        assert len(receiver.received) == 2
        assert len(receiver.refused) == 1
        assert receiver.active == []


def test_it_shows_what_is_active() -> None:
    """GET gives alerts that have not ended, alone and by group."""
    lasting = {**GOOD, "endsAt": "2999-01-01T00:00:00Z"}
    with AlertReceiver() as receiver:
        post(receiver.url, json.dumps([lasting, GOOD | {"labels": {"alertname": "Y"}}]).encode())
        for path, key in (("/api/v2/alerts", "labels"), ("/api/v2/alerts/groups", "labels")):
            with urllib.request.urlopen(receiver.url + path, timeout=10) as answer:  # loopback
                (shown,) = json.load(answer)
            assert shown[key]["alertname"] == "X"


def test_it_says_what_it_was_told_to_say() -> None:
    """Planted answers come first, in order; then it judges again."""
    with AlertReceiver() as receiver:
        receiver.answer_next_with(Answer(503), Answer(500, keep=True))
        body = json.dumps([GOOD]).encode()
        assert [post(receiver.url, body) for _ in range(3)] == [503, 500, 200]
        assert len(receiver.received) == 2
        assert receiver.requests == 3
