"""What every target tells of a finding: text without content, links, figures."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any
from urllib.parse import quote

from gatebook.processors.alerts.base import Finding
from gatebook.processors.alerts.settings import AlertSettings
from gatebook.schemas.documents import timestamp_text

MAX_TEXT_CHARACTERS = 1024
MAX_NOTE_CHARACTERS = 2048


def plain(value: Any, limit: int = MAX_TEXT_CHARACTERS) -> str:
    """Text that may be shown anywhere: no control, bidi or surrogate characters."""
    text = str(value or "")[:limit]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def dedup_digest(dedup_key: str) -> str:
    """A dedup key as a short label, whatever characters it holds."""
    return blake2b(dedup_key.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def bounded_key(dedup_key: str, limit: int) -> str:
    """A dedup key that can be shown and is not too long; a digest stands for what is lost."""
    text = plain(dedup_key, limit)
    if text == dedup_key:
        return text
    tail = "#" + dedup_digest(dedup_key)
    return text[: limit - len(tail)] + tail


def search_link(template: str, finding: Finding) -> str:
    """The link that shows a finding's events; empty without a template. Every value is
    percent-encoded."""
    if not template:
        return ""
    event, query = finding["event"], finding["gatebook"].get("search") or ""
    values = {
        "{query}": query,
        "{start}": timestamp_text(event["start"])[:23] + "Z" if event.get("start") else "",
        "{end}": timestamp_text(event["end"])[:23] + "Z" if event.get("end") else "",
    }
    if "{query}" not in template:
        template += ("&" if "?" in template else "?") + "query={query}"
    for mark, value in values.items():
        template = template.replace(mark, quote(value.encode("utf-8", "replace"), safe=""))
    return template


def runbook_link(base_url: str, finding: Finding) -> str:
    """Where the runbook is: a link where runbooks are published, else its path."""
    path = finding["rule"].get("reference") or ""
    return f"{base_url.rstrip('/')}/{quote(path)}" if path and base_url else path


def summary_of(finding: Finding, limit: int = MAX_TEXT_CHARACTERS) -> str:
    """One sentence: who did what."""
    return plain(finding["event"].get("reason") or finding["rule"].get("name"), limit)


def model_of(finding: Finding) -> str:
    """The model the finding is about; empty: not known."""
    return ((finding.get("gen_ai") or {}).get("request") or {}).get("model") or ""


def tenant_of(finding: Finding) -> str:
    """The tenant the finding is about; empty: not known."""
    return (finding.get("organization") or {}).get("id") or ""


def figure(value: float | None) -> str:
    """A figure for people; empty: not known."""
    return "" if value is None else f"{value:g}"


def _explained(finding: Finding) -> str:
    rule = finding["rule"]
    if not rule.get("reference"):
        return str(rule.get("name") or "")
    return f"{rule.get('name')}. Explained by: gatebook rules show {rule['id']}"


def _owasp(finding: Finding) -> list[str]:
    """Entries of OWASP's list, which have a label beside the techniques of MITRE ATLAS."""
    text = str((finding.get("labels") or {}).get("owasp_llm") or "")
    return text.split(",") if text else []


def notes_of(finding: Finding, settings: AlertSettings) -> dict[str, str]:
    """What a person on call reads, by name; empty ones left out. Never content."""
    gatebook, event = finding["gatebook"], finding["event"]
    technique = ((finding.get("threat") or {}).get("technique") or {}).get("id") or ()
    owasp = [i for i in _owasp(finding) if i not in technique]
    notes = {
        "summary": event.get("reason") or finding["rule"].get("name"),
        "description": _explained(finding),
        "runbook": runbook_link(settings.runbook_url, finding),
        "search": search_link(settings.search_base_url, finding),
        "query": gatebook.get("search"),
        "evidence": " ".join(gatebook.get("evidence") or ()),
        "evidence_count": gatebook.get("evidence_count"),
        "observed": figure(gatebook.get("observed")),
        "baseline": figure(gatebook.get("baseline")),
        "threshold": figure(gatebook.get("threshold")),
        "unit": gatebook.get("unit"),
        "window_seconds": gatebook.get("window_seconds"),
        "occurrences": gatebook.get("occurrences"),
        "technique": " ".join([*technique, *owasp]),
        "finding_id": event["id"],
        "incident": gatebook.get("incident"),
        "model": model_of(finding),
        "source_ip": (finding.get("source") or {}).get("ip"),
    }
    items = {n: v for n, v in (finding.get("labels") or {}).items() if n.startswith("item_")}
    told = {**notes, **items}
    return {n: text for n, v in told.items() if (text := plain(v, MAX_NOTE_CHARACTERS))}
