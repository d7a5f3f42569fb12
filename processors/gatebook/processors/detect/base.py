"""What a detector is: metadata, what it looks at, a state, and pure steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Protocol

import msgspec

from gatebook.processors.detect.access import Access

MAX_EVIDENCE = 20
SEVERITY_NUMBERS = {"info": 21, "warning": 47, "error": 73, "critical": 99}

Severity = Literal["critical", "error", "warning", "info"]
Kind = Literal["count", "distinct", "ratio", "first_seen", "baseline", "silence", "custom"]
WindowKind = Literal["tumbling", "hopping", "sliding", "session"]
Scope = Literal[
    "principal", "user", "key", "address", "model", "service", "tenant", "producer", "frames", "all"
]
Clock = Literal["event", "frame"]
Scalar = str | int | float | bool
Condition = Scalar | list[Scalar] | Mapping[str, Scalar]


class Detect(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Table [detect] of a rule.toml: which accesses a rule looks at and what it does with them."""

    kind: Kind = "custom"
    """Which ready-made logic runs; custom: what `build` in logic.py returns."""
    scope: Scope = "principal"
    """What is counted together. All but principal see the accesses of every partition; `frames`
    sees frames of producers instead of accesses."""
    where: Mapping[str, Condition] = {}
    """Fields of Access that must have a value, one of a list, or {min, max, has, not}; beside
    `matches` in logic.py."""
    value: str = ""
    """Numeric field that is summed or averaged; none: accesses are counted."""
    item: str = ""
    """Field whose distinct or first values matter."""
    group: str = ""
    """Field that divides a key further: each value has a state and incidents of its own."""
    window: WindowKind = "tumbling"
    unit: str = "accesses"
    """What the figures count."""
    says: str = ""
    """Reason, with {who}, {observed}, {threshold}, {baseline}, {window}, {unit}, {group}."""
    search: str = ""
    """Narrows the search link beyond its key, in the search language."""


class Escalation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[[escalate]]: a higher severity by evidence."""

    times: Annotated[float, msgspec.Meta(ge=1)]
    """From this multiple of the threshold on."""
    severity: Severity


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The metadata of a detector, as its rule.toml says it."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{2,63}$")]
    """Rule id, also the folder's name; never reused, see retired.toml."""
    name: str
    """Name for people."""
    version: Annotated[str, msgspec.Meta(pattern=r"^[0-9]+$")]
    """Raised when the stored state of the detector changes its meaning: it starts afresh."""
    severity: Severity
    """What an on-call tool is told."""
    risk_score: Annotated[int, msgspec.Meta(ge=0, le=100)]
    """0 to 100."""
    runbook: str
    """File in the folder with what to do."""
    dedup_key: str = "{rule}:{key}:{group}"
    """Template of {rule}, {key}, {principal}, {group}: same key, same problem."""
    blind_spots: tuple[str, ...]
    """What this rule does not see or wrongly flags, known beforehand."""
    owasp_llm: tuple[str, ...] = ()
    """Entries of the OWASP Top 10 for LLM applications."""
    mitre_atlas: tuple[str, ...] = ()
    """Technique ids of MITRE ATLAS."""
    references: tuple[str, ...] = ()
    """Where the rule comes from: addresses or names."""
    team: str = ""
    """Team that is called; empty: the team of the service."""
    detect: Detect = Detect()
    escalate: tuple[Escalation, ...] = ()
    parameters: Mapping[str, Any] = {}
    """Defaults; GATEBOOK_DETECTORS_FILE overrides them."""

    @property
    def severity_number(self) -> int:
        """1 to 100, as event.severity."""
        return SEVERITY_NUMBERS[self.severity]

    @property
    def reference(self) -> str:
        """The runbook's path in the package, or below the folder of the users' rules."""
        return f"gatebook/processors/detect/{self.id}/{self.runbook}"

    @property
    def clock(self) -> Clock:
        """Whose time closes its windows: that of events, or that of producers' frames."""
        return "frame" if self.detect.scope == "frames" else "event"


class Common(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters that every rule has."""

    quiet_seconds: Annotated[int, msgspec.Meta(ge=0, le=30 * 86_400)] = 0
    """An incident is resolved when the rule was not true for so long; 0: the window's length."""
    suppress_seconds: Annotated[int, msgspec.Meta(ge=0, le=30 * 86_400)] = 0
    """After an incident is resolved, the same dedup key does not fire again for so long."""


class Signal(msgspec.Struct, frozen=True):
    """A rule is true now. The engine makes a finding of the first one and keeps the incident open
    while they come; detectors need not remember that they fired.

    `start_ns` is the start of the window and names the incident; `evidence` may be a reference to
    a list of the state: it is read at once.
    """

    start_ns: int
    end_ns: int
    observed: float
    threshold: float
    evidence: Sequence[str] = ()
    evidence_count: int = 0
    baseline: float | None = None
    window_seconds: int = 0
    reason: str = ""
    """One sentence without content; empty: [detect].says."""
    search: str = ""
    group: str | None = None
    """Incident it belongs to, where that is finer than the state's group."""
    severity: str = ""
    labels: Mapping[str, str] = {}


class Over(msgspec.Struct, frozen=True):
    """What was true is not any more: the incident is resolved now, not after quiet time."""

    at_ns: int
    group: str | None = None


Step = Signal | Over | None


class Detector(Protocol):
    """A folder's logic. Pure: no clock, no I/O, no randomness; time comes with the access.

    The engine holds one state per key and group, and passes only accesses that are on time and
    not seen before. What the steps return depends on nothing but the state and their arguments,
    or a replay would tell another story than the first run.
    """

    @property
    def rule(self) -> Rule:
        """Metadata."""

    @property
    def parameters(self) -> Any:
        """What rule.toml and overrides set; a subclass of Common."""

    @property
    def state_type(self) -> type[Any]:
        """The msgspec struct of a state; no arguments make an empty one."""

    @property
    def quiet_ns(self) -> int:
        """An incident is over when no signal came for so long."""

    @property
    def enabled(self) -> bool:
        """Whether it runs for tenants that are not named in `tenants`."""

    @property
    def tenants(self) -> dict[str, Detector | None]:
        """The same rule with parameters of a tenant; None: switched off there."""

    def matches(self, access: Access) -> bool:
        """Whether it looks at this access at all. Called for every access: be quick."""

    def asks(self, access: Access) -> Callable[[Access], bool] | bool:
        """What is left to ask of accesses that are like this one in predicates.LIKENESS: nothing
        (it looks at all or at none of them), or a question. Asked once for all that are alike."""

    def group(self, access: Access) -> str:
        """Which of the key's states this access belongs to."""

    def apply(self, state: Any, access: Access, horizon_ns: int) -> Step:
        """Take one access in; says whether the rule is true now.

        No access before `horizon_ns` will come any more: what only those need can be forgotten.
        """

    def deadline(self, state: Any) -> int:
        """Event time at which `expire` is to be called though nothing comes; 0: never."""

    def expire(self, state: Any, now_ns: int) -> Step:
        """Its deadline has passed: event time is `now_ns` at least. Must move the deadline."""


class BaseDetector:
    """What most detectors do not need to say. Subclasses set `state_type` and write `apply`."""

    state_type: ClassVar[type[Any]]

    def __init__(self, rule: Rule, parameters: Any) -> None:
        self.rule = rule
        self.parameters = parameters
        self.enabled = True
        self.tenants: dict[str, Detector | None] = {}
        self.quiet_ns = parameters.quiet_seconds * 1_000_000_000

    def matches(self, access: Access) -> bool:
        """Every access."""
        return True

    def asks(self, access: Access) -> Callable[[Access], bool] | bool:
        """All that `matches` asks."""
        return self.matches

    def group(self, access: Access) -> str:
        """One state per key."""
        return ""

    def deadline(self, state: Any) -> int:
        """Never."""
        return 0

    def expire(self, state: Any, now_ns: int) -> Step:
        """Nothing happens by time alone."""
        return None
