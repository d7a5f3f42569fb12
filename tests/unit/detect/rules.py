"""Rules for tests, written the way users write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gatebook.processors.detect.base import Detector
from gatebook.processors.detect.cases import Case, Document, Step, play
from gatebook.processors.detect.registry import load_detector

HEAD = """
id = "{name}"
name = "A rule of a test"
version = "1"
severity = "warning"
risk_score = 47
runbook = "runbook.md"
blind_spots = ["None that matter here."]
"""


def write_rule(root: Path, name: str, rest: str, logic: str = "") -> Path:
    """A folder with a rule: [detect] and the tables after it, and functions."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "rule.toml").write_text(HEAD.format(name=name) + rest)
    (folder / "runbook.md").write_text("Look.")
    if logic:
        (folder / "logic.py").write_text(logic)
    return folder


def rule(root: Path, rest: str, logic: str = "", **overrides: Any) -> Detector:
    """The detector of such a rule."""
    write_rule(root, "tested", rest, logic)
    return load_detector("tested", overrides, root)


def steps(*moments: tuple[float, Document | None]) -> tuple[Step, ...]:
    """Moments of a case: seconds and a document, or only the time."""
    return tuple(
        Step(at_seconds=seconds, time=True)
        if document is None
        else Step(at_seconds=seconds, document=document)
        for seconds, document in moments
    )


def happens(detector: Detector, *moments: tuple[float, Document | None]) -> list[tuple[str, float]]:
    """What a rule says of moments: actions with the figures observed, in order."""
    case = Case(says="", steps=steps(*moments), expect=())
    found = play(detector, case)
    assert play(detector, case, restarts=len(moments)) == found
    return [(f["event"]["action"], f["gatebook"]["observed"]) for f in found]


def by(who: str = "eve", **fields: Any) -> Document:
    """A document of a principal."""
    ours = {"principal": who, **fields.pop("gatebook", {})}
    return {"gatebook": ours, **fields}
