"""The desk of one partition of the finding topic: findings in, steps for targets out, state beside.

Pure: no clock, no I/O; time is given. Whoever drives it keeps this order:

1. `take` the messages of a batch, or `tick` as time goes by;
2. deliver what `drain_state` gave, in its order, until it is acknowledged;
3. commit the messages' offsets; hand the jobs of `due` to their targets, and tell `settle` how
   each ended;
4. deliver the records that `settle` gave, then the state again.

If we die between 1 and 2, the messages are read again. If we die amid 2, entries that arrived are
ahead of the committed offset: each remembers the last offset that counted in it. If we die
between 3 and 4, the step is sent again under the same dedup key, and its record has the same id.
A new desk is made and loaded whenever the partition is assigned.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from gatebook.processors.alerts.alertmanager import PREVIOUS_SEVERITY
from gatebook.processors.alerts.base import (
    ACKNOWLEDGED,
    CLOSED,
    FIRING,
    RESOLVED,
    AlertTarget,
    Delivery,
)
from gatebook.processors.alerts.incidents import (
    DIGEST,
    GROUP,
    HOLD,
    NONE,
    PAGE,
    SUPPRESSED,
    VERDICT,
    Budget,
    Digest,
    Incident,
    Owed,
    Verdict,
    entry_key,
    pack,
    unpack,
)
from gatebook.processors.alerts.notices import (
    DEMOTED,
    digest_counts,
    digest_finding,
    group_finding,
    item_of,
    most_severe,
    notice_id,
)
from gatebook.processors.alerts.plan import Plan
from gatebook.processors.alerts.records import alert_record
from gatebook.processors.alerts.severity import rank, severity_of
from gatebook.schemas.codec import Record

NANOSECONDS = 1_000_000_000
LONGEST_PAUSE_SECONDS = 300.0
QUIET_DIGEST_FACTOR = 24
ORPHAN_NS = 60 * NANOSECONDS
CHECKPOINT_KEY = b"~checkpoint"
VERDICTS_THAT_QUIET = ("false_positive", "benign")
StateEntry = tuple[bytes, bytes | None]


class Job(msgspec.Struct, frozen=True):
    """One step of one problem for one target."""

    key: str
    target: str
    step: str
    finding: dict[str, Any]
    revision: int
    repeated: bool
    """Whether the target knows this step: it is told again, so that it does not forget, or with
    other figures."""


class Counts(msgspec.Struct):
    """What the desk did since it was made; for metrics, not part of its state."""

    findings: int = 0
    replayed: int = 0
    paged: int = 0
    joined: int = 0
    expired: int = 0
    state_unreadable: int = 0
    quiet: dict[str, int] = {}
    """Findings that were not paged, by reason."""


def _ns(seconds: float) -> int:
    return round(seconds * NANOSECONDS)


class Desk:
    """Noise control and delivery state of one partition. Not for use from several threads."""

    def __init__(self, plan: Plan, partition: int = 0, partitions: int = 1) -> None:
        self.plan = plan
        self.counts = Counts()
        self.incidents: dict[str, Incident] = {}
        self.verdicts: dict[str, Verdict] = {}
        self._noise = plan.noise
        self._partition = partition
        self._partitions = partitions
        self._budgets: dict[str, Budget] = {}
        self._digests: dict[str, Digest] = {}
        self._members: dict[str, dict[str, None]] = {}
        self._alone: dict[str, set[str]] = {}
        self._busy: set[tuple[str, str]] = set()
        self._failing: dict[str, set[str]] = {}
        self._began_ns: int | None = None
        self._dirty: dict[tuple[bytes, str], None] = {}
        self._gone: dict[bytes, None] = {}
        self._heap: list[tuple[int, bytes, str]] = []
        self._at: dict[tuple[bytes, str], int] = {}
        self._checkpoint = -1
        self._last_offset = -1

    # --- state -----------------------------------------------------------------------------------

    def load(self, entries: Iterable[StateEntry], end_offset: int | None = None) -> None:
        """Take over the state of this partition, in topic order. Call it once, first.

        `end_offset` is the end of the partition's log: offsets that are ahead of it belong to a
        topic that was deleted since. Problems are kept then, since somebody was told of them.
        """
        latest = {key: value for key, value in entries if key is not None}
        checkpoint = latest.pop(CHECKPOINT_KEY, None)
        self._checkpoint = int(checkpoint) if checkpoint and checkpoint.isdigit() else -1
        for full_key, value in latest.items():
            if value is not None:
                self._load_one(full_key, value)
        if end_offset is not None and self._checkpoint >= end_offset:
            self._forget_offsets()
        for key in self.incidents:
            self._index(key)
            self._schedule(key)
        for team, digest in self._digests.items():
            if digest.counts:
                self._push(b"digest", team, self._digest_due_ns(digest))
        for key, verdict in self.verdicts.items():
            self._push(b"verdict", key, verdict.until_ns)

    def _load_one(self, full_key: bytes, value: bytes) -> None:
        try:
            found = unpack(full_key, value)
        except msgspec.MsgspecError:
            self.counts.state_unreadable += 1
            return
        if found is None:
            return
        kind, key, entry = found
        self._store(kind)[key] = entry
        if isinstance(entry, Incident):
            known = self.plan.targets
            entry.owed = {name: owed for name, owed in entry.owed.items() if name in known}
            for name, owed in entry.owed.items():
                if owed.failed:
                    self._failing.setdefault(name, set()).add(key)

    def _store(self, kind: bytes) -> dict[str, Any]:
        stores: dict[bytes, dict[str, Any]] = {
            b"incident": self.incidents,
            b"budget": self._budgets,
            b"digest": self._digests,
            b"verdict": self.verdicts,
        }
        return stores[kind]

    def _forget_offsets(self) -> None:
        self._checkpoint = -1
        for kind in (b"budget", b"digest", b"verdict", b"incident"):
            for key, entry in self._store(kind).items():
                entry.position = -1
                self._dirty[kind, key] = None

    def drain_state(self) -> list[StateEntry]:
        """Entries that changed since the last call, a checkpoint, then tombstones (None).

        Deliver them in this order: what several problems share comes first, so that a problem
        that arrived has been counted everywhere.
        """
        if not self._dirty and not self._gone:
            return []
        drained = [
            (entry_key(kind, key), pack(entry))
            for wanted in (b"budget", b"digest", b"verdict", b"incident")
            for kind, key in self._dirty
            if kind == wanted and (entry := self._store(kind).get(key)) is not None
        ]
        fresh = {key for key, _ in drained}
        gone: list[StateEntry] = [(key, None) for key in self._gone if key not in fresh]
        self._dirty, self._gone = {}, {}
        checkpoint = str(max(self._last_offset, self._checkpoint)).encode()
        return [*drained, (CHECKPOINT_KEY, checkpoint), *gone]

    @property
    def has_changes(self) -> bool:
        """Whether `drain_state` has anything to give."""
        return bool(self._dirty or self._gone)

    # --- findings --------------------------------------------------------------------------------

    def take(self, offset: int, finding: Record, now_ns: int) -> None:
        """Take in the finding, or the person's word on one, of the message at `offset`."""
        self.counts.findings += 1
        finding = _with_key(finding)
        key = finding["gatebook"]["dedup_key"]
        known = self.incidents.get(key)
        if offset <= self._checkpoint or (known is not None and offset <= known.position):
            self.counts.replayed += 1
            return
        self._last_offset = max(self._last_offset, offset)
        action = finding["event"]["action"]
        if action == CLOSED:
            self._close(offset, key, finding, now_ns)
        elif action == ACKNOWLEDGED:
            self._acknowledge(key)
        elif action == RESOLVED:
            self._end(key, finding, now_ns)
        else:
            self._fire(offset, key, finding, now_ns)
        if (incident := self.incidents.get(key)) is not None:
            incident.position = offset
            self._changed(key)

    def _fire(self, offset: int, key: str, finding: Record, now_ns: int) -> None:
        incident = self.incidents.get(key)
        if incident is None:
            self._begin(offset, key, finding, now_ns)
        elif incident.is_over:
            self._come_back(offset, key, incident, finding, now_ns)
        else:
            self._go_on(offset, key, incident, finding, now_ns)

    def _begin(self, offset: int, key: str, finding: Record, now_ns: int) -> None:
        team = self.plan.team_of(finding)
        severity = severity_of(finding, 1, self._noise)
        if len(self.incidents) >= self._noise.max_incidents:
            self._demote(offset, team, finding, severity, "overflow", now_ns)
            return
        self.incidents[key] = incident = Incident(
            finding=finding, team=team, severity=severity, first_ns=now_ns, last_ns=now_ns
        )
        self._open(incident, finding)
        self._decide(offset, key, incident, now_ns)

    def _open(self, incident: Incident, finding: Record) -> None:
        """A new start: the id pairs it with its end."""
        ours = finding["gatebook"].get("incident")
        incident.paired = bool(ours)
        incident.incident = ours or notice_id("incident", finding["event"]["id"])

    def _come_back(
        self, offset: int, key: str, incident: Incident, finding: Record, now_ns: int
    ) -> None:
        """It was over. A target that was not told so yet, or perhaps was, is told of the start
        anew under the same dedup key: where it is still open, that calls nobody."""
        before = incident.severity
        ended_ns, incident.ended_ns = incident.ended_ns, 0
        incident.state, incident.finding, incident.last_ns = FIRING, finding, now_ns
        incident.first_ns, incident.occurrences, incident.ending = now_ns, 1, None
        incident.severity = severity_of(finding, 1, self._noise)
        self._open(incident, finding)
        if self._kept_quiet(key, finding, now_ns):
            self._set_quiet(offset, incident, now_ns)
            return
        if incident.way == PAGE and not all(o.has == RESOLVED for o in incident.owed.values()):
            for owed in incident.owed.values():
                owed.has = ""
            return
        settled_ns = ended_ns + _ns(self._noise.settle_seconds)
        soon = now_ns < settled_ns and rank(incident.severity) <= rank(before)
        if soon and incident.way in (PAGE, GROUP, HOLD):
            self._wait(offset, incident, HOLD, settled_ns, now_ns)
            return
        self._decide(offset, key, incident, now_ns)

    def _go_on(
        self, offset: int, key: str, incident: Incident, finding: Record, now_ns: int
    ) -> None:
        """It lasts: new figures under the id of the first finding; a higher severity is told."""
        incident.occurrences += 1
        incident.last_ns = now_ns
        if ours := finding["gatebook"].get("incident"):
            incident.paired, incident.incident = True, ours
        first_id = incident.finding["event"]["id"]
        before, after = incident.severity, severity_of(finding, incident.occurrences, self._noise)
        labels = incident.finding.get("labels") or {}
        kept = {n: v for n, v in labels.items() if n == PREVIOUS_SEVERITY}
        incident.finding = {**finding, "labels": {**(finding.get("labels") or {}), **kept}}
        if rank(after) > rank(before):
            self._raise(offset, key, incident, after, now_ns)
            return
        incident.finding["event"] = {**finding["event"], "id": first_id}
        if incident.way == VERDICT and not self._kept_quiet(key, finding, now_ns):
            self._decide(offset, key, incident, now_ns)

    def _raise(self, offset: int, key: str, incident: Incident, severity: str, now_ns: int) -> None:
        """It got worse: whoever was told is told so, and what was not told is decided anew."""
        before, incident.severity = incident.severity, severity
        incident.revision += 1
        incident.loud = incident.revision
        if incident.way == PAGE:
            incident.finding["labels"][PREVIOUS_SEVERITY] = before
        elif incident.way == GROUP:
            head = self.incidents[incident.group]
            if rank(severity) > rank(head.severity):
                self._tell_group(incident.group, head, now_ns, loud=True)
        elif incident.way in (DIGEST, HOLD, VERDICT):
            self._decide(offset, key, incident, now_ns)

    def _end(self, key: str, finding: Record, now_ns: int) -> None:
        incident = self.incidents.get(key)
        ours = finding["gatebook"].get("incident")
        if incident is None or incident.is_over:
            return
        if ours and incident.paired and ours != incident.incident:
            return  # the end of another start
        incident.ending = finding
        self._finish(key, incident, now_ns)

    def _finish(self, key: str, incident: Incident, now_ns: int) -> None:
        incident.state, incident.ended_ns, incident.wait_until_ns = RESOLVED, now_ns, 0
        self._index(key)
        self._changed(key)
        if incident.group and incident.way == GROUP:
            self._left_group(incident.group, now_ns)

    def _acknowledge(self, key: str) -> None:
        incident = self.incidents.get(key)
        if incident is None or incident.is_over:
            return
        incident.state = ACKNOWLEDGED

    def _close(self, offset: int, key: str, finding: Record, now_ns: int) -> None:
        """A person's verdict: it ends the problem, and may keep it quiet when it comes back."""
        verdict = finding["gatebook"].get("verdict") or ""
        lasts = {
            "false_positive": self._noise.false_positive_seconds,
            "benign": self._noise.benign_seconds,
        }.get(verdict, 0.0)
        if lasts:
            until_ns = finding["timestamp"] + _ns(lasts)
            observed = finding["gatebook"].get("observed")
            self.verdicts[key] = Verdict(verdict, until_ns, observed, position=offset)
            self._dirty[b"verdict", key] = None
            self._push(b"verdict", key, until_ns)
        elif self.verdicts.pop(key, None) is not None:
            self._gone[entry_key(b"verdict", key)] = None
        incident = self.incidents.get(key)
        if incident is not None and not incident.is_over:
            self._finish(key, incident, now_ns)

    # --- noise control ---------------------------------------------------------------------------

    def _decide(self, offset: int, key: str, incident: Incident, now_ns: int) -> None:
        """Which way a problem that begins goes."""
        finding = incident.finding
        if self._kept_quiet(key, finding, now_ns):
            self._set_quiet(offset, incident, now_ns)
            return
        until_ns = self.plan.suppressed_until_ns(finding, incident.team, now_ns)
        if until_ns:
            self._wait(offset, incident, SUPPRESSED, until_ns, now_ns)
            return
        self._page(offset, key, incident, now_ns)

    def _kept_quiet(self, key: str, finding: Record, now_ns: int) -> bool:
        verdict = self.verdicts.get(key)
        if verdict is None or now_ns >= verdict.until_ns:
            return False
        observed = finding["gatebook"].get("observed")
        if verdict.observed is not None and observed is not None:
            raised = verdict.observed * self._noise.escape_factor
            if observed > raised >= 0:
                return False
        verdict.kept_quiet += 1
        self._dirty[b"verdict", key] = None
        return True

    def _set_quiet(self, offset: int, incident: Incident, now_ns: int) -> None:
        self._quiet(offset, incident, VERDICT, now_ns)
        incident.way, incident.wait_until_ns = VERDICT, 0

    def _wait(self, offset: int, incident: Incident, way: str, until_ns: int, now_ns: int) -> None:
        self._quiet(offset, incident, way, now_ns)
        incident.way, incident.wait_until_ns = way, until_ns

    def _quiet(self, offset: int, incident: Incident, why: str, now_ns: int) -> None:
        self._demote(offset, incident.team, incident.finding, incident.severity, why, now_ns)

    def _demote(
        self, offset: int, team: str, finding: Record, severity: str, why: str, now_ns: int
    ) -> None:
        """Count a finding in its team's digest, once."""
        self.counts.quiet = {**self.counts.quiet, why: self.counts.quiet.get(why, 0) + 1}
        digest = self._digests.setdefault(team, Digest(since_ns=now_ns))
        if 0 <= offset <= digest.position:
            return
        digest.position = max(digest.position, offset)
        digest.since_ns = digest.since_ns if digest.counts else now_ns
        name = f"{why}|{severity}|{finding['rule']['id']}"
        digest.counts[name] = digest.counts.get(name, 0) + 1
        if why in DEMOTED:
            items = [*digest.items, item_of(finding, severity)]
            digest.items = most_severe(items, self._noise.digest_items)
        digest.targets |= dict.fromkeys(self.plan.route(finding, team))
        self._dirty[b"digest", team] = None
        self._push(b"digest", team, self._digest_due_ns(digest))

    def _page(self, offset: int, key: str, incident: Incident, now_ns: int) -> None:
        """A page of its own, or one with its group, or the digest where the budget is spent."""
        finding, incident.wait_until_ns = incident.finding, 0
        seen = {**finding, "gatebook": {**finding["gatebook"], "severity": incident.severity}}
        targets = self.plan.route(seen, incident.team)
        if not targets:
            incident.way = NONE
            return
        if finding["timestamp"] < now_ns - _ns(self._noise.stale_seconds):
            incident.way = DIGEST
            self._quiet(offset, incident, "stale", now_ns)
            return
        incident.group = self._group_of(finding, incident.team)
        alone = self._alone.get(incident.group, set()) - {key}
        if len(alone) >= self._noise.group_size:
            self._join(offset, key, incident, targets, now_ns)
        elif self._afford(offset, key, incident, now_ns):
            self._tell(incident, targets)
        else:
            incident.way = DIGEST
            self._quiet(offset, incident, "budget", now_ns)
        self._index(key)

    def _tell(self, incident: Incident, targets: Iterable[str]) -> None:
        """Every target is told from the start, with what is owed to it kept."""
        incident.way = PAGE
        self.counts.paged += 1
        incident.owed = {name: incident.owed.get(name, Owed()) for name in targets}
        for owed in incident.owed.values():
            owed.has = ""

    def _group_of(self, finding: Record, team: str) -> str:
        """Key of the page of a group. Partitions do not know of each other: each has its own."""
        if name := finding["gatebook"].get("group"):
            return f"~group|{self._partition}|{team}|{name}"
        values = {
            "rule": finding["rule"]["id"],
            "team": team,
            "tenant": (finding.get("organization") or {}).get("id") or "",
            "service": (finding.get("service") or {}).get("name") or "",
            "severity": finding["gatebook"]["severity"],
        }
        parts = [values.get(name, "") for name in self._noise.group_by]
        return f"~group|{self._partition}|" + "|".join(parts)

    def _afford(self, offset: int, key: str, incident: Incident, now_ns: int) -> bool:
        """Take one page out of the team's budget; False where there is none left."""
        team = self.plan.team(incident.team)
        budget = self._budgets.setdefault(incident.team, Budget())
        oldest_ns = now_ns - _ns(team.budget_window_seconds)
        budget.pages = {name: at for name, at in budget.pages.items() if at > oldest_ns}
        name = f"{key}@{offset}"
        if 0 <= offset <= budget.position and name in budget.pages:
            return True  # read again after a crash: it was paid for
        share, rest = divmod(team.page_budget, self._partitions)
        share = max(1, share + (self._partition < rest))  # none must be silent for good
        if incident.severity != "critical":
            share -= int(share * team.critical_share)
        if len(budget.pages) >= share:
            return False
        budget.pages[name] = now_ns
        budget.position = max(budget.position, offset)
        self._dirty[b"budget", incident.team] = None
        return True

    def _join(
        self, offset: int, key: str, incident: Incident, targets: tuple[str, ...], now_ns: int
    ) -> None:
        """Share the page of the group, opened by the first."""
        group = incident.group
        head = self.incidents.get(group)
        if head is None or head.is_over:
            if not self._afford(offset, group, incident, now_ns):
                incident.way = DIGEST
                self._quiet(offset, incident, "budget", now_ns)
                return
            head = self._open_group(group, head, incident, targets, now_ns)
        incident.way = GROUP
        self._members.setdefault(group, {})[key] = None
        self.counts.joined += 1
        if offset < 0 or offset > head.position:
            head.members += 1
            head.position = max(head.position, offset)
        for name in targets:
            head.owed.setdefault(name, Owed())
        head.last_ns = now_ns
        if not head.told_members or rank(incident.severity) > rank(head.severity):
            self._tell_group(group, head, now_ns, loud=bool(head.told_members))
        self._changed(group)

    def _open_group(
        self,
        group: str,
        old: Incident | None,
        first: Incident,
        targets: tuple[str, ...],
        now_ns: int,
    ) -> Incident:
        head = Incident(
            finding=first.finding,
            team=first.team,
            severity=first.severity,
            incident=notice_id(group, now_ns),
            paired=True,
            kind="group",
            first_ns=now_ns,
            last_ns=now_ns,
            revision=old.revision + 1 if old else 0,
            owed=old.owed if old else {},
        )
        head.loud = head.revision
        self._tell(head, dict.fromkeys((*targets, *head.owed)))
        self.incidents[group] = head
        return head

    def _tell_group(self, group: str, head: Incident, now_ns: int, loud: bool) -> None:
        """Say what the group is now: to those who take updates, or where it got worse, to all."""
        members = [self.incidents[key] for key in self._members.get(group, {})]
        if head.told_members:
            head.revision += 1
        head.loud = head.revision if loud else head.loud
        before = head.severity
        head.finding = group_finding(group, head, members)
        head.severity = head.finding["gatebook"]["severity"]
        if head.told_members and head.severity != before:
            head.finding["labels"][PREVIOUS_SEVERITY] = before
        head.told_members, head.told_ns = max(1, head.members), now_ns
        self._changed(group)

    def _left_group(self, group: str, now_ns: int) -> None:
        head = self.incidents.get(group)
        if head is not None and not head.is_over and not self._members.get(group):
            self._finish(group, head, now_ns)

    def _index(self, key: str) -> None:
        """Keep who shares a page and who stands alone in step with an incident."""
        incident = self.incidents[key]
        group = incident.group
        if not group or incident.kind != "finding":
            return
        self._alone.get(group, set()).discard(key)
        self._members.get(group, {}).pop(key, None)
        if incident.is_over:
            return
        if incident.way == PAGE:
            self._alone.setdefault(group, set()).add(key)
        elif incident.way == GROUP:
            self._members.setdefault(group, {})[key] = None

    # --- time ------------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> list[Job]:
        """What is due. Problems that ended by silence end, what waited is decided, digests go
        out; deliver the state before the jobs returned."""
        if self._began_ns is None:
            self._began_ns = now_ns
        jobs: list[Job] = []
        while self._heap and self._heap[0][0] <= now_ns:
            at_ns, kind, key = heapq.heappop(self._heap)
            if self._at.get((kind, key)) != at_ns:
                continue
            del self._at[kind, key]
            if kind == b"digest":
                self._send_digest(key, now_ns)
            elif kind == b"verdict":
                self._end_verdict(key, now_ns)
            elif key in self.incidents:
                jobs += self._advance(key, now_ns)
        return jobs

    @property
    def next_ns(self) -> int | None:
        """When `tick` has something to do at the earliest."""
        return self._heap[0][0] if self._heap else None

    def _advance(self, key: str, now_ns: int) -> list[Job]:
        incident = self.incidents[key]
        if not incident.is_over:
            self._advance_open(key, incident, now_ns)
        if self._is_forgettable(incident) and now_ns >= self._forget_ns(incident):
            self._forget(key)
            return []
        jobs = list(self._jobs(key, incident, now_ns))
        self._schedule(key)
        return jobs

    def _advance_open(self, key: str, incident: Incident, now_ns: int) -> None:
        if incident.kind == "group":
            if self._orphan_ns(key, incident) <= now_ns:
                self._finish(key, incident, now_ns)
            elif self._group_update_ns(incident) <= now_ns:
                self._tell_group(key, incident, now_ns, loud=False)
        elif now_ns >= self._quiet_ns(incident):
            self._finish(key, incident, now_ns)
        elif incident.wait_until_ns and now_ns >= incident.wait_until_ns:
            # It still lasts. If we die before this is stored, it is decided again.
            self._decide(-1, key, incident, now_ns)
            self._changed(key)

    def _quiet_ns(self, incident: Incident) -> int:
        """When a problem of which nothing more is heard is over."""
        noise = self._noise
        lasts = noise.longest_seconds if incident.paired else noise.quiet_seconds
        return incident.last_ns + _ns(lasts)

    def _orphan_ns(self, key: str, head: Incident) -> int:
        """When a group without members is over. A worker may have died as the first joined: what
        it read is read again, and the first joins again or stands alone."""
        if self._members.get(key):
            return _NEVER_NS
        return max(head.last_ns, self._began_ns or 0) + ORPHAN_NS

    def _group_update_ns(self, head: Incident) -> int:
        if head.members <= head.told_members:
            return _NEVER_NS
        return head.told_ns + _ns(self._noise.group_update_seconds)

    def _is_forgettable(self, incident: Incident) -> bool:
        told = (o for o in incident.owed.values() if o.has not in ("", RESOLVED))
        if incident.way == PAGE:
            return incident.is_settled
        return incident.is_over and not any(told)

    def _forget_ns(self, incident: Incident) -> int:
        return incident.ended_ns + _ns(self._noise.settle_seconds)

    def _forget(self, key: str) -> None:
        incident = self.incidents.pop(key)
        if incident.group and not self._members.get(incident.group):
            self._members.pop(incident.group, None)
        if incident.group and not self._alone.get(incident.group):
            self._alone.pop(incident.group, None)
        self._dirty.pop((b"incident", key), None)
        self._gone[entry_key(b"incident", key)] = None

    def _end_verdict(self, key: str, now_ns: int) -> None:
        verdict = self.verdicts.get(key)
        if verdict is not None and verdict.until_ns <= now_ns:
            del self.verdicts[key]
            self._dirty.pop((b"verdict", key), None)
            self._gone[entry_key(b"verdict", key)] = None

    def _digest_due_ns(self, digest: Digest) -> int:
        """Later where nothing in it was demoted: nobody waits for what a person kept quiet."""
        demoted = any(why in DEMOTED for why in digest_counts(digest))
        factor = 1 if demoted else QUIET_DIGEST_FACTOR
        return digest.since_ns + _ns(self._noise.digest_interval_seconds * factor)

    def _send_digest(self, team: str, now_ns: int) -> None:
        digest = self._digests.get(team)
        if digest is None or not digest.counts:
            return
        if now_ns < self._digest_due_ns(digest):
            self._push(b"digest", team, self._digest_due_ns(digest))
            return
        targets = self.plan.digest_targets(team, digest.targets)
        key = f"~digest|{self._partition}|{team}|{digest.since_ns}"
        finding = digest_finding(key, team, digest, now_ns)
        self.incidents[key] = incident = Incident(
            finding=finding,
            team=team,
            severity="info",
            incident=finding["gatebook"]["incident"],
            kind="digest",
            first_ns=now_ns,
            last_ns=now_ns,
        )
        self._tell(incident, targets)
        # If we die here, the digest is stored as it was, and is sent then, under the same key.
        self._digests[team] = Digest(position=digest.position)
        self._dirty[b"digest", team] = None
        self._changed(key)

    # --- deliveries ------------------------------------------------------------------------------

    def _jobs(self, key: str, incident: Incident, now_ns: int) -> Iterator[Job]:
        for name, owed in incident.owed.items():
            if (key, name) in self._busy or now_ns < owed.not_before_ns:
                continue
            found = self._step(incident, owed, self.plan.targets[name], now_ns)
            if found is None:
                continue
            step, repeated = found
            self._busy.add((key, name))
            yield Job(key, name, step, told(incident, step), incident.revision, repeated)

    def _step(
        self, incident: Incident, owed: Owed, target: AlertTarget, now_ns: int
    ) -> tuple[str, bool] | None:
        """The next step a target must be told, and whether it knows it."""
        if incident.is_over:
            if owed.has in ("", RESOLVED):  # never told: it hears of the start first
                untold = owed.has == "" and incident.way == PAGE
                return (FIRING, False) if untold else None
            return RESOLVED, False
        if incident.way != PAGE:
            return None
        if owed.has in ("", RESOLVED):
            return FIRING, False
        if incident.state == ACKNOWLEDGED and owed.has == FIRING:
            return ACKNOWLEDGED, False
        wanted = incident.revision if target.updates else incident.loud
        if owed.revision < wanted:
            return FIRING, incident.loud <= owed.revision
        if target.resends and now_ns >= self._resend_ns(owed):
            return FIRING, True
        return None

    def _resend_ns(self, owed: Owed) -> int:
        return owed.sent_ns + _ns(self.plan.settings.alert_resend_seconds)

    def settle(self, job: Job, delivery: Delivery, now_ns: int) -> list[Record]:
        """Take note of how a job ended; records of schema alert.v2 to deliver before the state."""
        self._busy.discard((job.key, job.target))
        incident = self.incidents.get(job.key)
        owed = incident.owed.get(job.target) if incident else None
        if incident is None or owed is None:
            return []
        if delivery.outcome == "success":
            records = self._accepted(job, incident, owed, delivery, now_ns)
        else:
            records = self._failed(job, incident, owed, delivery, now_ns)
        self._changed(job.key)
        return records

    def cancel(self, job: Job) -> None:
        """A job whose end nobody saw: it is due again."""
        self._busy.discard((job.key, job.target))
        if job.key in self.incidents:
            self._schedule(job.key)

    def _accepted(
        self, job: Job, incident: Incident, owed: Owed, delivery: Delivery, now_ns: int
    ) -> list[Record]:
        owed.failed, owed.since_ns, owed.not_before_ns, owed.sent_ns = 0, 0, 0, now_ns
        self._came_back(job.target)
        if not (job.step == FIRING and owed.has == ACKNOWLEDGED):
            owed.has = job.step
        if job.step == FIRING:
            owed.revision = max(owed.revision, job.revision)
        return [] if job.repeated else [self._record(job, incident, delivery, now_ns)]

    def _came_back(self, target: str) -> None:
        """A target accepts again: what it refused before is due now."""
        for key in self._failing.pop(target, set()):
            incident = self.incidents.get(key)
            if incident is not None and target in incident.owed:
                incident.owed[target].not_before_ns = 0
                self._schedule(key)

    def _failed(
        self, job: Job, incident: Incident, owed: Owed, delivery: Delivery, now_ns: int
    ) -> list[Record]:
        owed.failed += 1
        owed.since_ns = owed.since_ns or now_ns
        pause = self.plan.settings.alert_retry_seconds * 2.0 ** min(owed.failed - 1, 20)
        pause = max(min(pause, LONGEST_PAUSE_SECONDS), delivery.retry_after_seconds)
        owed.not_before_ns = now_ns + _ns(pause)
        self._failing.setdefault(job.target, set()).add(job.key)
        lasts = now_ns - owed.since_ns >= _ns(self.plan.settings.alert_expiry_seconds)
        if (lasts or delivery.reason == "unusable_finding") and not job.repeated:
            owed.has, owed.failed, owed.since_ns, owed.not_before_ns = job.step, 0, 0, 0
            owed.revision, owed.sent_ns = job.revision, now_ns
            owed.expired += 1
            self.counts.expired += 1
            reason = "expired" if lasts else delivery.reason
            given_up = msgspec.structs.replace(delivery, reason=reason)
            return [self._record(job, incident, given_up, now_ns)]
        return [self._record(job, incident, delivery, now_ns)] if owed.failed == 1 else []

    def _record(self, job: Job, incident: Incident, delivery: Delivery, now_ns: int) -> Record:
        target = self.plan.targets[job.target]
        findings = incident.occurrences
        if incident.kind != "finding":
            findings = int(job.finding["gatebook"].get("observed") or 0)
        return alert_record(target, job.finding, delivery, now_ns, findings)

    # --- when ------------------------------------------------------------------------------------

    def _changed(self, key: str) -> None:
        self._dirty[b"incident", key] = None
        self._schedule(key)

    def _schedule(self, key: str) -> None:
        self._push(b"incident", key, self._when_ns(key, self.incidents[key]))

    def _push(self, kind: bytes, key: str, at_ns: int) -> None:
        if at_ns != _NEVER_NS and self._at.get((kind, key)) != at_ns:
            self._at[kind, key] = at_ns
            heapq.heappush(self._heap, (at_ns, kind, key))

    def _when_ns(self, key: str, incident: Incident) -> int:
        """When an incident must be looked at next."""
        times = [self._owed_ns(key, incident, name, o) for name, o in incident.owed.items()]
        if incident.is_over:
            if self._is_forgettable(incident):
                times.append(self._forget_ns(incident))
        elif incident.kind == "group":
            times.append(self._group_update_ns(incident))
            times.append(self._orphan_ns(key, incident))
        else:
            times.append(self._quiet_ns(incident))
            times.append(incident.wait_until_ns or _NEVER_NS)
        return min(times, default=_NEVER_NS)

    def _owed_ns(self, key: str, incident: Incident, name: str, owed: Owed) -> int:
        target = self.plan.targets[name]
        if (key, name) in self._busy:
            return _NEVER_NS
        if self._step(incident, owed, target, 0) is not None:
            return owed.not_before_ns
        if target.resends and incident.way == PAGE and not incident.is_over:
            return max(self._resend_ns(owed), owed.not_before_ns)
        return _NEVER_NS

    @property
    def owed(self) -> int:
        """Steps that targets have not accepted yet."""
        return sum(
            self._step(incident, owed, self.plan.targets[name], 0) is not None
            for incident in self.incidents.values()
            for name, owed in incident.owed.items()
        )


_NEVER_NS = (1 << 63) - 1


def _with_key(finding: Record) -> Record:
    """A finding that somebody else wrote may name no key: then it is a problem of its own."""
    ours = finding["gatebook"]
    if ours["dedup_key"]:
        return finding
    return {**finding, "gatebook": {**ours, "dedup_key": finding["event"]["id"]}}


def told(incident: Incident, step: str) -> dict[str, Any]:
    """The finding as a target is told of it."""
    finding = incident.finding
    if step == RESOLVED and incident.ending is not None:
        finding = incident.ending
    ours = {
        **finding["gatebook"],
        "severity": incident.severity,
        "team": incident.team,
        "incident": incident.incident,
        "occurrences": incident.occurrences,
        "page": DIGEST if incident.kind == "digest" else PAGE,
    }
    return {**finding, "event": {**finding["event"], "action": step}, "gatebook": ours}
