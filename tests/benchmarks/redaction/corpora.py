"""What is scored: texts made by code, gitleaks' own cases, presidio-research's sentences.

Every text is in one of two halves, by a hash of its group: `tune` is what rules may be tuned on,
`report` is what is published. What is alike stays together, so no half gives the other away.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tests.benchmarks.redaction import gitleaks, scorer
from tests.benchmarks.redaction.scorer import Label, Sample

TUNE, REPORT = "tune", "report"
PRESIDIO = "synth_dataset_v2.json"
PRESIDIO_PLACE = (
    "presidio-research, data/synth_dataset_v2.json, MIT (data-privacy-stack/presidio-research)"
)


def half(group: str) -> str:
    """The half of all texts of that group, the same for ever."""
    return TUNE if hashlib.sha256(group.encode()).digest()[0] % 2 else REPORT


def of_half(samples: list[Sample], wanted: str) -> list[Sample]:
    """Those in that half."""
    return [sample for sample in samples if half(sample.group) == wanted]


# ---- gitleaks ----------------------------------------------------------------------------------


def gitleaks_positives() -> list[Sample]:
    """Texts in which gitleaks' own rules find the labelled secret; gitleaks.Unavailable without."""
    return gitleaks.positives()


def gitleaks_negatives(alone: bool) -> list[Sample]:
    """Texts that a rule of gitleaks must leave alone; with `alone`, those that none of its other
    rules fires on. gitleaks.Unavailable without them."""
    return gitleaks.negatives(alone)


# ---- presidio-research -------------------------------------------------------------------------

_KINDS = {
    "CREDIT_CARD": scorer.CARD,
    "IBAN_CODE": scorer.IBAN,
    "US_SSN": scorer.SSN,
    "EMAIL_ADDRESS": scorer.MAIL,
    "IP_ADDRESS": scorer.IP,
    "PHONE_NUMBER": scorer.PHONE,
}
_UNDECIDED = {
    "DATE_TIME": frozenset({scorer.BIRTH_DATE}),
    "US_DRIVER_LICENSE": frozenset({scorer.NATIONAL_ID}),
}


def presidio(folder: Path) -> list[Sample]:
    """The sentences of presidio-research in a folder. A sentence's half is its own: values are
    drawn anew for each, and some kinds stand in two templates only."""
    found = sorted(folder.rglob(PRESIDIO))
    if not found:
        raise FileNotFoundError(
            f"no {PRESIDIO} below {folder}; it is published as {PRESIDIO_PLACE}"
        )
    rows = json.loads(found[0].read_text(encoding="utf-8"))
    return [_sentence(row) for row in rows]


def _sentence(row: dict[str, Any]) -> Sample:
    labels = tuple(
        Label(
            _KINDS.get(span["entity_type"], scorer.OTHER),
            span["start_position"],
            span["end_position"],
            _UNDECIDED.get(span["entity_type"], frozenset()),
        )
        for span in row["spans"]
    )
    return Sample(row["full_text"], labels, row["full_text"], "presidio-research")
