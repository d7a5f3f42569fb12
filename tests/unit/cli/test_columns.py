"""Lists for a terminal."""

from __future__ import annotations

import pytest

from gatebook.cli.columns import print_columns


def test_columns_stand_under_their_headings(capsys: pytest.CaptureFixture[str]) -> None:
    """Each cell begins where its heading does, an empty one reads `-`."""
    print_columns(("state", "rule", "reason"), [("firing", "a", "much"), ("", "burst", "")])
    heading, first, second = capsys.readouterr().out.splitlines()
    for name, one, two in (("rule", "a", "burst"), ("reason", "much", "-")):
        at = heading.index(name)
        assert first[at:].startswith(one)
        assert second[at:].startswith(two)
    assert second.startswith("-")


def test_the_last_column_is_whole_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    """A reason is not cut; what would steer the terminal is shown as an escape."""
    print_columns(("rule", "reason"), [("r" * 99, "x" * 200 + "\x1b[2J")])
    row = capsys.readouterr().out.splitlines()[1]
    assert "x" * 200 + "\\x1b[2J" in row
    assert "r" * 99 not in row


def test_no_rows_no_heading(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to list prints nothing: the command says so in its own words."""
    print_columns(("rule",), [])
    assert capsys.readouterr().out == ""
