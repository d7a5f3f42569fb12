"""Who looks at the log is in the log: through the API, Kafka, the workers, and the index."""

from __future__ import annotations

import ipaddress
import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.access_service import running_service
from tests.integration.privacy.subject_tools import TENANT, Desk, said
from tests.pipeline import Pipeline
from tests.waiting import wait_until

from gatebook.cli.audited import RecordedAudit, service_settings
from gatebook.processors.config import from_env
from gatebook.processors.detect.engine import DetectionEngine, Limits
from gatebook.processors.detect.registry import load_detector
from gatebook.processors.serve.access.revealing import Revealer
from gatebook.processors.serve.app import create_app
from gatebook.processors.serve.deps import Deps
from gatebook.producers.recorder import Recorder


class Served:
    """A `gatebook serve` process, and what it printed."""

    def __init__(self, pipeline: Pipeline, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gatebook.cli.main", "serve", "--port", "0"],
            env=pipeline.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        lines = self.process.stdout
        self.url = lines.readline().removeprefix("console:").strip().rstrip("/")
        assert lines.readline().startswith("API:")

    def link(self) -> str:
        """The link that is printed where there is no other way in."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rsplit(" ", 1)[-1].strip()

    def client(self, **more: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, trust_env=False, timeout=30, **more)

    def end(self) -> tuple[int, str]:
        """Stop it; its exit code and what it said on standard error."""
        self.process.send_signal(signal.SIGTERM)
        _, said_ = self.process.communicate(timeout=30)
        return self.process.returncode, said_


@contextmanager
def serving(pipeline: Pipeline, **environment: str) -> Iterator[Served]:
    served = Served(pipeline, **environment)
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.process.kill()
            served.process.communicate()


def acts(pipeline: Pipeline) -> dict[str, dict[str, Any]]:
    """The recorded acts of auditors, by action."""
    found = [d for d in pipeline.documents() if d["service"]["name"] == "gatebook-operator"]
    return {f"{d['gatebook']['component']} {d['event']['action']}": d for d in found}


def test_a_search_is_found_by_the_next_search(pipeline: Pipeline) -> None:
    """Signed in by the link, somebody searches, looks at an event and has its content opened:
    each is an access event with who, what, from where and why; a refused token is one, too; and
    so is what the command line does."""
    desk = Desk(pipeline)
    event = said("ada")
    pipeline.publish([event])
    pipeline.wait_indexed(1)
    event_id = event["event"]["id"]
    with serving(pipeline) as served, served.client() as client:
        link = served.link()
        assert client.get(link).status_code == 303
        session = client.get("/api/v1/session").json()
        assert session["caller"]["method"] == "login_link"
        csrf = {"x-csrf-token": session["csrf_token"]}
        asked = {"query": f"user.id:ada and organization.id:{TENANT}", "since": "1h"}
        found = client.post("/api/v1/search", json=asked, headers=csrf).json()
        assert found["total"] == 1
        assert client.get(f"/api/v1/events/{event_id}").status_code == 200
        body = {"layer": "full", "reason": "ticket 4711"}
        shown = client.post(f"/api/v1/events/{event_id}/reveal", json=body, headers=csrf)
        assert "sings for ada@example.org" in shown.text
        with served.client(headers={"authorization": "Bearer gb_wrong"}) as thief:
            assert thief.get("/api/v1/session").status_code == 401

        # A token that is made while the service runs holds at once, and so does its end.
        made = desk.json("token", "new", "ci", "--role", "viewer", "--tenant", TENANT)
        with served.client(headers={"authorization": f"Bearer {made['token']}"}) as by_token:
            assert by_token.get("/api/v1/session").status_code == 200
            desk.run("token", "revoke", made["id"])
            assert by_token.get("/api/v1/session").status_code == 401
        desk.run("search", "user.id:ada")

        wanted = {"serve login", "serve search", "serve event.view", "serve event.reveal"}
        wanted |= {"cli token.new", "cli token.revoke", "cli search"}
        wait_until("the acts are indexed", lambda: wanted <= set(acts(pipeline)), 60)
        # The very search, found by a search of its own.
        asked = {"query": "event.action:search and gatebook.component:serve", "since": "1h"}
        again = client.post("/api/v1/search", json=asked, headers=csrf).json()
        assert again["total"] >= 1
        code, complaints = served.end()
    assert (code, complaints) == (0, "")
    assert link.partition("token=")[2] not in str(pipeline.documents())
    told = acts(pipeline)
    search = told["serve search"]
    queries = [
        d["gatebook"]["attributes"]["query"]
        for d in pipeline.documents()
        if d["event"]["action"] == "search" and d["gatebook"]["component"] == "serve"
    ]
    assert f"user.id:ada and organization.id:{TENANT}" in queries
    assert search["user"]["id"] == session["caller"]["id"]
    assert search["source"]["ip"] == "127.0.0.1"
    assert search["url"]["path"] == "/api/v1/search"
    assert search["event"]["category"] == "database"
    reveal = told["serve event.reveal"]
    assert reveal["event"]["category"] == "iam"
    assert reveal["gatebook"]["attributes"]["reason"] == "ticket 4711"
    assert reveal["gatebook"]["attributes"]["event"] == event_id
    assert told["cli search"]["gatebook"]["attributes"]["query"] == "user.id:ada"
    failed = [
        d
        for d in pipeline.documents()
        if d["event"]["action"] == "login" and d["event"]["outcome"] == "failure"
    ]
    assert {d["event"]["reason"] for d in failed} == {"unauthenticated"}
    assert made["token"] not in str(pipeline.documents())


LOOKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/api/v1/search", {"query": ""}),
    ("/api/v1/histogram", {"query": ""}),
    ("/api/v1/facets", {"query": "", "fields": ["user.id"]}),
    ("/api/v1/overview", {}),
    ("/api/v1/findings", {}),
    ("/api/v1/tail", {}),
)


async def test_nothing_is_shown_that_is_not_recorded(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While acts cannot be made durable, nothing is shown and nothing done."""
    Desk(pipeline)
    event = said("ada")
    pipeline.publish([event])
    pipeline.wait_indexed(1)
    for name, value in pipeline.environment().items():
        if name.startswith("GATEBOOK_"):
            monkeypatch.setenv(name, value)
    recorder = Recorder(service_settings())
    audit = RecordedAudit(recorder)

    def make(deps: Deps) -> Any:
        revealer = Revealer(deps.connection, from_env())
        return create_app(replace(deps, reveal=revealer.opened))

    url = pipeline.engines.elasticsearch_url
    async with running_service(url, pipeline.namespace, make=make, audit=audit) as service:
        officer = await service.by_token("privacy_officer")
        path = f"/api/v1/events/{event['event']['id']}/reveal"
        body = {"layer": "full", "reason": "ticket"}
        async with officer as client:
            good = await client.post(path, json=body)
            assert "sings for" in good.text, good.text
            recorder.close(5)  # as a spool that is full or gone: nothing is taken any more
            refused = await client.post(path, json=body)
            assert refused.status_code == 503
            assert "sings for" not in refused.text
            for path, body in LOOKS:
                looked = await client.request("POST" if body else "GET", path, json=body)
                assert (looked.status_code, looked.json()["error"]["type"]) == (503, "unrecorded")
            made = await client.post("/api/v1/exports", json={"query": "", "format": "csv"})
            assert made.status_code == 503
    wait_until("the act is indexed", lambda: "serve event.reveal" in acts(pipeline), 60)
    assert sum(d["event"]["action"] == "event.reveal" for d in pipeline.documents()) == 1


def test_who_signs_in_by_a_token_is_named_and_no_finding(pipeline: Pipeline) -> None:
    """The login, what is asked with the token itself, and its revocation name the token by its
    public id, unmasked, and no rule takes that for a secret in a prompt."""
    desk = Desk(pipeline)
    made = desk.json("token", "new", "ops", "--role", "analyst", "--all-tenants")
    with serving(pipeline) as served, served.client() as client:
        answer = client.post("/login", data={"token": made["token"]})
        assert answer.status_code == 303
        bearer = {"authorization": f"Bearer {made['token']}"}
        asked = {"query": f"gatebook.identity.key_id:{made['id']}", "since": "1h"}
        with served.client(headers=bearer) as program:
            assert program.post("/api/v1/search", json=asked).status_code == 200
        desk.run("token", "revoke", made["id"])
        wanted = {"cli token.new", "serve login", "serve search", "cli token.revoke"}
        wait_until("the acts are indexed", lambda: wanted <= set(acts(pipeline)), 60)
    told = acts(pipeline)
    for name in ("serve login", "serve search"):
        assert told[name]["user"]["id"] == f"api-token/{made['id']}"
        assert told[name]["gatebook"]["identity"]["key_id"] == made["id"]
    assert told["serve login"]["gatebook"]["attributes"]["method"] == "api_token"
    assert told["serve search"]["gatebook"]["attributes"]["query"] == asked["query"]
    assert told["cli token.revoke"]["gatebook"]["attributes"]["token"] == made["id"]
    documents = pipeline.documents()
    assert [d for d in documents if d["gatebook"]["redaction"].get("entities")] == []
    engine = DetectionEngine((load_detector("secret_in_content"),), Limits())
    assert list(engine.process(0, documents)) == []


def test_with_a_certificate_it_speaks_tls_alone(pipeline: Pipeline, tmp_path: Path) -> None:
    """A token signs in over https, with cookies that never travel in the clear; the sessions of a
    caller can be ended from outside."""
    certificate, key = self_signed(tmp_path)
    made = json.loads(
        run(pipeline, "token", "new", "ops", "--role", "analyst", "--all-tenants", "--json").stdout
    )
    files = {
        "GATEBOOK_SERVE_TLS_CERTIFICATE_FILE": str(certificate),
        "GATEBOOK_SERVE_TLS_KEY_FILE": str(key),
    }
    with serving(pipeline, **files) as served:
        assert served.url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=str(certificate))
        with httpx.Client(base_url=served.url, trust_env=False, verify=context) as client:
            answer = client.post("/login", data={"token": made["token"]})
            assert answer.status_code == 303
            assert "Secure" in answer.headers["set-cookie"]
            assert answer.headers["strict-transport-security"]
            assert client.get("/api/v1/session").status_code == 200
            ended = run(pipeline, "token", "sign-out", f"api-token/{made['id']}", "--json")
            assert json.loads(ended.stdout) == {"ended": 1}
            assert client.get("/api/v1/session").status_code == 401
        with pytest.raises(httpx.HTTPError):
            httpx.get(served.url.replace("https", "http"), trust_env=False)
        assert served.end()[0] == 0
    wrong = run(
        pipeline,
        "serve",
        "--port",
        "0",
        **{**files, "GATEBOOK_SERVE_TLS_KEY_FILE": str(certificate)},
    )
    assert (wrong.returncode, "TLS_KEY_FILE" in wrong.stderr) == (1, True)


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1, and its key."""
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    place = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(place, critical=False)
        .sign(secret, hashes.SHA256())
    )
    certificate, key = folder / "tls.pem", folder / "tls.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate, key


def run(pipeline: Pipeline, *arguments: str, **environment: str) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "gatebook.cli.main", *arguments],
        env=pipeline.environment(**environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_service_does_not_start_open(pipeline: Pipeline, tmp_path: Any) -> None:
    """Beyond this machine without TLS, or without a way to sign in; without Elasticsearch; without
    a spool: each ends with its own code and says what to do."""
    outside = run(pipeline, "serve", "--host", "0.0.0.0", "--port", "0")
    assert (outside.returncode, "TLS" in outside.stderr) == (2, True)
    proxied = run(
        pipeline, "serve", "--host", "0.0.0.0", "--port", "0",
        GATEBOOK_SERVE_TRUSTED_PROXIES="10.0.0.1",
        GATEBOOK_SERVE_PUBLIC_URL="https://audit.example.org",
    )  # fmt: skip
    assert (proxied.returncode, "token new" in proxied.stderr) == (2, True)
    away = run(pipeline, "serve", "--port", "0", GATEBOOK_ELASTICSEARCH_URL="http://127.0.0.1:1")
    assert (away.returncode, "what to do" in away.stderr) == (3, True)
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    spool = run(pipeline, "serve", "--port", "0", GATEBOOK_SPOOL_DIR=str(blocked))
    assert (spool.returncode, "GATEBOOK_SPOOL_DIR" in spool.stderr) == (6, True)
    assert not any(one.stdout for one in (outside, proxied, away, spool))
