"""What a detector is: metadata, a key, a state, and one pure step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Protocol

import msgspec

from gatebook.processors.detect.access import Access

MAX_EVIDENCE = 20
SEVERITY_NUMBERS = {"info": 21, "warning": 47, "error": 73, "critical": 99}


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The metadata of a detector, as its rule.toml says it."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{2,63}$")]
    """Rule id, also the folder's name; never reused, see retired.toml."""
    name: str
    """Name for people."""
    version: Annotated[str, msgspec.Meta(pattern=r"^[0-9]+$")]
    """Raised when the stored state of the detector changes its meaning: it starts afresh."""
    severity: Annotated[str, msgspec.Meta(pattern=r"^(critical|error|warning|info)$")]
    """What an on-call tool is told."""
    risk_score: Annotated[int, msgspec.Meta(ge=0, le=100)]
    """0 to 100."""
    runbook: str
    """File in the folder with what to do."""
    dedup_key: str
    """Template of {rule}, {principal}, {group}: same key, same problem."""
    blind_spots: tuple[str, ...]
    """What this rule does not see or wrongly flags, known beforehand."""
    owasp_llm: tuple[str, ...] = ()
    """Entries of the OWASP Top 10 for LLM applications."""
    mitre_atlas: tuple[str, ...] = ()
    """Technique ids of MITRE ATLAS."""
    parameters: Mapping[str, Any] = {}
    """Defaults; GATEBOOK_DETECTORS_FILE overrides them."""

    @property
    def severity_number(self) -> int:
        """1 to 100, as event.severity."""
        return SEVERITY_NUMBERS[self.severity]

    @property
    def reference(self) -> str:
        """The runbook's path in the package."""
        return f"gatebook/processors/detect/{self.id}/{self.runbook}"


class Signal(msgspec.Struct, frozen=True):
    """What a detector says when it fires; the engine makes a finding of it.

    Rule, key, group and `start_ns` make the finding's id: a detector must not fire twice with
    the same three for one key. `search` holds what narrows the query beyond the principal.
    """

    start_ns: int
    end_ns: int
    reason: str
    observed: float
    threshold: float
    evidence: tuple[str, ...]
    evidence_count: int
    search: str
    baseline: float | None = None
    group: str = ""
    labels: Mapping[str, str] = {}


class Detector(Protocol):
    """A folder's logic. Pure: no clock, no I/O, no randomness; time comes with the access.

    The engine holds one state per key and passes only accesses that are on time and not seen
    before. What `apply` returns depends on nothing but the state and the access, or a replay
    would tell another story than the first run.
    """

    @property
    def rule(self) -> Rule:
        """Metadata."""

    @property
    def state_type(self) -> type[Any]:
        """The msgspec struct of a state; no arguments make an empty one."""

    def key(self, access: Access) -> str | None:
        """Which state this access belongs to; None: this detector does not look at it."""

    def apply(self, state: Any, access: Access, horizon_ns: int) -> Signal | None:
        """Take one access in; says whether the rule just became true.

        No access before `horizon_ns` will come any more: what only those need can be forgotten.
        """
