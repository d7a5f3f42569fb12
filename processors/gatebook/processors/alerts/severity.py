"""How severe a finding is, by its evidence."""

from __future__ import annotations

from gatebook.processors.alerts.base import SEVERITIES, Finding
from gatebook.processors.alerts.plan import Noise


def rank(severity: str) -> int:
    """0 for info to 3 for critical; what is unknown counts as a warning."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else 1


def ratio_of(finding: Finding) -> float:
    """How far a figure is above its threshold: 1 is just there; 0: it cannot be told."""
    observed = finding["gatebook"].get("observed")
    threshold = finding["gatebook"].get("threshold")
    return float(observed / threshold) if observed and threshold and threshold > 0 else 0.0


def severity_of(finding: Finding, occurrences: int, noise: Noise) -> str:
    """The detector's severity, one step up where it is far beyond its threshold or keeps coming."""
    base = rank(finding["gatebook"]["severity"])
    beyond = 0 < noise.raise_at_ratio <= ratio_of(finding)
    more = beyond or occurrences >= noise.raise_at_occurrences
    return SEVERITIES[min(base + more, len(SEVERITIES) - 1)]
