"""silence: a key that was heard regularly and is not heard any more."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gatebook.processors.detect.access import NANOSECONDS, Access
from gatebook.processors.detect.base import Common, Over, Rule, Signal, Step
from gatebook.processors.detect.kinds.simple import Logic, SimpleDetector

GIVEN_UP_SECONDS = 86_400


class SilenceParameters(Common, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change. quiet_seconds is how long the silence
    is told before it is given up (default: a day)."""

    threshold: Annotated[int, msgspec.Meta(ge=1)]
    """Silent for so many seconds."""
    minimum: Annotated[int, msgspec.Meta(ge=1)] = 2
    """How often it must have been heard before."""


class SilenceState(msgspec.Struct, array_like=True):
    """When it was last heard (0: nothing is expected), its id, how often it was heard."""

    last_ns: int = 0
    last_id: str = ""
    heard: int = 0
    told: bool = False


class Silence(SimpleDetector):
    """True when `threshold` seconds passed; over when the key is heard again. logic.py may say
    with `hit` that an access is a farewell: nothing is expected after it."""

    state_type = SilenceState
    parameters_type = SilenceParameters

    def __init__(self, rule: Rule, parameters: SilenceParameters, logic: Logic) -> None:
        super().__init__(rule, parameters, logic)
        self._farewell = logic.get("hit")
        self._limit_ns = parameters.threshold * NANOSECONDS
        self.quiet_ns = self.quiet_ns or GIVEN_UP_SECONDS * NANOSECONDS

    def apply(self, state: SilenceState, access: Access, horizon_ns: int) -> Step:
        """It was heard."""
        was_silent, state.told = state.told, False
        state.heard += 1
        if access.timestamp_ns >= state.last_ns:
            leaves = self._farewell is not None and self._farewell(access, self.parameters)
            state.last_ns = 0 if leaves else access.timestamp_ns
            state.last_id = access.event_id
        return Over(access.timestamp_ns) if was_silent else None

    def deadline(self, state: SilenceState) -> int:
        """When the silence becomes too long."""
        if not state.last_ns or state.told or state.heard < self.parameters.minimum:
            return 0
        return state.last_ns + self._limit_ns

    def expire(self, state: SilenceState, now_ns: int) -> Signal | None:
        """It was not heard."""
        state.told = True
        return Signal(
            start_ns=state.last_ns,
            end_ns=state.last_ns + self._limit_ns,
            observed=self.parameters.threshold,
            threshold=self.parameters.threshold,
            evidence=(state.last_id,) if self.rule.clock == "event" else (),
            evidence_count=1,
        )
