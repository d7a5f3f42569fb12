"""What the scenario plants, and how it reports a service that does not answer."""

from __future__ import annotations

import re
import socket

import phonenumbers
import pytest
from stdnum import iban, luhn

from gatebook.cli.demo.scenario import (
    API_KEYS,
    PLANTED_SECRETS,
    WRONG_API_KEY,
    StepResult,
    run_scenario,
)


@pytest.fixture
def dead_url() -> str:
    """An address nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_planted_secrets_are_valid_of_their_kind() -> None:
    """A redactor that validates what it finds must still take each of them for real."""
    assert luhn.is_valid(PLANTED_SECRETS["card"])
    assert iban.is_valid(PLANTED_SECRETS["iban"])
    assert phonenumbers.is_valid_number(phonenumbers.parse(PLANTED_SECRETS["phone"]))
    assert re.fullmatch("AKIA[A-Z2-7]{16}", PLANTED_SECRETS["aws_key"])
    assert set(PLANTED_SECRETS) == {"email", "card", "aws_key", "phone", "iban", "ipv4"}


def test_the_wrong_key_belongs_to_nobody() -> None:
    """The key that must be refused is not one of those that are accepted."""
    assert WRONG_API_KEY not in API_KEYS.values()
    assert len(set(API_KEYS.values())) == len(API_KEYS)


def test_a_dead_service_fails_every_step_and_stops_none(dead_url: str) -> None:
    """With nothing listening each step is reported as failed, and the scenario does not raise."""
    seen: list[StepResult] = []
    report = run_scenario(dead_url, on_progress=seen.append)
    assert seen == report.steps
    assert not report.ok
    assert not any(step.ok for step in report.steps)
    assert {step.observed for step in report.steps} == {"APIConnectionError"}
    assert report.requests_sent == sum(step.requests for step in report.steps)
