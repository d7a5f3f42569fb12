"""The pure half of the sink: what an answer means, how requests are cut, what may be told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.processors.sinks import bulk
from gatebook.processors.sinks.base import Row
from gatebook.processors.sinks.bulk import Decision, Verdict, Whole

ROW = Row("access", "2026.11.23", "a1", "h1", b'{"event":{"id":"a1","hash":"h1"}}')


def error(kind: str, reason: str = "", cause: str = "") -> dict[str, Any]:
    return {"type": kind, "reason": reason, "caused_by": {"type": cause} if cause else None}


@pytest.mark.parametrize(
    ("status", "problem", "wanted"),
    [
        (201, None, Decision.INDEXED),
        (200, None, Decision.INDEXED),
        (409, error("version_conflict_engine_exception"), Decision.EXISTS),
        (429, error("es_rejected_execution_exception"), Decision.RETRY),
        (429, error("circuit_breaking_exception"), Decision.RETRY),
        (429, error("cluster_block_exception"), Decision.BLOCKED),
        (403, error("cluster_block_exception"), Decision.BLOCKED),
        (503, error("cluster_block_exception"), Decision.BLOCKED),
        (400, error("index_closed_exception"), Decision.BLOCKED),
        (400, error("validation_exception"), Decision.BLOCKED),
        (502, None, Decision.RETRY),
        (503, error("unavailable_shards_exception"), Decision.RETRY),
        (504, error("process_cluster_event_timeout_exception"), Decision.RETRY),
        (500, error("already_closed_exception"), Decision.RETRY),
        (404, error("index_not_found_exception"), Decision.NO_INDEX),
        (404, error("shard_not_found_exception"), Decision.RETRY),
        (401, error("security_exception"), Decision.FORBIDDEN),
        (403, error("security_exception"), Decision.FORBIDDEN),
        (400, error("document_parsing_exception"), Decision.REJECTED),
        (400, error("illegal_argument_exception"), Decision.REJECTED),
        (418, error("teapot_exception"), Decision.RETRY),
    ],
)
def test_each_status_of_an_item_has_its_meaning(
    status: int, problem: Any, wanted: Decision
) -> None:
    """Only a plain 400 is the row's fault; what is not known is tried again."""
    assert bulk.classify(status, problem).decision is wanted


@given(
    st.integers(100, 599), st.one_of(st.none(), st.text(), st.dictionaries(st.text(), st.text()))
)
def test_no_answer_makes_the_classifier_fail(status: int, problem: Any) -> None:
    """Whatever a server or proxy sends, there is a verdict, and only a 400 rejects."""
    verdict = bulk.classify(status, problem)
    assert (verdict.decision is Decision.REJECTED) <= (status == 400)


def test_an_item_in_the_failure_store_is_not_taken_for_stored() -> None:
    """A data stream's failure store answers 201 for a document it set aside."""
    answer = {"items": [{"create": {"status": 201, "failure_store": "used"}}]}
    found = bulk.verdicts(answer, 1)
    assert found == [Verdict(Decision.REJECTED, "went to the failure store")]


@pytest.mark.parametrize(
    "answer",
    [None, "text", [], {}, {"items": None}, {"items": []}, {"items": [{}, {}]}],
)
def test_an_answer_with_another_number_of_items_decides_nothing(answer: Any) -> None:
    """Items are matched to rows by position, so a short answer decides no row at all."""
    assert bulk.verdicts(answer, 1) is None


@pytest.mark.parametrize("item", [None, 1, {}, {"index": {"status": 201}}, {"create": {}}])
def test_an_item_that_cannot_be_read_is_tried_again(item: Any) -> None:
    """Nothing counts as stored without a status that says so."""
    assert bulk.verdicts({"items": [item]}, 1) == [Verdict(Decision.RETRY, "unreadable item")]


SECRET = "sk-live-4f9a"  # a planted value, no real one


@pytest.mark.parametrize(
    ("kind", "reason", "told"),
    [
        (
            "document_parsing_exception",
            f"[1:5] failed to parse field [source.port] of type [long] in document with id 'x'. "
            f"Preview of field's value: '{SECRET}'",
            "document_parsing_exception at source.port",
        ),
        (
            "strict_dynamic_mapping_exception",
            "[1:9] mapping set to strict, dynamic introduction of [extra] within [event] "
            "is not allowed",
            "strict_dynamic_mapping_exception at event.extra",
        ),
        (
            "strict_dynamic_mapping_exception",
            f"[1:9] dynamic introduction of [{SECRET}] within [_doc] is not allowed",
            "strict_dynamic_mapping_exception",
        ),
        (
            "illegal_argument_exception",
            'Document contains at least one immense term in field="url.path" (whose UTF8 ...',
            "illegal_argument_exception at url.path",
        ),
        ("document_parsing_exception", f"failed to parse {SECRET}", "document_parsing_exception"),
        (f"{SECRET} exception", SECRET, "status_400"),
    ],
)
def test_a_rejection_tells_type_and_field_and_nothing_else(
    kind: str, reason: str, told: str
) -> None:
    """Elasticsearch's reason may quote what a user wrote: it never gets into the detail."""
    verdict = bulk.classify(400, error(kind, reason))
    assert verdict.detail == told
    assert SECRET not in verdict.detail


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        (413, None, Whole.SPLIT),
        (400, {"error": error("action_request_validation_exception")}, Whole.SPLIT),
        (400, None, Whole.WRONG_SERVER),
        (400, {"error": "text"}, Whole.WRONG_SERVER),
        (404, None, Whole.WRONG_SERVER),
        (301, None, Whole.WRONG_SERVER),
        (401, None, Whole.FORBIDDEN),
        (403, {"error": error("cluster_block_exception")}, Whole.BLOCKED),
        (503, {"error": error("cluster_block_exception")}, Whole.BLOCKED),
        (429, None, Whole.RETRY),
        (408, None, Whole.RETRY),
        (502, None, Whole.RETRY),
    ],
)
def test_each_status_of_a_whole_request_has_its_meaning(
    status: int, body: Any, wanted: Whole
) -> None:
    """A 400 from something that is not Elasticsearch never costs a row."""
    assert bulk.classify_request(status, body)[0] is wanted


ROWS = st.lists(
    st.builds(
        lambda n, size: replace(ROW, id=str(n), body=b"{" + b" " * size + b"}"),
        st.integers(0, 999),
        st.integers(0, 3_000),
    ),
    max_size=40,
)


@given(ROWS, st.integers(1, 4_000), st.integers(1, 10))
def test_chunks_hold_all_rows_in_order_within_their_bounds(
    rows: list[Row], max_bytes: int, max_documents: int
) -> None:
    """Nothing is lost or moved; a chunk passes the size only where it is a single row."""
    cut = list(bulk.chunks(rows, max_bytes, max_documents))
    assert [row for chunk in cut for row in chunk] == rows
    for chunk in cut:
        assert 1 <= len(chunk) <= max_documents
        assert len(chunk) == 1 or sum(len(row.body) for row in chunk) <= max_bytes


@given(st.text(min_size=1, max_size=80).filter(str.isprintable))
def test_the_lines_of_a_row_are_two_and_carry_its_bytes(identity: str) -> None:
    """Whatever the id, the action is one line of JSON that names it, and the body is untouched."""
    row = replace(ROW, id=identity)
    if bulk.fault_of(row, 10_000) is not None:
        return
    action, body, rest = bulk.lines("ns", row).split(b"\n")
    assert orjson.loads(action)["create"] == {"_index": "ns-access-2026.11.23", "_id": identity}
    assert (body, rest) == (ROW.body, b"")


def test_a_row_is_the_stored_one_by_hash_or_else_by_content() -> None:
    """The same hash is enough; else what the document says decides."""
    assert bulk.is_same_document(ROW, {"event": {"hash": "h1"}})
    assert not bulk.is_same_document(ROW, {"event": {"hash": "h2"}})
    bare = replace(ROW, hash="", body=b'{"a":1,"b":[2]}')
    assert bulk.is_same_document(bare, {"b": [2], "a": 1})
    assert not bulk.is_same_document(bare, {"b": [2]})
