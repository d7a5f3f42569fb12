"""Captured content on real Kafka: sealed on the way, opened by intake alone, lost without harm."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from tests.pipeline import Pipeline, make_event
from tests.waiting import wait_until

from gatebook.engines.processes import free_ports
from gatebook.producers.adapters.call import record_call
from gatebook.producers.config import ProducerSettings
from gatebook.producers.recorder import Recorder
from gatebook.schemas import sealing
from gatebook.schemas.codec import Record, decode_event, encode_event, open_frame
from gatebook.schemas.keys import KeyFiles

GATEBOOK = (sys.executable, "-m", "gatebook.cli.main")
EXAMPLE = Path(__file__).parents[3] / "infra" / "examples" / "vault_keys"
# Nothing that a redactor would take out: wherever these words are, content is in the open.
WORDS = "the quiet zebra plays a violin"
CONTENT = json.dumps({"input_messages": [{"role": "user", "content": WORDS}]}).encode()


def with_content(user: str = "alice") -> Record:
    return make_event(user, content=CONTENT, content_encoding="json")


def make_recorder(pipeline: Pipeline, **settings: Any) -> Recorder:
    """A producer in the pipeline's home, with its public keys."""
    given = {
        "kafka_bootstrap": pipeline.engines.kafka_bootstrap,
        "namespace": pipeline.namespace,
        "home": str(pipeline.home),
        "capture_level": "redacted",
        "producer_id": "sealed-test",
        **settings,
    }
    return Recorder(ProducerSettings(**given))


def gatebook(pipeline: Pipeline, *arguments: str, said: bytes = b"", **environment: str) -> str:
    """A command to its end; what it printed."""
    done = subprocess.run(
        [*GATEBOOK, *arguments],
        env=pipeline.environment(**environment),
        input=said,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def access_events(pipeline: Pipeline) -> Iterator[Record]:
    """Every event of the raw topic."""
    for message in pipeline.messages("access.v1"):
        frame = open_frame(message.value() or b"")
        yield from (decode_event(data, frame.event_schema) for data in frame.events)


def key_ids(pipeline: Pipeline) -> list[str]:
    """The key that each event with content was sealed for, in order of the topic."""
    heads = (sealing.head_of(e["content"]) for e in access_events(pipeline) if e["content"])
    return [sealing.name_of(sealing.key_id_in(head)) for head in heads]


def everything_said(pipeline: Pipeline, topics: tuple[str, ...]) -> bytes:
    """All bytes of these topics: keys, headers, values."""
    found = []
    for topic in topics:
        for message in pipeline.messages(topic):
            headers = [value or b"" for _, value in message.headers() or []]
            found += [message.key() or b"", message.value() or b"", *headers]
    return b"\n".join(found)


def everything_kept(home: Path) -> bytes:
    """All bytes of all files: spools, logs, resume points, keys."""
    return b"\n".join(path.read_bytes() for path in home.rglob("*") if path.is_file())


def call_that_fails(recorder: Recorder) -> None:
    """A model call that had begun to answer."""
    with record_call(model="slm", recorder=recorder) as call:
        call.request(messages=[{"role": "user", "content": WORDS}])
        call.output(WORDS)
        raise TimeoutError


def failed_of(document: dict[str, Any]) -> str:
    return str(document["gatebook"].get("sealed", {}).get("failed", ""))


def test_no_words_at_rest_before_the_index(pipeline: Pipeline, tmp_path: Path) -> None:
    """By recorder, call, import and an event that is rejected: the raw topic, the event topic, the
    dead letters, spool files and logs hold none of them, the index finds them all."""
    recorder = make_recorder(pipeline)
    recorder.emit(with_content())
    full = make_recorder(pipeline, capture_level="full", producer_id="full")
    full.emit(with_content())
    assert full.close(30).complete
    recorder.emit({**with_content(), "event": {"action": "x"}, "timestamp": 1})  # rejected: too old
    with pytest.raises(TimeoutError):
        call_that_fails(recorder)
    wait_until("all are spooled", lambda: recorder.counters().spooled == 3)
    assert b"test-slm" in everything_kept(tmp_path / "spool"), "the search looks at the spool"
    assert WORDS.encode() not in everything_kept(tmp_path)

    line = {"timestamp": time.time_ns(), "user": {"id": "log"}, "content": json.loads(CONTENT)}
    level = {"GATEBOOK_CAPTURE_LEVEL": "redacted"}
    gatebook(pipeline, "import", "-", said=json.dumps(line).encode(), **level)
    assert recorder.close(30).complete
    pipeline.start("intake", "index")
    pipeline.wait_indexed(4)
    pipeline.wait_indexed(1, "deadletter")

    topics = ("access.v1", "event.v1", "deadletter.v1", "finding.v1", "alert.v1")
    said = everything_said(pipeline, topics)
    assert b"alice" in said, "the search looks at the right topics"
    assert WORDS.encode() not in said
    assert base64.b64encode(WORDS.encode())[:-4] not in said
    assert WORDS.encode() not in everything_kept(tmp_path)
    assert [event["content_encoding"] for event in access_events(pipeline)] == ["sealed"] * 5
    assert WORDS not in json.dumps(pipeline.documents("deadletter"))

    documents = pipeline.documents()
    assert [failed_of(d) for d in documents] == [""] * 4
    found = [d for d in documents if WORDS in json.dumps(d.get("gen_ai", {}))]
    assert len(found) == 3, "all but the one at level full are searchable"


def test_keys_rotate_under_load_without_loss(pipeline: Pipeline) -> None:
    """Producer and intake follow four rotations as they run: every event has its content."""
    recorder = make_recorder(pipeline, linger_seconds=0.001)
    pipeline.start("intake", "index")
    stop, sent = threading.Event(), 0

    def load() -> None:
        nonlocal sent
        while not stop.wait(0.02):
            recorder.emit(with_content(f"user{sent % 7}"))
            sent += 1

    worker = threading.Thread(target=load)
    worker.start()
    try:
        keys = [pipeline.keys.read().keys[0].id]
        for _ in range(4):
            keys.append(json.loads(gatebook(pipeline, "keys", "rotate", "--json"))["id"])
            wait_until(
                "the producer seals for it", lambda: keys[-1] in set(key_ids(pipeline)[-1:]), 30
            )
    finally:
        stop.set()
        worker.join()
    assert recorder.close(30).complete
    assert recorder.counters().unsealed == {}
    pipeline.wait_indexed(sent + 4)
    assert list(dict.fromkeys(key_ids(pipeline))) == keys
    found = pipeline.documents()
    rotations = [d for d in found if d["event"]["action"] == "keys.rotate"]
    told = {d["gatebook"]["attributes"]["key_id"] for d in rotations}
    assert told == set(keys[1:]), "each rotation is an event"
    documents = [d for d in found if d not in rotations]
    assert len(documents) == sent
    assert {failed_of(d) for d in documents} == {""}
    assert all(WORDS in json.dumps(d) for d in documents)


def test_a_destroyed_key_costs_the_content_and_no_event(pipeline: Pipeline) -> None:
    """What was sealed for it is metadata, and says so in the index, in `gatebook show` and in the
    metrics; what is sealed for the next key is whole."""
    recorder = make_recorder(pipeline)
    lost = [recorder.emit(with_content()) for _ in range(3)]
    assert recorder.flush(30).complete
    old = pipeline.keys.read().keys[0].id
    gatebook(pipeline, "keys", "rotate")
    gatebook(pipeline, "keys", "destroy", old, "--yes", "--reason", "ticket 12")
    (port,) = free_ports(1)
    pipeline.start("intake", GATEBOOK_METRICS_PORT=str(port))
    pipeline.start("index")
    pipeline.wait_indexed(5)
    found = {d["event"]["id"]: d for d in pipeline.documents()}
    acts = [d for d in found.values() if d["event"]["action"] == "keys.destroy"]
    assert [d["gatebook"]["attributes"]["key_id"] for d in acts] == [old]
    assert acts[0]["gatebook"]["attributes"]["reason"] == "ticket 12"
    for document in (found[event_id] for event_id in lost):
        assert document["gatebook"]["sealed"] == {"failed": "key_destroyed", "key_id": old}
        assert document["user"]["id"] == "alice"
        assert WORDS not in json.dumps(document)
    assert "key_destroyed" in gatebook(pipeline, "show", lost[0])
    page = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert 'gatebook_sealed_failed_total{reason="key_destroyed"} 3.0' in page

    kept = recorder.emit(with_content())
    assert recorder.close(30).complete
    (document,) = wait_until(
        "the event of the next key",
        lambda: [d for d in pipeline.documents() if d["event"]["id"] == kept],
        90,
    )
    assert WORDS in document["gen_ai"]["input"]["messages"]


def test_a_running_intake_forgets_a_destroyed_key(pipeline: Pipeline) -> None:
    """Although it has opened content with it a moment ago."""
    recorder = make_recorder(pipeline, sealing_public_keys=f"file:{pipeline.home}/pinned.json")
    (pipeline.home / "pinned.json").write_bytes(pipeline.keys.public.read_bytes())
    pipeline.start("intake", "index")
    recorder.emit(with_content())
    pipeline.wait_indexed(1)
    last = pipeline.keys.read().keys[0].id
    gatebook(pipeline, "keys", "destroy", last, "--in-use", "--yes", "--reason", "ticket 12")
    recorder.emit(with_content())
    assert recorder.close(30).complete
    pipeline.wait_indexed(3)
    chats = [d for d in pipeline.documents() if d["event"]["action"] != "keys.destroy"]
    assert sorted(failed_of(d) for d in chats) == ["", "key_destroyed"]
    assert "no live private key" in pipeline.logs()


def test_keys_that_cannot_be_read_for_a_while_cost_nothing(pipeline: Pipeline) -> None:
    """A new private file arrives broken: intake waits with what was sealed for the new key, and
    goes on when the file is whole."""
    recorder = make_recorder(pipeline)
    pipeline.start("intake", "index")
    recorder.emit(with_content())
    pipeline.wait_indexed(1)
    whole = json.loads(pipeline.keys.private.read_text())
    pipeline.keys.private.write_text("{")
    other = KeyFiles.in_folder(pipeline.home / "elsewhere")
    other.private.parent.mkdir()
    other.private.write_text(json.dumps(whole))
    other.rotate()
    pipeline.keys.public.write_bytes(other.public.read_bytes())
    later = make_recorder(pipeline, producer_id="later")
    later.emit(with_content())
    assert later.close(30).complete
    wait_until("intake waits", lambda: "cannot be read, waiting" in pipeline.logs())
    assert pipeline.indexed() == 1
    pipeline.keys.private.write_bytes(other.private.read_bytes())
    pipeline.wait_indexed(2)
    assert [failed_of(d) for d in pipeline.documents()] == ["", ""]


def test_a_key_nobody_has_and_bytes_that_are_no_envelope(pipeline: Pipeline) -> None:
    """Forged, moved, cut or sealed for somebody else: the event goes on with a reason, and so do
    its neighbours."""
    recorder = make_recorder(pipeline, producer_id="p1")
    for _ in range(3):
        recorder.emit(with_content())
    assert recorder.close(30).complete
    good = list(access_events(pipeline))
    lost = good[0]["content"][:1] + bytes(8) + good[0]["content"][9:]
    hostile = {
        "key_lost": {"content": lost},
        "undecodable": {"content": CONTENT},
        "forged": {"content": good[1]["content"]},
    }
    again = [
        encode_event({**good[0], **change, "event": {**good[0]["event"], "id": str(uuid.uuid4())}})
        for change in hostile.values()
    ]
    pipeline.start("intake", "index")
    pipeline.publish(again)
    pipeline.wait_indexed(6)
    reasons = sorted(failed_of(d) for d in pipeline.documents())
    assert reasons == ["", "", "", "forged", "key_lost", "undecodable"]
    assert pipeline.indexed("deadletter") == 0


def test_a_producer_without_the_public_key_sends_metadata(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """The event is complete but for its content, and says why."""
    home = tmp_path / "other-machine"
    recorder = make_recorder(pipeline, home=str(home))
    recorder.emit(with_content())
    assert recorder.close(30).complete
    pipeline.start("intake", "index")
    pipeline.wait_indexed(1)
    (document,) = pipeline.documents()
    assert document["gatebook"]["capture"]["degraded_reason"] == "no_key"
    assert failed_of(document) == ""
    assert WORDS.encode() not in everything_said(pipeline, ("access.v1", "event.v1"))
    assert WORDS.encode() not in everything_kept(tmp_path)


@contextmanager
def vault(token: str) -> Iterator[tuple[str, Fernet]]:
    """A server that decrypts as Vault's transit engine does; its address and its key."""
    key = Fernet(Fernet.generate_key())

    class Transit(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            allowed = self.headers["X-Vault-Token"] == token
            if not allowed or self.path != "/v1/transit/decrypt/gatebook":
                self.send_error(403, f"permission denied for {token}")
                return
            data = key.decrypt(body["ciphertext"].removeprefix("vault:v1:").encode())
            answer = json.dumps({"data": {"plaintext": base64.b64encode(data).decode()}}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Transit)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", key
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_keys_may_come_from_a_kms(pipeline: Pipeline, tmp_path: Path) -> None:
    """By the example plug-in, installed as any other package: the private keys stand in no file in
    the open, and without the KMS intake does not start."""
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run(
        [*install, "--no-build-isolation", "--target", str(site), str(EXAMPLE)], check=True
    )
    recorder = make_recorder(pipeline)
    recorder.emit(with_content())
    assert recorder.close(30).complete
    private = pipeline.keys.read().keys[0].private
    with vault("s.right") as (address, key):
        sealed_file = tmp_path / "private.vault"
        sealed_file.write_bytes(b"vault:v1:" + key.encrypt(pipeline.keys.private.read_bytes()))
        pipeline.keys.private.unlink()
        assert private.encode() not in everything_kept(tmp_path)
        environment = {
            "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]),
            "VAULT_ADDR": address,
            "GATEBOOK_SEALING_KEYS": f"vault:transit/gatebook@{sealed_file}",
        }
        (refused,) = pipeline.start("intake", VAULT_TOKEN="s.wrong", **environment)
        assert refused.wait(60) == 1
        pipeline.workers.remove(refused)
        assert "Vault did not decrypt" in pipeline.logs()
        assert "s.right" not in pipeline.logs()
        pipeline.start("intake", VAULT_TOKEN="s.right", **environment)
        pipeline.start("index")
        pipeline.wait_indexed(1)
    (document,) = pipeline.documents()
    assert WORDS in document["gen_ai"]["input"]["messages"]
    assert private not in pipeline.logs()
