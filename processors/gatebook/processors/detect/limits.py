"""Bounds of the engine and what it counts."""

from __future__ import annotations

from typing import Annotated

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds on time and memory, for all detectors alike: table [limits] of the detectors file."""

    allowed_lateness_seconds: NotNegative = 300
    """How far behind its key's newest event an event may be and still count; so long after its
    end a window closes."""
    idle_wait_seconds: NotNegative = 900
    """Windows over accesses of several partitions stay open until all of those are past; for one
    in which nothing happens, so long at most."""
    max_clock_ahead_seconds: NotNegative = 120
    """How far ahead of intake's clock an event time may be; beyond it counts as intake's time."""
    max_keys_per_scope: Positive = 20_000
    """Keys a scope (principals, keys, addresses, ...) remembers in one partition; the least
    recently seen goes first, with all its detectors' states, and starts afresh when it comes
    back."""
    max_groups_per_key: Positive = 64
    """States a detector keeps for one key, and incidents it has open there."""
    remembered_ids_per_key: Positive = 512
    """Event ids a key keeps at least, to count a repeated event once."""
    forget_after_hours: Positive = 35 * 24
    """A key that was not seen for so long is forgotten."""


class Counts(msgspec.Struct):
    """What the engine did since it was made; for metrics, not part of its state."""

    documents: int = 0
    """Documents given, replayed ones included."""
    replayed: int = 0
    """Documents passed over because the state already holds them."""
    unreadable: int = 0
    """Documents without id or time, or not shaped like an access."""
    intents: int = 0
    """Records written before a call; not counted, their terminal event is."""
    no_principal: int = 0
    """Accesses with neither principal, user, key nor address."""
    clamped: int = 0
    """Accesses whose clock ran too far ahead; counted at intake's time."""
    late: int = 0
    """Accesses a key ignored because they came after their window was closed."""
    duplicate: int = 0
    """Accesses a key ignored because their id was counted before."""
    evicted: int = 0
    """Keys forgotten because there were too many."""
    expired: int = 0
    """Keys forgotten because they were not seen for long."""
    groups_evicted: int = 0
    """States of keys forgotten because a key had too many groups."""
    suppressed: int = 0
    """Signals swallowed: after an incident ended, or because a key had too many open."""
    failed: int = 0
    """Accesses, and ends of windows, at which a rule raised an error; the others looked at them."""
    state_unreadable: int = 0
    """Stored entries that could not be read; their keys started afresh."""
    state_foreign: int = 0
    """Stored entries of scopes or detectors that are not switched on; left alone."""
    state_discarded: int = 0
    """Stored entries of a topic that was deleted and made anew since."""
    findings: int = 0
    """Findings made: firing, graver and resolved ones."""
