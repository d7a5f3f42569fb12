"""Intervals, positions, cells and amounts: the pure parts of counting and exporting."""

from __future__ import annotations

import csv
import io
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.processors.search.amounts import nanoseconds, octets, status_class
from gatebook.processors.search.asking import BadRequest
from gatebook.processors.search.baseline import window_of
from gatebook.processors.search.dsl import compile_query
from gatebook.processors.search.export import (
    Spec,
    _csv_heading,
    _csv_row,
    cell,
    parse_position,
    position_of,
)
from gatebook.processors.search.fields import fields_of
from gatebook.processors.search.histogram import NICE_MS, filled, floor, interval_for
from gatebook.processors.search.query import QueryError, parse
from gatebook.processors.search.question import ask_for, bounds, normalized

NOW = datetime(2026, 11, 23, 12, 30, 15, 500_000, UTC)
MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


@given(
    MOMENTS, st.timedeltas(timedelta(milliseconds=1), timedelta(days=40_000)), st.integers(1, 400)
)
def test_buckets_cover_the_range_without_gap_and_are_never_too_many(
    since: datetime, span: timedelta, buckets: int
) -> None:
    """Whatever the range and wherever it begins; each bucket is a multiple since 1970."""
    until = since + span
    interval = interval_for(since, until, buckets)
    starts = filled(since, until, interval)
    assert 1 <= len(starts) <= buckets
    assert starts[0] <= since < starts[0] + interval
    assert starts[-1] < until <= starts[-1] + interval
    assert all(floor(at, interval) == at for at in starts)


@pytest.mark.parametrize(
    ("span", "buckets", "wanted"),
    [
        (timedelta(hours=24), 60, timedelta(minutes=30)),
        (timedelta(minutes=15), 60, timedelta(seconds=30)),
        (timedelta(days=7), 60, timedelta(hours=3)),
        (timedelta(days=30), 60, timedelta(days=1)),
        (timedelta(seconds=1), 50, timedelta(milliseconds=20)),
    ],
)
def test_intervals_are_of_lengths_that_people_read(
    span: timedelta, buckets: int, wanted: timedelta
) -> None:
    """The shortest of the nice ones that does."""
    found = interval_for(NOW, NOW + span, buckets)
    assert found == wanted
    assert found // timedelta(milliseconds=1) in NICE_MS


FORMULAS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# What people write, with much of what a spreadsheet minds.
WRITTEN = st.text() | st.text(
    alphabet="".join(FORMULAS) + "x'\"\\;,|\t\r\n \u00a0\u3000", max_size=12
)


@given(WRITTEN)
def test_no_cell_begins_a_formula_or_breaks_its_row(text: str) -> None:
    """Whatever a user wrote: one row, one cell, no control or bidi character."""
    shown = cell(text)
    assert not shown.startswith((*FORMULAS, "\t", "\r", "\n"))
    row = _csv_row([text, "end"]).decode()
    assert row.count("\n") == 1
    assert next(csv.reader(io.StringIO(row))) == [shown, "end"]
    assert all(unicodedata.category(c)[0] != "C" for c in shown)


@given(st.lists(WRITTEN | st.lists(WRITTEN, max_size=3) | st.dictionaries(WRITTEN, WRITTEN)))
def test_no_formula_begins_wherever_a_spreadsheet_cuts(values: list[Any]) -> None:
    """At the comma, or at what else a country or a wizard takes, and whether quotes are minded or
    not; blanks before a value and quotes around it may be taken away."""
    row = _csv_row(["2026-11-23T10:15:00Z", *values]).decode()
    for separator in ",;|\t":
        minded = next(csv.reader(io.StringIO(row), delimiter=separator))
        for found in (*minded, *row.split(separator)):
            assert not found.lstrip('" \u00a0\u3000\n').startswith(FORMULAS), (separator, found)


def test_what_a_table_adds_to_a_text_is_told() -> None:
    """A `'` before what would begin a formula, and nothing elsewhere; the rest can be read."""
    assert cell("x;=cmd|'/C calc'!A0") == "x;'=cmd|'/C calc'!A0"
    assert cell(["a", "=b"]) == "a / =b"
    assert cell('a, "=b" - c') == 'a, "\'=b" - c'
    assert cell("\uff1d1") == "'\uff1d1"
    for plain in ("a=b; c-d", "1 - 2", "ada+tag@example.org", "x'=y", "; a", '{"a": "=b"}'):
        assert cell(plain) == plain
    assert _csv_row(["t", "x;=1", "y"]) == b't,"x;\'=1",y\n'


def test_a_position_is_taken_as_a_table_writes_it() -> None:
    """An id may begin with a minus, which a table guards."""
    at = "2026-11-23T10:15:00Z"
    assert parse_position(f"{at},{cell('-a1')}") == (at, "-a1")


def test_headings_are_the_names_of_fields() -> None:
    """A script finds `@timestamp`; the same text as a value is guarded."""
    assert _csv_heading(["@timestamp", "event.id"]) == b"@timestamp,event.id\n"
    assert _csv_row(["@timestamp"]) == b"'@timestamp\n"


def test_figures_stay_figures() -> None:
    """A negative number is no formula; lists and truth values are written plainly."""
    assert [cell(v) for v in (-5, 1.5, True, None, ["a", "b"], {"a": 1})] == [
        "-5", "1.5", "true", "", "a / b", '{"a": 1}',
    ]  # fmt: skip


def test_a_line_says_where_it_stands() -> None:
    """Its time and id, whatever the id holds; anything else is no position."""
    document = {"@timestamp": "2026-11-23T10:15:00.123456789Z", "event": {"id": "a,b"}}
    assert parse_position(position_of(document)) == ("2026-11-23T10:15:00.123456789Z", "a,b")
    for wrong in ("", ",", "x,y", "2026-11-23T10:15:00Z", "2026-11-23T10:15:00Z,", "2026Z,\n"):
        with pytest.raises(BadRequest):
            parse_position(wrong)


def test_the_position_is_always_exported() -> None:
    """Whatever columns were chosen, each once."""
    spec = Spec(
        query="",
        kind="access",
        format="csv",
        since=None,
        until=None,
        taken_in_until="2026-11-23T10:15:00Z",
        fields=["user.id", "event.id"],
    )
    assert spec.columns == ["@timestamp", "event.id", "user.id"]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("event.duration > 2s", {"range": {"event.duration": {"gt": 2_000_000_000}}}),
        ("event.duration <= 1.5ms", {"range": {"event.duration": {"lte": 1_500_000}}}),
        (
            "http.response.body.bytes >= 10kb",
            {"range": {"http.response.body.bytes": {"gte": 10_240}}},
        ),
        (
            "http.response.status_code:5xx",
            {"range": {"http.response.status_code": {"gte": 500, "lt": 600}}},
        ),
        ("@timestamp >= 15m", {"range": {"@timestamp": {"gte": "2026-11-23T12:15:15.500000Z"}}}),
        ("@timestamp < now-1h", {"range": {"@timestamp": {"lt": "2026-11-23T11:30:15.500000Z"}}}),
        ("@timestamp > now/d", {"range": {"@timestamp": {"gt": "2026-11-23T00:00:00.000000Z"}}}),
        ("@timestamp > 2026-11", {"range": {"@timestamp": {"gt": "2026-11"}}}),
    ],
)
def test_values_are_written_as_people_write_them(query: str, wanted: object) -> None:
    """Lengths of time, sizes, classes of status; relative times become absolute by our clock."""
    assert compile_query(query, fields_of("access"), NOW) == wanted


@pytest.mark.parametrize(
    ("query", "position"), [("0" * 300, 0), ("user.id:" + "a" * 300 + "*", len("user.id:"))]
)
def test_a_pattern_that_is_too_long_is_pointed_at(query: str, position: int) -> None:
    """The server would refuse it, or take long; a long value without a * is fine."""
    with pytest.raises(QueryError) as caught:
        compile_query(query, fields_of("access"), NOW)
    assert caught.value.position == position
    compile_query("user.id:" + "a" * 300, fields_of("access"), NOW)


@pytest.mark.parametrize("text", ["", "s", "2", "2x", "-1s", "1e3s", "5XX", "6xx", "55x"])
def test_what_is_no_amount_is_none(text: str) -> None:
    """Then the field's own reading decides."""
    assert nanoseconds(text) is None
    assert octets(text) is None
    assert (status_class(text) is None) == (text != "5XX")


def test_a_question_is_absolute_and_leaves_out_intents() -> None:
    """The same question later asks for the same; an access counts once, by its end."""
    question = ask_for("user.id:a", "1h", "", "access", now=NOW)
    assert (question.since, question.until) == ("2026-11-23T11:30:15.500000Z", None)
    assert "must_not" in str(question.dsl)
    assert "must_not" not in str(ask_for("gatebook.phase:intent", now=NOW).dsl)
    assert bounds("all", None, NOW) == (None, None)
    with pytest.raises(BadRequest):
        ask_for("", "10d", "", now=NOW, max_range=timedelta(days=9))
    with pytest.raises(BadRequest):
        ask_for("", kind="nothing", now=NOW)


@pytest.mark.parametrize("query", ["a  AND (b or  c)", 'user.id : "x y"', "not not a", ""])
def test_a_normalized_query_means_the_same(query: str) -> None:
    """And is its own normal form."""
    text = normalized(query)
    assert parse(text) == parse(query)
    assert normalized(text) == text


def test_the_window_of_a_finding_is_in_order() -> None:
    """Also where its ends are swapped or missing."""
    at, early = "2026-11-23T10:15:00Z", "2026-11-23T10:00:00Z"
    swapped = {"@timestamp": at, "event": {"start": at, "end": early}}
    since, until = window_of(swapped)
    assert until - since == timedelta(minutes=15)
    since, until = window_of({"@timestamp": at})
    assert since == until
