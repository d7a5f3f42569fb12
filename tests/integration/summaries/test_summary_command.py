"""`gatebook summary` as an operator runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
from tests.integration.summaries.book import Book, event, spread_out
from tests.waiting import wait_until

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAY = TODAY - timedelta(days=3)


def command(book: Book, *arguments: str) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "gatebook.cli.main", "summary", *arguments],
        env=environment(book),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def environment(book: Book) -> dict[str, str]:
    named = {"GATEBOOK_ELASTICSEARCH_URL": book.url, "GATEBOOK_NAMESPACE": book.namespace}
    return {**os.environ, **named}


async def test_an_operator_sums_up_looks_and_checks(book: Book) -> None:
    """run, show and check say what they did and saw; the exit code tells good from not."""
    assert command(book, "show").returncode == 1
    assert command(book, "check").returncode == 1
    await book.write(spread_out(200, DAY, 24))
    report = json.loads(command(book, "run", "--json").stdout)
    assert (report["events"], report["days"]) == (200, 1)
    shown = command(book, "show", "--by", "day", "--by", "tenant", "--until", f"{DAY:%F}T20:00")
    assert shown.returncode == 0, shown.stderr
    heading, *lines = shown.stdout.splitlines()
    assert heading.split()[:4] == ["day", "tenant", "events", "failures"]
    assert len(lines) == 3
    assert "out of summaries; summed up until" in shown.stderr
    checked = command(book, "check")
    assert checked.returncode == 0
    assert "200 events" in checked.stdout
    await book.write([event(5_000, DAY)])
    late = command(book, "check")
    assert (late.returncode, "instead of" in late.stdout) == (1, True)
    assert "`gatebook summary run`" in late.stderr
    assert command(book, "rebuild", "--since", f"{DAY:%F}").returncode == 0
    assert command(book, "check", "--json").returncode == 0


async def test_failures_are_those_of_the_outcome(book: Book) -> None:
    """A failure without a status is one; a refusal that ended as a success is none. From rows of
    summaries and from details alike."""
    ended = [("failure", 0), ("failure", 503), ("success", 404), ("success", 200)]
    for days, numbers in ((timedelta(0), range(4)), (TODAY - DAY, range(10, 14))):
        await book.write(
            event(
                number,
                DAY + days,
                event={"id": f"e-{number}", "hash": f"h{number}", "outcome": outcome},
                http={"response": {"status_code": status} if status else {}},
            )
            for number, (outcome, status) in zip(numbers, ended, strict=True)
        )
        command(book, "run", "--settle-seconds", "86400")
    shown = command(book, "show", "--by", "outcome")
    lines = [line.split()[:3] for line in shown.stdout.splitlines()[1:]]
    assert lines == [["failure", "4", "4"], ["success", "4", "0"]]
    told = json.loads(command(book, "show", "--by", "day", "--json").stdout)["groups"]
    assert [(group["events"], group["failures"]) for group in told] == [(4, 2), (4, 2)]


async def test_a_question_it_cannot_answer_is_wrong_usage(book: Book) -> None:
    """And so is a field that is nowhere; hostile text in a name is shown as text."""
    for query in ("source.ip:10.0.0.1", "usr.id:x"):
        assert command(book, "show", query).returncode == 2
    hostile = {"user": {"id": "\x1b[2Jada"}}
    await book.write([event(1, DAY, **hostile)])
    command(book, "run")
    shown = command(book, "show", "--by", "user")
    assert "\\x1b[2Jada" in shown.stdout
    assert "\x1b" not in shown.stdout


async def test_watching_takes_up_what_comes_in(book: Book) -> None:
    """Until it is told to stop, which is no error."""
    watching = _start(book, "run", "--watch", "--interval-seconds", "1")
    try:
        for number in (1, 2):
            await book.write([event(number, DAY)])
            wait_until("the event is summed up", lambda: command(book, "check").returncode == 0)
        assert json.loads(command(book, "show", "--json").stdout)["groups"][0]["events"] == 2
    finally:
        watching.send_signal(signal.SIGTERM)
        assert watching.wait(30) == 0


def _start(book: Book, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "gatebook.cli.main", "summary", *arguments], env=environment(book)
    )


async def test_a_supervisor_keeps_summaries_where_it_is_told_to(book: Book) -> None:
    """`gatebook worker --roles summaries` sums up what is there, and ends in good order; one that
    is killed leaves nothing behind."""
    await book.write(spread_out(50, DAY, 24))
    supervisor = _supervised(book)
    try:
        wait_until("all is summed up", lambda: command(book, "show").returncode == 0, 90)
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(60) == 0
    finally:
        supervisor.kill()
    assert command(book, "check").returncode == 0
    again = _supervised(book)
    try:
        children = wait_until("it began", lambda: psutil.Process(again.pid).children())
    finally:
        again.kill()
        again.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []


def _supervised(book: Book) -> subprocess.Popen[bytes]:
    told = [sys.executable, "-m", "gatebook.cli.main", "worker", "--roles", "summaries"]
    return subprocess.Popen(told, env=environment(book))
