"""From a detector's signal to a record of schema finding.v2."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any
from uuid import UUID, uuid5

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.base import MAX_EVIDENCE, Rule, Signal

FINDING_NAMESPACE = UUID("6a7b0c1e-8d53-5f7a-9f0e-2b1d5c9e4a77")
MAX_DEDUP_KEY_CHARACTERS = 255
_KEY_DIGEST_BYTES = 16

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
    text = rule.dedup_key.format(rule=rule.id, principal=key, group=group)
    if len(text) <= MAX_DEDUP_KEY_CHARACTERS:
        return text
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY_DIGEST_BYTES)
    tail = "#" + digest.hexdigest()
    return text[: MAX_DEDUP_KEY_CHARACTERS - len(tail)] + tail


def finding_id(rule: Rule, key: str, signal: Signal) -> str:
    """The same for the same rule, key and window, in every run."""
    name = f"{rule.id}|{dedup_key(rule, key, signal.group)}|{signal.start_ns}"
    return str(uuid5(FINDING_NAMESPACE, name))


def _search(access: Access, signal: Signal) -> str:
    who = f"{access.principal_field}:{quoted(access.principal)}"
    return f"{who} and {signal.search}" if signal.search else who


def _labels(rule: Rule, signal: Signal) -> dict[str, str]:
    references = {"owasp_llm": rule.owasp_llm, "mitre_atlas": rule.mitre_atlas}
    return {name: ",".join(ids) for name, ids in references.items() if ids} | dict(signal.labels)


def _threat(rule: Rule) -> dict[str, Any]:
    ids = [*rule.mitre_atlas, *rule.owasp_llm]
    framework = "MITRE ATLAS" if rule.mitre_atlas else "OWASP LLM" if rule.owasp_llm else ""
    return {"framework": framework, "technique": {"id": ids}}


def build_finding(rule: Rule, key: str, access: Access, signal: Signal) -> Finding:
    """The record of schema finding.v2; times in nanoseconds, never content."""
    return {
        "timestamp": access.timestamp_ns,
        "event": {
            "id": finding_id(rule, key, signal),
            "kind": "alert",
            "severity": rule.severity_number,
            "risk_score": rule.risk_score,
            "action": "firing",
            "reason": signal.reason,
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
        "user": {"id": access.user_id},
        "organization": {"id": access.organization_id},
        "source": {"ip": access.source_ip},
        "service": {"name": access.service},
        "gen_ai": {"request": {"model": access.model}},
        "gatebook": {
            "principal": access.principal,
            "severity": rule.severity,
            "dedup_key": dedup_key(rule, key, signal.group),
            "observed": float(signal.observed),
            "baseline": None if signal.baseline is None else float(signal.baseline),
            "threshold": float(signal.threshold),
            "evidence": list(signal.evidence[:MAX_EVIDENCE]),
            "evidence_count": signal.evidence_count,
            "search": _search(access, signal),
            "incident": finding_id(rule, key, signal),
            "group": "",
            "team": "",
            "verdict": "",
            "page": "",
            "unit": "",
            "window_seconds": None,
            "occurrences": None,
            "models": [],
        },
        "labels": _labels(rule, signal),
    }
