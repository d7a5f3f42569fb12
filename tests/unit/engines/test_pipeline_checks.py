"""What the doctor says of what stands in the engines: each check can go red, with a way out."""

from __future__ import annotations

from typing import Any

import pytest

from gatebook.engines import pipeline_checks as checks
from gatebook.engines.check import Check
from gatebook.engines.http import Answer
from gatebook.engines.pipeline_checks import KINDS, ROLE_TOPICS, Group
from gatebook.schemas.topics import all_topics, topic_name


def verdict(check: Check) -> str:
    assert check.verdict == "ok" or check.next_step
    return check.verdict


def test_roles_and_kinds_are_those_of_the_processors() -> None:
    """The engines may not import the processors, so they keep a copy; it must not go stale."""
    from gatebook.processors.sinks.base import KINDS as SINK_KINDS
    from gatebook.processors.worker import ROLES

    assert set(ROLE_TOPICS) == set(ROLES)
    assert set(KINDS) == set(SINK_KINDS)
    read = {key for keys in ROLE_TOPICS.values() for key in keys}
    assert read < set(all_topics())


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (Group("index", 0, 0, "empty"), "ok"),
        (Group("index", 0, 2, "stable"), "ok"),
        (Group("index", 9, 2, "stable"), "ok"),
        (Group("index", 9, 0, "empty"), "warn"),
        (Group("index", 0, 2, "stable", lost=1), "warn"),
    ],
)
def test_lag_matters_where_nobody_reads(group: Group, expected: str) -> None:
    """Work that waits while somebody works is ordinary."""
    assert verdict(checks.judge_group(group)) == expected


def test_where_no_worker_runs_the_one_command_for_all_is_named() -> None:
    """Somebody new is not sent to start four processes."""
    group = Group("index", 9, 0, "empty")
    assert "gatebook worker index" in checks.judge_group(group, True).next_step
    assert "gatebook worker (all roles)" in checks.judge_group(group, False).next_step


def test_messages_deleted_before_they_were_read_are_counted() -> None:
    """By partition; a group that never committed lost none, nor one that is further than that."""
    first = {("t", 0): 5, ("t", 1): 5, ("t", 2): 5}
    committed = {("t", 0): 2, ("t", 1): 9, ("t", 2): -1001}
    assert checks.lost_unread(first, committed) == 3
    row = checks.judge_group(Group("intake", 0, 0, "empty", lost=3))
    assert verdict(row) == "warn"
    assert "3 messages were deleted" in row.detail


def test_a_topic_that_forgets_within_the_hour_is_named() -> None:
    """With how long it keeps a message; an hour is enough."""
    assert verdict(checks.judge_retention({"g.access.v1": 3_600_000})) == "ok"
    row = checks.judge_retention({"g.access.v1": 60_000, "g.event.v1": 86_400_000})
    assert verdict(row) == "warn"
    assert "g.access.v1 1 min" in row.detail
    assert "g.event.v1" not in row.detail


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ("green", "ok"),
        ("yellow", "ok"),
        ("unreadable", "ok"),
        ("red", "fail"),
        ("refused", "fail"),
        (None, "fail"),
    ],
)
def test_the_clusters_colour(colour: str | None, expected: str) -> None:
    """Red, refused credentials and silence are broken; missing copies are not."""
    assert verdict(checks.judge_cluster("http://h:1", colour)) == expected


def templates(*names: str) -> dict[str, Any]:
    return {"index_templates": [{"name": name} for name in names]}


@pytest.mark.parametrize(
    ("answer", "expected", "said"),
    [
        (Answer(200, templates(*(f"ns-{kind}" for kind in KINDS))), "ok", "all 4"),
        (Answer(200, templates("ns-access", "ns-alert")), "warn", "ns-finding, ns-deadletter"),
        (Answer(404, None), "warn", "ns-access"),
        (Answer(403, None), "warn", "status 403"),
        (None, "warn", "no answer"),
    ],
)
def test_missing_templates_are_named(answer: Answer | None, expected: str, said: str) -> None:
    """What cannot be read is not called missing."""
    check = checks.judge_templates(answer, "ns")
    assert verdict(check) == expected
    assert said in check.detail


def settings_of(**blocks: str) -> dict[str, Any]:
    return {"settings": {"index": {"blocks": blocks}}}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "ok"),
        ({"ns-access-1": settings_of()}, "ok"),
        ({"ns-access-1": settings_of(write="false")}, "ok"),
        ({"ns-access-1": settings_of(read_only_allow_delete="true")}, "fail"),
        ({"ns-access-1": settings_of(write="true")}, "fail"),
    ],
)
def test_blocked_indices_are_broken(body: dict[str, Any], expected: str) -> None:
    """The index worker waits before them without an error of its own."""
    assert verdict(checks.judge_blocks(Answer(200, body))) == expected


def test_missing_topics_are_named() -> None:
    """All of them, with the namespace that was looked for."""
    there = dict.fromkeys((topic_name("ns", key) for key in all_topics()), 1)
    assert verdict(checks.judge_topics(there, "ns")) == "ok"
    del there["ns.alert.v1"]
    check = checks.judge_topics(there, "ns")
    assert verdict(check) == "warn"
    assert "ns.alert.v1" in check.detail
    assert "now ns" in check.next_step


def test_old_dead_letters_do_not_warn() -> None:
    """One of last week is known; one of today wants a look."""
    assert verdict(checks.judge_dead_letters(0, 0, "ns.deadletter.v1")) == "ok"
    assert verdict(checks.judge_dead_letters(0, 7, "ns.deadletter.v1")) == "ok"
    assert verdict(checks.judge_dead_letters(1, 7, "ns.deadletter.v1")) == "warn"
