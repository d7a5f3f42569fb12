"""The ready-made kinds of rules: which windows they have, what they learn, when they speak."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from tests.unit.detect.rules import by, happens, rule

from gatebook.processors.detect.access import NANOSECONDS, read_access
from gatebook.schemas.errors import Fatal

COUNT = """
[detect]
kind = "count"
window = "{window}"
[parameters]
threshold = 3
window_seconds = 60
step_seconds = {step}
quiet_seconds = 10
"""


def test_tumbling_windows_stand_side_by_side(tmp_path: Path) -> None:
    """Three accesses around a boundary are two and one; three inside fire."""
    tumbling = rule(tmp_path, COUNT.format(window="tumbling", step=0))
    assert happens(tumbling, (50, by()), (55, by()), (61, by())) == []
    assert happens(tumbling, (1, by()), (30, by()), (59, by())) == [("firing", 3)]


def test_hopping_windows_overlap(tmp_path: Path) -> None:
    """Three accesses around a boundary are in one of the windows that hop by twenty seconds; when
    they are too far apart for any, they are not."""
    hopping = rule(tmp_path, COUNT.format(window="hopping", step=20))
    assert happens(hopping, (50, by()), (55, by()), (61, by())) == [("firing", 3)]
    assert happens(hopping, (0, by()), (50, by()), (105, by())) == []


def test_an_access_older_than_every_window_is_passed_over(tmp_path: Path) -> None:
    """The first access of a key may be older than all that is still counted, as when an old log
    is imported beside live traffic: it counts for nothing, and the next one does."""
    sliding = rule(tmp_path, COUNT.format(window="sliding", step=0))
    document = {"@timestamp": "2026-01-05T10:00:00.000Z", "event": {"id": str(UUID(int=1))}, **by()}
    old = read_access(document, 0)
    state = sliding.state_type()
    assert sliding.apply(state, old, old.timestamp_ns + 3600 * NANOSECONDS) is None
    assert state.stamps == []
    assert sliding.apply(state, old, old.timestamp_ns) is None
    assert len(state.stamps) == 1


def test_a_late_access_completes_a_window_it_belongs_to(tmp_path: Path) -> None:
    """What comes out of order counts where it belongs."""
    hopping = rule(tmp_path, COUNT.format(window="hopping", step=20))
    assert happens(hopping, (10, by()), (50, by()), (30, by())) == [("firing", 3)]


def test_sliding_windows_are_exact(tmp_path: Path) -> None:
    """Any three within a minute fire, wherever that minute begins."""
    sliding = rule(tmp_path, COUNT.format(window="sliding", step=0))
    assert happens(sliding, (31, by()), (59, by()), (91, by())) == [("firing", 3)]
    assert happens(sliding, (31, by()), (59, by()), (92, by())) == []


def test_sessions_last_while_something_happens(tmp_path: Path) -> None:
    """A session goes on over any length, ends with a gap, and two become one by what lies between
    them."""
    session = rule(tmp_path, COUNT.format(window="session", step=0))
    assert happens(session, (0, by()), (59, by()), (110, by())) == [("firing", 3)]
    assert happens(session, (0, by()), (10, by()), (75, by())) == []
    assert happens(session, (0, by()), (100, by()), (50, by())) == [("firing", 3)]


def test_values_are_added_up(tmp_path: Path) -> None:
    """A rule may count tokens instead of accesses; windows of one principal are its own."""
    rest = '[detect]\nkind = "count"\nvalue = "output_tokens"\n[parameters]\nthreshold = 100\n'
    tokens = rule(tmp_path, rest)

    def used(number: int, who: str = "eve") -> dict[str, object]:
        return by(who, gen_ai={"usage": {"output_tokens": number}})

    assert happens(tokens, (0, used(60)), (1, used(50, "bob")), (2, used(40))) == [("firing", 100)]


def test_different_things_are_counted_once_each(tmp_path: Path) -> None:
    """Ten uses of two models are two; the third model fires. Many more are an estimate."""
    rest = '[detect]\nkind = "distinct"\nitem = "model"\n[parameters]\nthreshold = {}\n'

    def use(number: int) -> dict[str, object]:
        return by(gen_ai={"request": {"model": f"m{number}"}})

    few = rule(tmp_path / "few", rest.format(3))
    assert happens(few, *((n, use(n % 2)) for n in range(10)), (20, use(2))) == [("firing", 3)]
    many = rule(tmp_path / "many", rest.format(500))
    ((_, observed),) = happens(many, *((n / 100, use(n)) for n in range(560)))
    assert 500 <= observed < 560


def test_a_share_needs_enough_to_be_one(tmp_path: Path) -> None:
    """Two failures of two are not told, six of ten are."""
    rest = '[detect]\nkind = "ratio"\n[parameters]\nthreshold = 0.6\nminimum = 10\n'
    logic = "def hit(access, parameters):\n    return access.outcome == 'failure'\n"
    share = rule(tmp_path, rest, logic)
    bad, good = by(event={"outcome": "failure"}), by(event={"outcome": "success"})
    assert happens(share, (0, bad), (1, bad)) == []
    mixed = [bad, good] * 4 + [bad, bad]
    assert happens(share, *((n, d) for n, d in enumerate(mixed))) == [("firing", 0.6)]


def test_the_first_use_is_told_once_what_is_usual_is_known(tmp_path: Path) -> None:
    """While it learns it is silent; then a new thing is told once; a caller that changes all the
    time is left alone."""
    rest = """
    [detect]
    kind = "first_seen"
    item = "source_ip"
    [parameters]
    minimum_accesses = 3
    minimum_hours = 1
    maximum_items = 4
    quiet_seconds = 60
    """
    first = rule(tmp_path, rest)
    usual = [(n * 1800.0, by(source={"ip": "192.0.2.1"})) for n in range(4)]
    new = by(source={"ip": "198.51.100.9"})
    assert happens(first, (0, new), *usual[1:]) == []
    assert [a for a, _ in happens(first, *usual, (7300, new), (7301, new))] == ["firing"]
    restless = [(n * 1800.0, by(source={"ip": f"192.0.2.{n}"})) for n in range(12)]
    assert len([a for a, _ in happens(first, *restless) if a == "firing"]) == 1


def test_silence_is_told_and_ends_with_a_word(tmp_path: Path) -> None:
    """A caller that was heard and is not is told by time alone; its next access ends it."""
    rest = '[detect]\nkind = "silence"\n[parameters]\nthreshold = 100\n'
    silence = rule(tmp_path, rest)
    spoken = ((0, by()), (50, by()))
    assert happens(silence, *spoken, (440, None)) == []  # 150 s, and the allowed lateness
    assert happens(silence, *spoken, (460, None)) == [("firing", 100)]
    ended = happens(silence, *spoken, (460, None), (470, by()))
    assert ended == [("firing", 100), ("resolved", 100)]
    assert happens(silence, (0, by()), (900, None)) == []  # heard once is no habit


def test_hours_are_learned_apart(tmp_path: Path) -> None:
    """A rate that is usual at nine is held against all hours until the hour is known, then it is
    quiet; at three in the night the same rate fires."""
    rest = """
    [detect]
    kind = "baseline"
    [parameters]
    bucket_seconds = 1800
    season = "day"
    floor = 3.0
    minimum_buckets = 4
    half_life_buckets = 1000
    """
    hourly = rule(tmp_path, rest)
    day, burst = 86_400.0, [i * 60.0 for i in range(24)]
    mornings = [(d * day + second, by()) for d in range(4) for second in (*burst, *_later(burst))]
    night = [(3 * day + 18 * 3600 + second, by()) for second in burst]
    by_day = [happens(hourly, *mornings[: 48 * days]) for days in (1, 2, 3, 4)]
    assert [_fired(found) for found in by_day] == [0, 1, 1, 1]
    assert _fired(happens(hourly, *mornings, *night)) == 2


def _fired(found: list[tuple[str, float]]) -> int:
    return [action for action, _ in found].count("firing")


def _later(seconds: list[float]) -> list[float]:
    return [second + 1800 for second in seconds]


@pytest.mark.parametrize(
    ("detect", "told"),
    [
        ('kind = "distinct"\nwindow = "sliding"\nitem = "model"', "sliding"),
        ('kind = "ratio"', "hit"),
        ('kind = "count"\nwhere = { colour = "red" }', "colour"),
        ('kind = "count"\nwhere = { status = { above = 3 } }', "above"),
        ('kind = "count"\nsays = "{whom}"', "whom"),
        ('kind = "sum"', "sum"),
        ('kind = "custom"', "build"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(detect: str, told: str, tmp_path: Path) -> None:
    """What cannot work is told when the rule is loaded, not when the first access comes."""
    rest = f"[detect]\n{detect}\n[parameters]\nthreshold = 1\n"
    if "ratio" in detect:
        rest += "minimum = 1\n"
    with pytest.raises(Fatal, match=told):
        rule(tmp_path, rest)
