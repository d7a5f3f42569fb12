"""What a retention policy says of an event, and what is refused as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatebook.processors.retention.disk import ACT, FINE, WARN, pressure
from gatebook.processors.retention.plan import Force, Judge, Record, weigh
from gatebook.processors.retention.policy import Policy, PolicyInvalid, duration_seconds
from gatebook.processors.retention.rollover import next_cut
from gatebook.processors.retention.rows import parse_rows
from gatebook.processors.retention.topics import judged, next_step, wanted_config
from gatebook.processors.sinks.slots import (
    GROUP_FIELDS,
    Closed,
    Gates,
    Group,
    group_of,
    group_tag,
    is_sampled,
    parse_index,
    span_of,
    without_revision,
)
from gatebook.schemas.topics import ACCESS, EVENT, FINDING

BASE = """
version = 1
name = "test"
[defaults]
metadata = "90d"
redacted = "30d"
full = "7d"
[classes]
short = "10d"
"""
DAY_SECONDS = 86_400
END = 1_767_312_000.0  # 2026-01-02T00:00:00Z, the end of 2026.01.01


def policy(text: str = "") -> Policy:
    return Policy.read((BASE + text).encode())


def group(**named: str) -> Group:
    return tuple(named.get(name, "") for name, _ in GROUP_FIELDS)


def after(days: float) -> float:
    return END + days * DAY_SECONDS


def test_a_day_is_due_once_it_is_over_and_the_time_has_passed() -> None:
    """Never earlier than the policy says: the last event of the day has to be old enough."""
    found = policy()
    assert not found.due(group(), "2026.01.01", after(90) - 1).drop
    assert found.due(group(), "2026.01.01", after(90)).drop


def test_layers_go_in_their_own_time_and_only_where_there_are_any() -> None:
    """What was captured at level metadata has nothing to strip."""
    found = policy()
    assert found.due(group(level="full"), "2026.01.01", after(8)).strip == {"full"}
    assert found.due(group(level="full"), "2026.01.01", after(31)).strip == {"full", "redacted"}
    assert found.due(group(level="metadata"), "2026.01.01", after(31)).is_nothing


def test_content_never_outlives_its_event() -> None:
    """A layer that is kept longer than the metadata goes with it."""
    found = policy('[[rule]]\nname = "a"\nmetadata = "3d"\nfull = "forever"\n')
    assert found.terms(group(level="full")).seconds["full"] == 3 * DAY_SECONDS


def test_the_first_rule_wins_then_the_class_on_the_event_then_the_default() -> None:
    """As in the capture policy, order decides; what a rule leaves open the event's class says."""
    found = policy(
        """
[[rule]]
name = "clinic"
match = { tenant = ["clinic-*", "lab"], model = "slm-?" }
redacted = "1d"
[[rule]]
name = "all-clinics"
match = { tenant = "clinic-*" }
metadata = "1d"
"""
    )
    first = found.terms(group(tenant="clinic-1", model="slm-2", metadata="short"))
    assert (first.rule, first.classes["redacted"], first.classes["metadata"]) == (
        "clinic",
        "1d",
        "short",
    )
    assert found.terms(group(tenant="clinic-1", model="other")).rule == "all-clinics"
    assert found.terms(group(tenant="acme")).classes["metadata"] == "90d"


def test_a_rule_by_class_data_class_and_outcome() -> None:
    """The retention class that the capture policy set, the data class and the outcome match."""
    found = policy(
        '[[rule]]\nname = "a"\n'
        'match = { class = "short", data_class = "chat", outcome = "success" }\n'
        'metadata = "2d"\n'
    )
    fits = {"metadata": "short", "data_class": "chat", "outcome": "success"}
    assert found.terms(group(**fits)).rule == "a"
    for name in fits:
        assert found.terms(group(**{**fits, name: "x"})).rule == "default"


def test_a_class_nobody_defined_keeps_for_ever() -> None:
    """What is not understood is not deleted."""
    found = policy().terms(group(metadata="mystery"))
    assert found.seconds["metadata"] == float("inf")
    assert found.unknown_classes == ("mystery",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[rule]]\nname = "a"\nmetadata = "3 days"\n', "rule a: metadata"),
        ('[[rule]]\nname = "a"\nkeep_one_in = 5\n', "go together"),
        ('[[rule]]\nname = "default"\n', "taken"),
        ('[kinds]\nfindings = "3d"\n', "invalid"),
        ('[kinds]\nsummary-hour = "8y"\n', "longer than summary-day"),
        ("[disk]\nwarn_percent = 90\nact_percent = 80\n", "warn_percent"),
        ('[disk]\norder = ["delete_snapshotted"]\n', "needs [snapshot]"),
        ('[size]\nmax_index = "40"\n', "not a size"),
        ("typo = 1\n", "invalid"),
        ("[[rule]\n", "not TOML"),
    ],
)
def test_a_faulty_policy_is_refused_and_told_where(text: str, says: str) -> None:
    """Nothing is guessed in a file that decides what is deleted."""
    text = text if not text.startswith("typo") else "[cold]\n" + text
    with pytest.raises(PolicyInvalid, match=says.replace("[", r"\[").replace("]", r"\]")):
        policy(text)


def test_summaries_are_kept_for_long_but_not_for_ever_by_themselves() -> None:
    """Their rows name people: 400 days by hour and 7 years by day, unless a policy says more."""
    found = policy()
    assert found.kind_seconds("summary-hour") == 400 * DAY_SECONDS
    assert found.kind_seconds("summary-day") == 7 * 365 * DAY_SECONDS
    more = policy('[kinds]\nsummary-hour = "short"\nsummary-day = "forever"\n')
    assert more.kind_seconds("summary-hour") == 10 * DAY_SECONDS
    assert more.kind_seconds("summary-day") == float("inf")
    assert more.kind_seconds("finding") == float("inf")


@pytest.mark.parametrize(
    ("kind", "name", "slot", "day", "held"),
    [
        ("summary-hour", "ns-summary-hour-2026.02", "2026.02", "2026.02.28", False),
        ("summary-hour", "ns-summary-hour-held-2026.12-r3", "2026.12", "2026.12.31", True),
        ("summary-day", "ns-summary-day-2024", "2024", "2024.12.31", False),
    ],
)
def test_indices_of_summaries_are_due_by_their_last_day(
    kind: str, name: str, slot: str, day: str, held: bool
) -> None:
    """A month or a year goes as a whole, once its last day may go."""
    found = parse_rows("ns", kind, name)
    assert found is not None
    assert (found.slot, found.day, found.is_held) == (slot, day, held)


@pytest.mark.parametrize(
    "name",
    [
        "ns-summary-hour-2026.13",
        "ns-summary-hour-2026",
        "other-summary-hour-2026.01",
        "ns-access-2026",
    ],
)
def test_what_is_no_index_of_summaries_is_left_alone(name: str) -> None:
    """A name that does not fit is somebody else's."""
    assert parse_rows("ns", "summary-hour", name) is None


def test_the_example_is_a_policy_without_warnings() -> None:
    """What people copy has to be right."""
    path = Path(__file__).parents[3] / "infra/examples/retention-policy.toml"
    assert list(Policy.read(path.read_bytes()).warnings()) == []


@pytest.mark.parametrize("text", ["1", "d", "-1d", "1m", "", "1d 2h", "1e9d"])
def test_durations_are_exact_or_refused(text: str) -> None:
    """A month has no fixed length, so there is none."""
    with pytest.raises(ValueError, match="not a duration"):
        duration_seconds(text)


def test_what_was_done_is_not_planned_again_until_something_comes_in() -> None:
    """The record of a rewritten index holds for as many documents as it was made of."""
    one = group(level="full")
    judge = Judge(policy(), "access", "2026.01.01", after(8), Force())
    record = Record(documents=5, stripped={group_tag(one): ("full",)})
    assert weigh(judge, {one: 5}, 5, record).is_nothing
    assert weigh(judge, {one: 6}, 6, record).strip == {"full": 6}


def test_names_of_indices_are_read_back() -> None:
    """Day, part, revision and hold stand in the name; the slot is what stays."""
    found = parse_index("gb", "access", "gb-access-held-2026.01.31-p2-r12")
    assert found is not None
    assert (found.slot, found.part, found.revision, found.is_held) == ("2026.01.31-p2", 2, 12, True)
    assert parse_index("gb", "access", "gb-access-keys") is None
    assert parse_index("gb", "access", "gbx-access-2026.01.31") is None
    assert without_revision("gb-access-held-2026.01.31-p2-r12") == "gb-access-2026.01.31-p2"
    assert without_revision("gb-access-2026.01.31") == "gb-access-2026.01.31"


def body(at: str, **more: str) -> bytes:
    return f'{{"@timestamp":"{at}","event":{{"id":"1"}}}}'.encode()


def test_a_cut_day_takes_each_event_by_its_own_time() -> None:
    """Before the hour in the first index, from it on in the next: whenever it is sent."""
    gates = Gates(cuts={"access": {"2026.01.31": ("2026-01-31T14:00:00",)}})
    early = gates.slot_of("access", "2026.01.31", body("2026-01-31T13:59:59.999999999Z"))
    late = gates.slot_of("access", "2026.01.31", body("2026-01-31T14:00:00.000000000Z"))
    assert (early, late) == ("2026.01.31", "2026.01.31-p2")
    other = gates.slot_of("access", "2026.02.01", body("2026-02-01T14:00:00Z"))
    assert other == "2026.02.01"
    assert span_of("2026.01.31-p2", ("2026-01-31T14:00:00",)) == (
        "2026-01-31T14:00:00",
        "2026-02-01T00:00:00",
    )


def test_the_hour_of_a_cut_lies_ahead_of_everything_stored() -> None:
    """At least ten minutes, and behind the newest event; none in the last hour of the day."""
    noon = END + 12 * 3600
    assert next_cut("2026.01.02", noon, "") == "2026-01-02T13:00:00"
    assert next_cut("2026.01.02", noon + 3300, "") == "2026-01-02T14:00:00"
    assert next_cut("2026.01.02", noon, "2026-01-02T15:30:00.5Z") == "2026-01-02T16:00:00"
    assert next_cut("2026.01.02", END + 23.5 * 3600, "") == ""


def test_a_closed_slot_refuses_what_was_taken_out_of_it() -> None:
    """By group, by sample, or as a whole; and nothing of another slot."""
    document = {"organization": {"id": "acme"}, "event": {"id": "1"}, "trace": {"id": "t1"}}
    raw = b'{"event":{"id":"1"},"organization":{"id":"acme"},"trace":{"id":"t1"}}'
    tag = group_tag(group_of(document))
    for closed, expected in (
        (Closed(gone=True), True),
        (Closed(dropped=(tag,)), True),
        (Closed(dropped=("0" * 16,)), False),
        (Closed(thinned={tag: 1}), False),
        (Closed(thinned={tag: 10**6}), not is_sampled(document, 10**6)),
    ):
        gates = Gates(closed={"access": {"2026.01.01": closed}})
        assert gates.is_past("access", "2026.01.01", raw) is expected
        assert not gates.is_past("access", "2026.01.02", raw)
        assert not gates.is_past("finding", "2026.01.01", raw)


def test_an_intent_and_its_end_are_sampled_alike() -> None:
    """They have no trace in common, only the id."""
    for number in range(50):
        end = {"event": {"id": f"event-{number}"}}
        intent = {"event": {"id": f"event-{number}:intent"}}
        assert is_sampled(end, 3) == is_sampled(intent, 3)


def test_topics_are_kept_no_longer_than_the_shortest_layer() -> None:
    """A message stays for retention.ms and segment.ms together, and both count."""
    found = policy('[kafka]\nreplay = "1d"\n')
    good = wanted_config(found, EVENT)
    assert judged(found, "x", EVENT, good).problem == ""
    week = {"retention.ms": str(7 * DAY_SECONDS * 1000), "segment.ms": str(7 * DAY_SECONDS * 1000)}
    assert "the policy allows" in judged(found, "x", EVENT, week).problem
    hour = {"retention.ms": "3600000", "segment.ms": "60000"}
    assert "a replay needs" in judged(found, "x", ACCESS, hour).problem
    assert "without end" in judged(found, "x", ACCESS, {"retention.ms": "-1"}).problem
    assert judged(found, "x", FINDING, {"retention.ms": "-1"}).problem == ""  # kept for ever
    tight = policy('[kafka]\nreplay = "8d"\n')
    beyond = judged(tight, "x", EVENT, good)
    assert "longer than the policy allows" in beyond.problem
    assert "change kafka.replay" in next_step(tight, beyond)


@pytest.mark.parametrize("replay", ["0d", "1h", "6h", "20h", "1d", "3d", "7d"])
@pytest.mark.parametrize("full", ["0d", "1h", "12h", "1d", "7d", "90d"])
def test_what_is_set_of_a_topic_satisfies_the_check(full: str, replay: str) -> None:
    """Whatever a policy says: what `apply` sets is what `check` wants, unless it says that no
    setting does; and no topic is kept for less than an hour."""
    text = BASE.replace('full = "7d"', f'full = "{full}"') + f'[kafka]\nreplay = "{replay}"\n'
    found = Policy.read(text.encode())
    for key in (ACCESS, EVENT, FINDING):
        wanted = wanted_config(found, key)
        again = judged(found, "x", key, wanted)
        assert again.problem == "" or again.is_beyond_setting
        assert int(wanted["retention.ms"]) >= 3_600_000


def test_a_topics_problem_comes_with_what_to_do() -> None:
    """Where the policy may set topics, `apply` does; else the way there and the values are told."""
    setting, looking = policy("[kafka]\nset = true"), policy("[kafka]\nset = false")
    week = {"retention.ms": str(20 * DAY_SECONDS * 1000), "segment.ms": "3600000"}
    told = next_step(setting, judged(setting, "x", EVENT, week))
    assert told == "`gatebook retention apply` sets it"
    told = next_step(looking, found := judged(looking, "x", EVENT, week))
    assert "set = true under [kafka]" in told
    assert f"retention.ms={found.wanted['retention.ms']}" in told


def test_disks_are_judged_by_the_policys_percents() -> None:
    """Told at one, acted on at the other; the excess is what has to be freed."""
    found = policy("[disk]\nwarn_percent = 70\nact_percent = 80\n")
    assert [pressure(found, used, 100).state for used in (69, 70, 79, 80)] == [
        FINE,
        WARN,
        WARN,
        ACT,
    ]
    assert pressure(found, 85, 100).excess == 5
