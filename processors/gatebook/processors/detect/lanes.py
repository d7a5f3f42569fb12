"""One detector at work: its slot of a key, its incidents, its findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.base import BaseDetector, Detector, Over, Signal, Step
from gatebook.processors.detect.findings import (
    RANKS,
    Finding,
    build_firing,
    build_resolved,
    incident_id,
    severity_of,
)
from gatebook.processors.detect.limits import Counts, Limits
from gatebook.processors.detect.scopes import SCOPES, About
from gatebook.processors.detect.state import Incident, Slot, Track, slot_decoder


class Lane:
    """A rule with its detector for everybody and those of tenants with parameters of their own;
    None where it is switched off."""

    def __init__(
        self, detector: Detector, limits: Limits, counts: Counts, gathers: bool = False
    ) -> None:
        self.rule = detector.rule
        self.gathers = gathers
        self.name = f"{detector.rule.id}|{detector.rule.version}"
        self.tenants = detector.tenants
        self.default: Detector | None = detector if detector.enabled else None
        self.about = SCOPES[detector.rule.detect.scope].about
        self._state_type = detector.state_type
        self._decoder = slot_decoder(detector.state_type)
        self._timed = getattr(type(detector), "deadline", None) is not BaseDetector.deadline
        self._max_groups = limits.max_groups_per_key
        self._counts = counts

    def detector_for(self, tenant: str) -> Detector | None:
        """The detector that holds for a tenant."""
        return self.tenants.get(tenant, self.default)

    def slot(self, track: Track) -> Slot[Any]:
        """This rule's part of a key, opened or new."""
        slot = track.slots.get(self.name)
        if slot is None:
            slot = track.slots[self.name] = self._open(track.packed.get(self.name))
        return slot

    def _open(self, packed: bytes | None) -> Slot[Any]:
        if packed is None:
            return Slot()
        try:
            return self._decoder.decode(packed)
        except (msgspec.MsgspecError, ValueError):
            self._counts.state_unreadable += 1
            return Slot()

    def apply(
        self, track: Track, key: str, detector: Detector, access: Access, horizon_ns: int
    ) -> Sequence[Finding]:
        """Take one access in. Returns at once where nothing is to be told: it nearly never is."""
        name = self.name
        slot = track.slots.get(name) or self.slot(track)
        group, groups = detector.group(access), slot.groups
        state = groups.get(group) if len(groups) == 1 else None
        step = detector.apply(state or self._state(slot, group), access, horizon_ns)
        track.dirty.add(name)
        findings: Sequence[Finding] = ()
        if step is not None:
            findings = [*self._tell(key, slot, group, detector, step, access.timestamp_ns, access)]
        if self._timed or slot.incidents or name in track.deadlines:
            self._set_deadline(track, slot, detector)
        return findings

    def _state(self, slot: Slot[Any], group: str) -> Any:
        groups = slot.groups
        state = groups.get(group)
        if state is None:
            state = groups[group] = self._state_type()
            if len(groups) > self._max_groups:
                del groups[next(iter(groups))]
                self._counts.groups_evicted += 1
        elif len(groups) > 1:  # the one not seen for longest stands first
            groups[group] = groups.pop(group)
        return state

    def expire(self, track: Track, key: str, now_ns: int) -> Iterator[Finding]:
        """Event time is `now_ns`: what was to happen by then happens."""
        slot = self.slot(track)
        track.dirty.add(self.name)
        detector = self.detector_for(track.about.tenant) or self.default
        if detector is None:
            track.deadlines.pop(self.name, None)
            return
        for group, state in list(slot.groups.items()):
            due_ns = detector.deadline(state)
            if 0 < due_ns <= now_ns:
                step = detector.expire(state, due_ns)
                if step is not None:
                    yield from self._tell(key, slot, group, detector, step, due_ns, track.about)
        for group, incident in list(slot.incidents.items()):
            if incident.last_ns + detector.quiet_ns <= now_ns:
                yield self._resolve(slot, group, detector, incident.last_ns + detector.quiet_ns)
        self._set_deadline(track, slot, detector)

    def _set_deadline(self, track: Track, slot: Slot[Any], detector: Detector) -> None:
        due = [incident.last_ns + detector.quiet_ns for incident in slot.incidents.values()]
        if self._timed:
            due += filter(None, map(detector.deadline, slot.groups.values()))
        if due:
            track.deadlines[self.name] = min(due)
        else:
            track.deadlines.pop(self.name, None)

    def _tell(
        self,
        key: str,
        slot: Slot[Any],
        group: str,
        detector: Detector,
        step: Step,
        at_ns: int,
        source: Access | About,
    ) -> Iterator[Finding]:
        """What a step means for the incidents."""
        if isinstance(step, Over):
            name = group if step.group is None else step.group
            if name in slot.incidents:
                yield self._resolve(slot, name, detector, step.at_ns)
        elif isinstance(step, Signal):
            name = group if step.group is None else step.group
            incident = slot.incidents.get(name)
            if incident is not None and self._is_over(incident, detector, at_ns):
                yield self._resolve(slot, name, detector, incident.last_ns + detector.quiet_ns)
                incident = None
            if incident is None:
                yield from self._fire(key, slot, name, step, at_ns, source)
            else:
                closed_ns = slot.closed.get(name, -1)
                yield from self._go_on(key, incident, name, step, at_ns, source, closed_ns)

    def _is_over(self, incident: Incident, detector: Detector, at_ns: int) -> bool:
        """Whether a signal is beyond the incident's quiet time. Where one partition is read ahead
        of another, only time can tell: what lies between may still come."""
        return not self.gathers and at_ns > incident.last_ns + detector.quiet_ns

    def _fire(
        self,
        key: str,
        slot: Slot[Any],
        group: str,
        signal: Signal,
        at_ns: int,
        source: Access | About,
    ) -> Iterator[Finding]:
        closed_ns = slot.closed.get(group, -1)
        if at_ns <= closed_ns or len(slot.incidents) >= self._max_groups:
            self._counts.suppressed += 1
            return
        # A window in which an incident ended may make another one true: that is a new incident.
        began_ns = signal.start_ns if signal.start_ns > closed_ns else at_ns
        incident = incident_id(self.rule, key, group, began_ns)
        about = self._about(source)
        finding = build_firing(self.rule, key, group, about, signal, at_ns, incident)
        slot.incidents[group] = Incident(
            incident,
            began_ns,
            at_ns,
            signal.observed,
            finding["gatebook"]["severity"],
            1,
            finding,
        )
        yield finding

    def _about(self, source: Access | About) -> About:
        return source if isinstance(source, About) else self.about(source)

    def _go_on(
        self,
        key: str,
        incident: Incident,
        group: str,
        signal: Signal,
        at_ns: int,
        source: Access | About,
        closed_ns: int,
    ) -> Iterator[Finding]:
        """An incident that is under way; it is told again only where it became graver."""
        if signal.start_ns > closed_ns:  # else that part of the window is another incident's
            incident.began_ns = min(incident.began_ns, signal.start_ns)
        incident.last_ns = max(incident.last_ns, at_ns)
        incident.occurrences += 1
        incident.observed = max(incident.observed, signal.observed)
        if not self.rule.escalate and not signal.severity:
            return
        severity = severity_of(self.rule, signal)
        if RANKS.index(severity) > RANKS.index(incident.severity):
            about = self._about(source)
            graver = build_firing(self.rule, key, group, about, signal, at_ns, incident.id)
            graver["event"]["start"] = incident.finding["event"]["start"]
            graver["gatebook"]["occurrences"] = incident.occurrences
            incident.severity, incident.finding = severity, graver
            yield graver

    def _resolve(self, slot: Slot[Any], group: str, detector: Detector, at_ns: int) -> Finding:
        incident = slot.incidents.pop(group)
        suppress_ns = detector.parameters.suppress_seconds * 1_000_000_000
        slot.closed.pop(group, None)
        slot.closed[group] = at_ns + suppress_ns
        if len(slot.closed) > self._max_groups:
            del slot.closed[next(iter(slot.closed))]
        return build_resolved(incident, at_ns)

    def give_up(self, track: Track) -> Iterator[Finding]:
        """The key is about to be forgotten: what is open ends here, or it would never end."""
        if self.name not in track.deadlines:
            return
        for incident in self.slot(track).incidents.values():
            told = f"Not followed any longer: {incident.finding['event']['reason']}"
            yield build_resolved(incident, incident.last_ns, told)
