"""From queries to Elasticsearch's DSL: types, suggestions, times and safe display."""

from __future__ import annotations

import contextlib
import json
import unicodedata
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.processors.search.display import flatten, render, safe, to_json, value_at
from gatebook.processors.search.dsl import compile_query
from gatebook.processors.search.fields import FieldList, fields_of
from gatebook.processors.search.query import QueryError
from gatebook.processors.search.question import countable, is_countable, is_sortable
from gatebook.processors.search.service import BadRequest, sort_order
from gatebook.processors.search.times import TimeError, parse_time
from gatebook.processors.sinks.base import KINDS

ACCESS = fields_of("access")


@pytest.mark.parametrize(
    ("query", "dsl"),
    [
        ("", {"match_all": {}}),
        ("user.id:alice", {"term": {"user.id": {"value": "alice"}}}),
        ("user.id:al*", {"prefix": {"user.id": {"value": "al"}}}),
        ("user.id:a*b?c\\*", {"wildcard": {"user.id": {"value": "a*b\\?c\\*"}}}),
        ('user.id:"a*"', {"term": {"user.id": {"value": "a*"}}}),
        ("user.id:*", {"exists": {"field": "user.id"}}),
        ("http.response.status_code:500", {"term": {"http.response.status_code": {"value": 500}}}),
        (
            "http.response.status_code >= 500",
            {"range": {"http.response.status_code": {"gte": 500}}},
        ),
        (
            "gen_ai.request.temperature < 1.5e0",
            {"range": {"gen_ai.request.temperature": {"lt": 1.5}}},
        ),
        ("gen_ai.request.stream:TRUE", {"term": {"gen_ai.request.stream": {"value": True}}}),
        ("source.ip:10.1.2.3/8", {"term": {"source.ip": {"value": "10.0.0.0/8"}}}),
        ("source.ip > 10.0.0.1", {"range": {"source.ip": {"gt": "10.0.0.1"}}}),
        (
            "@timestamp:2026-11-23",
            {"range": {"@timestamp": {"gte": "2026-11-23", "lte": "2026-11-23"}}},
        ),
        ("@timestamp > now-1h", {"range": {"@timestamp": {"gt": "now-1h"}}}),
        (
            'gen_ai.input.messages:"reset password"',
            {"match": {"gen_ai.input.messages": {"query": "reset password", "operator": "and"}}},
        ),
        (
            "gatebook.attributes.team:blue",
            {"term": {"gatebook.attributes.team": {"value": "blue"}}},
        ),
        (
            "not user.id:a and user.id:b",
            {
                "bool": {
                    "filter": [
                        {"bool": {"must_not": [{"term": {"user.id": {"value": "a"}}}]}},
                        {"term": {"user.id": {"value": "b"}}},
                    ]
                }
            },
        ),
    ],
)
def test_each_clause_becomes_the_filter_of_its_fields_type(query: str, dsl: Any) -> None:
    """Values are read as their field's type; wildcards and quotes keep their meaning."""
    assert compile_query(query, ACCESS) == dsl


def test_free_text_looks_into_content_and_sentences() -> None:
    """Prompts, answers and instructions as words; reasons and error messages as parts of text."""
    text = json.dumps(compile_query("reset", ACCESS))
    for name in ("gen_ai.input.messages", "gen_ai.output.messages", "error.message"):
        assert name in text
    assert "user.id" not in text


@pytest.mark.parametrize(
    ("query", "position", "part"),
    [
        ("a:1 and user.ids:x", 8, "no field"),
        ("http.response.status_code:6xx", 26, "whole number"),
        ("http.response.status_code:5*", 26, "cannot stand in a whole number"),
        ("http.response.status_code:99999999999999999999", 26, "whole number"),
        ("http.response.status_code:١٢", 26, "whole number"),
        ("gen_ai.request.temperature > nan", 29, "number"),
        ("gen_ai.request.temperature > 1e999", 29, "number"),
        ("gen_ai.request.stream:yes", 22, "truth value"),
        ("source.ip:10.0.0.300", 10, "network address"),
        ("source.ip > 10.0.0.0/8", 12, "no order"),
        ("@timestamp > yesterday", 13, "time"),
        ('@timestamp > "now||-1d"', 13, "time"),
        ("user.id > alice", 0, "keyword field"),
        ("gatebook.attributes.team:*lu*", 25, "only stand at the end"),
    ],
)
def test_a_value_that_does_not_fit_its_field_is_pointed_at(
    query: str, position: int, part: str
) -> None:
    """Found here with a caret, before Elasticsearch fails with an error of its own."""
    with pytest.raises(QueryError) as caught:
        compile_query(query.replace("a:1", "user.id:x"), ACCESS)
    shift = len("user.id:x") - len("a:1") if "a:1" in query else 0
    assert caught.value.position == position + shift
    assert part in caught.value.message


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("user.ids", "user.id"),
        ("User.ID", "user.id"),
        ("status_code", "http.response.status_code"),
        ("gen_ai.requst.model", "gen_ai.request.model"),
        ("usage", None),
    ],
)
def test_an_unknown_field_brings_names_close_to_it(name: str, meant: str | None) -> None:
    """A slip of the finger or half a name: the error offers what was meant."""
    with pytest.raises(QueryError) as caught:
        compile_query(f"{name}:x", ACCESS)
    assert (meant or "--list-fields") in caught.value.next_step


@pytest.mark.parametrize("kind", KINDS)
@given(query=st.text('abd.:<>=()"*\\ event.id user 10', max_size=40))
def test_no_query_makes_the_compiler_fail(kind: str, query: str) -> None:
    """For every kind of document: DSL that is JSON, or a QueryError."""
    with contextlib.suppress(QueryError):
        assert json.dumps(compile_query(query, fields_of(kind)))


NOW = datetime(2026, 11, 23, 12, 30, 15, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", "2026-11-23T12:30:15.500000Z"),
        ("15m", "2026-11-23T12:15:15.500000Z"),
        ("1h", "2026-11-23T11:30:15.500000Z"),
        ("now-7d", "2026-11-16T12:30:15.500000Z"),
        ("now - 2w", "2026-11-09T12:30:15.500000Z"),
        ("2026-11-23", "2026-11-23T00:00:00.000000Z"),
        ("2026-11-23T10:15", "2026-11-23T10:15:00.000000Z"),
        ("2026-11-23 10:15:00", "2026-11-23T10:15:00.000000Z"),
        ("2026-11-23T10:15:00.123456789Z", "2026-11-23T10:15:00.123456789Z"),
        ("2026-11-23T10:15:00+01:00", "2026-11-23T09:15:00.000000Z"),
        ("2026-11-23T00:15:00-0530", "2026-11-23T05:45:00.000000Z"),
    ],
)
def test_points_in_time_are_read_in_utc(text: str, moment: str) -> None:
    """Relative, dates, and ISO 8601 with any offset; nanoseconds are kept."""
    assert parse_time(text, NOW) == moment


@pytest.mark.parametrize(
    "text", ["", "yesterday", "1y", "2026-13-01", "999999w", "-1h", "now+1h", "10:15", "1h\x1b"]
)
def test_what_is_no_point_in_time_is_refused(text: str) -> None:
    """The error shows the text harmlessly and says what can be written."""
    with pytest.raises(TimeError) as caught:
        parse_time(text, NOW)
    assert str(caught.value).isprintable()
    assert "2026-11-23" in caught.value.next_step


@pytest.mark.parametrize(
    "text",
    [
        "0001-01-01",
        "1600-01-01",
        "1969-12-31",
        "2262-05-01",
        "9999-12-31",
        "99999d",
        "999999w",
        "now-99999d/d",
        "9999-12-31T23:59:59-10:00",
        "0001-01-01T00:00+10:00",
    ],
)
def test_a_time_that_no_event_can_have_is_refused(text: str) -> None:
    """Elasticsearch would refuse it, or arithmetic with it end: said before, the same for all."""
    with pytest.raises(TimeError, match=r"1970-01-01 to\s2262-01-01") as caught:
        parse_time(text, NOW)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["1600", "1969-12-31", "2262-05", "9999-12-31T00:00:00Z"])
def test_a_time_in_a_query_that_no_event_can_have_is_refused(text: str) -> None:
    """As an option's is, with its place in the query."""
    with pytest.raises(QueryError, match="time"):
        compile_query(f"@timestamp < {text}", ACCESS, NOW)


@pytest.mark.parametrize("rest", ["-1M", "-1y/y", "-2h+20m", "+1h"])
def test_what_the_server_has_to_reckon_it_reckons_from_our_now(rest: str) -> None:
    """So that the same question, asked again later, is the same."""
    compiled = compile_query(f"@timestamp >= now{rest}", ACCESS, NOW)
    wanted = f"2026-11-23T12:30:15.500000Z||{rest}"
    assert compiled == {"range": {"@timestamp": {"gte": wanted}}}


@pytest.mark.parametrize("text", ["1970-01-01", "2262-01-01", "10000d"])
def test_the_outermost_times_are_points_in_time(text: str) -> None:
    """Whoever means `all that there is` may write it as dates."""
    assert parse_time(text, NOW).endswith("Z")


def test_a_direction_that_is_none_is_told_the_two_there_are() -> None:
    """The field is fine: no other one is advised."""
    with pytest.raises(BadRequest, match="cannot sort 'up'") as caught:
        sort_order("@timestamp:up", ACCESS)
    assert "@timestamp:asc (rising)" in caught.value.next_step


def test_what_is_kept_for_searching_alone_is_neither_sorted_nor_counted() -> None:
    """Ids that hardly repeat have no doc values: said before Elasticsearch is asked, with what to
    do instead; a query finds them, and the rest can do what it could."""
    for name in ("trace.id", "span.id", "http.request.id", "gen_ai.response.id", "event.hash"):
        assert not is_sortable(name, ACCESS)
        assert not is_countable(name, ACCESS)
        with pytest.raises(BadRequest, match="cannot sort") as sorting:
            sort_order(f"{name}:asc", ACCESS)
        assert "another field" in sorting.value.next_step
        with pytest.raises(BadRequest, match="not kept for counting") as counting:
            countable(name, ACCESS)
        assert "search" in counting.value.next_step
    assert compile_query("trace.id:4b*", ACCESS) == {"prefix": {"trace.id": {"value": "4b"}}}
    assert compile_query("trace.id:*", ACCESS) == {"exists": {"field": "trace.id"}}
    assert is_countable("user.id", ACCESS)
    assert is_countable("gatebook.content_digest.input", ACCESS)  # findings count it
    assert is_countable("gatebook.attributes.team", ACCESS)
    assert is_sortable("event.id", ACCESS)


@pytest.mark.parametrize(
    "query", ["event.hash:ab", "event.hash:*", "event.hash:a*", "event.hash>a"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_only_shown_is_not_searched(kind: str, query: str) -> None:
    """Elasticsearch would answer `nothing found`, or fail: refused here, with where and what to
    do instead. The same for sealed content, which is no text."""
    queries = [query, query.replace("event.hash", "gatebook.sealed.full")]
    for text in queries if kind == "access" and query.endswith("ab") else [query]:
        with pytest.raises(QueryError, match="cannot be found by this field") as caught:
            compile_query(f"event.id:x and {text}", fields_of(kind))
        assert caught.value.position == len("event.id:x and ")
        assert "event.id" in caught.value.next_step


def test_what_has_doc_values_alone_is_still_searched() -> None:
    """Slower, and the same answer: a range and order of such a time, a value of such a digest."""
    assert "event.created" in ACCESS.without_index
    assert compile_query("event.created > 2026-11-23", ACCESS) == {
        "range": {"event.created": {"gt": "2026-11-23"}}
    }
    assert sort_order("event.end:desc", ACCESS)
    digest = "gatebook.content_digest.input"
    assert compile_query(f"{digest}:ab", ACCESS) == {"term": {digest: {"value": "ab"}}}


def test_a_choice_of_fields_is_stored_as_all_of_them_are() -> None:
    """Who may see less is told the same of what is left; a list without a word on storage has
    everything."""
    few = ACCESS.only(["trace.id", "event.hash", "user.id"])
    assert sorted(few.types) == ["event.hash", "trace.id", "user.id"]
    assert [few.has_values(name) for name in sorted(few.types)] == [False, False, True]
    assert [few.is_searchable(name) for name in sorted(few.types)] == [False, True, True]
    plain = FieldList({"event.hash": "keyword"})
    assert plain.has_values("event.hash")
    assert plain.is_searchable("event.hash")


def test_sort_orders_name_fields_that_can_be_sorted() -> None:
    """Several fields, with a direction each; text and unknown fields are refused."""
    order = sort_order("user.id,@timestamp:desc", ACCESS)
    assert [list(part) for part in order] == [["user.id"], ["@timestamp"]]
    for bad in ("gen_ai.input.messages:asc", "nothing", "user.id:up", ""):
        with pytest.raises(BadRequest):
            sort_order(bad, ACCESS)


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\r\nb\tc\x00", "a\\r\\nb\\tc\\x00"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\u2066x\u2069\u200b", "\\u2066x\\u2069\\u200b"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("a\u2028b\ud800", "a\\u2028b\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("Zoë 世界 🙂", "Zoë 世界 🙂"),
    ],
)
def test_hostile_text_is_shown_and_not_carried_out(hostile: str, shown: str) -> None:
    """Escapes, line breaks, bidi marks, hidden characters: visible; letters stay as they are."""
    assert safe(hostile) == shown


@given(st.text(), st.one_of(st.none(), st.integers(1, 30)))
def test_nothing_that_steers_a_terminal_gets_through(text: str, limit: int | None) -> None:
    """Any text comes out without control, format, surrogate and line-separator characters."""
    found = {unicodedata.category(c) for c in safe(text, limit)}
    assert not found & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(st.dictionaries(st.text(), st.text()))
def test_json_output_is_plain_ascii_and_lossless(value: dict[str, str]) -> None:
    """Programs read back the same; a terminal sees only printable ASCII."""
    text = to_json(value)
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text) == value


def test_cells_are_cut_and_units_are_shown() -> None:
    """Durations in milliseconds, times to the millisecond, lists with commas."""
    assert render("event.duration", 1_234_567_890) == "1234.6 ms"
    assert render("@timestamp", "2026-11-23T10:15:00.123456789Z") == "2026-11-23 10:15:00.123"
    assert render("user.roles", ["a", "b\x1b"]) == "a, b\\x1b"
    assert render("user.id", "x" * 100, 10) == "x" * 9 + "…"
    assert render("gen_ai.request.stream", False) == "false"
    assert render("user.id", None) == ""


def test_values_are_found_by_dotted_name() -> None:
    """Nested, with dots in keys, or absent."""
    document = {"a": {"b": {"c": 1}, "d.e": 2}, "f": {"g": False}}
    assert [value_at(document, p) for p in ("a.b.c", "a.d.e", "f.g", "a.x", "q")] == [
        1,
        2,
        False,
        None,
        None,
    ]
    assert flatten(document) == {"a.b.c": 1, "a.d.e": 2, "f.g": False}
