"""One figure over time: when it alarms, when it rests, and that its state can be stored."""

from __future__ import annotations

import random
from math import pi, sin

import msgspec

from gatebook.processors.detect.univariate import ALARM, Univariate, UnivariateParameters

STEP = 300
DAY = 86_400 // STEP


def waves(points: int) -> list[float]:
    """A daily wave with noise."""
    draw = random.Random(3)
    return [50 + 20 * sin(2 * pi * n / DAY) + draw.gauss(0, 1) for n in range(points)]


def alarms(values: list[float], parameters: UnivariateParameters) -> list[int]:
    """Where it alarms, with a state that is stored and read before each figure."""
    state, found = Univariate(), []
    for number, value in enumerate(values):
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=Univariate)
        if state.score(number * STEP, value, parameters) >= ALARM:
            found.append(number)
    return found


def test_quiet_on_habits_and_one_alarm_where_they_break() -> None:
    """After days of waves, a noon in the middle of the night is one alarm, at once."""
    values = waves(8 * DAY)
    night = 7 * DAY + 3 * DAY // 4
    for number in range(night, night + 20):
        values[number] = 55.0
    found = [n for n in alarms(values, UnivariateParameters(rest_points=100)) if n > 3 * DAY]
    assert len(found) == 1
    assert night <= found[0] < night + 6


def test_what_goes_on_is_not_told_again_while_it_rests() -> None:
    """A level that stays is one alarm; without a rest it would be many."""
    values = [10.0 + n % 3 for n in range(500)] + [40.0 + n % 3 for n in range(60)]
    rested = alarms(values, UnivariateParameters(rest_points=100))
    tireless = alarms(values, UnivariateParameters(rest_points=0))
    assert [n for n in rested if n >= 500] == [500]
    assert len([n for n in tireless if n >= 500]) > 1


def test_a_series_that_never_changed_alarms_when_it_does() -> None:
    """No deviation is no reason to divide by nought, nor to be silent."""
    values = [5.0] * 300 + [5.5]
    assert alarms(values, UnivariateParameters()) == [300]


def test_a_state_is_small() -> None:
    """It is kept for each key: below two kilobytes after any number of figures."""
    state, parameters = Univariate(), UnivariateParameters()
    for number, value in enumerate(waves(1000)):
        state.score(number * STEP, value, parameters)
    assert len(msgspec.msgpack.encode(state)) < 2048
