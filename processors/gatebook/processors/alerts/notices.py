"""Findings that stand for several: the page of a group, the digest. Records of finding.v2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid5

from gatebook.processors.alerts.base import DIGEST_RULE, FIRING, GROUP_RULE, SEVERITIES
from gatebook.processors.alerts.incidents import Digest, DigestItem, Incident
from gatebook.processors.alerts.severity import rank, ratio_of
from gatebook.processors.alerts.text import plain
from gatebook.schemas.codec import decode, encode

NAMESPACE_NOTICE = UUID("1d7f7c9e-4b65-5d2b-8a77-5b7c7a0f9a63")
MAX_GROUP_ITEMS = 20
MAX_LINE_CHARACTERS = 160
SEVERITY_NUMBERS = {"info": 21, "warning": 47, "error": 73, "critical": 99}
DEMOTED = ("budget", "overflow", "stale")
"""Why a finding is in a digest though nobody said that it may be quiet."""


def notice_id(*parts: object) -> str:
    """The same for the same parts, in every run."""
    return str(uuid5(NAMESPACE_NOTICE, "|".join(map(str, parts))))


def item_of(finding: Mapping[str, Any], severity: str) -> DigestItem:
    """One line about a finding."""
    line = plain(f"{severity} {finding['rule']['id']}: {finding['event']['reason']}")
    cut = line[:MAX_LINE_CHARACTERS]
    return DigestItem(rank(severity), ratio_of(finding), cut, finding["event"]["id"])


def most_severe(items: Sequence[DigestItem], count: int) -> list[DigestItem]:
    """The first `count` by severity, then by how far beyond the threshold."""
    return sorted(items, key=lambda i: (-i.rank, -i.ratio, i.line, i.finding_id))[:count]


def group_finding(key: str, head: Incident, members: Sequence[Incident]) -> dict[str, Any]:
    """What the page of a group says: how many, which ones first, as severe as the most severe.
    Without members it says what it said before."""
    if not members:
        return {**head.finding, "event": {**head.finding["event"], "action": FIRING}}
    first = members[0].finding
    items = most_severe([item_of(m.finding, m.severity) for m in members], MAX_GROUP_ITEMS)
    severity = SEVERITIES[max(item.rank for item in items)]
    rules = sorted({m.finding["rule"]["id"] for m in members})
    more = f"{head.members} findings of {', '.join(rules[:3])}"
    reason = plain(f"{more}; {len(members)} last; {items[0].line}")
    return _notice(
        key=key,
        event_id=notice_id(key, head.first_ns, head.revision),
        incident=head.incident,
        rule={"id": GROUP_RULE, "name": f"Group: {first['rule']['name']}"},
        reference=first["rule"].get("reference") or "",
        reason=reason,
        severity=severity,
        items=items,
        times=(min(m.finding["event"]["start"] for m in members), first["timestamp"]),
        observed=float(head.members),
        tenant=first["organization"]["id"],
        team=head.team,
        search=" or ".join(f"rule.id:{rule}" for rule in rules[:10]),
        group=key,
    )


def digest_counts(digest: Digest) -> dict[str, int]:
    """How many for each reason."""
    totals: dict[str, int] = {}
    for name, count in digest.counts.items():
        why = name.partition("|")[0]
        totals[why] = totals.get(why, 0) + count
    return totals


def digest_finding(key: str, team: str, digest: Digest, now_ns: int) -> dict[str, Any]:
    """What a digest says: counts by reason, severity and rule, and the top items."""
    totals = digest_counts(digest)
    told = ", ".join(f"{count} {WHY.get(why, why)}" for why, count in sorted(totals.items()))
    whom = f" for {team}" if team else ""
    by_rule = sorted(digest.counts.items(), key=lambda pair: -pair[1])
    lines = [DigestItem(0, 0.0, f"{n}: {c}", "") for n, c in by_rule[:10]]
    return _notice(
        key=key,
        event_id=notice_id(key),
        incident=notice_id(key),
        rule={"id": DIGEST_RULE, "name": "Digest of findings that were not paged"},
        reference="",
        reason=f"Digest{whom}: {told}",
        severity="info",
        items=[*digest.items, *lines],
        times=(digest.since_ns, now_ns),
        observed=float(sum(totals.values())),
        tenant="",
        team=team,
        search="event.action:firing",
        group="",
    )


WHY = {
    "budget": "over the page budget",
    "overflow": "beyond what is remembered",
    "stale": "too old to page",
    "hold": "back soon after their end",
    "suppressed": "in a suppressed time",
    "verdict": "kept quiet by a verdict",
}


def _notice(
    *,
    key: str,
    event_id: str,
    incident: str,
    rule: dict[str, str],
    reference: str,
    reason: str,
    severity: str,
    items: Sequence[DigestItem],
    times: tuple[int, int],
    observed: float,
    tenant: str,
    team: str,
    search: str,
    group: str,
) -> dict[str, Any]:
    evidence = [item.finding_id for item in items if item.finding_id]
    record = {
        "timestamp": times[1],
        "event": {
            "id": event_id,
            "kind": "alert",
            "severity": SEVERITY_NUMBERS[severity],
            "action": FIRING,
            "reason": reason,
            "start": times[0],
            "end": times[1],
        },
        "rule": {**rule, "version": "1", "reference": reference},
        "organization": {"id": tenant},
        "gatebook": {
            "severity": severity,
            "dedup_key": key,
            "incident": incident,
            "observed": observed,
            "evidence": evidence[:20],
            "evidence_count": int(observed),
            "search": search,
            "team": team,
            "group": group,
            "unit": "findings",
            "occurrences": 1,
        },
        "labels": {f"item_{n:02}": item.line for n, item in enumerate(items, 1)},
    }
    return decode("finding.v2", encode("finding.v2", record))  # every field is there
