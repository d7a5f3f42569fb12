"""Secrets that redaction found in prompts and answers, by principal, kinds and hour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from gatebook.processors.detect.access import NANOSECONDS, Access
from gatebook.processors.detect.base import MAX_EVIDENCE, BaseDetector, Common, Rule, Signal
from gatebook.processors.detect.findings import printable, quoted
from gatebook.processors.detect.own import has_no_content


class Parameters(Common, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What rule.toml sets and an overrides file may change."""

    kinds: Annotated[frozenset[str], msgspec.Meta(min_length=1, max_length=32)]
    """Kinds of redaction entities that are secrets."""
    window_seconds: Annotated[int, msgspec.Meta(ge=60, le=86_400)]
    """Length of the tumbling window in which the same kinds are one incident."""


class Window(msgspec.Struct, array_like=True):
    """Secrets of one window: how many by kind, the latest accesses with one as (event id, kinds),
    and how many accesses each combination of kinds had."""

    counts: dict[str, int] = {}
    latest: list[tuple[str, list[str]]] = []
    groups: dict[str, int] = {}


class State(msgspec.Struct, array_like=True):
    """Open windows by number since 1970."""

    windows: dict[int, Window] = {}


class SecretInContent(BaseDetector):
    """An incident for each combination of kinds."""

    state_type = State

    def __init__(self, rule: Rule, parameters: Parameters) -> None:
        super().__init__(rule, parameters)
        self._window_ns = parameters.window_seconds * NANOSECONDS
        self.quiet_ns = self.quiet_ns or self._window_ns

    def _found(self, access: Access) -> dict[str, int]:
        wanted = self.parameters.kinds
        return {k: n for k, n in sorted(access.redacted.items()) if k in wanted and n > 0}

    def matches(self, access: Access) -> bool:
        """Accesses with a secret in them."""
        return bool(access.redacted and not has_no_content(access) and self._found(access))

    def apply(self, state: State, access: Access, horizon_ns: int) -> Signal:
        """Count the secrets of one access."""
        for number in [n for n in state.windows if n < horizon_ns // self._window_ns]:
            del state.windows[number]
        number = access.timestamp_ns // self._window_ns
        window = state.windows.setdefault(number, Window())
        found = self._found(access)
        self._count(window, access, found)
        group = ",".join(found)
        window.groups[group] = window.groups.get(group, 0) + 1
        return self._signal(window, number, access, list(found))

    def _count(self, window: Window, access: Access, found: Mapping[str, int]) -> None:
        for kind, number in found.items():
            window.counts[kind] = window.counts.get(kind, 0) + number
        window.latest.append((access.event_id, list(found)))
        del window.latest[:-MAX_EVIDENCE]

    def _signal(self, window: Window, number: int, access: Access, kinds: list[str]) -> Signal:
        counts = {kind: window.counts[kind] for kind in kinds}
        evidence = tuple(i for i, have in window.latest if not set(kinds).isdisjoint(have))
        shared = [n for g, n in window.groups.items() if not set(kinds).isdisjoint(g.split(","))]
        told = ", ".join(f"{kind} ({count})" for kind, count in counts.items())
        any_kind = " or ".join(map(quoted, kinds))
        return Signal(
            start_ns=number * self._window_ns,
            end_ns=access.timestamp_ns,
            reason=f"{printable(access.principal)}: secrets in prompt or answer: {told}",
            observed=sum(counts.values()),
            threshold=0,
            evidence=evidence,
            evidence_count=sum(shared),
            window_seconds=self.parameters.window_seconds,
            search=f"gatebook.redaction.entities:({any_kind})",
            group=",".join(kinds),
            labels={"kinds": ",".join(kinds)} | {f"count_{k}": str(n) for k, n in counts.items()},
        )


def build(rule: Rule, parameters: Any) -> SecretInContent:
    """The detector."""
    return SecretInContent(rule, parameters)
