"""What a rule would have found: recorded accesses through the engine, and what came out of it.

Pure: whoever reads the history hands it over in order of time. Several trials (the rule as it is,
the rule as it might be) see the same accesses in one pass. Nothing is delivered anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from gatebook.processors.detect.access import NANOSECONDS, Access, parse_time_ns
from gatebook.processors.detect.base import Detector
from gatebook.processors.detect.engine import DetectionEngine
from gatebook.processors.detect.findings import Finding
from gatebook.processors.detect.limits import Limits
from gatebook.processors.detect.scopes import FRAMES
from gatebook.schemas.documents import day_text
from gatebook.schemas.errors import Fatal

TRUE_POSITIVE, FALSE_POSITIVE, BENIGN = VERDICTS = ("true_positive", "false_positive", "benign")
DAY_NS = 86_400 * NANOSECONDS
# A replay of a noisy rule must not fill the memory; what is beyond this is counted, not shown.
MAX_EXAMPLES_KEPT = 1000
Document = Mapping[str, Any]


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is known of the past: one line of a labels file. A finding is judged by an incident id,
    by an event id among its evidence, or by principal and time."""

    verdict: str
    incident: str = ""
    event: str = ""
    principal: str = ""
    since: str = ""
    until: str = ""


class Known(msgspec.Struct, frozen=True):
    """An incident of the past with its verdict: a finding of the same dedup key that is within a
    window's length of it is that incident, though another threshold makes it begin elsewhere."""

    dedup_key: str
    start_ns: int
    end_ns: int
    verdict: str


class Verdicts:
    """What people or a labels file say of the past."""

    def __init__(self, labels: Iterable[Label] = (), known: Iterable[Known] = ()) -> None:
        """Raises Fatal for a label that says nothing."""
        self._incidents: dict[str, str] = {}
        self._events: dict[str, str] = {}
        self._spans: dict[str, list[Known]] = {}
        for label in labels:
            self._add(label)
        for one in known:
            self._spans.setdefault(one.dedup_key, []).append(one)

    def _add(self, label: Label) -> None:
        if label.verdict not in VERDICTS:
            raise Fatal(f"no verdict {label.verdict[:40]!a}", "write " + ", ".join(VERDICTS))
        if label.incident:
            self._incidents[label.incident] = label.verdict
        elif label.event:
            self._events[label.event] = label.verdict
        elif label.principal:
            start_ns = _moment(label.since) if label.since else 0
            end_ns = _moment(label.until) if label.until else 2**63
            span = Known(label.principal, start_ns, end_ns, label.verdict)
            self._spans.setdefault(label.principal, []).append(span)
        else:
            raise Fatal("a label names nothing", "give it an incident, an event or a principal")

    def of(self, finding: Finding) -> str:
        """The verdict on a finding; empty where nobody said anything. By its evidence it is true
        where any of it is labelled so."""
        ours, event = finding["gatebook"], finding["event"]
        by_incident = self._incidents.get(ours["incident"])
        if by_incident:
            return by_incident
        said = {self._events[i] for i in ours["evidence"] if i in self._events}
        if said:
            return next(verdict for verdict in VERDICTS if verdict in said)
        slack_ns = (ours["window_seconds"] or 60) * NANOSECONDS
        start_ns, end_ns = event["start"] - slack_ns, event["end"] + slack_ns
        for name in (ours["dedup_key"], ours["principal"]):
            for span in self._spans.get(name, ()):
                if start_ns <= span.end_ns and end_ns >= span.start_ns:
                    return span.verdict
        return ""


def _moment(text: str) -> int:
    try:
        return parse_time_ns(text)
    except ValueError:
        raise Fatal(f"{text[:40]!a} is no time", "write 2026-11-23T10:15:00Z") from None


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One finding: figures and ids, no content."""

    at_ns: int
    who: str
    severity: str
    reason: str
    observed: float
    threshold: float
    baseline: float | None
    incident: str
    dedup_key: str
    verdict: str
    evidence: tuple[str, ...]
    evidence_count: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one trial found. `precision` is the share of true positives among what was judged (what
    was closed as benign was no reason to call anybody); None where nobody judged anything."""

    name: str
    rule: str
    version: str
    accesses: int
    first_ns: int
    last_ns: int
    days: float
    findings: int
    incidents: int
    a_day: float
    by_day: dict[str, int]
    by_severity: dict[str, int]
    busiest: list[tuple[str, int]]
    examples: list[Example]
    verdicts: dict[str, int]
    precision: float | None
    late: int
    duplicate: int
    unreadable: int


class Trial:
    """One form of the rule with all that it found."""

    def __init__(
        self,
        name: str,
        detectors: Sequence[Detector],
        verdicts: Verdicts,
        since_ns: int,
        limits: Limits | None = None,
    ) -> None:
        """Raises Fatal for a rule that history cannot tell anything about."""
        for detector in detectors:
            if detector.rule.detect.scope == FRAMES:
                raise Fatal(
                    f"{detector.rule.id} looks at producers' frames, which are not kept",
                    "choose a rule about accesses",
                )
        self.name = name
        self.engine = DetectionEngine(detectors, limits)
        self._rule = detectors[0].rule
        self._verdicts = verdicts
        self._since_ns = since_ns
        self._by_day: Counter[str] = Counter()
        self._by_severity: Counter[str] = Counter()
        self._who: Counter[str] = Counter()
        self._said: Counter[str] = Counter()
        self._incidents: set[str] = set()
        self.examples: list[Example] = []

    def take(self, offset: int, accesses: Sequence[Access | None], progress_ns: int) -> None:
        """Accesses that were read, in order of time."""
        for finding in self.engine.take(offset, accesses, progress_ns):
            self._tell(finding)

    def finish(self, progress_ns: int) -> None:
        """Nothing more comes: what is true without an access is told."""
        for finding in self.engine.advance(progress_ns):
            self._tell(finding)

    def _tell(self, finding: Finding) -> None:
        if finding["event"]["action"] != "firing" or finding["timestamp"] < self._since_ns:
            return
        ours, verdict = finding["gatebook"], self._verdicts.of(finding)
        self._by_severity[ours["severity"]] += 1
        if ours["incident"] in self._incidents:
            return  # it became graver
        self._incidents.add(ours["incident"])
        self._by_day[day_text(finding["timestamp"])] += 1
        self._who[who(finding)] += 1
        self._said[verdict] += 1
        if len(self.examples) < MAX_EXAMPLES_KEPT:
            self.examples.append(_example(finding, verdict))

    def report(self, accesses: int, first_ns: int, last_ns: int, examples: int) -> Report:
        """Figures of what was taken in so far."""
        begun_ns = max(self._since_ns, first_ns)
        days = max(last_ns - begun_ns, 0) / DAY_NS
        incidents, counts = len(self._incidents), self.engine.counts
        said = {verdict: self._said[verdict] for verdict in VERDICTS}
        judged = sum(said.values())
        return Report(
            name=self.name,
            rule=self._rule.id,
            version=self._rule.version,
            accesses=accesses,
            first_ns=begun_ns,
            last_ns=last_ns,
            days=round(days, 3),
            findings=self._by_severity.total(),
            incidents=incidents,
            a_day=round(incidents / max(days, 1.0), 3),
            by_day=dict(sorted(self._by_day.items())),
            by_severity=dict(self._by_severity),
            busiest=self._who.most_common(10),
            examples=self.examples[:examples],
            verdicts=said | {"": incidents - judged},
            precision=said[TRUE_POSITIVE] / judged if judged else None,
            late=counts.late,
            duplicate=counts.duplicate,
            unreadable=counts.unreadable,
        )


class Backtest:
    """Hands the same accesses to every trial."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.trials = trials
        self.accesses = 0
        self.first_ns = 0
        self.last_ns = 0
        self._offset = 0
        self._progress_ns = -1

    def take(self, documents: Sequence[Document], written_ns: int = -1) -> None:
        """Documents in order of time, which were written at `written_ns`; where that is not known,
        the time of the first one stands for it."""
        accesses = self.trials[0].engine.read(documents)
        times = [access.timestamp_ns for access in accesses if access is not None]
        if times:
            self.accesses += len(times)
            self.first_ns = min(self.first_ns or times[0], *times)
            self.last_ns = max(self.last_ns, *times)
        written_ns = written_ns if written_ns >= 0 else min(times, default=-1)
        self._progress_ns = max(self._progress_ns, written_ns)
        for trial in self.trials:
            trial.take(self._offset, accesses, self._progress_ns)
        self._offset += 1

    def finish(self, examples: int) -> list[Report]:
        """A report for each trial."""
        for trial in self.trials:
            trial.finish(max(self._progress_ns, self.last_ns))
        return [
            trial.report(self.accesses, self.first_ns, self.last_ns, examples)
            for trial in self.trials
        ]


def who(finding: Finding) -> str:
    """Whom a finding is about: its principal, or its dedup key where it is about no caller."""
    ours = finding["gatebook"]
    return str(ours["principal"] or ours["dedup_key"].partition(":")[2] or ours["dedup_key"])


def _example(finding: Finding, verdict: str) -> Example:
    ours = finding["gatebook"]
    return Example(
        at_ns=finding["timestamp"],
        who=who(finding),
        severity=ours["severity"],
        reason=finding["event"]["reason"],
        observed=ours["observed"],
        threshold=ours["threshold"],
        baseline=ours["baseline"],
        incident=ours["incident"],
        dedup_key=ours["dedup_key"],
        verdict=verdict,
        evidence=tuple(ours["evidence"]),
        evidence_count=ours["evidence_count"],
    )


def only_in(mine: Trial, other: Trial) -> list[Example]:
    """What one trial found of problems in which the other found nothing on the same day."""
    there = {(example.dedup_key, example.at_ns // DAY_NS) for example in other.examples}
    return [e for e in mine.examples if (e.dedup_key, e.at_ns // DAY_NS) not in there]
