"""Rows of summaries: how they add up, and how they stand in documents."""

from __future__ import annotations

from datetime import UTC, datetime

from gatebook.processors.summaries.reading import Counting
from gatebook.processors.summaries.rollup import without_erased
from gatebook.processors.summaries.rows import (
    HOUR,
    Key,
    Principals,
    difference,
    documents,
    merged,
    read_document,
    row_id,
    sketch_of,
)

HOUR_TEN = datetime(2026, 11, 23, 10, tzinfo=UTC)


def event(**given: object) -> dict[str, list[object]]:
    """Doc values of an event; __ in a name stands for a dot."""
    values = {
        "organization__id": "acme",
        "gatebook__principal": "acme/user:ada",
        "user__id": "ada",
        "gatebook__subject": "tag-ada",
        "event__outcome": "success",
        "event__duration": 1_000_000,
        **given,
    }
    return {name.replace("__", "."): [value] for name, value in values.items()}


def rows_of(*events: dict[str, list[object]]) -> dict[Key, object]:
    counting = Counting()
    counting.add(events)
    return counting.rows  # type: ignore[return-value]


def test_an_event_in_several_indices_counts_once() -> None:
    """While a document is moved it stands in two indices for a moment."""
    counting = Counting(by_id=True)
    counting.add([event(event__id="a"), event(event__id="b"), event(event__id="a")])
    assert sum(row.events for row in counting.rows.values()) == 2


def test_a_service_that_acts_for_somebody_is_not_that_person() -> None:
    """The row of such an event names no subject, so that an erasure leaves the service named."""
    acting = event(gatebook__identity__on_behalf_of="bob", gatebook__subject="tag-bob")
    assert {key.subject for key in rows_of(event(), acting)} == {"tag-ada", ""}


def test_a_person_who_names_somebody_else_is_still_that_person() -> None:
    """Who proved who they are stays the subject of their row, so that an erasure takes the name."""
    proved = {"gatebook__identity__method": "oidc", "gatebook__identity__assurance": "verified"}
    acting = event(gatebook__identity__on_behalf_of="x-17", user__id="ada", **proved)
    assert {key.subject for key in rows_of(acting)} == {"tag-ada"}


def test_rows_are_the_same_after_they_were_stored() -> None:
    """Documents by principal hold all that was counted; those over all, the sum."""
    rows = rows_of(
        event(http__response__status_code=200, gen_ai__usage__input_tokens=7),
        event(http__response__status_code=503, event__outcome="failure"),
        event(gen_ai__response__time_to_first_chunk=0.25, gatebook__principal="acme/user:bob"),
    )
    found = documents(HOUR, HOUR_TEN, rows)  # type: ignore[arg-type]
    by_principal = [d for d in found.values() if d["summary"]["by"] == "principal"]
    assert dict(read_document(d) for d in by_principal) == rows
    over = [d for d in found.values() if d["summary"]["by"] == "all"]
    assert sum(d["summary"]["events"] for d in over) == 3
    assert "acme/user" not in str(over)


def test_a_row_has_one_id_and_no_two_rows_share_it() -> None:
    """The same row is the same document whenever it is written, and parts of a key do not run
    into each other."""
    key = Key(tenant="a", service="bc")
    assert row_id(HOUR, HOUR_TEN, "all", key) == row_id(HOUR, HOUR_TEN, "all", key)
    assert row_id(HOUR, HOUR_TEN, "all", key) != row_id(HOUR, HOUR_TEN, "all", Key("ab", "c"))
    assert row_id(HOUR, HOUR_TEN, "all", key) != row_id("day", HOUR_TEN, "all", key)


def test_what_is_left_of_a_whole_and_the_part_add_up_to_it() -> None:
    """So an hour goes on when the details behind a part of it have gone."""
    part = rows_of(event(event__duration=5_000))
    whole = rows_of(event(event__duration=5_000), event(), event(user__id="bob"))
    left = difference(whole, part)  # type: ignore[arg-type]
    assert merged([left, part]) == whole  # type: ignore[list-item]
    assert difference(whole, whole) == {}  # type: ignore[arg-type]


def test_principals_of_many_sketches_are_counted_once() -> None:
    """A person in several hours is one; an erased one stays one."""
    principals = Principals()
    assert principals.estimate() == 0
    principals.add(sketch_of(["ada", "bob"]))
    principals.add(sketch_of(["bob", "eve"]))
    principals.add_one("ada")
    assert principals.estimate() == 3
    assert sketch_of(["bob", "ada"]) == sketch_of(["ada", "bob"])


def test_an_erased_person_is_one_and_nobody() -> None:
    """Rows of the person run together under a name that tells nothing; others stay, and so do
    those of hours after the erasure."""
    rows = rows_of(event(), event(user__id="ada-2"), event(gatebook__subject="tag-bob"))
    hidden = without_erased(rows, {"tag-ada": "2026-11-23T10:00:01Z"}, HOUR_TEN)  # type: ignore[arg-type]
    erased = [key for key in hidden if key.principal.startswith("[ERASED_")]
    assert [(key.user, key.subject) for key in erased] == [("", "")]
    assert hidden[erased[0]].events == 2
    assert without_erased(rows, {"tag-ada": "2026-11-23T10:00:00Z"}, HOUR_TEN) == rows  # type: ignore[arg-type]
