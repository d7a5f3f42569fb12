"""From an intent without an end to an incomplete event: the pure part."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson
from tests.pipeline import make_event

from gatebook.processors import render
from gatebook.processors.config import WorkerSettings
from gatebook.processors.enrich import Catalog
from gatebook.processors.intake import IntakeContext, Source, process_frame
from gatebook.processors.reconcile import (
    CLOCK_MARGIN_NS,
    incomplete_document,
    next_window,
    rendered,
    without_end,
)
from gatebook.processors.redact import Redactor
from gatebook.schemas.codec import FrameHeader, build_frame, encode_event
from gatebook.schemas.intents import intent_id

ID = "0198aaaa-0000-7000-8000-000000000001"
SECOND_NS = 10**9


def intent(**more: Any) -> dict[str, Any]:
    """An intent as the index holds it: through intake."""
    event = make_event("alice", **more)
    event["event"] |= {"id": intent_id(ID), "outcome": "unknown", "end": 0, "duration": None}
    event["gatebook"]["phase"] = "intent"
    header = FrameHeader("p1", 7, 41, 1, time.time_ns())
    context = IntakeContext(Catalog(), Redactor.default(b"k" * 32, "e1"), partitions=1)
    result = process_frame(
        build_frame(header, [encode_event(event)]), Source("t", 0, 0), context, time.time_ns()
    )
    assert result.dead_letters == []
    (document,) = result.documents
    found: dict[str, Any] = orjson.loads(document.body)
    return found


def test_an_incomplete_event_says_who_wanted_what_and_that_the_end_is_unknown() -> None:
    """Under the id that the intent announced, and without a number the producer never gave."""
    before = intent()
    found = incomplete_document(before)
    assert found["event"]["id"] == ID
    assert (found["event"]["outcome"], found["event"]["reason"]) == ("unknown", "incomplete")
    assert found["gatebook"]["phase"] == "terminal"
    assert "sequence" not in found["gatebook"]
    assert (found["gatebook"]["producer_id"], found["gatebook"]["epoch"]) == ("p1", 7)
    assert {"end", "duration"}.isdisjoint(found["event"])
    for group in ("user", "source", "service", "@timestamp"):
        assert found[group] == before[group]


def test_it_depends_on_the_intent_alone() -> None:
    """So a run that is repeated writes what the index has, whenever it is repeated."""
    before = intent()
    first = rendered(incomplete_document(before), 1_700_000_000 * SECOND_NS)
    second = rendered(incomplete_document(before), 1_800_000_000 * SECOND_NS)
    assert (first.id, first.hash, first.timestamp) == (second.id, second.hash, second.timestamp)
    assert render.digest(orjson.loads(first.body)) == first.hash
    assert first.principal == before["gatebook"]["principal"]


def test_only_intents_whose_end_is_absent_are_without_one() -> None:
    """An event that merely has an intent's id, or no id of one, is left alone."""
    before = intent()
    assert without_end([before], frozenset()) == [before]
    assert without_end([before], frozenset({ID})) == []
    terminal = {**before, "gatebook": {**before["gatebook"], "phase": "terminal"}}
    other = {**before, "event": {**before["event"], "id": ID}}
    assert without_end([terminal, other], frozenset()) == []


def test_a_run_looks_where_the_last_one_ended_and_the_first_one_everywhere(tmp_path: Path) -> None:
    """What came in after the deadline waits for a later run; nothing lies between two runs."""
    settings = WorkerSettings(reconcile_after_seconds=100, reconcile_lookback_seconds=10_000)
    now = 1_800_000_000 * SECOND_NS
    first = next_window(now, settings, None)
    assert first.until_ns == now - 100 * SECOND_NS
    assert first.since_ns == first.until_ns - 10_000 * SECOND_NS
    second = next_window(now + 60 * SECOND_NS, settings, first.until_ns)
    assert second.since_ns == first.until_ns - CLOCK_MARGIN_NS
    late = next_window(now + 50_000 * SECOND_NS, settings, first.until_ns)
    assert late.since_ns == late.until_ns - 10_000 * SECOND_NS
