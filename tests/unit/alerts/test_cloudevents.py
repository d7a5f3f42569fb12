"""Signed events: what a receiver can trust, and what it must refuse."""

from __future__ import annotations

from base64 import b64encode

import pytest
from standardwebhooks import Webhook
from tests.contracts.alert_receivers import SIGNING_SECRET
from tests.unit.alerts.findings import finding, resolved

from gatebook.processors.alerts.cloudevents import event_of, sign, step_id, verify
from gatebook.processors.alerts.http import retry_after_seconds
from gatebook.processors.alerts.secrets import SecretUnreadable
from gatebook.processors.alerts.settings import AlertSettings

OLD_SECRET = "whsec_" + b64encode(b"k" * 32).decode()
NOW = 1_767_603_600
BODY = b'{"specversion":"1.0"}'


def test_the_signature_is_the_published_one() -> None:
    """The reference library signs and verifies the same."""
    from datetime import UTC, datetime

    signed = sign([SIGNING_SECRET], "msg_1", NOW, BODY)
    theirs = Webhook(SIGNING_SECRET).sign("msg_1", datetime.fromtimestamp(NOW, UTC), BODY.decode())
    assert signed["webhook-signature"] == theirs


def test_either_secret_verifies_while_one_is_rotated() -> None:
    """The event carries a signature of each; a receiver needs one."""
    signed = sign([SIGNING_SECRET, OLD_SECRET], "msg_1", NOW, BODY)
    assert verify(signed, BODY, [SIGNING_SECRET], NOW)
    assert verify(signed, BODY, [OLD_SECRET], NOW + 299)


@pytest.mark.parametrize(
    ("changed", "body", "now"),
    [
        ({}, BODY + b" ", NOW),
        ({"webhook-id": "msg_2"}, BODY, NOW),
        ({"webhook-timestamp": str(NOW + 1)}, BODY, NOW),
        ({}, BODY, NOW + 301),
        ({}, BODY, NOW - 301),
        ({"webhook-signature": "v1,"}, BODY, NOW),
        ({"webhook-signature": "\u00fc"}, BODY, NOW),
        ({"webhook-timestamp": "soon"}, BODY, NOW),
        ({"webhook-id": ""}, BODY, NOW),
    ],
)
def test_what_was_changed_or_is_old_is_refused(
    changed: dict[str, str], body: bytes, now: int
) -> None:
    """Another body, id or time, no signature, or a replay five minutes later."""
    signed = {**sign([SIGNING_SECRET], "msg_1", NOW, BODY), **changed}
    assert not verify(signed, body, [SIGNING_SECRET], now)


@pytest.mark.parametrize("secret", ["whsec_not base64!", "whsec_c2hvcnQ=", ""])
def test_a_secret_that_is_none_signs_nothing(secret: str) -> None:
    """Not base64, or too short to be one."""
    with pytest.raises(SecretUnreadable):
        sign([secret], "msg_1", NOW, BODY)


def test_a_step_has_one_id() -> None:
    """The same step of the same finding, whoever sends it; the end is another."""
    settings = AlertSettings(search_base_url="https://s.example.org/")
    assert step_id(finding()) == step_id(finding()) != step_id(resolved(finding()))
    event = event_of(finding(), settings, "/gatebook/eu")
    assert event["id"] == step_id(finding())
    assert event["type"] == "gatebook.finding.firing"
    assert event["data"]["gatebook"]["evidence_count"] == 10
    assert event["data"]["links"]["search"].startswith("https://s.example.org/?query=")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", 3.0),
        ("0", 0.0),
        ("", 0.0),
        ("-5", 0.0),
        ("soon", 0.0),
        ("9" * 40, 0.0),
        ("99999999", 86_400.0),
        ("Mon, 05 Jan 2026 09:00:30 GMT", 30.0),
        ("Mon, 05 Jan 2026 08:00:00 GMT", 0.0),
        ("\u0663", 0.0),
    ],
)
def test_retry_after_is_read_in_both_forms(text: str, expected: float) -> None:
    """Seconds or a date; nonsense asks for nothing, and nobody may ask for more than a day."""
    assert retry_after_seconds(text, float(NOW)) == expected
