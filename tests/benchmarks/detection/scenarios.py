"""Attacks in a month of habits: who notices, and how often it is called for nothing.

Contenders are rules of the catalogue in the same engine over the same accesses: all of them, those
that are ours alone, and those that hold Elastic's fixed thresholds. An attack counts as noticed
where a firing finding has one of its events as evidence; every other firing finding is a false
alert. Findings of severity info do not page anybody and are told apart.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.detection.traffic import (
    ATTACKS,
    SEED,
    Attack,
    Month,
    document,
    month,
    time_ns,
)
from tests.benchmarks.redaction.goals import Goal

from gatebook.processors.detect.base import Detector
from gatebook.processors.detect.engine import DetectionEngine, all_detectors
from gatebook.processors.detect.findings import Finding

GATEBOOK, ELASTIC, OURS_ALONE = "gatebook", "elastic", "ours alone"
# Rules with Elastic's figures; see CATALOGUE.md.
ELASTICS = frozenset(
    {
        "guardrail_violations",
        "guardrail_policies_in_one_request",
        "high_confidence_blocks",
        "denied_models",
        "validation_errors",
        "resource_abuse",
        "secret_in_content",
        "high_risk_tool_use",
        "single_model_probing",
        "metadata_credentials",
        "denial_of_service",
        "empty_outputs",
        "model_theft",
    }
)
QUICK_IDENTITIES, QUICK_DAYS, QUICK_OF_KIND = 60, 22, 3
BATCH_SECONDS = 1.0


@dataclass
class Noticed:
    """What one contender made of a month."""

    seconds_to_first: dict[int, float] = field(default_factory=dict)
    """By attack that was noticed."""
    first_rule: dict[int, str] = field(default_factory=dict)
    paged: set[int] = field(default_factory=set)
    """Attacks noticed with a severity that pages."""
    false_alerts: Counter[str] = field(default_factory=Counter)
    false_pages: Counter[str] = field(default_factory=Counter)


def run(quick: bool, seed: int = SEED) -> tuple[list[str], list[Goal], dict[str, Any]]:
    """Tables, goals and figures."""
    size = (QUICK_IDENTITIES, QUICK_DAYS, QUICK_OF_KIND) if quick else ()
    traffic = month(*size, seed=seed)
    findings = replay(traffic, all_detectors())
    contenders = {
        GATEBOOK: findings,
        OURS_ALONE: [f for f in findings if f["rule"]["id"] not in ELASTICS],
        ELASTIC: [f for f in findings if f["rule"]["id"] in ELASTICS],
    }
    noticed = {name: judge(traffic.attacks, found) for name, found in contenders.items()}
    lines = [*_about(traffic, len(findings)), *_recall(traffic, noticed), *_false(traffic, noticed)]
    return lines, list(_goals(traffic, noticed)), _figures(traffic, noticed)


def replay(traffic: Month, detectors: Sequence[Detector]) -> list[Finding]:
    """Firing findings of a month. Rules do not know of each other: what a subset of them would
    have found is the subset of what all of them found."""
    engine = DetectionEngine(detectors)
    findings: list[Finding] = []
    for offset, event in enumerate(traffic.events):
        findings += engine.process(offset, [document(event)], time_ns(event.seconds))
    return [f for f in findings if f["event"]["action"] == "firing"]


def judge(attacks: Iterable[Attack], findings: Iterable[Finding]) -> Noticed:
    """Findings against the labels: by their evidence."""
    label = {event_id: attack for attack in attacks for event_id in attack.ids}
    out = Noticed()
    for finding in findings:
        rule, ours = finding["rule"]["id"], finding["gatebook"]
        pages = ours["severity"] != "info"
        hit = next((label[i] for i in ours["evidence"] if i in label), None)
        if hit is None:
            out.false_alerts[rule] += 1
            out.false_pages[rule] += pages
            continue
        after = (finding["timestamp"] - time_ns(hit.began_seconds)) / 1e9
        if after < out.seconds_to_first.get(hit.number, float("inf")):
            out.seconds_to_first[hit.number], out.first_rule[hit.number] = after, rule
        if pages:
            out.paged.add(hit.number)
    return out


# ---- tables ------------------------------------------------------------------------------------


def _about(traffic: Month, findings: int) -> Iterator[str]:
    yield (
        f"{len(traffic.events):,} accesses of {len(traffic.identities)} identities in "
        f"{traffic.days} days, {len(traffic.attacks)} attacks, {findings:,} findings"
    )
    yield ""


def recall(attacks: Sequence[Attack], numbers: Iterable[int], kind: str = "") -> float:
    """The share of attacks, of one kind or of all, that are among those noticed."""
    those = [attack for attack in attacks if kind in ("", attack.kind)]
    seen = set(numbers)
    return sum(attack.number in seen for attack in those) / len(those)


def _recall(traffic: Month, noticed: dict[str, Noticed]) -> Iterator[str]:
    yield f"{'recall (of those: paging)':<28}" + "".join(f"{name:>22}" for name in noticed)
    for kind in (*ATTACKS, ""):
        cells = (
            f"{recall(traffic.attacks, n.seconds_to_first, kind):.2f} "
            f"({recall(traffic.attacks, n.paged, kind):.2f})"
            for n in noticed.values()
        )
        yield f"{kind or 'all':<28}" + "".join(f"{cell:>22}" for cell in cells)
    yield ""
    yield f"{'median time to first':<28}" + "".join(f"{name:>22}" for name in noticed)
    for kind in ATTACKS:
        cells = (_delay(traffic.attacks, n, kind) for n in noticed.values())
        yield f"{kind:<28}" + "".join(f"{cell:>22}" for cell in cells)
    yield ""
    yield "first noticed by (gatebook)"
    for kind in ATTACKS:
        yield f"  {kind:<26}{_rules(traffic.attacks, noticed[GATEBOOK], kind)}"
    missed = [a for a in traffic.attacks if a.number not in noticed[GATEBOOK].seconds_to_first]
    yield from (f"  missed: {attack.kind}, {attack.strength}" for attack in missed)
    yield ""


def _delay(attacks: Sequence[Attack], noticed: Noticed, kind: str) -> str:
    delays = [
        noticed.seconds_to_first[a.number]
        for a in attacks
        if a.kind == kind and a.number in noticed.seconds_to_first
    ]
    return f"{statistics.median(delays) / 60:.0f} min" if delays else "-"


def _rules(attacks: Sequence[Attack], noticed: Noticed, kind: str) -> str:
    first = Counter(
        noticed.first_rule[a.number]
        for a in attacks
        if a.kind == kind and a.number in noticed.first_rule
    )
    return ", ".join(f"{rule} {count}" for rule, count in first.most_common())


def identity_days(traffic: Month) -> int:
    """What false alerts are divided by."""
    return len(traffic.identities) * traffic.days


def _false(traffic: Month, noticed: dict[str, Noticed]) -> Iterator[str]:
    yield f"{'false alerts':<28}" + "".join(f"{name:>22}" for name in noticed)
    for what in ("false_alerts", "false_pages"):
        rates = (getattr(n, what).total() for n in noticed.values())
        cells = (f"{n:,} = {n / identity_days(traffic):.4f}" for n in rates)
        named = {"false_alerts": "all", "false_pages": "that page"}[what]
        yield f"{named + ', an identity and day':<28}" + "".join(f"{cell:>22}" for cell in cells)
    yield ""
    yield "false alerts by rule (of those: paging)"
    by_rule: defaultdict[str, list[str]] = defaultdict(list)
    ours = noticed[GATEBOOK]
    for rule, count in ours.false_alerts.most_common(12):
        by_rule[rule].append(f"{count:,} ({ours.false_pages[rule]:,})")
    yield from (f"  {rule:<36}{' '.join(cells):>16}" for rule, cells in by_rule.items())
    yield ""


def _goals(traffic: Month, noticed: dict[str, Noticed]) -> Iterator[Goal]:
    ours, theirs = noticed[GATEBOOK], noticed[ELASTIC]
    for kind in ATTACKS:
        mine = recall(traffic.attacks, ours.seconds_to_first, kind)
        fixed = recall(traffic.attacks, theirs.seconds_to_first, kind)
        told = f"{mine:.2f}, fixed thresholds {fixed:.2f}"
        yield Goal(f"recall, {kind}", "> theirs", told, mine > fixed)
    alone = noticed[OURS_ALONE].false_pages.total() / identity_days(traffic)
    fixed = theirs.false_pages.total() / identity_days(traffic)
    told = f"{alone:.4f}, fixed thresholds {fixed:.4f}"
    yield Goal("false pages an identity and day, ours alone", "< theirs", told, alone < fixed)


def _figures(traffic: Month, noticed: dict[str, Noticed]) -> dict[str, Any]:
    return {
        name: {
            "recall": {k: recall(traffic.attacks, n.seconds_to_first, k) for k in ATTACKS},
            "paging": {k: recall(traffic.attacks, n.paged, k) for k in ATTACKS},
            "false_alerts": dict(n.false_alerts),
            "false_pages": dict(n.false_pages),
            "identity_days": identity_days(traffic),
        }
        for name, n in noticed.items()
    }
