"""Backing off, days out of range, settings, and what a crash leaves in a file."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.processors.sinks.backoff import Backoff
from gatebook.processors.sinks.base import BulkOutcome, Row
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.sinks.indices import OddIndexBudget, is_in_range
from gatebook.processors.sinks.ndjson import NdjsonSink
from gatebook.processors.sinks.settings import (
    ElasticsearchSettings,
    SinkSettings,
    elasticsearch_settings,
    sink_settings,
)
from gatebook.schemas.errors import Fatal


def test_waits_double_up_to_the_cap() -> None:
    """With the largest jitter the waits are base, twice the base, and so on, then the cap."""
    backoff = Backoff(0.5, 3.0, uniform=lambda: 1.0)
    assert [backoff.next_wait_seconds() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next_wait_seconds() == 0.5


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 5_000))
def test_a_wait_is_never_longer_than_the_cap(share: float, attempts: int) -> None:
    """Full jitter: anywhere from nothing to the cap, after any number of tries."""
    backoff = Backoff(0.2, 20.0, uniform=lambda: share, attempts=attempts)
    assert 0 <= backoff.next_wait_seconds() <= 20.0


NOON = 1_795_435_200.0  # 2026-11-23T12:00:00Z


@pytest.mark.parametrize(
    ("day", "wanted"),
    [
        ("2026.11.23", True),
        ("2026.11.24", True),
        ("2026.11.25", False),
        ("2026.11.16", True),
        ("2026.11.15", False),
        ("1970.01.01", False),
        ("9999.12.31", False),
    ],
)
def test_days_are_in_range_by_their_age(day: str, wanted: bool) -> None:
    """Seven days back and one ahead, both ends included."""
    assert is_in_range(day, NOON, 7, 1) is wanted


def test_the_budget_of_odd_indices_refills_with_the_hour() -> None:
    """Two an hour: the third has to wait until the first is an hour old."""
    now = [0.0]
    budget = OddIndexBudget(2, lambda: now[0])
    assert [budget.take() for _ in range(3)] == [True, True, False]
    now[0] = 3_599.9
    assert not budget.take()
    now[0] = 3_600.0
    assert budget.take()


def test_settings_come_from_the_environment() -> None:
    """Each field has its variable; numbers are read as numbers."""
    found = sink_settings({"GATEBOOK_SINK_MAX_REQUEST_DOCUMENTS": "500"})
    assert found == SinkSettings(max_request_documents=500)
    server = elasticsearch_settings({"GATEBOOK_ELASTICSEARCH_URL": "http://a:1"}, url="http://b:2")
    assert server.url == "http://b:2"


def test_a_bad_setting_names_its_variable_and_not_its_value() -> None:
    """The error says which variable is wrong."""
    with pytest.raises(Fatal, match="GATEBOOK_SINK_CONCURRENT_REQUESTS") as caught:
        sink_settings({"GATEBOOK_SINK_CONCURRENT_REQUESTS": "many4711"})
    assert "4711" not in str(caught.value)


def test_every_setting_is_described() -> None:
    """No field without a description."""
    for kind in (SinkSettings, ElasticsearchSettings):
        for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[union-attr]
            assert field.type.extra_json_schema["description"], field.name


def test_settings_do_not_show_secrets() -> None:
    """A log line with the settings in it holds neither key nor password."""
    settings = ElasticsearchSettings(api_key="canary1", password="canary2", username="worker")
    assert "canary" not in repr(settings)
    assert "worker" in repr(settings)


@pytest.mark.parametrize("url", ["", "localhost:9200", "ftp://a", "http://user:pw@a:9200"])
def test_an_unusable_address_is_refused_without_showing_it(url: str) -> None:
    """Not a URL, or one with a password in it: refused before anything is sent."""
    with pytest.raises(Fatal) as caught:
        Connection(ElasticsearchSettings(url=url))
    assert "pw" not in str(caught.value) + caught.value.next_step.replace("_PASSWORD", "")


def row(number: int) -> Row:
    body = b'{"event":{"id":"e%d","hash":"h%d"}}' % (number, number)
    return Row("access", "2026.11.23", f"e{number}", f"h{number}", body)


@pytest.mark.parametrize("cut", [1, 20, 60, 90, 100])
async def test_a_torn_end_of_a_file_is_cut_and_written_anew(tmp_path: Path, cut: int) -> None:
    """A crash in the middle of an append: whole rows stay, the torn one is stored again."""
    await NdjsonSink("ns", tmp_path).write([row(1), row(2)])
    path = NdjsonSink("ns", tmp_path).path("ns-access-2026.11.23")
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    outcome = await NdjsonSink("ns", tmp_path).write([row(1), row(2)])
    assert outcome.indexed == 1 + (cut > len(whole) // 2)
    assert outcome == BulkOutcome(outcome.indexed, 2 - outcome.indexed)
    assert path.read_bytes() == whole
