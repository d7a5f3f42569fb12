"""What `gatebook finding close` says of a verdict that was given before."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from gatebook.cli import finding_commands
from gatebook.cli.finding_commands import finding, verdict_before


def document(name: str, action: str = "firing", by: str = "", verdict: str = "") -> dict[str, Any]:
    """A finding of one incident, or a word on its first."""
    return {
        "event": {"id": name, "action": action},
        "rule": {"id": "failure_burst"},
        "gatebook": {"incident": "i1", "verdict": verdict, "dedup_key": "k"},
        "labels": {"by": by, "finding_id": "" if action == "firing" else "f1"},
    }


FIRING = [document("f1"), document("f2")]
CLOSED = document("w1", "closed", "root", "true_positive")


def test_the_verdict_that_stands_is_the_last_one() -> None:
    """With whose it is; an acknowledgement is none."""
    assert verdict_before(FIRING) == ""
    assert verdict_before([*FIRING, document("w0", "acknowledged", "ann")]) == ""
    assert verdict_before([*FIRING, CLOSED]) == "true_positive by root"
    last = document("w2", "closed", "ann", "benign")
    assert verdict_before([*FIRING, CLOSED, last]) == "benign by ann"


def test_a_verdict_is_not_replaced_without_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, and nothing is written or recorded: that would need engines."""
    monkeypatch.setattr(finding_commands, "run_on_cluster", lambda _work: ([*FIRING, CLOSED], []))
    done = CliRunner().invoke(finding, ["close", "f1", "--verdict", "benign"])
    assert done.exit_code == 2
    assert "this would replace true_positive by root; say why" in " ".join(done.output.split())
