"""Ten thousand synthetic secrets by every path: none of them is anywhere afterwards."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections import Counter
from typing import Any

import httpx
import prometheus_client
import pytest
from tests.canaries import Scanner, canaries, escaped
from tests.integration.privacy.traffic import Service, drive, log_lines
from tests.pipeline import KINDS, Pipeline, make_event
from tests.waiting import wait_until

from gatebook.cli.demo.alert_receiver import AlertReceiver
from gatebook.cli.demo.picture import documents
from gatebook.engines.processes import free_ports
from gatebook.producers.config import ProducerSettings
from gatebook.producers.publisher import KafkaPublisher
from gatebook.producers.recorder import Recorder
from gatebook.producers.sender import recover_abandoned
from gatebook.schemas.topics import all_topics

SECRETS = 10_000
IMPORTED = 400
GROUP = 10
LEVELS = ("metadata", "redacted", "full")
NOWHERE = "127.0.0.1:1"
ROLES = ("intake", "index", "detect", "notify")


class Site:
    """A pipeline, three producers that cannot reach its broker, and all places to look in."""

    def __init__(self, pipeline: Pipeline, receiver: AlertReceiver) -> None:
        self.pipeline = pipeline
        self.receiver = receiver
        self.metrics_ports = free_ports(len(ROLES))
        self.recorders = [Recorder(self.settings(level, NOWHERE)) for level in LEVELS]

    def settings(self, level: str, bootstrap: str) -> ProducerSettings:
        return ProducerSettings(
            kafka_bootstrap=bootstrap,
            namespace=self.pipeline.namespace,
            home=str(self.pipeline.home),
            producer_id=f"canary-{level}",
            capture_level=level,
        )

    def send_spooled(self) -> None:
        """Send what the producers left in their spools, as their next start would."""
        for level in LEVELS:
            settings = self.settings(level, self.pipeline.engines.kafka_bootstrap)
            report = recover_abandoned(settings, KafkaPublisher(settings), 120)
            assert (report.left, report.lost) == (0, 0)

    def import_log(self, text: str) -> None:
        """As an operator does, with content."""
        done = subprocess.run(
            [sys.executable, "-m", "gatebook.cli.main", "import", "-"],
            env=self.pipeline.environment(GATEBOOK_CAPTURE_LEVEL="redacted"),
            input=text.encode(),
            capture_output=True,
            check=False,
            timeout=120,
        )
        (self.pipeline.home / "import.log").write_bytes(done.stdout + done.stderr)
        assert done.returncode == 0, done.stderr.decode()

    def start_workers(self) -> None:
        for role, port in zip(ROLES, self.metrics_ports, strict=True):
            self.pipeline.start(
                role,
                GATEBOOK_METRICS_PORT=str(port),
                GATEBOOK_ALERTMANAGER_URL=self.receiver.url,
                GATEBOOK_ALERT_ALLOW_PRIVATE="true",
            )

    def wait_settled(self) -> None:
        """Until every worker has read all there is for it, in the order of the pipeline."""
        for role, topics in (
            ("intake", ("access.v1",)),
            ("detect", ("event.v1",)),
            ("notify", ("finding.v1",)),
            ("index", ("event.v1", "finding.v1", "deadletter.v1", "alert.v1")),
        ):
            wait_until(f"{role} is done", lambda r=role, t=topics: self._is_done(r, t), 180)

    def _is_done(self, role: str, topics: tuple[str, ...]) -> bool:
        ended = [worker.args for worker in self.pipeline.workers if worker.poll() is not None]
        assert not ended, self.pipeline.logs()[-2000:]
        end = sum(map(self.pipeline.end, topics))
        return end > 0 and sum(self.pipeline.committed(role, one) for one in topics) >= end

    def look(self, scanner: Scanner) -> None:
        """Scan every topic, index, file, metrics page and alert."""
        for topic in all_topics():
            for message in self.pipeline.messages(topic):
                scanner.scan(message.key(), f"a key of {topic}")
                scanner.scan(message.value(), f"{topic}")
                for _, value in message.headers() or []:
                    scanner.scan(value, f"a header of {topic}")
        self.pipeline.http.post(f"/{self.pipeline.namespace}-*/_refresh").raise_for_status()
        for document in documents(self.pipeline.http, f"{self.pipeline.namespace}-*"):
            scanner.scan(json.dumps(document), "the index")
        for port in self.metrics_ports:
            page = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
            scanner.scan(page.text, "a worker's metrics")
        scanner.scan(prometheus_client.generate_latest(), "the producers' metrics")
        scanner.scan(json.dumps(self.receiver.alerts), "an alert")
        self.look_at_files(scanner)

    def look_at_files(self, scanner: Scanner) -> None:
        for path in sorted(self.pipeline.home.rglob("*")):
            if path.is_file():
                scanner.scan(path.name, "a file's name")
                scanner.scan(path.read_bytes(), f"{path.suffix} file {path.name}")


def told(scanner: Scanner) -> dict[str, Any]:
    """What was found, in short: how many of each kind at each place, and one of them."""
    kinds = {canary.text: canary.kind for canary in scanner.all}
    places: Counter[tuple[str, str]] = Counter()
    example = {}
    for text, where in scanner.found.items():
        for place in where:
            places[kinds[text], place] += 1
            example[kinds[text], place] = text
    return {f"{k} in {p}": (count, example[k, p]) for (k, p), count in places.most_common()}


async def test_ten_thousand_secrets_are_nowhere(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    """By success, failure, stream, tools, headers, fields, time-out, rejected events and imported
    logs, at three capture levels, with the broker away at first: no topic, index, spool, log,
    metrics page or alert holds one, raw or encoded; and where one is planted, it is found."""
    caplog.set_level(logging.DEBUG, logger="gatebook")
    some = canaries(SECRETS)
    scanner = Scanner(some)
    with AlertReceiver() as receiver:
        site = Site(pipeline, receiver)
        await drive([Service(r) for r in site.recorders], some[IMPORTED:], GROUP)
        for recorder in site.recorders:
            assert not recorder.close(1.0).complete, "the broker is away, so all is in the spool"
            assert recorder.counters().dropped == {}
        assert len(list(pipeline.home.rglob("spool/**/*"))) > len(LEVELS)
        site.look_at_files(scanner)
        assert told(scanner) == {}, "in the spools"

        site.send_spooled()
        site.import_log(log_lines(some[:IMPORTED]))
        site.start_workers()
        site.wait_settled()
        wait_until("an alert", lambda: receiver.alerts, 60)
        site.look(scanner)
        scanner.scan(caplog.text, "a producer's log")
        assert told(scanner) == {}
        assert_it_went_everywhere(pipeline, scanner)
        assert_planted_are_found(site)


def assert_it_went_everywhere(pipeline: Pipeline, scanner: Scanner) -> None:
    """The secrets were there to be found: they were masked, counted, rejected and alerted of."""
    assert scanner.scanned_bytes > 20_000_000
    counted: Counter[str] = Counter()
    for document in documents(pipeline.http, f"{pipeline.namespace}-access-*"):
        redaction = document["gatebook"].get("redaction", {})
        assert "failed" not in redaction, redaction
        counted.update(redaction.get("counts", {}))
    assert sum(counted.values()) > SECRETS
    assert len(counted) >= 8, counted
    assert all(pipeline.indexed(kind) > 0 for kind in KINDS)


def assert_planted_are_found(site: Site) -> None:
    """One in each place, each in another spelling."""
    planted = canaries(SECRETS + 5)[SECRETS:]
    existing = site.pipeline.http.get(f"/{site.pipeline.namespace}-access-*").json()
    index = f"/{next(iter(existing))}/_doc"
    scanner = Scanner(planted)
    agent = {"original": escaped(planted[0].text)}
    document = {"@timestamp": "2020-01-01T00:00:00Z", "user_agent": agent}
    site.pipeline.http.post(index, json=document).raise_for_status()
    site.pipeline.publish([make_event(user_agent={"original": planted[1].text})])
    site.pipeline.send(b"no frame", planted[2].text, {"note": planted[3].text})
    (site.pipeline.home / "planted.log").write_text(f"oops {planted[4].text}")
    site.look(scanner)
    places = {canary.text: scanner.found.get(canary.text) for canary in planted}
    assert all(places.values()), places
