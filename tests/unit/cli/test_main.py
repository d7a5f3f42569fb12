"""The command as a shell sees it."""

from __future__ import annotations

import subprocess
import sys


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """`gatebook search --list-fields | head -1` ends well and without noise."""
    command = [sys.executable, "-m", "gatebook.cli.main", "search", "--list-fields"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 0
