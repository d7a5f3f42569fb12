"""From a detector's signals to records of schema finding.v2: firing, graver, resolved."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any
from uuid import UUID, uuid5

from gatebook.processors.detect.base import MAX_EVIDENCE, SEVERITY_NUMBERS, Rule, Signal
from gatebook.processors.detect.scopes import SCOPES, About
from gatebook.processors.detect.state import Incident

FINDING_NAMESPACE = UUID("6a7b0c1e-8d53-5f7a-9f0e-2b1d5c9e4a77")
MAX_DEDUP_KEY_CHARACTERS = 255
_KEY_DIGEST_BYTES = 16
DEFAULT_REASON = "{who}: {observed} {unit}{window}, limit {threshold}"
# Fields that the search of a rule is narrowed by, to what the incident is about.
GROUP_FIELDS = {"action": "event.action"}
RANKS = ("info", "warning", "error", "critical")

Finding = dict[str, Any]


def printable(text: str, limit: int = 256) -> str:
    """Text a terminal and a pager can show: no control, bidi or surrogate characters."""
    cut = text[:limit]
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "?" for c in cut)


def quoted(value: str) -> str:
    """A value as a quoted phrase of the search language (KQL and Lucene agree on this)."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def dedup_key(rule: Rule, key: str, group: str) -> str:
    """Same key, same problem; at most 255 characters, a digest standing for what is cut."""
    text = rule.dedup_key.format(rule=rule.id, key=key, principal=key, group=group)
    text = text if group else text.rstrip(":")
    if len(text) <= MAX_DEDUP_KEY_CHARACTERS:
        return text
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY_DIGEST_BYTES)
    tail = "#" + digest.hexdigest()
    return text[: MAX_DEDUP_KEY_CHARACTERS - len(tail)] + tail


def incident_id(rule: Rule, key: str, group: str, began_ns: int) -> str:
    """The same for the same rule, key, group and beginning, in every run."""
    # The key stands apart from the dedup key, whose template may leave it out.
    return str(uuid5(FINDING_NAMESPACE, f"{rule.id}|{key}|{group}|{began_ns}"))


def finding_id(incident: str, action: str, severity: str) -> str:
    """One finding per incident, action and severity: the same twice is one document."""
    return str(uuid5(FINDING_NAMESPACE, f"{incident}|{action}|{severity}"))


def severity_of(rule: Rule, signal: Signal) -> str:
    """The detector's own word, else the rule's, raised by how far beyond the threshold it is."""
    severity = signal.severity or rule.severity
    for step in rule.escalate:
        beyond = signal.observed >= step.times * signal.threshold
        if beyond and RANKS.index(step.severity) > RANKS.index(severity):
            severity = step.severity
    return severity


def who(rule: Rule, key: str, about: About) -> str:
    """The key in words."""
    noun = SCOPES[rule.detect.scope].noun
    if rule.detect.scope == "all":
        return noun
    name = printable(key) if not noun else printable(_value(rule, about) or key)
    return f"{noun} {name}".strip()


def _value(rule: Rule, about: About) -> str:
    fields = SCOPES[rule.detect.scope].fields
    return str(getattr(about, fields[0][0])) if fields else ""


def _search(rule: Rule, about: About, signal: Signal, group: str) -> str:
    if about.principal:
        terms = [f"{about.principal_field}:{quoted(about.principal)}"]
    else:
        named = ((name, getattr(about, own)) for own, name in SCOPES[rule.detect.scope].fields)
        terms = [f"{name}:{quoted(value)}" for name, value in named if value]
    if group and (field := GROUP_FIELDS.get(rule.detect.group)):
        terms.append(f"{field}:{quoted(group)}")
    narrowed = signal.search or rule.detect.search
    return " and ".join([*terms, narrowed] if narrowed else terms or ["*"])


def _labels(rule: Rule, signal: Signal) -> dict[str, str]:
    references = {"owasp_llm": rule.owasp_llm, "mitre_atlas": rule.mitre_atlas}
    return {name: ",".join(ids) for name, ids in references.items() if ids} | dict(signal.labels)


def figure(value: float | None) -> str:
    """A figure for a sentence."""
    if value is None:
        return "unknown"
    if value == int(value):
        return f"{value:.0f}"
    return f"{value:.4g}" if value < 1 else f"{value:.1f}"


def duration(seconds: int) -> str:
    """A length of time for a sentence."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def reason(rule: Rule, key: str, about: About, signal: Signal, group: str) -> str:
    """One sentence for a person on call."""
    if signal.reason:
        return signal.reason
    return (rule.detect.says or DEFAULT_REASON).format(
        who=who(rule, key, about),
        observed=figure(signal.observed),
        threshold=figure(signal.threshold),
        baseline=figure(signal.baseline),
        window=f" within {duration(signal.window_seconds)}" if signal.window_seconds else "",
        unit=rule.detect.unit,
        group=printable(group),
    )


def _threat(rule: Rule) -> dict[str, Any]:
    """One framework with its own techniques; what others say stands in the labels."""
    if not rule.mitre_atlas and not rule.owasp_llm:
        return {"framework": "", "technique": {"id": []}}
    if rule.mitre_atlas:
        return {"framework": "MITRE ATLAS", "technique": {"id": list(rule.mitre_atlas)}}
    return {"framework": "OWASP LLM", "technique": {"id": list(rule.owasp_llm)}}


def build_firing(
    rule: Rule, key: str, group: str, about: About, signal: Signal, at_ns: int, incident: str
) -> Finding:
    """The record of schema finding.v2 that tells it first; times in nanoseconds, no content."""
    severity = severity_of(rule, signal)
    return {
        "timestamp": at_ns,
        "event": {
            "id": finding_id(incident, "firing", severity),
            "kind": "alert",
            "severity": SEVERITY_NUMBERS[severity],
            "risk_score": rule.risk_score,
            "action": "firing",
            "reason": reason(rule, key, about, signal, group),
            "start": signal.start_ns,
            "end": signal.end_ns,
        },
        "rule": {
            "id": rule.id,
            "name": rule.name,
            "version": rule.version,
            "reference": rule.reference,
        },
        "threat": _threat(rule),
        "user": {"id": about.user_id},
        "organization": {"id": about.tenant},
        "source": {"ip": about.source_ip},
        "service": {"name": about.service},
        "gen_ai": {"request": {"model": about.model}},
        "gatebook": {
            "incident": incident,
            "principal": about.principal,
            "severity": severity,
            "dedup_key": dedup_key(rule, key, group),
            "group": f"{rule.id}:{about.tenant}".rstrip(":"),
            "team": rule.team or about.team,
            "observed": float(signal.observed),
            "baseline": None if signal.baseline is None else float(signal.baseline),
            "threshold": float(signal.threshold),
            "unit": rule.detect.unit,
            "window_seconds": signal.window_seconds or None,
            "occurrences": 1,
            "evidence": list(signal.evidence[-MAX_EVIDENCE:]),
            "evidence_count": signal.evidence_count or len(signal.evidence),
            "search": _search(rule, about, signal, group),
        },
        "labels": _labels(rule, signal),
    }


def _changed(finding: Finding, event: Mapping[str, Any], ours: Mapping[str, Any]) -> Finding:
    return {
        **finding,
        "event": {**finding["event"], **event},
        "gatebook": {**finding["gatebook"], **ours},
    }


def build_resolved(incident: Incident, at_ns: int, told: str = "") -> Finding:
    """The end of an incident: from where to where it was true, its peak and how often."""
    finding = incident.finding
    event = {
        "id": finding_id(incident.id, "resolved", ""),
        "action": "resolved",
        "reason": told or f"Over: {finding['event']['reason']}",
        "start": incident.began_ns,
        "end": max(incident.last_ns, finding["event"]["end"]),
    }
    figures = {"observed": float(incident.observed), "occurrences": incident.occurrences}
    return {**_changed(finding, event, figures), "timestamp": at_ns}
