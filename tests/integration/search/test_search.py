"""Searching, following and showing events, on real Elasticsearch, through service and command."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import wait_until

from gatebook.processors.search import spelling
from gatebook.processors.search.facets import facets
from gatebook.processors.search.histogram import histogram
from gatebook.processors.search.paging import first_page, next_page
from gatebook.processors.search.question import Scope, ask_for
from gatebook.processors.search.service import BadRequest, Page, Tail, find, search
from gatebook.processors.setup import setup_elasticsearch
from gatebook.processors.sinks.base import Row
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.sinks.elasticsearch import ElasticsearchSink
from gatebook.processors.sinks.settings import ElasticsearchSettings

NOW = datetime.now(UTC).replace(microsecond=0)


def stamp(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "000Z"


def make_row(number: int, *, kind: str = "access", when: datetime = NOW, **fields: Any) -> Row:
    """A document; `fields` are merged into it, so event={...} adds to event."""
    identity = f"{kind}-{number:06d}"
    event = {"id": identity, "hash": f"h{number}", "ingested": stamp(datetime.now(UTC))}
    document = {"@timestamp": stamp(when), **fields, "event": {**fields.get("event", {}), **event}}
    return Row(
        kind, when.strftime("%Y.%m.%d"), identity, f"h{number}", json.dumps(document).encode()
    )


class Book:
    """One namespace in the real server: write, then look."""

    def __init__(self, url: str, namespace: str) -> None:
        self.url = url
        self.namespace = namespace
        self.connection = Connection(ElasticsearchSettings(url=url))
        self._sink = ElasticsearchSink(namespace, self.connection)

    async def write(self, *rows: Row) -> None:
        outcome = await self._sink.write(rows)
        assert outcome.indexed == len(rows), outcome
        await self.connection.request("POST", f"/{self.namespace}-*/_refresh")

    async def pages(self, query: str = "", **given: Any) -> list[Page]:
        return [p async for p in search(self.connection, self.namespace, query, **given)]

    async def ids(self, query: str = "", **given: Any) -> list[str]:
        return [hit.id for page in await self.pages(query, **given) for hit in page.hits]

    def command(self, *arguments: str, url: str = "", columns: str = "") -> Any:
        """Run `gatebook` as a person does, and return the finished process."""
        return subprocess.run(
            [sys.executable, "-m", "gatebook.cli.main", *arguments],
            env=self.environment(url) | ({"COLUMNS": columns} if columns else {}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def environment(self, url: str = "") -> dict[str, str]:
        return {
            **os.environ,
            "GATEBOOK_ELASTICSEARCH_URL": url or self.url,
            "GATEBOOK_KAFKA_BOOTSTRAP": "127.0.0.1:1",
            "GATEBOOK_NAMESPACE": self.namespace,
        }


@pytest.fixture
async def book(engines: Any, namespace: str) -> AsyncIterator[Book]:
    await setup_elasticsearch(ElasticsearchSettings(url=engines.elasticsearch_url), namespace)
    found = Book(engines.elasticsearch_url, namespace)
    yield found
    names = await found.connection.request("GET", f"/{namespace}-*/_alias")
    if names.body:
        await found.connection.request("DELETE", "/" + ",".join(names.body))
    await found.connection.close()


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", "0 1 2 3"),
        ("user.id:alice", "0 1"),
        ("user.id:al* and not event.outcome:success", "1"),
        ("user.id:(alice or bob) and http.response.status_code < 500", "0 2"),
        ("source.ip:10.0.0.0/8", "0 2"),
        ("source.ip:2001:db8::1", "3"),
        ("source.ip > 10.0.0.1", "2 3"),
        ("error.type:*", "1"),
        ("gen_ai.request.stream:true", "2"),
        ('gen_ai.input.messages:"password reset"', "3"),
        ("RESET", "3"),
        ("reset pass*", "3"),
        ("refused", "1"),
        ('"upstream refused"', "1"),
        ("gatebook.attributes.team:blue", "0"),
        ("gatebook.attributes.team:b*", "0"),
        ("gatebook.attributes:blue", "0"),
        ("url.path:\\*star", "2"),
        ("url.path:*st?r", ""),
        ("user.id:*oe*", "3"),
        ("@timestamp >= 2020-01-01 and @timestamp < now+1h", "0 1 2 3"),
        ("@timestamp:2019", ""),
        ("nothing-like-this", ""),
    ],
)
async def test_queries_find_what_they_say(book: Book, query: str, wanted: str) -> None:
    """The language end to end, on fields of every type."""
    await book.write(
        make_row(
            0,
            user={"id": "alice"},
            event={"outcome": "success"},
            http={"response": {"status_code": 200}},
            source={"ip": "10.0.0.1"},
            gatebook={"attributes": {"team": "blue"}},
        ),
        make_row(
            1,
            user={"id": "alice"},
            event={"outcome": "failure"},
            http={"response": {"status_code": 502}},
            error={"type": "upstream_error", "message": "the upstream refused"},
        ),
        make_row(
            2,
            user={"id": "bob"},
            http={"response": {"status_code": 404}},
            source={"ip": "10.9.0.1"},
            url={"path": "*star"},
            gen_ai={"request": {"stream": True}},
        ),
        make_row(
            3,
            user={"id": "zoë-doe"},
            source={"ip": "2001:db8::1"},
            gen_ai={"input": {"messages": "please reset my password"}},
        ),
    )
    found = await book.ids(query, sort="event.id:asc")
    assert [int(i.rpartition("-")[2]) for i in found] == [int(n) for n in wanted.split()]


MESSAGES = ("rate limited at Support-Agent", "unlimited", "\u00dcnavailable LIMITED", "a*b", "axb",
            "limited\\nby a \\\\ line", "limited " + "x" * 2_000, "")  # fmt: skip


@pytest.mark.parametrize("most", [spelling.MAX_VALUES, 1])
@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("limited", "0 1 2 5 8 9"),
        ("LIMITED support-agent", "0 8"),
        ('"a*b"', "3"),
        ("error.message:a*b", "3 4"),
        ("error.message:*imit*", "0 1 5"),
        ("not limited", "3 4 6 7"),
        ("\u00dcNAVAILABLE", "2"),
        ("slow and limited", "9"),
        ("limited and event.reason:*", "8 9"),
        ("nothing-like-this", ""),
    ],
)
async def test_words_are_found_in_messages_however_many_there_are(
    book: Book, monkeypatch: pytest.MonkeyPatch, query: str, wanted: str, most: int
) -> None:
    """Pages, histogram and facets agree, whether values were listed first or were too many."""
    monkeypatch.setattr(spelling, "MAX_VALUES", most)
    rows = [make_row(n, error={"message": text}) for n, text in enumerate(MESSAGES)]
    support = make_row(8, error={"message": "at support-agent"}, event={"reason": "Limited"})
    before = make_row(9, when=NOW - timedelta(days=2), event={"reason": "slow, limited"})
    await book.write(*rows, support, before)
    numbers = [int(n) for n in wanted.split()]
    found = await book.ids(query, sort="event.id:asc", since="10d")
    assert [int(i.rpartition("-")[2]) for i in found] == numbers
    now = NOW + timedelta(seconds=1)
    question = ask_for(query, "10d", stamp(now), now=now)
    counted = await histogram(book.connection, book.namespace, question, 60, "event.id", now=now)
    assert counted.total == len(numbers)
    valued = await facets(book.connection, book.namespace, question, ["event.id", "event.reason"])
    ids = valued.facets["event.id"]
    assert (valued.total, ids.distinct, ids.exact) == (len(numbers), len(numbers), True)
    assert sorted(str(value) for value, _ in ids.values) == found


async def test_pages_of_words_are_of_one_point_in_time(book: Book) -> None:
    """Values are read from where the pages are: a message that comes meanwhile shifts nothing."""
    await book.write(*(make_row(n, error={"message": f"limited {n}"}) for n in range(3)))
    question = ask_for("limited", now=datetime.now(UTC))
    order = [{"event.id": "asc"}]
    page = await first_page(book.connection, book.namespace, question, order, 2, keep_seconds=60)
    assert (page.total, len(page.hits)) == (3, 2)
    assert page.place is not None
    await book.write(make_row(9, error={"message": "limited anew"}))
    page = await next_page(book.connection, question, order, 2, page.place, keep_seconds=60)
    assert [hit.id for hit in page.hits] == ["access-000002"]


async def test_words_are_spelled_out_from_what_who_asks_may_see(book: Book) -> None:
    """Messages of other tenants do not even take part in making a query."""
    await book.write(
        make_row(1, organization={"id": "ours"}, error={"message": "limited, ours"}),
        make_row(2, organization={"id": "theirs"}, error={"message": "limited, theirs"}),
    )
    scope = Scope(({"terms": {"organization.id": ["ours"]}},))
    question = ask_for("limited", now=datetime.now(UTC), scope=scope)
    asked = await spelling.spelled_out(book.connection, question, f"{book.namespace}-access")
    assert "limited, ours" in str(asked.dsl)
    assert "theirs" not in str(asked.dsl)


async def test_facets_count_values_that_are_not_shown(book: Book) -> None:
    """What is not listed is in `other` and in `distinct`, whether a shard returned it or not."""
    await book.write(*(make_row(n, user={"id": f"user-{n % 150}"}) for n in range(300)))
    now = datetime.now(UTC)
    for query, size in (("", 3), ("", 50), ("event.id:access*1", 3)):
        found = await facets(
            book.connection, book.namespace, ask_for(query, now=now), ["user.id"], size
        )
        users = found.facets["user.id"]
        assert len(users.values) == size if found.total == 300 else 3
        assert sum(count for _, count in users.values) + users.other == found.total
        assert users.distinct == (150 if found.total == 300 else 15)


async def test_all_pages_together_hold_every_match_once(book: Book) -> None:
    """More matches than a page holds, many at the very same instant: none twice, none missing,
    and what is written while we read does not shift the pages."""
    await book.write(*(make_row(n) for n in range(2_500)))
    seen: list[str] = []
    async for page in search(book.connection, book.namespace, size=None):
        assert page.total == 2_500
        seen += [hit.id for hit in page.hits]
        await book.write(*(make_row(10_000 + len(seen) + n) for n in range(3)))
    assert sorted(seen) == [make_row(n).id for n in range(2_500)]
    assert len(await book.ids(size=1_001)) == 1_001


async def test_time_bounds_and_order(book: Book) -> None:
    """since is inclusive, until exclusive, newest first unless asked otherwise."""
    await book.write(*(make_row(n, when=NOW - timedelta(minutes=n)) for n in range(5)))
    assert await book.ids(since="3m", until="1m", now=NOW) == [
        "access-000002",
        "access-000003",
    ]
    oldest_first = await book.ids(sort="@timestamp:asc", size=2)
    assert oldest_first == ["access-000004", "access-000003"]


async def test_an_empty_time_range_is_refused(book: Book) -> None:
    """A range that ends before it begins is a slip of the pen, not an absence of events."""
    with pytest.raises(BadRequest, match="time range is empty"):
        await book.pages(since="2h", until="3h")
    assert book.command("search", "--since", "2h", "--until", "3h").returncode == 2


async def test_who_is_known_by_key_alone_shows_as_that(book: Book) -> None:
    """The user column is never blank where the log knows who it was."""
    await book.write(make_row(1, gatebook={"principal": "acme/key:k7"}))
    assert "acme/key:k7" in book.command("search").stdout


async def test_a_namespace_without_events_has_no_matches(book: Book) -> None:
    """Nothing written yet is an empty result, not an error; a wrong kind is an error."""
    assert await book.pages() == [Page(0)]
    with pytest.raises(BadRequest):
        await book.pages(kind="nothing")


async def test_views_are_closed_after_use(book: Book) -> None:
    """A search that is left early keeps no point in time open on the server."""

    async def open_views() -> int:
        answer = await book.connection.request("GET", "/_nodes/stats/indices/search")
        (node,) = answer.body["nodes"].values()
        return int(node["indices"]["search"]["open_contexts"])

    await book.write(*(make_row(n) for n in range(3)))
    before = await open_views()
    pages = search(book.connection, book.namespace, size=None)
    await anext(pages)
    assert await open_views() > before
    await pages.aclose()  # type: ignore[attr-defined]  # it is an async generator
    assert await open_views() == before


async def test_an_event_is_found_with_the_findings_that_cite_it(book: Book) -> None:
    """By id, across kinds; another event's finding is left out."""
    cite = {"gatebook": {"evidence": ["access-000001", "access-000007"]}}
    other = {"gatebook": {"evidence": ["access-000002"]}}
    await book.write(
        make_row(1), make_row(5, kind="finding", **cite), make_row(6, kind="finding", **other)
    )
    found = await find(book.connection, book.namespace, "access-000001")
    assert sorted(hit.id for hit in found) == ["access-000001", "finding-000005"]
    assert await find(book.connection, book.namespace, "absent") == []


async def test_tail_shows_each_event_once_even_if_it_comes_late(book: Book) -> None:
    """Events stamped before the newest one shown, but indexed after it, are shown too."""
    tail = Tail(book.connection, book.namespace, "user.id:a*", since="1m")
    assert await tail.poll() == []
    late = make_row(1, user={"id": "ann"})  # stamped first
    await book.write(make_row(2, user={"id": "abe"}), make_row(3, user={"id": "bob"}))
    assert [hit.id for hit in await tail.poll()] == ["access-000002"]
    await book.write(late)
    assert [hit.id for hit in await tail.poll()] == ["access-000001"]
    assert await tail.poll() == []


async def test_tail_is_not_misled_by_a_worker_whose_clock_is_ahead(book: Book) -> None:
    """One event stamped a day ahead does not hide what the other workers stamp now."""
    ahead = json.loads(make_row(1).body)
    ahead["event"]["ingested"] = stamp(datetime.now(UTC) + timedelta(days=1))
    row = make_row(1)
    tail = Tail(book.connection, book.namespace, since="1m")
    await book.write(Row(row.kind, row.day, row.id, row.hash, json.dumps(ahead).encode()))
    assert len(await tail.poll()) == 1
    await book.write(make_row(2))
    assert [hit.id for hit in await tail.poll()] == ["access-000002"]


async def test_tail_pages_through_a_burst(book: Book) -> None:
    """More new events than one page holds come out in one poll, in order, once."""
    tail = Tail(book.connection, book.namespace, since="1m")
    await book.write(*(make_row(n) for n in range(2_300)))
    hits = await tail.poll()
    stamps = [hit.source["event"]["ingested"] for hit in hits]
    assert len({hit.id for hit in hits}) == len(hits) == 2_300
    assert stamps == sorted(stamps)
    assert await tail.poll() == []


# --- the command -------------------------------------------------------------------------------

HOSTILE = "\x1b[31mred\x1b[0m\u202egpj\r\nforged line\x9b"


async def test_the_table_shows_events_and_steers_no_terminal(book: Book) -> None:
    """A user name full of escapes, bidi marks and line breaks stays in its cell, visibly."""
    await book.write(make_row(1, user={"id": HOSTILE}, event={"outcome": "failure"}))
    done = await asyncio.to_thread(book.command, "search", "event.outcome:failure")
    assert done.returncode == 0, done.stderr
    header, line = done.stdout.splitlines()
    assert "time (UTC)" in header
    assert "\\x1b[31mred\\x1b[0m\\u202egpj\\r\\nforged line\\x9b" in line
    assert not set(done.stdout) & {"\x1b", "\u202e", "\x9b", "\r"}


@pytest.mark.parametrize("arguments", [["search", "--json"], ["search", "--ndjson"]])
async def test_json_is_lossless_and_harmless(book: Book, arguments: list[str]) -> None:
    """Programs get the exact values; a terminal sees printable ASCII only."""
    await book.write(make_row(1, user={"id": HOSTILE}))
    done = await asyncio.to_thread(book.command, *arguments)
    (line,) = done.stdout.splitlines()
    assert line.isascii()
    assert line.isprintable()
    found = json.loads(line)
    document = found["events"][0] if "events" in found else found
    assert document["user"]["id"] == HOSTILE


async def test_a_reader_that_has_seen_enough_is_no_error(book: Book) -> None:
    """`| head -c 100`: nothing about connections on standard error, and exit code 0."""
    await book.write(*(make_row(n, event={"reason": "r" * 500}) for n in range(1_500)))

    def head() -> tuple[int, bytes, bytes]:
        with subprocess.Popen(
            [sys.executable, "-m", "gatebook.cli.main", "search", "--ndjson", "--all"],
            env=book.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            seen = process.stdout.read(100)
            process.stdout.close()
            said = process.stderr.read()
            return process.wait(60), seen, said

    code, seen, said = await asyncio.to_thread(head)
    assert len(seen) == 100
    assert (code, said) == (0, b"")


async def test_fields_choose_what_is_shown(book: Book) -> None:
    """--fields in a table and in JSON; an unknown one is refused with names close to it."""
    await book.write(make_row(1, user={"id": "alice"}))
    done = await asyncio.to_thread(
        book.command, "search", "--fields", "user.id,event.id", "--ndjson"
    )
    assert json.loads(done.stdout) == {"user.id": "alice", "event.id": "access-000001"}
    done = await asyncio.to_thread(book.command, "search", "--fields", "user.idd")
    assert (done.returncode, "user.id" in done.stderr) == (2, True)


async def test_exit_codes_tell_what_happened(book: Book, unused_tcp_port: int) -> None:
    """0 something matched, 1 nothing, 2 a wrong query (with a caret), 3 nobody answers."""
    await book.write(make_row(1, user={"id": "alice"}))

    async def run(*arguments: str, url: str = "") -> Any:
        return await asyncio.to_thread(book.command, *arguments, url=url)

    assert (await run("search", "user.id:alice")).returncode == 0
    nothing = await run("search", "user.id:bob", "--json")
    assert nothing.returncode == 1
    assert json.loads(nothing.stdout)["total"] == 0
    wrong = await run("search", "user.id:alice and")
    assert wrong.returncode == 2
    assert wrong.stderr.splitlines()[2].endswith(" " * len("user.id:alice and") + "^")
    assert (await run("search", "--since", "never")).returncode == 2
    assert (await run("show", "access-000001")).returncode == 0
    assert (await run("show", "absent")).returncode == 1
    dead = f"http://127.0.0.1:{unused_tcp_port}"
    for command in (["search"], ["show", "x"], ["tail"]):
        away = await run(*command, url=dead)
        assert (away.returncode, "gatebook up" in away.stderr) == (3, True)
        assert "Traceback" not in away.stderr


async def test_a_cut_result_says_so(book: Book) -> None:
    """More matches than shown: the count stands on stderr, stdout stays clean."""
    await book.write(*(make_row(n) for n in range(5)))
    done = await asyncio.to_thread(book.command, "search", "--size", "2", "--json")
    assert json.loads(done.stdout)["shown"] == 2
    assert "2 of 5" in done.stderr


async def test_tail_prints_as_events_come_and_stops_at_its_count(book: Book) -> None:
    """Lines appear while the command runs (nothing is held back in a buffer), one per event."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gatebook.cli.main", "tail", "user.id:alice", "--json"),
        *("--count", "2", "--since", "1m", "--interval-seconds", "0.1"),
        env=book.environment(),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        await book.write(make_row(1, user={"id": "alice"}), make_row(2, user={"id": "bob"}))
        first = await asyncio.wait_for(process.stdout.readline(), 30)
        assert json.loads(first)["event"]["id"] == "access-000001"
        assert process.returncode is None
        await book.write(make_row(3, user={"id": "alice"}))
        second = await asyncio.wait_for(process.stdout.readline(), 30)
        assert json.loads(second)["event"]["id"] == "access-000003"
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        stop(process)


async def test_ctrl_c_ends_tail_quietly(book: Book) -> None:
    """An interrupt is the normal way out: exit code 0, no traceback."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gatebook.cli.main", "tail", "--since", "1m"),
        *("--interval-seconds", "0.1"),
        env=book.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        await book.write(make_row(1, user={"id": HOSTILE}))
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        assert "\\x1b[31mred" in line
        process.send_signal(2)
        _, errors = await asyncio.wait_for(process.communicate(), 30)
        assert (process.returncode, errors.decode().strip()) == (0, "")
    finally:
        stop(process)


def stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()


async def test_show_prints_every_field_of_an_event_harmlessly(book: Book) -> None:
    """One line per field, hostile values escaped; JSON has the whole documents."""
    await book.write(make_row(1, user={"id": HOSTILE}, url={"path": "/v1/chat"}))
    done = await asyncio.to_thread(book.command, "show", "access-000001")
    lines: Callable[[str], list[str]] = lambda name: [  # noqa: E731  # local and short
        line for line in done.stdout.splitlines() if line.split()[0] == name
    ]
    assert len(lines("url.path")) == len(lines("user.id")) == 1
    assert "\x1b" not in done.stdout
    done = await asyncio.to_thread(book.command, "show", "access-000001", "--json")
    assert json.loads(done.stdout)["documents"][0]["document"]["user"]["id"] == HOSTILE


async def test_an_index_that_begins_under_way_does_not_fail_a_search(book: Book) -> None:
    """Each new day has an index whose shard is not ready for an instant: searches that fall into
    it wait, and none fails or leaves events out."""
    await book.write(make_row(0))
    days = [NOW - timedelta(days=n) for n in range(1, 9)]
    tail = Tail(book.connection, book.namespace, since="1m")

    async def look() -> None:
        while not done.is_set():
            total = (await book.pages())[0].total
            assert total >= 1
            assert {hit.id for hit in await tail.poll()} <= {make_row(n).id for n in range(9)}

    done = asyncio.Event()
    lookers = [asyncio.create_task(look()) for _ in range(4)]
    for number, day in enumerate(days, start=1):
        await book.write(make_row(number, when=day))
    done.set()
    await asyncio.gather(*lookers)
    assert len(await book.ids()) == 9


# --- counts, neighbours, exports at the command line -------------------------------------------


async def test_counts_at_the_command_line_agree_with_the_events(book: Book) -> None:
    """--histogram and --facets count what the same search finds."""
    await book.write(
        *(
            make_row(n, when=NOW - timedelta(minutes=n), user={"id": f"u{n % 2}"})
            for n in range(1, 11)
        )
    )
    ran = book.command("search", "--since", "6h", "--histogram", "--split-by", "user.id", "--json")
    found = json.loads(ran.stdout)
    assert found["total"] == sum(bucket["count"] for bucket in found["buckets"]) == 10
    assert sum(bucket["parts"].get("u1", 0) for bucket in found["buckets"]) == 5
    ran = book.command("search", "--facets", "user.id,event.outcome")
    assert "5  u1" in ran.stdout
    assert "10  (none)" in ran.stdout
    both = ("search", "--since", "6h", "--histogram", "--facets", "user.id")
    ran = book.command(*both)
    assert ran.stdout.index("#####") < ran.stdout.index("5  u1")
    found = json.loads(book.command(*both, "--json").stdout)
    assert found["histogram"]["total"] == found["facets"]["total"] == 10
    wrong = book.command("search", "--facets", "user.idd")
    assert (wrong.returncode, "user.id" in wrong.stderr) == (2, True)
    wrong = book.command("search", "--facets", "bogus")
    assert (wrong.returncode, "gatebook search --list-fields" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    "command",
    [
        ("search",),
        ("search", "--histogram", "--split-by", "user.id"),
        ("search", "--facets", "user.id"),
        ("export",),
        ("policy", "dry-run", "infra/examples/capture-policy.toml"),
    ],
)
async def test_the_outermost_times_are_answered_and_those_beyond_refused(
    book: Book, command: tuple[str, ...]
) -> None:
    """From the first to the last that an event can have: all there is. Beyond: usage, 2."""
    await book.write(make_row(1, user={"id": "u1"}))
    widest = ("--since", "1970-01-01", "--until", "2262-01-01")
    ran = book.command(*command, *widest)
    assert ran.returncode == 0, ran.stderr
    for beyond in (("--since", "0001-01-01"), ("--since", "99999d"), ("--until", "9999-12-31")):
        ran = book.command(*command, *beyond)
        assert (ran.returncode, "outside the times" in ran.stderr) == (2, True), ran.stderr


async def test_around_at_the_command_line(book: Book) -> None:
    """The events before and after one, in order; exit code 1 where there is none."""
    await book.write(*(make_row(n, when=NOW - timedelta(minutes=10 - n)) for n in range(5)))
    ran = book.command("around", "access-000002", "--before", "1", "--after", "1", "--json")
    found = json.loads(ran.stdout)
    near = [found["before"][0], found["event"], found["after"][0]]
    assert [d["event"]["id"][-1] for d in near] == ["1", "2", "3"]
    assert book.command("around", "nothing").returncode == 1
    assert book.command("around", "access-000002", "--by", "trace.id").returncode == 2


@pytest.mark.parametrize("form", ["ndjson", "csv"])
async def test_a_killed_export_goes_on_to_the_same_file(
    book: Book, tmp_path: Path, form: str
) -> None:
    """SIGKILL half way, documents come in, --resume: byte for byte what an undisturbed one has."""
    count = 20_000
    for start in range(0, count, 4_000):
        await book.write(
            *(
                make_row(n, when=NOW - timedelta(seconds=count - n), user={"id": "=" + "x" * 300})
                for n in range(start, start + 4_000)
            )
        )
    output, cut = tmp_path / "whole", tmp_path / "cut"
    options = ("--since", "all", "--format", form, "-o")
    assert book.command("export", *options, str(output)).returncode == 0
    notes = cut.with_name("cut.part.json")
    killed = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gatebook.cli.main", "export", *options, str(cut)),
        env=book.environment(),
        stderr=subprocess.DEVNULL,
    )
    wait_until("some lines are noted", lambda: lines_noted(notes) > 0, poll_seconds=0.001)
    killed.kill()
    await killed.wait()
    assert not cut.exists()
    assert 0 < lines_noted(notes) < count
    with cut.with_name("cut.part").open("ab") as part:
        part.write(b"torn")
    await book.write(make_row(90_000, when=NOW - timedelta(seconds=count // 2)))
    resumed = book.command("export", "-o", str(cut), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert cut.read_bytes() == output.read_bytes()
    assert output.read_bytes().count(b"\n") == count + (form == "csv")
    assert not notes.exists()
    again = book.command("export", *options, str(cut))
    assert (again.returncode, "overwrites nothing" in again.stderr) == (2, True)


async def test_an_export_is_its_owners_and_one_without_a_match_leaves_nothing(
    book: Book, tmp_path: Path
) -> None:
    """So the same command works once there is something; who else is on the machine reads none."""
    output = tmp_path / "alice.csv"
    command = ("export", "user.id:alice", "--since", "all", "--format", "csv", "-o", str(output))
    none = book.command(*command)
    assert (none.returncode, "no match" in none.stderr) == (1, True)
    assert not files_named(tmp_path, "alice*")
    await book.write(make_row(1, user={"id": "alice"}))
    ran = book.command(*command)
    assert (ran.returncode, ran.stderr) == (0, f"1 lines in {output}\n")
    assert output.stat().st_mode & 0o777 == 0o600
    assert files_named(tmp_path, "alice*") == ["alice.csv"]


def files_named(folder: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


def lines_noted(notes: Path) -> int:
    try:
        return int(json.loads(notes.read_bytes())["lines"])
    except FileNotFoundError:
        return 0
