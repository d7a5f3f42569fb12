"""The command as a shell sees it."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

import gatebook.cli.main

WRONG_USAGE = {
    "an upstream that is no address": ("proxy", "--upstream", "nonsense"),
    "no host and port": ("agent", "--listen", "nonsense"),
    "no such rule": ("backtest", "--rule", "nosuch"),
    "no such parameter": ("backtest", "--rule", "failure_burst", "--set", "nosuch=5"),
    "no such redaction rule": ("rules", "redaction", "test", "nosuch"),
}


@pytest.mark.parametrize("usage", WRONG_USAGE)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(usage: str) -> None:
    """Scripts tell it from a command that looked and found something."""
    command = [sys.executable, "-m", "gatebook.cli.main", *WRONG_USAGE[usage]]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    if "nosuch" in str(WRONG_USAGE[usage]):
        assert "nosuch" in ended.stderr


@pytest.mark.parametrize(("ended_by", "code"), [(KeyboardInterrupt, 130), (click.Abort, 1)])
def test_ctrl_c_is_no_answer(
    ended_by: type[BaseException], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script tells an interrupt from a search that found nothing; a no is no interrupt."""

    @click.command()
    def ends() -> None:
        raise ended_by

    monkeypatch.setattr(gatebook.cli.main, "cli", ends)
    with pytest.raises(SystemExit) as ended:
        gatebook.cli.main.main([])
    assert ended.value.code == code


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """`gatebook search --list-fields | head -1` ends well and without noise."""
    command = [sys.executable, "-m", "gatebook.cli.main", "search", "--list-fields"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 0
