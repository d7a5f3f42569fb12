"""Cases: written examples of what a detector must and must not flag, run without any service.

A case is a JSON file in the folder `cases` of a rule, or a table [[case]] of its cases.toml:

    [[case]]
    name = "fires_at_ten"
    says = "Ten failures within a minute fire once, and it is over after a quiet time."
    parameters = { threshold = 10 }
    document = { event = { outcome = "failure" }, gatebook = { principal = "acme/eve" } }
    steps = [
      { repeat = 10, every_seconds = 5 },
      { at_seconds = 900, time = true },
    ]
    expect = [ { gatebook = { observed = 10 } } ]
    resolved = [ { gatebook = { occurrences = 1 } } ]

A step is `repeat` documents, `every_seconds` apart: the case's `document` under the step's, with
an id, a time and intake's time where they have none. In texts, {n} is the number of the repetition
and {n%3} its rest. A step with `frame` is a frame of a producer; one with `time` is only the time
that passes. `expect` holds, for each firing finding in order, fields that must have these values;
an empty list means that nothing may fire. `resolved` holds the same for the ends, where given.

Every case is run a second time with an engine that is stopped and started again in between: a
state that does not survive that makes the case fail.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib.resources.abc import Traversable
from typing import Any
from uuid import UUID, uuid5

import msgspec

from gatebook.processors.detect.access import NANOSECONDS, Access, id_digest
from gatebook.processors.detect.base import Detector
from gatebook.processors.detect.engine import DetectionEngine, Limits
from gatebook.processors.detect.findings import Finding
from gatebook.processors.detect.observations import Source
from gatebook.processors.detect.registry import PathLike, folder_of, load_detector
from gatebook.processors.detect.scopes import FRAMES
from gatebook.schemas.codec import encode
from gatebook.schemas.documents import timestamp_text
from gatebook.schemas.errors import Fatal

CASE_NAMESPACE = UUID("0d6f7d0a-53c9-5a3e-8c53-3c1f3f6a2b10")
# 2026-01-05, a Monday, 09:00:00 UTC.
CASE_START_NS = 1_767_603_600 * NANOSECONDS
RESTARTS = 12
Document = dict[str, Any]
_NUMBER = re.compile(r"\{n(?:%(\d+))?\}")


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
    document: Mapping[str, Any] = {}
    """What they say, over the case's document."""
    frame: Mapping[str, Any] | None = None
    """Fields of Access instead: a frame of a producer."""
    time: bool = False
    """Only time passes."""


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One example. `name` is the file's where it has one of its own."""

    name: str = ""
    says: str
    """One sentence: what this shows."""
    parameters: Mapping[str, Any] = {}
    """Overrides as in the detectors file."""
    limits: Limits = Limits()
    """Limits of the engine."""
    document: Mapping[str, Any] = {}
    """What all documents say."""
    steps: tuple[Step, ...]
    """What happens."""
    expect: tuple[Mapping[str, Any], ...]
    """Fields of each firing finding that must hold."""
    resolved: tuple[Mapping[str, Any], ...] | None = None
    """The same for resolved findings."""


class CaseFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cases.toml."""

    case: tuple[Case, ...]


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


def load_cases(detector_id: str, rules_path: PathLike = "") -> list[Case]:
    """The cases of a detector, by file name. Fatal for a file that is not a case."""
    folder = folder_of(detector_id, rules_path)
    cases = [_load(file) for file in _files(folder)]
    table = folder / "cases.toml"
    if table.is_file():
        try:
            values = tomllib.loads(table.read_text(encoding="utf-8"))
            cases += msgspec.convert(values, CaseFile).case
        except (msgspec.MsgspecError, tomllib.TOMLDecodeError) as error:
            raise Fatal(f"{table}: {error}", "correct the file") from None
    return cases


def _files(folder: Traversable) -> list[Traversable]:
    if not (folder / "cases").is_dir():
        return []
    files = [f for f in (folder / "cases").iterdir() if f.name.endswith(".json")]
    return sorted(files, key=lambda item: item.name)


def _load(file: Traversable) -> Case:
    try:
        case = msgspec.json.decode(file.read_bytes(), type=Case)
    except msgspec.MsgspecError as error:
        raise Fatal(f"case {file}: {error}", "correct the file") from None
    return msgspec.structs.replace(case, name=file.name.removesuffix(".json"))


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Document:
    out = dict(base)
    for name, value in over.items():
        mine = out.get(name)
        if isinstance(mine, Mapping) and isinstance(value, Mapping):
            out[name] = _merged(mine, value)
        else:
            out[name] = value
    return out


def _numbered(value: Any, turn: int) -> Any:
    """Texts with {n} and {n%k} filled in."""
    if isinstance(value, str):
        return _NUMBER.sub(lambda m: str(turn % int(m[1]) if m[1] else turn), value)
    if isinstance(value, Mapping):
        return {name: _numbered(inner, turn) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_numbered(inner, turn) for inner in value]
    return value


class Happening(msgspec.Struct, frozen=True):
    """A moment of a case: a document, a frame, or only the time."""

    at_ns: int
    document: Document | None = None
    frame: Access | None = None


def happenings(case: Case) -> Iterator[Happening]:
    """What happens in a case, in order."""
    for number, step in enumerate(case.steps):
        for turn in range(step.repeat):
            seconds = step.at_seconds + turn * step.every_seconds
            at_ns = CASE_START_NS + round(seconds * NANOSECONDS)
            event_id = str(uuid5(CASE_NAMESPACE, f"{step.ids or number}|{turn}"))
            if step.time:
                yield Happening(at_ns)
            elif step.frame is not None:
                yield Happening(at_ns, frame=_frame(step.frame, turn, at_ns, event_id))
            else:
                said = _numbered(_merged(case.document, step.document), turn)
                yield Happening(at_ns, document=_document(said, at_ns, event_id))


def _document(said: Mapping[str, Any], at_ns: int, event_id: str) -> Document:
    time = timestamp_text(at_ns)
    return _merged({"@timestamp": time, "event": {"id": event_id, "ingested": time}}, said)


def _frame(fields: Mapping[str, Any], turn: int, at_ns: int, event_id: str) -> Access:
    said = {**_numbered(fields, turn)}
    if "sequence" in said and isinstance(said["sequence"], str):  # such as "{n}"
        said["sequence"] = int(said["sequence"])
    return Access(
        event_id=event_id,
        id_digest=id_digest(event_id),
        timestamp_ns=at_ns,
        kind="frame",
        **{"frame_sent_ns": at_ns, **said},
    )


def expand(steps: tuple[Step, ...]) -> Iterator[Document]:
    """The documents of steps, in order."""
    case = Case(says="", steps=steps, expect=())
    return (h.document for h in happenings(case) if h.document is not None)


def _differences(expected: Any, actual: Any, path: str) -> Iterator[str]:
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        for name, value in expected.items():
            yield from _differences(value, actual.get(name), f"{path}.{name}")
    elif expected != actual:
        yield f"{path}: expected {expected!r}, got {actual!r}"


def _compare(
    expected: tuple[Mapping[str, Any], ...], findings: list[Finding], noun: str
) -> Iterator[str]:
    if len(findings) != len(expected):
        yield f"expected {len(expected)} {noun}s, got {len(findings)}"
    for number, (wanted, finding) in enumerate(zip(expected, findings, strict=False)):
        yield from _differences(wanted, finding, f"{noun} {number}")


def _problems(case: Case, findings: list[Finding]) -> Iterator[str]:
    firing = [f for f in findings if f["event"]["action"] == "firing"]
    yield from _compare(case.expect, firing, "finding")
    if case.resolved is not None:
        ends = [f for f in findings if f["event"]["action"] == "resolved"]
        yield from _compare(case.resolved, ends, "resolved finding")
    for finding in findings:
        encode("finding.v2", finding)


def play(detector: Detector, case: Case, restarts: int = 0) -> list[Finding]:
    """The findings of a case, one message for each thing that happens."""
    engine = DetectionEngine([detector], case.limits)
    moments = list(happenings(case))
    every = max(1, len(moments) // restarts) if restarts else len(moments) + 1
    state: list[tuple[bytes, bytes | None]] = []
    findings: list[Finding] = []
    for offset, moment in enumerate(moments):
        if moment.document is not None:
            findings += engine.process(offset, [moment.document], moment.at_ns)
        elif moment.frame is not None:
            now = Source("frame", 0, moment.at_ns)
            findings += engine.observe(offset, [((FRAMES,), moment.frame)], [now])
        else:
            findings += engine.advance(moment.at_ns)
            findings += engine.advance(moment.at_ns, "frame")
        if offset % every == every - 1:
            state += engine.drain_state()
            engine = DetectionEngine([detector], case.limits)
            engine.load(state)
    return findings


def run_case(detector_id: str, case: Case, rules_path: PathLike = "") -> CaseResult:
    """Run one case, without and with stops in between."""
    detector = load_detector(detector_id, case.parameters, rules_path)
    findings = play(detector, case)
    problems = list(_problems(case, findings))
    if play(detector, case, RESTARTS) != findings:
        problems.append("after a restart it finds something else: the state is not all there is")
    return CaseResult(detector_id, case.name, case.says, len(findings), tuple(problems))
