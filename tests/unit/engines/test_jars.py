"""The jar lock and the download: whole and as locked, or not in the cache at all."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gatebook.engines import jars
from gatebook.engines.errors import DownloadFailed
from gatebook.engines.jars import Jar, JarGroup, read_lock
from gatebook.engines.processes import free_ports

BODY = b"a jar's bytes " * 50_000
JAR = Jar(
    group="org.example",
    artifact="thing",
    version="1.0",
    classifier=None,
    path="org/example/thing/1.0/thing-1.0.jar",
    sha256=hashlib.sha256(BODY).hexdigest(),
    size=len(BODY),
)
GROUP = JarGroup(version="1.0", jars=(JAR,))

Answer = Callable[[BaseHTTPRequestHandler], None]


class Repository:
    """A Maven repository on loopback that gives the answers it is told, the last one forever."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [whole]
        self.asked: list[str] = []
        repository = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                repository.asked.append(self.path)
                answers = repository.answers
                (answers.pop(0) if len(answers) > 1 else answers[0])(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/maven2"


def send(handler: BaseHTTPRequestHandler, body: bytes, length: int, status: int = 200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(body)


def whole(handler: BaseHTTPRequestHandler) -> None:
    send(handler, BODY, len(BODY))


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    send(handler, BODY[:1000], len(BODY))


def short_but_complete(handler: BaseHTTPRequestHandler) -> None:
    send(handler, BODY[:1000], 1000)


def altered(handler: BaseHTTPRequestHandler) -> None:
    send(handler, b"X" + BODY[1:], len(BODY))


def not_found(handler: BaseHTTPRequestHandler) -> None:
    send(handler, b"", 0, status=404)


@pytest.fixture
def repository() -> Iterator[Repository]:
    one = Repository()
    thread = threading.Thread(target=one.server.serve_forever)
    thread.start()
    yield one
    one.server.shutdown()
    thread.join()
    one.server.server_close()


@pytest.fixture
def one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "TRIES_AFTER_FAILURE", 0)


class Recorder:
    """Remembers the progress it was told."""

    def __init__(self) -> None:
        self.figures: list[tuple[int, int]] = []

    def step(self, message: str) -> None:
        pass

    def downloading(self, done_bytes: int, total_bytes: int) -> None:
        self.figures.append((done_bytes, total_bytes))


def cached(cache: Path) -> Path:
    return cache / "jars" / JAR.path


def test_every_locked_file_has_a_checksum_a_size_and_its_own_path() -> None:
    """A lock with a hole in it would let any file through."""
    for group in read_lock().groups.values():
        assert group.jars
        assert len({jar.path for jar in group.jars}) == len(group.jars)
        for jar in group.jars:
            assert len(bytes.fromhex(jar.sha256)) == 32
            assert jar.size > 1000
            assert jar.path.startswith(jar.group.replace(".", "/"))


def test_kafkas_own_jars_are_of_one_version() -> None:
    """The resolver once brought kafka-clients 3.8 beside Kafka 4.1: that must show here."""
    group = read_lock().groups["kafka"]
    versions = {jar.version for jar in group.jars if jar.group == "org.apache.kafka"}
    assert versions == {group.version}


def test_elasticsearch_does_not_carry_its_transport_on_the_class_path() -> None:
    """The server loads the transport from a module folder and refuses to find it twice."""
    groups = read_lock().groups
    server = {jar.path for jar in groups["elasticsearch"].jars}
    transport = {jar.path for jar in groups["elasticsearch-transport"].jars}
    assert not server & transport
    assert any(jar.artifact == "transport-netty4" for jar in groups["elasticsearch-transport"].jars)


def test_a_file_is_fetched_once_and_found_afterwards(
    repository: Repository, tmp_path: Path
) -> None:
    """A second fetch asks the repository nothing."""
    recorder = Recorder()
    jars.fetch([GROUP], tmp_path, repository.url, recorder)
    jars.fetch([GROUP], tmp_path, repository.url)
    assert cached(tmp_path).read_bytes() == BODY
    assert repository.asked == [f"/maven2/{JAR.path}"]
    assert recorder.figures[-1] == (JAR.size, JAR.size)
    assert jars.missing(GROUP, tmp_path) == []


@pytest.mark.usefixtures("one_try")
@pytest.mark.parametrize("answer", [cut_off, short_but_complete, altered, not_found])
def test_nothing_but_the_locked_file_enters_the_cache(
    repository: Repository, tmp_path: Path, answer: Answer
) -> None:
    """Cut off, short, altered or absent: a clear error, and no file under the jar's name."""
    repository.answers = [answer]
    with pytest.raises(DownloadFailed, match=r"thing 1\.0") as caught:
        jars.fetch([GROUP], tmp_path, repository.url)
    assert "GATEBOOK_MAVEN_REPOSITORY" in caught.value.next_step
    assert caught.value.exit_code == 5
    assert not cached(tmp_path).exists()
    assert not [path for path in (tmp_path / "jars").rglob("*") if path.is_file()]
    assert jars.missing(GROUP, tmp_path) == [JAR]


def test_a_download_that_is_cut_off_is_tried_again(repository: Repository, tmp_path: Path) -> None:
    """One bad answer, then a good one: the user sees nothing of it."""
    repository.answers = [cut_off, whole]
    jars.fetch([GROUP], tmp_path, repository.url)
    assert cached(tmp_path).read_bytes() == BODY
    assert len(repository.asked) == 2


def test_a_damaged_file_in_the_cache_is_fetched_again(
    repository: Repository, tmp_path: Path
) -> None:
    """Same size, other bytes: `doctor` reports it and a fetch repairs it."""
    jars.fetch([GROUP], tmp_path, repository.url)
    cached(tmp_path).write_bytes(b"X" + BODY[1:])
    assert jars.damaged(GROUP, tmp_path) == [JAR]
    jars.fetch([GROUP], tmp_path, repository.url)
    assert jars.damaged(GROUP, tmp_path) == []
    assert cached(tmp_path).read_bytes() == BODY


@pytest.mark.usefixtures("one_try")
def test_offline_is_told_in_words(tmp_path: Path) -> None:
    """No repository at all: the error names the address and the way round."""
    url = f"http://127.0.0.1:{free_ports(1)[0]}/maven2"
    with pytest.raises(DownloadFailed, match=url) as caught:
        jars.fetch([GROUP], tmp_path, url)
    assert "HTTPS_PROXY" in caught.value.next_step


@pytest.mark.usefixtures("one_try")
def test_files_that_arrived_are_kept_when_another_fails(
    repository: Repository, tmp_path: Path
) -> None:
    """A second `gatebook up` goes on where the first stopped."""
    jars.fetch([GROUP], tmp_path, repository.url)
    other = Jar("org.example", "other", "2.0", None, "org/example/other-2.0.jar", "0" * 64, 5)
    with pytest.raises(DownloadFailed, match="other"):
        jars.fetch([GROUP, JarGroup("2.0", (other,))], tmp_path, repository.url)
    assert cached(tmp_path).read_bytes() == BODY
