"""What is done before the first byte of standard output, as a shell and a terminal see it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

BEGIN = """
import os, sys
from gatebook.cli.first_output import before_first_output
before = sys.stdout
before_first_output(lambda: os.write(1, b"act|"))
"""
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    "PYTHONIOENCODING": "utf-8",
}
WRITERS = {
    "print": "print('schön')",
    "the bytes below": "sys.stdout.buffer.write('schön\\n'.encode()); sys.stdout.buffer.flush()",
    "click": "import click; click.echo('schön')",
    "rich": "from rich.console import Console; Console().print('schön')",
    "what is left in a buffer at the end": "sys.stdout.write('schön\\n')",
}


def ran(code: str, *options: str) -> bytes:
    command = [sys.executable, *options, "-c", BEGIN + code]
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, timeout=60, check=True
    ).stdout


@pytest.mark.parametrize("options", [(), ("-u",)])
@pytest.mark.parametrize("writer", WRITERS)
def test_it_is_done_once_and_before_whoever_writes_first(
    writer: str, options: tuple[str, ...]
) -> None:
    """Whatever library prints, buffered or not; nothing of what is printed is lost or changed."""
    code = f"{WRITERS[writer]}\nprint('x' * 100_000)"
    wanted = "act|schön\n" + "x" * 100_000 + "\n"
    assert ran(code, *options).decode() == wanted


def test_it_is_not_done_where_nothing_is_printed() -> None:
    """A command that fails before has shown nothing."""
    assert ran("print('failed', file=sys.stderr)") == b""


def test_nothing_is_printed_where_it_is_interrupted() -> None:
    """Ctrl-C while the look is written to the disk: what was to be shown is not."""
    code = """
def interrupted():
    raise KeyboardInterrupt
sys.stdout = before
before_first_output(interrupted)
try:
    print("shown", flush=True)
except KeyboardInterrupt:
    os._exit(0)
"""
    assert ran(code) == b""


def test_it_is_the_same_stream_to_whoever_asks() -> None:
    """Name, encoding, descriptor; and a terminal is one still, that prints line by line."""
    code = """
told = (sys.stdout.name, sys.stdout.encoding, sys.stdout.errors, sys.stdout.fileno())
told += (sys.stdout.isatty(), sys.stdout.line_buffering, sys.stdout.writable())
same = (before.name, before.encoding, before.errors, before.fileno())
same += (before.isatty(), before.line_buffering, before.writable())
assert told == same, (told, same)
print(told[4:6])
os._exit(0)
"""
    terminal, its_end = pty.openpty()
    command = [sys.executable, "-c", BEGIN + code]
    child = subprocess.Popen(command, env=ENVIRONMENT, stdout=its_end, stderr=subprocess.PIPE)
    os.close(its_end)
    _, errors = child.communicate(timeout=60)
    assert errors == b""
    assert os.read(terminal, 1_000) == b"act|(True, True)\r\n"
    os.close(terminal)


def test_without_a_standard_output_it_is_done_at_once() -> None:
    """`>&-`: there is nothing that could tell when it is time."""
    code = """
import sys
from gatebook.cli.first_output import before_first_output
before_first_output(lambda: sys.stderr.write("act"))
sys.stderr.write(str(sys.stdout))
"""
    command = ["/bin/sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, code]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert done.stderr == b"actNone"
