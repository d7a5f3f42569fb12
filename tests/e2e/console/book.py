"""A log to look at: documents written through the real sink, and tokens for each role."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import httpx
from tests.waiting import wait_until

from gatebook.processors import render
from gatebook.processors.setup import setup
from gatebook.processors.sinks.base import Row
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.sinks.elasticsearch import ElasticsearchSink
from gatebook.processors.sinks.settings import ElasticsearchSettings
from gatebook.schemas.documents import day_text, timestamp_text

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
ACCESSES = 240
USERS = ("alice", "bob", "carol")
MODELS = ("slm-1b", "slm-3b")
# Script, terminal escape, text turned around, line breaks, and no end.
HOSTILE = "</script><script>top.hacked=1</script>\x1b[31m\u202egnp.exe\r\nSet-Cookie: a=b"
HOSTILE_MARKUP = "<img src=x onerror=top.hacked=1>"
LONG = "A" * 4_000
HOSTILE_ID = "hostile-event"
INCIDENT = "in-" + "7" * 32
ROLES = {
    "viewer": ("viewer",),
    "analyst": ("analyst",),
    "everything": ("privacy_officer", "admin"),
    "acme": ("analyst",),
}


def access(number: int, at: int, **more: Any) -> dict[str, Any]:
    """An access document; every tenth failed."""
    failed = number % 10 == 0
    user = USERS[number % len(USERS)]
    document: dict[str, Any] = {
        "@timestamp": timestamp_text(at),
        "event": {
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"access {number}")),
            "kind": "event",
            "category": "api",
            "type": "denied" if failed else "access",
            "action": ("chat", "embeddings")[number % 2],
            "outcome": "failure" if failed else "success",
            "end": timestamp_text(at + 400_000_000),
            "duration": 400_000_000 + number,
            "created": timestamp_text(at + 401_000_000),
            **({"reason": "rate_limited"} if failed else {}),
        },
        "user": {"id": f"{user}@example.org", "name": user},
        "organization": {"id": ("acme", "globex")[number % 2]},
        "source": {"ip": f"10.0.0.{number % 5 + 1}"},
        "service": {"name": "support"},
        "url": {"path": "/v1/chat/completions"},
        "http": {
            "request": {"method": "POST"},
            "response": {"status_code": 429 if failed else 200},
        },
        "gen_ai": {
            "request": {"model": MODELS[number % 2]},
            "usage": {"input_tokens": 100 + number, "output_tokens": 10},
        },
        "trace": {"id": f"trace-{number // 3}"},
        "gatebook": {
            "phase": "terminal",
            "principal": f"acme/{user}",
            "identity": {"method": "oidc"},
            "capture": {"level": "metadata"},
        },
    }
    for name, value in more.items():
        document[name] = {**document.get(name, {}), **value}
    return document


def hostile(at: int) -> dict[str, Any]:
    """An access whose caller wrote what should do harm."""
    return access(
        1,
        at,
        event={"id": HOSTILE_ID},
        user={"id": HOSTILE_MARKUP, "name": HOSTILE},
        service={"name": HOSTILE_MARKUP},
        user_agent={"original": LONG},
        gen_ai={"request": {"model": "slm-1b"}, "input": {"messages": f'["{HOSTILE_MARKUP}"]'}},
    )


def finding(at: int, evidence: list[str]) -> dict[str, Any]:
    """A finding that fires, about bob's failures."""
    return {
        "@timestamp": timestamp_text(at),
        "event": {
            "id": "fi-" + "1" * 32,
            "kind": "alert",
            "severity": 73,
            "risk_score": 60,
            "action": "firing",
            "reason": f"8 refused calls of bob within an hour; {HOSTILE_MARKUP}",
            "start": timestamp_text(at - 60 * MINUTE),
            "end": timestamp_text(at),
        },
        "rule": {"id": "GB-AUTH-001", "name": "Burst of refused callers", "version": "1"},
        "user": {"id": "bob@example.org"},
        "organization": {"id": "acme"},
        "gatebook": {
            "principal": "acme/bob",
            "severity": "error",
            "dedup_key": "GB-AUTH-001/acme/bob",
            "observed": 8.0,
            "baseline": 1.0,
            "threshold": 5.0,
            "evidence": evidence,
            "evidence_count": len(evidence),
            "search": 'user.id:"bob@example.org"',
            "incident": INCIDENT,
            "unit": "accesses",
            "window_seconds": 3600,
            "occurrences": 1,
        },
    }


def row(kind: str, document: dict[str, Any], at: int, ingested_at: int) -> Row:
    """A document as the index worker would write it."""
    digest, body = render.render(document, ingested_at)
    return Row(kind, day_text(at), document["event"]["id"], digest, body)


def rows(now: int) -> Iterator[Row]:
    """The last twenty hours, an access every five minutes, the newest a minute ago: in the last day
    for hours to come."""
    for number in range(ACCESSES):
        at = now - MINUTE - number * 5 * MINUTE
        yield row("access", access(number, at), at, at + SECOND)
    yield row("access", hostile(now - 2 * MINUTE), now - 2 * MINUTE, now - MINUTE)
    evidence = [access(number, 0)["event"]["id"] for number in (10, 40, 70)]
    at = now - 5 * MINUTE
    yield row("finding", finding(at, evidence), at, at + SECOND)


class Book:
    """One namespace with documents, tokens for each role, and `gatebook serve` before them."""

    roles: ClassVar[Mapping[str, tuple[str, ...]]] = ROLES

    def __init__(self, engines: Any, home: Path) -> None:
        self.namespace = f"t{uuid.uuid4().hex[:7]}"
        self._engines = engines
        self._home = home
        counts = dict.fromkeys(("access.v1", "event.v1", "detector-state.v1"), 1)
        setup(engines.kafka_bootstrap, engines.elasticsearch_url, self.namespace, partitions=counts)
        self.fill()
        self.tokens = {name: self._token(name) for name in self.roles}
        self._log = (home / "serve.log").open("wb")
        self._out = (home / "serve.out").open("wb")
        self._server = subprocess.Popen(
            [sys.executable, "-m", "gatebook.cli.main", "serve", "--port", "0"],
            env=self._environment(),
            stdout=self._out,
            stderr=self._log,
        )
        self.origin = wait_until("the console's address", self._address, 60)

    def fill(self) -> None:
        """What is in the log before anybody looks at it."""
        self.write(*rows(time.time_ns()))

    def write(self, *given: Row) -> None:
        """Index documents. In a thread: where the browser runs, an event loop runs already."""
        failures: list[BaseException] = []

        def run() -> None:
            try:
                asyncio.run(self._write(list(given)))
            except BaseException as error:  # told to the test below
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]

    async def _write(self, given: list[Row]) -> None:
        connection = Connection(ElasticsearchSettings(url=self._engines.elasticsearch_url))
        sink = ElasticsearchSink(self.namespace, connection)
        outcome = await sink.write(given)
        assert outcome.indexed == len(given), outcome
        await connection.request("POST", f"/{self.namespace}-*/_refresh")
        await connection.close()

    def write_access(self, number: int) -> str:
        """One more access, now; its id."""
        now = time.time_ns()
        document = access(number, now)
        self.write(row("access", document, now, now))
        return str(document["event"]["id"])

    def write_own(self) -> None:
        """An act of Gatebook's own user, as the service records it."""
        now = time.time_ns()
        own = access(7_001, now, service={"name": "gatebook-operator"}, event={"category": "iam"})
        self.write(row("access", own, now, now))

    def write_key_access(self, principal: str, trace: str = "key-trace") -> None:
        """An access by a key that is nobody's."""
        now = time.time_ns()
        document = access(
            7_002,
            now,
            event={"id": str(uuid.uuid5(uuid.NAMESPACE_OID, principal))},
            service={"name": "batch"},
            trace={"id": trace},
            gatebook={"principal": principal},
        )
        del document["user"]
        self.write(row("access", document, now, now))

    def write_judged(self, incident: str, by: str) -> None:
        """A finding of days ago, and that somebody closed it as a true positive."""
        at = time.time_ns() - 3 * 24 * 60 * MINUTE
        fired, word = finding(at, []), finding(at + MINUTE, [])
        fired["event"]["id"], word["event"]["id"] = f"{incident}-1", f"{incident}-2"
        word["event"] |= {"action": "closed", "reason": "seen before"}
        word["labels"] = {"finding_id": fired["event"]["id"], "by": by}
        word["gatebook"]["verdict"] = "true_positive"
        for document in (fired, word):
            document["gatebook"]["incident"] = incident
        self.write(row("finding", fired, at, at), row("finding", word, at + MINUTE, at + MINUTE))

    def write_findings(self, severity: str, number: int, days_ago: int) -> None:
        """So many open incidents of a severity, a finding each, all of one day."""
        at = time.time_ns() - days_ago * 24 * 60 * MINUTE
        fired = [finding(at, []) for _ in range(number)]
        for place, document in enumerate(fired):
            document["event"]["id"] = f"fi-{severity}-{place}"
            document["gatebook"] |= {"incident": f"in-{severity}-{place}", "severity": severity}
        self.write(*(row("finding", document, at, at) for document in fired))

    def summarize(self) -> None:
        """Sum up every hour that is over."""
        self._command("summary", "run", "--settle-seconds", "0")

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "GATEBOOK_KAFKA_BOOTSTRAP": self._engines.kafka_bootstrap,
            "GATEBOOK_ELASTICSEARCH_URL": self._engines.elasticsearch_url,
            "GATEBOOK_NAMESPACE": self.namespace,
            "GATEBOOK_HOME": str(self._home),
            "GATEBOOK_SERVE_CALLER_PER_MINUTE": "100000",
            "GATEBOOK_SERVE_ADDRESS_PER_MINUTE": "100000",
        }

    def _token(self, name: str) -> str:
        tenants = ["--tenant", "acme"] if name == "acme" else ["--all-tenants"]
        roles = [part for role in self.roles[name] for part in ("--role", role)]
        made = self._command("token", "new", name, *roles, *tenants, "--json")
        return str(json.loads(made)["token"])

    def _command(self, *arguments: str) -> str:
        """What `gatebook` prints."""
        done = subprocess.run(
            [sys.executable, "-m", "gatebook.cli.main", *arguments],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _address(self) -> str | None:
        if self._server.poll() is not None:
            raise AssertionError(f"gatebook serve ended: {(self._home / 'serve.log').read_text()}")
        found = re.search(r"console: (http://\S+?)/\n", (self._home / "serve.out").read_text())
        return found[1] if found else None

    def close(self) -> None:
        """Stop what was started, and drop the namespace's indices."""
        self._server.send_signal(signal.SIGTERM)
        self._server.wait(30)
        self._log.close()
        self._out.close()
        with httpx.Client(base_url=self._engines.elasticsearch_url, trust_env=False) as client:
            names = client.get(f"/{self.namespace}-*/_alias").json()
            for name in names:
                client.delete(f"/{name}")
