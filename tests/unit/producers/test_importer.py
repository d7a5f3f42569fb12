"""Existing access logs: what is read from a line, what is refused, where an import goes on."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

from gatebook.producers.adapters.importer import (
    MAX_LINE_BYTES,
    Importer,
    Report,
    ResumeFile,
    Source,
)
from gatebook.producers.adapters.importer_formats import (
    guess,
    load_mapping,
    read_combined,
    read_common,
    reader_of,
)
from gatebook.producers.adapters.outside import Policy
from gatebook.producers.config import ProducerSettings
from gatebook.schemas.errors import Fatal, RecordRejected

NOW = int(time.time())
SECRET = b"s" * 32


def stamp(second: int = NOW) -> str:
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(second))


def combined(number: int, status: int = 200, path: str = "/v1/chat/completions") -> str:
    return (
        f'10.0.0.{number % 250} - ada [{stamp()}] "POST {path}?n={number} HTTP/1.1" '
        f'{status} {number} "-" "openai-python/3.0"\n'
    )


def admitted(event: dict[str, Any]) -> dict[str, Any]:
    return dict(Policy(ProducerSettings(), SECRET, "import").admit(event).build())


def test_nginx_combined_becomes_an_access() -> None:
    """Who, what, when and how it ended; the query is left out, extra fields are ignored."""
    line = (
        f'2001:db8::7 - bob [{stamp(NOW)}] "POST /v1/chat/completions?key=secret HTTP/2.0" '
        f'429 312 "https://x" "curl \\"8\\" \\xC3\\xA9" "10.1.1.1" rt=0.3\n'
    )
    event = admitted(read_combined(line.encode()))
    assert event["timestamp"] == NOW * 10**9
    assert event["user"] == {"id": "bob"}
    assert event["source"] == {"ip": "2001:db8::7"}
    assert event["url"]["path"] == "/v1/chat/completions"
    assert event["http"]["response"] == {"status_code": 429, "body": {"bytes": 312}}
    assert event["user_agent"]["original"] == 'curl "8" é'
    inner = event["event"]
    assert (inner["action"], inner["outcome"], inner["reason"]) == (
        "chat",
        "failure",
        "rate_limited",
    )
    assert event["gatebook"]["identity"] == {"assurance": "asserted"}


def test_common_log_format_and_odd_requests() -> None:
    """Without a user it is anonymous; what was no HTTP request keeps time, address and status."""
    line = f'192.0.2.1 - - [{stamp()}] "\\x16\\x03\\x01" 400 -'
    event = admitted(read_common(line.encode()))
    assert event["gatebook"]["identity"] == {"method": "anonymous"}
    assert event["event"]["reason"] == "invalid_request"
    assert event["url"]["path"] == ""
    host = f'gateway.example - - [{stamp()}] "GET http://h/v1/models HTTP/1.0" 200 5'
    assert admitted(read_common(host.encode()))["event"]["action"] == "list_models"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nonsense",
        b'1.1.1.1 - - [yesterday] "GET / HTTP/1.1" 200 1 "-" "-"',
        b'1.1.1.1 - - [10/Foo/2026:13:55:36 +0000] "GET / HTTP/1.1" 200 1 "-" "-"',
        b'1.1.1.1 - - [31/Feb/2026:13:55:36 +0000] "GET / HTTP/1.1" 200 1 "-" "-"',
        b'1.1.1.1 - - [10/Oct/2026:13:55:36 +0000] "GET / HTTP/1.1" 200 1 "-" "cut off',
        b"\xff\xfe" * 1000,
        b'"' * 60_000,
    ],
)
def test_bad_log_lines_are_refused_without_a_quote(line: bytes) -> None:
    """And soon, whatever they are made of."""
    with pytest.raises(RecordRejected) as refused:
        read_combined(line)
    assert "yesterday" not in str(refused.value)


MAPPING = """
[fields]
"@timestamp" = "t"
"user.id" = "who.id"
"event.duration" = "secs"
"http.response.status_code" = "status"
"gen_ai.usage.output_tokens" = "usage.0.out"
"attributes.team" = "team"
[constants]
"gen_ai.provider.name" = "vllm"
[scale]
"event.duration" = 1e9
[time]
format = "unix_ms"
"""


def test_a_mapping_takes_fields_from_any_json(tmp_path: Path) -> None:
    """Paths with list indices, constants, units, numbers that are written as text."""
    path = tmp_path / "map.toml"
    path.write_text(MAPPING)
    line = {
        "t": NOW * 1000 + 123,
        "who": {"id": 17},
        "secs": "0.8",
        "status": "503",
        "usage": [{"out": 40}],
        "team": "search",
        "prompt": "is not mapped and does not come along",
    }
    event = admitted(load_mapping(path)(json.dumps(line).encode()))
    assert event["timestamp"] == (NOW * 1000 + 123) * 10**6
    assert event["user"]["id"] == "17"
    assert event["event"]["duration"] == 800_000_000
    assert event["event"]["reason"] == "unavailable"
    assert event["gen_ai"]["usage"]["output_tokens"] == 40
    assert event["gen_ai"]["provider"]["name"] == "vllm"
    assert event["attributes"] == {"team": "search", "door": "import"}
    assert "prompt" not in repr(event)
    with pytest.raises(RecordRejected, match="status_code: is not an integer"):
        admitted(load_mapping(path)(json.dumps({**line, "status": "bad"}).encode()))
    with pytest.raises(RecordRejected, match="is not a time of the form unix_ms"):
        load_mapping(path)(json.dumps({**line, "t": "soon"}).encode())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[fields", "cannot be used"),
        ('[fields]\n"user.idd" = "x"\n"@timestamp" = "t"', "user.idd"),
        ('[fields]\n"user.id" = "x"', "@timestamp"),
        ('[fields]\n"@timestamp" = "t"\n[more]\nx = 1', "cannot be used"),
    ],
)
def test_a_wrong_mapping_is_refused_at_once(tmp_path: Path, text: str, says: str) -> None:
    """Before the first line."""
    path = tmp_path / "map.toml"
    path.write_text(text)
    with pytest.raises(Fatal, match=says):
        load_mapping(path)


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ('format = "iso"', "2026-11-23T10:00:00.5+01:00"),
        ('format = "iso"\nzone_is_utc = true', "2026-11-23 09:00:00.500"),
        ('format = "unix"', "1795424400.5"),
        ('format = "unix"', 1795424400.5),
        ('format = "unix_us"', 1795424400500000),
        ('format = "%Y/%m/%d %H:%M:%S.%f %z"', "2026/11/23 10:00:00.5 +0100"),
    ],
)
def test_times_are_read_exactly(tmp_path: Path, rule: str, value: Any) -> None:
    """In the forms that logs have."""
    path = tmp_path / "map.toml"
    path.write_text(f'[fields]\n"@timestamp" = "t"\n[time]\n{rule}')
    event = load_mapping(path)(json.dumps({"t": value}).encode())
    assert event["@timestamp"] == 1795424400_500000000


def test_the_format_is_guessed_or_asked_for() -> None:
    """From the first line."""
    assert guess(b'{"a": 1}') == "json"
    assert guess(combined(1).encode()) == "combined"
    assert guess(f'1.1.1.1 - - [{stamp()}] "GET / HTTP/1.1" 200 1\n'.encode()) == "common"
    with pytest.raises(Fatal, match="neither JSON nor"):
        guess(b"2026-11-23 something else")


class Run:
    """Imports of one log into one recorder, as the command does them."""

    def __init__(self, folder: Path, recorder: Any) -> None:
        self.log = folder / "access.log"
        self.folder = folder / "points"
        self.recorder = recorder

    def __call__(self, path: Path | None = None, **options: Any) -> Report:
        source = Source(str(path or self.log), options.pop("label", ""))
        resume = ResumeFile(self.folder, source.identity)
        reader = reader_of("auto", None, source.first_line)
        settings = self.recorder.settings
        policy = Policy(settings, SECRET, "import")
        try:
            with resume.held():
                return Importer(source, reader, policy, self.recorder, resume, **options).run()
        finally:
            source.close()

    def rejects(self) -> list[dict[str, Any]]:
        found = self.folder.glob("*.rejects.ndjson")
        return [json.loads(row) for path in found for row in path.read_text().splitlines()]

    def forget(self) -> None:
        for path in self.folder.glob("*.json"):
            path.unlink()


@pytest.fixture
def run(tmp_path: Path, make_recorder: Any) -> Run:
    return Run(tmp_path, make_recorder())


def ids(published: Any) -> list[str]:
    return [event["event"]["id"] for event in published.events()]


def test_a_log_that_grows_is_imported_from_where_it_ended(run: Run, published: Any) -> None:
    """Half a line waits for its end; bad lines are counted and noted, numbered, unquoted."""
    run.log.write_text(combined(1) + "hunter2 is no log line\n" + combined(2) + combined(3)[:40])
    first = run()
    assert (first.imported, first.rejected, first.unfinished_line) == (2, 1, True)
    run.log.write_text(run.log.read_text() + combined(3)[40:] + combined(4))
    second = run()
    assert (second.resumed_at, second.imported, second.rejected) == (3, 2, 0)
    assert run().imported == 0
    assert run.recorder.flush(10).complete
    assert [e["http"]["response"]["body"]["bytes"] for e in published.events()] == [1, 2, 3, 4]
    assert run.rejects() == [{"line": 2, "reason": "is not combined log format"}]


def test_a_line_is_the_same_event_however_it_is_read(
    run: Run, published: Any, tmp_path: Path
) -> None:
    """Again without a resume point, renamed, or packed by rotation: the ids are the same."""
    run.log.write_text("".join(combined(n) for n in range(700)))
    assert run().imported == 700
    packed = tmp_path / "access.log.1.gz"
    packed.write_bytes(gzip.compress(run.log.read_bytes()))
    assert run(packed).resumed_at == 700
    run.forget()
    assert run(packed).imported == 700
    run.forget()
    assert run(run.log.rename(tmp_path / "renamed")).imported == 700
    assert run.recorder.flush(10).complete
    found = ids(published)
    assert found[:700] == found[700:1400] == found[1400:]
    assert len(set(found)) == 700


def test_a_label_tells_apart_logs_that_begin_alike(run: Run, published: Any) -> None:
    """Of two replicas, for example."""
    run.log.write_text(combined(1))
    run(label="a")
    run(label="b")
    assert run.recorder.flush(10).complete
    assert len(set(ids(published))) == 2


def test_a_log_that_was_cut_is_not_read_from_the_middle(run: Run) -> None:
    """It is said, and --restart is the answer."""
    run.log.write_text("".join(combined(n) for n in range(3)))
    run()
    run.log.write_text(combined(0))
    with pytest.raises(Fatal, match="shorter") as refused:
        run()
    assert "--restart" in refused.value.next_step


def test_a_damaged_resume_point_costs_work_only(run: Run, published: Any) -> None:
    """What is imported again has the same ids, and rejects are not noted twice."""
    run.log.write_text(combined(1) + "bad\n" + combined(2))
    run()
    (point,) = run.folder.glob("*[0-9a-f].json")
    point.write_text('{"offset": ')
    again = run()
    assert (again.imported, again.rejected) == (2, 1)
    assert run.recorder.flush(10).complete
    assert len(ids(published)) == 4
    assert len(set(ids(published))) == 2
    assert len(run.rejects()) == 1


def test_two_imports_of_one_log_do_not_run_together(run: Run) -> None:
    """The second is told to wait."""
    run.log.write_text(combined(1))
    source = Source(str(run.log))
    with (
        ResumeFile(run.folder, source.identity).held(),
        pytest.raises(Fatal, match="another import"),
    ):
        run()
    source.close()


def test_own_json_keeps_its_ids_and_odd_lines_do_not_stop_it(run: Run, published: Any) -> None:
    """Too long, too old, no time, no JSON, wrong type: each is refused alone."""
    own = "018f0000-0000-7000-8000-00000000000a"
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW))
    rows: list[bytes] = [
        json.dumps({"@timestamp": when, "event": {"id": own}, "user": {"id": "ada"}}).encode(),
        b'{"@timestamp": "' + b"x" * (2 * MAX_LINE_BYTES) + b'"}',
        json.dumps({"@timestamp": "2001-01-01T00:00:00Z"}).encode(),
        b"{}",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b"",
        json.dumps({"@timestamp": when, "user": {"id": 5}}).encode(),
        json.dumps({"@timestamp": when, "user": {"id": "bob"}}).encode(),
    ]
    run.log.write_bytes(b"\n".join(rows) + b"\n")
    report = run()
    assert (report.imported, report.rejected) == (2, 7)
    assert run.recorder.flush(10).complete
    assert [e["user"]["id"] for e in published.events()] == ["ada", "bob"]
    assert ids(published)[0] == own
    assert [row["line"] for row in run.rejects()] == [2, 3, 4, 5, 6, 7, 9]


def test_a_full_spool_makes_the_import_wait(
    tmp_path: Path, make_recorder: Any, published: Any
) -> None:
    """Nothing is dropped: it goes on when the broker is back."""
    recorder = make_recorder(
        frame_max_bytes=16 * 1024, spool_max_bytes=512 * 1024, memory_buffer_max_bytes=8_000_000
    )
    run = Run(tmp_path, recorder)
    run.log.write_text("".join(combined(n) for n in range(3000)))
    published.publisher.down = True
    offsets: list[int] = []

    def moved(offset: int) -> None:
        offsets.append(offset)

    counters = recorder.counters

    def watched() -> Any:
        """The broker comes back once the import has seen a full spool, and waits."""
        found = counters()
        if found.spool_bytes > 0.4 * recorder.settings.spool_max_bytes:
            published.publisher.down = False
        return found

    recorder.counters = watched
    report = run(progress=moved)
    assert report.imported == 3000
    assert offsets[-1] == run.log.stat().st_size
    assert recorder.flush(20).complete
    assert len(set(ids(published))) == 3000
    assert published.publisher.down is False
    assert counters().dropped == {}


def test_a_damaged_packed_file_says_so(run: Run, tmp_path: Path) -> None:
    """What stood before the damage may be imported; the rest is not called done."""
    path = tmp_path / "cut.gz"
    data = gzip.compress("".join(combined(n) for n in range(5000)).encode())
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(Fatal, match="cannot be read to its end"):
        run(path)
