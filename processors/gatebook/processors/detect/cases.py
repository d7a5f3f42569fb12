"""Cases: written examples of what a detector must and must not flag, run without any service.

A case is a JSON file in the detector's `cases` folder:

    {"says": "Ten failures within a minute fire once.",
     "parameters": {"threshold": 10},
     "limits": {"allowed_lateness_seconds": 300},
     "steps": [{"at_seconds": 0, "repeat": 10, "every_seconds": 5, "document": {...}}],
     "expect": [{"gatebook": {"observed": 10}}]}

Steps become documents in the order given, with an id, a time and intake's time where the document
has none. `expect` holds, for each finding in order, the fields that must have these values; an
empty list means that nothing may fire.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID, uuid5

import msgspec

from gatebook.processors.detect.access import NANOSECONDS
from gatebook.processors.detect.engine import DetectionEngine, Limits
from gatebook.processors.detect.findings import Finding
from gatebook.processors.detect.registry import folder_of, load_detector
from gatebook.schemas.codec import encode
from gatebook.schemas.documents import timestamp_text
from gatebook.schemas.errors import Fatal

CASE_NAMESPACE = UUID("0d6f7d0a-53c9-5a3e-8c53-3c1f3f6a2b10")
# 2026-01-05, a Monday, 09:00:00 UTC.
CASE_START_NS = 1_767_603_600 * NANOSECONDS
Document = dict[str, Any]


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Documents of one kind: `repeat` of them, `every_seconds` apart."""

    at_seconds: float = 0.0
    """First one, after the start of the case."""
    repeat: int = 1
    """How many."""
    every_seconds: float = 0.0
    """Time between two of them."""
    ids: str = ""
    """Name of an id sequence: two steps with the same one carry the same event ids."""
    document: Mapping[str, Any]
    """What they say."""


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One example. `name` is the file's."""

    name: str = ""
    says: str
    """One sentence: what this shows."""
    parameters: Mapping[str, Any] = {}
    """Overrides of the detector's parameters."""
    limits: Limits = Limits()
    """Limits of the engine."""
    steps: tuple[Step, ...]
    """What happens."""
    expect: tuple[Mapping[str, Any], ...]
    """Fields of each finding that must hold."""


class CaseResult(msgspec.Struct, frozen=True):
    """How a case ended; no `problems` means it holds."""

    detector_id: str
    case: str
    says: str
    findings: int
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every expectation holds."""
        return not self.problems


def load_cases(detector_id: str) -> list[Case]:
    """The cases of a detector, by file name. Fatal for a file that is not a case."""
    cases = []
    files = [f for f in (folder_of(detector_id) / "cases").iterdir() if f.name.endswith(".json")]
    for file in sorted(files, key=lambda item: item.name):
        try:
            case = msgspec.json.decode(file.read_bytes(), type=Case)
        except msgspec.MsgspecError as error:
            raise Fatal(f"case {detector_id}/{file.name}: {error}", "correct the file") from None
        cases.append(msgspec.structs.replace(case, name=file.name.removesuffix(".json")))
    return cases


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Document:
    out = dict(base)
    for name, value in over.items():
        mine = out.get(name)
        if isinstance(mine, Mapping) and isinstance(value, Mapping):
            out[name] = _merged(mine, value)
        else:
            out[name] = value
    return out


def expand(steps: tuple[Step, ...]) -> Iterator[Document]:
    """The documents of a case, in order."""
    for number, step in enumerate(steps):
        for turn in range(step.repeat):
            seconds = step.at_seconds + turn * step.every_seconds
            time = timestamp_text(CASE_START_NS + round(seconds * NANOSECONDS))
            event_id = str(uuid5(CASE_NAMESPACE, f"{step.ids or number}|{turn}"))
            base = {"@timestamp": time, "event": {"id": event_id, "ingested": time}}
            yield _merged(base, step.document)


def _differences(expected: Any, actual: Any, path: str) -> Iterator[str]:
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        for name, value in expected.items():
            yield from _differences(value, actual.get(name), f"{path}.{name}")
    elif expected != actual:
        yield f"{path}: expected {expected!r}, got {actual!r}"


def _problems(case: Case, findings: list[Finding]) -> Iterator[str]:
    if len(findings) != len(case.expect):
        yield f"expected {len(case.expect)} findings, got {len(findings)}"
    for number, (expected, finding) in enumerate(zip(case.expect, findings, strict=False)):
        yield from _differences(expected, finding, f"finding {number}")
    for finding in findings:
        encode("finding.v2", finding)


def run_case(detector_id: str, case: Case) -> CaseResult:
    """Run one case, one document a message."""
    engine = DetectionEngine([load_detector(detector_id, case.parameters)], case.limits)
    findings: list[Finding] = []
    for offset, document in enumerate(expand(case.steps)):
        findings += engine.process(offset, [document])
    problems = tuple(_problems(case, findings))
    return CaseResult(detector_id, case.name, case.says, len(findings), problems)
