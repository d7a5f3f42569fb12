"""Who looks by a command is in the spool before anything is shown, however the command ends."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.integration.search.test_search import NOW, Book, lines_noted, make_row, stop
from tests.waiting import wait_until

from gatebook.processors.setup import setup_elasticsearch
from gatebook.processors.sinks.settings import ElasticsearchSettings
from gatebook.producers.spool import FileSpool, abandoned_spools
from gatebook.schemas.codec import decode_event

MIB = 1024 * 1024
SHOWING = {
    "search": ("search", "user.id:gus"),
    "search, lines": ("search", "--ndjson", "user.id:gus"),
    "search, counts": ("search", "--facets", "user.id", "user.id:gus"),
    "search.tail": ("tail", "user.id:gus", "--since", "1m", "--interval-seconds", "0.1"),
    "event.around": ("around", "access-000002"),
    "event.view": ("show", "access-000002"),
    "export.make": ("export", "user.id:gus"),
}


class Watched(Book):
    """A namespace, and a spool that no broker empties."""

    def __init__(self, url: str, namespace: str, spool: Path) -> None:
        super().__init__(url, namespace)
        self.spool = spool

    def environment(self, url: str = "") -> dict[str, str]:
        return {**super().environment(url), "GATEBOOK_SPOOL_DIR": str(self.spool)}

    def looks(self) -> list[dict[str, Any]]:
        """The events in the spools of commands that have ended, oldest first."""
        found: list[dict[str, Any]] = []
        for folder in abandoned_spools(self.spool / self.namespace):
            adopted = FileSpool.adopt(folder, MIB)
            assert adopted is not None, "a command lives still"
            with closing(adopted):
                found += [decode_event(event.data) for event in adopted.peek(100, MIB)]
        return sorted(found, key=lambda event: event["timestamp"])

    def start(self, *arguments: str, output: Path | None = None) -> subprocess.Popen[bytes]:
        with output.open("wb") if output else nullcontext(subprocess.PIPE) as shown:
            return subprocess.Popen(
                [sys.executable, "-m", "gatebook.cli.main", *arguments],
                env=self.environment(),
                stdout=shown,
                stderr=subprocess.PIPE,
            )


@pytest.fixture
async def book(engines: Any, namespace: str, tmp_path: Path) -> AsyncIterator[Watched]:
    await setup_elasticsearch(ElasticsearchSettings(url=engines.elasticsearch_url), namespace)
    found = Watched(engines.elasticsearch_url, namespace, tmp_path / "spool")
    yield found
    names = await found.connection.request("GET", f"/{namespace}-*/_alias")
    if names.body:
        await found.connection.request("DELETE", "/" + ",".join(names.body))
    await found.connection.close()


def rows(count: int, **more: Any) -> list[Any]:
    when = [NOW - timedelta(milliseconds=count - n) for n in range(count)]
    return [make_row(n, when=at, user={"id": "gus"}, **more) for n, at in enumerate(when)]


@pytest.mark.parametrize("action", SHOWING)
async def test_a_look_outlives_a_kill_at_the_first_byte(book: Watched, action: str) -> None:
    """SIGKILL as soon as one byte was shown: who looked, and at what, is on the disk."""
    await book.write(*rows(5))
    command = book.start(*SHOWING[action])
    try:
        assert command.stdout is not None
        first = await asyncio.to_thread(command.stdout.read, 1)
        command.kill()
        assert first, command.communicate()
    finally:
        command.kill()
        command.communicate()
    (look,) = book.looks()
    told = (look["event"]["action"], look["event"]["outcome"], look["event"]["category"])
    assert told == (action.partition(",")[0], "success", "database")
    assert look["user"]["id"]
    named = look["attributes"]
    assert named.get("query", "") == "user.id:gus" or named.get("event", "") == "access-000002"


async def test_an_export_is_recorded_before_its_first_row_and_so_is_its_resumption(
    book: Watched, tmp_path: Path
) -> None:
    """SIGKILL once rows stand in the part; what --resume took out is recorded with the query and
    the range of what was begun, not with those that its own options would mean."""
    for batch in range(5):
        await book.write(*rows(20_000, url={"path": "/" + "x" * 300})[batch * 4_000 :][:4_000])
    output = tmp_path / "gus.csv"
    options = ("--since", "all", "--format", "csv", "-o", str(output))
    killed = book.start("export", "user.id:gus", *options)
    part, notes = output.with_name("gus.csv.part"), output.with_name("gus.csv.part.json")
    try:
        wait_until(
            "bytes are in the part",
            lambda: part.exists() and part.stat().st_size,
            poll_seconds=0.001,
        )
    finally:
        killed.kill()
        killed.communicate()
    assert lines_noted(notes) < 20_000
    (look,) = book.looks()
    assert (look["event"]["action"], look["event"]["outcome"]) == ("export.make", "success")
    assert look["attributes"] == {"query": "user.id:gus", "kind": "access", "since": "all"}
    resumed = book.command("export", "-o", str(output), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    _, look = book.looks()
    assert (look["event"]["action"], look["event"]["outcome"]) == ("export.make", "success")
    until = look["attributes"].pop("until")
    assert until.startswith(f"{NOW.year}-")
    wanted = {"query": "user.id:gus", "kind": "access", "since": "all", "resumed": "yes"}
    assert look["attributes"] == wanted


async def test_a_resumption_that_is_refused_is_no_export(book: Watched, tmp_path: Path) -> None:
    """Nothing was begun there: a failure, without a range that nobody asked for."""
    done = book.command("export", "-o", str(tmp_path / "none.csv"), "--resume")
    assert done.returncode == 2
    (look,) = book.looks()
    assert (look["event"]["outcome"], look["event"]["reason"]) == ("failure", "invalid_request")
    assert "since" not in look["attributes"]


@pytest.mark.parametrize("action", ["search, lines", "search.tail"])
async def test_a_reader_that_has_seen_enough_has_seen_something(book: Watched, action: str) -> None:
    """`| head`: one look, and a successful one."""
    await book.write(*rows(1_500, event={"reason": "r" * 500}))
    command = book.start(*SHOWING[action], *(["--all"] if action == "search, lines" else []))
    try:
        assert command.stdout is not None
        assert len(await asyncio.to_thread(command.stdout.read, 100)) == 100
        command.stdout.close()
        if action == "search.tail":  # it learns of it with the next event
            await book.write(make_row(9_000, user={"id": "gus"}))
        assert await asyncio.to_thread(command.wait, 60) == 0
    finally:
        command.kill()
        command.wait()
        assert command.stderr is not None
        command.stderr.close()
    (look,) = book.looks()
    assert look["event"]["outcome"] == "success"


async def test_what_failed_before_it_showed_anything_is_a_failure(book: Watched) -> None:
    """A query that is none, also where the error is told in JSON on standard output."""
    for form in ((), ("--json",)):
        assert book.command("search", "user.id:gus and", *form).returncode == 2
    told = [(look["event"]["outcome"], look["event"]["reason"]) for look in book.looks()]
    assert told == [("failure", "invalid_request")] * 2


async def test_what_failed_after_it_showed_something_is_both(book: Watched) -> None:
    """A tail that is over because its disk is full, say: the look stays, and its end is told."""
    await book.write(*rows(5))
    command = book.start(*SHOWING["search, lines"], output=Path("/dev/full"))
    await asyncio.to_thread(command.communicate)
    assert command.returncode != 0
    told = [look["event"]["outcome"] for look in book.looks()]
    assert told == ["success", "failure"]


@pytest.mark.parametrize("action", SHOWING)
async def test_without_a_spool_nothing_is_shown(book: Watched, action: str) -> None:
    """A look that cannot be recorded is refused, in one line and what to do."""
    await book.write(*rows(5))
    book.spool.write_text("")
    done = book.command(*SHOWING[action])
    assert done.returncode == 6
    assert done.stdout == ""
    assert done.stderr.count("cannot be recorded") == 1
    assert "GATEBOOK_SPOOL_DIR" in done.stderr
    assert "Traceback" not in done.stderr


async def test_an_export_that_cannot_be_recorded_leaves_no_file(
    book: Watched, tmp_path: Path
) -> None:
    """So that the same command is not refused once it can be."""
    await book.write(*rows(5))
    book.spool.write_text("")
    output = tmp_path / "out" / "gus.csv"
    output.parent.mkdir()
    done = book.command("export", "user.id:gus", "-o", str(output))
    assert done.returncode == 6
    assert list(output.parent.iterdir()) == []


async def test_a_wrong_setting_is_told_as_one(
    book: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What keeps a look from being recorded is named with what to do about that."""
    await book.write(*rows(5))
    monkeypatch.setenv("GATEBOOK_DELIVERY_MODE", "bogus")
    done = book.command("search", "user.id:gus")
    assert (done.returncode, done.stdout) == (6, "")
    assert "GATEBOOK_DELIVERY_MODE" in done.stderr
    assert "GATEBOOK_SPOOL_DIR" not in done.stderr


async def test_in_json_a_look_that_cannot_be_recorded_is_an_error_alone(book: Watched) -> None:
    """Who reads standard output as JSON gets the error, and nothing of the log."""
    await book.write(*rows(5))
    book.spool.write_text("")
    done = book.command("search", "--json", "user.id:gus")
    assert done.returncode == 6
    assert "cannot be recorded" in json.loads(done.stdout)["error"]


async def test_ctrl_c_ends_a_tail_that_is_recorded_once(book: Watched) -> None:
    """An interrupt is the normal way out, and no failure."""
    await book.write(*rows(1))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gatebook.cli.main", *SHOWING["search.tail"]),
        env=book.environment(),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), 30)
        process.send_signal(2)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        stop(process)
    assert [look["event"]["outcome"] for look in book.looks()] == ["success"]


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        (
            ("summary", "show", "user.id:gus", "--since", "7d", "--by", "user"),
            {
                "action": "summary.view",
                "query": "user.id:gus",
                "since": "7d",
                "by": "user",
            },
        ),
        (
            ("backtest", "--rule", "failure_burst", "--since", "1h", "--query", "user.id:gus"),
            {
                "action": "rule.backtest",
                "rule": "failure_burst",
                "query": "user.id:gus",
                "since": "1h",
                "source": "index",
            },
        ),
        (
            ("policy", "dry-run", "infra/examples/capture-policy.toml", "--since", "1h"),
            {"action": "policy.dry_run", "policy": "example", "since": "1h"},
        ),
        (("retention", "status", "--json"), {"action": "retention.view"}),
        (("archive", "list"), {"action": "archive.list", "archive": "restored"}),
        (("archive", "list", "{folder}"), {"action": "archive.list", "archive": "{folder}"}),
    ],
    ids=lambda given: " ".join(given[:2]) if isinstance(given, tuple) else "",
)
async def test_who_reads_by_other_commands_is_recorded(
    book: Watched, tmp_path: Path, command: tuple[str, ...], wanted: dict[str, str]
) -> None:
    """Sums by person, what a rule or a policy would have done, which holds stand, what stands in
    archives: a look each, which is no privileged act."""
    await book.write(*rows(3))
    done = book.command(*(part.format(folder=tmp_path) for part in command))
    assert done.returncode in (0, 1), done.stderr
    (look,) = book.looks()
    event = look["event"]
    told = (event["action"], event["outcome"], event["category"], event["type"])
    assert told == (wanted.pop("action"), "success", "database", "access")
    expected = {name: text.format(folder=tmp_path) for name, text in wanted.items()}
    assert look["attributes"] == expected


async def test_a_hold_is_recorded_with_what_it_covers_and_a_rebuild_as_an_act(
    book: Watched,
) -> None:
    """Whoever reads the log sees what was held, by which times, though the command gave them as
    relative ones. Summing up what is due is no look."""
    what = ("--tenant", "acme", "--trace", "t-1", "--query", "user.id:gus", "--until", "now-1d")
    done = book.command(
        *("retention", "hold", "--hold-id", "case-1", "--reason", "case 1"),
        *(*what, "--since", "2026-01-31", "--kind", "access"),
    )
    assert done.returncode == 0, done.stderr
    (act,) = book.looks()
    told = act["attributes"]
    until = datetime.fromisoformat(told.pop("until"))
    assert abs(datetime.now(UTC) - timedelta(days=1) - until) < timedelta(minutes=5)
    assert told == {
        "reason": "case 1",
        "hold": "case-1",
        "kinds": "access",
        "tenant": "acme",
        "trace": "t-1",
        "query": "user.id:gus",
        "since": "2026-01-31T00:00:00.000000Z",
    }
    for command in ("run", "rebuild"):
        done = book.command("summary", command, "--json")
        assert done.returncode == 0, done.stderr
    (event,) = [one["event"] for one in book.looks() if "summary" in one["event"]["action"]]
    assert (event["action"], event["outcome"], event["type"]) == (
        "summary.rebuild",
        "success",
        "admin",
    )


async def test_archives_that_are_none_and_alerts_without_kafka_are_failures(
    book: Watched, tmp_path: Path
) -> None:
    """They showed nothing."""
    assert book.command("archive", "verify", str(tmp_path)).returncode == 2
    assert book.command("alerts", "list").returncode != 0
    told = [(look["event"]["action"], look["event"]["outcome"]) for look in book.looks()]
    assert told == [("archive.verify", "failure"), ("alert.list", "failure")]


async def test_a_tail_that_waits_in_vain_is_a_look(book: Watched) -> None:
    """Who watches for somebody who does not come has watched, and a kill does not undo it."""
    await book.write(*rows(1))
    process = book.start("tail", "user.id:nobody")
    try:
        wait_until("it is in the spool", lambda: size_of(book.spool) > 0)
    finally:
        process.kill()
        process.communicate()
    (look,) = book.looks()
    assert (look["event"]["action"], look["event"]["outcome"]) == ("search.tail", "success")


def size_of(spool: Path) -> int:
    """Bytes of all segments; what a spool that is made anew has none of."""
    return sum(path.stat().st_size for path in spool.glob("*/*/*/*.seg"))
