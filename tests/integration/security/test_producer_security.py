"""Producers against a broker that asks who they are: plain settings are enough, what is refused is
told in words, and nothing is lost meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.security.secured_broker import ANONYMOUS, PASSWORDS, SecuredBroker
from tests.waiting import wait_until

from gatebook.producers.config import ProducerSettings
from gatebook.producers.recorder import Recorder
from gatebook.schemas.codec import decode_event, open_frame
from gatebook.schemas.topics import ACCESS, topic_name

EVENT = {"event": {"kind": "event"}}
EVENTS = 20
KEY_PASSWORD = "key-2342-secret"


def as_environment(properties: dict[str, str]) -> dict[str, str]:
    """What an operator writes: GATEBOOK_KAFKA_SECURITY_PROTOCOL and so on."""
    return {
        "GATEBOOK_KAFKA_" + name.upper().replace(".", "_"): value
        for name, value in properties.items()
    }


class Site:
    """One producer's home and topic at the secured broker."""

    def __init__(self, secured: SecuredBroker, namespace: str, home: Path) -> None:
        self.secured = secured
        self.namespace = namespace
        self.home = home
        self.topic = topic_name(namespace, ACCESS)
        self._recorders: list[Recorder] = []
        secured.create_topic(self.topic)

    def recorder(self, listener: str, properties: dict[str, str]) -> Recorder:
        """A recorder configured by environment variables alone."""
        environment = {
            "GATEBOOK_KAFKA_BOOTSTRAP": self.secured.at(listener),
            "GATEBOOK_NAMESPACE": self.namespace,
            "GATEBOOK_HOME": str(self.home),
            **as_environment(properties),
        }
        self._recorders.append(Recorder(ProducerSettings.from_env(environment)))
        return self._recorders[-1]

    def arrived(self) -> list[str]:
        """The ids of all events on the topic, in order, repeated ones too."""
        frames = [open_frame(value) for value in self.secured.read(self.topic)]
        return [decode_event(data)["event"]["id"] for frame in frames for data in frame.events]

    def close(self) -> None:
        for recorder in self._recorders:
            recorder.close(0.1)


@pytest.fixture
def site(secured: SecuredBroker, namespace: str, tmp_path: Path) -> Iterator[Site]:
    one = Site(secured, namespace, tmp_path)
    try:
        yield one
    finally:
        one.close()


def emit(recorder: Recorder) -> list[str]:
    """Some events, fsynced."""
    return [recorder.emit_durable(EVENT, 10) for _ in range(EVENTS)]


def wait_logged(caplog: pytest.LogCaptureFixture, words: str) -> None:
    wait_until(f"a log line with {words!r}", lambda: words in caplog.text, 30)


def tls(secured: SecuredBroker) -> tuple[str, str, dict[str, str]]:
    return "TLS", ANONYMOUS, secured.as_client("TLS")


def scram(secured: SecuredBroker) -> tuple[str, str, dict[str, str]]:
    return "SCRAM", "shipper", secured.as_user("shipper")


def certificate(secured: SecuredBroker) -> tuple[str, str, dict[str, str]]:
    return "MTLS", "edge", secured.as_client("MTLS", secured.authority.issue("edge"))


def certificate_with_locked_key(secured: SecuredBroker) -> tuple[str, str, dict[str, str]]:
    issued = secured.authority.issue("vault", password=KEY_PASSWORD.encode())
    properties = secured.as_client("MTLS", issued) | {"ssl.key.password": KEY_PASSWORD}
    return "MTLS", "vault", properties


@pytest.mark.parametrize("way", [tls, scram, certificate, certificate_with_locked_key])
def test_a_producer_needs_plain_settings_and_the_right_to_write(
    way: Callable[[SecuredBroker], tuple[str, str, dict[str, str]]], site: Site
) -> None:
    """TLS, SCRAM over TLS, and client certificates; Write on its topic is all that is granted."""
    listener, user, properties = way(site.secured)
    site.secured.grant(user, site.topic)
    recorder = site.recorder(listener, properties)
    emitted = emit(recorder)

    assert recorder.close(30).complete
    assert site.arrived() == emitted


def test_a_broker_with_a_certificate_for_another_host_gets_nothing_until_it_is_set_right(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The reason and what to do are told; the events wait in the spool for the next process."""
    refused_then_right(site, caplog, "ELSEWHERE", {}, "is for another host name")
    assert "GATEBOOK_KAFKA_BOOTSTRAP" in caplog.text


def test_a_broker_signed_by_an_authority_that_is_not_trusted_gets_nothing(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does a broker whose authority is merely unknown here."""
    stranger = {"ssl.ca.location": str(site.secured.stranger.file)}
    refused_then_right(site, caplog, "TLS", stranger, "not signed by an authority that we trust")
    assert "GATEBOOK_KAFKA_SSL_CA_LOCATION" in caplog.text


def test_a_missing_client_certificate_is_named(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker only says that it wants one."""
    refused_then_right(site, caplog, "MTLS", {}, "asks for a client certificate")
    assert "GATEBOOK_KAFKA_SSL_CERTIFICATE_LOCATION" in caplog.text


def test_an_expired_client_certificate_is_named(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the broker that refuses it."""
    issued = site.secured.authority.issue("late", expired=True)
    properties = site.secured.as_client("MTLS", issued)
    refused_then_right(site, caplog, "MTLS", properties, "refuses our client certificate")


def test_a_wrong_password_is_named_and_not_shown(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Which of name and password is wrong the broker does not tell."""
    wrong = site.secured.as_user("shipper", "guess-9999-secret")
    refused_then_right(site, caplog, "SCRAM", wrong, "refuses our user name or password")
    assert "GATEBOOK_KAFKA_SASL_PASSWORD" in caplog.text
    assert "guess-9999-secret" not in caplog.text


def refused_then_right(
    site: Site, caplog: pytest.LogCaptureFixture, listener: str, wrong: dict[str, str], words: str
) -> None:
    """Record with settings that are refused, then once more with right ones: all arrives, once."""
    site.secured.grant(ANONYMOUS, site.topic)
    refused = site.recorder(listener, site.secured.as_client("TLS") | wrong)
    emitted = emit(refused)
    wait_logged(caplog, words)
    assert not refused.close(0.5).complete
    assert refused.counters().dropped == {}
    assert site.arrived() == []

    right = site.recorder("TLS", site.secured.as_client("TLS"))
    emitted += emit(right)
    wait_until("what was spooled", lambda: right.counters().recovered == EVENTS)
    assert right.close(30).complete
    assert sorted(site.arrived()) == sorted(emitted)


def test_an_expired_broker_certificate_holds_events_until_it_is_renewed(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The renewal is enough: the process that waits goes on by itself."""
    site.secured.certify("EXPIRED", expired=True)
    site.secured.grant(ANONYMOUS, site.topic)
    recorder = site.recorder("EXPIRED", site.secured.as_client("TLS"))
    emitted = emit(recorder)
    wait_logged(caplog, "certificate has expired")
    assert site.arrived() == []

    site.secured.certify("EXPIRED", expired=False)

    assert recorder.close(60).complete
    assert site.arrived() == emitted


@pytest.mark.parametrize("elsewhere", [False, True], ids=["no right at all", "another topic"])
def test_a_denied_topic_holds_events_until_the_right_is_granted(
    elsewhere: bool, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The right is enough: the process that waits goes on by itself. A user without any right is
    refused before it may send at all, another one at its topic."""
    site.secured.deny_all("shipper")
    if elsewhere:
        site.secured.grant("shipper", "elsewhere")
    recorder = site.recorder("SCRAM", site.secured.as_user("shipper"))
    emitted = emit(recorder)
    wait_logged(caplog, "does not let this user write")
    assert "grant it the operation Write" in caplog.text
    assert PASSWORDS["shipper"] not in caplog.text
    assert site.arrived() == []

    site.secured.grant("shipper", site.topic)

    assert recorder.close(60).complete
    assert recorder.counters().dropped == {}
    assert site.arrived() == emitted


def test_a_denied_producer_ends_in_good_order_and_leaves_its_events_to_the_next(
    site: Site,
) -> None:
    """Its client is broken for good by then; the spool is not."""
    site.secured.deny_all("shipper")
    denied = site.recorder("SCRAM", site.secured.as_user("shipper"))
    emitted = emit(denied)
    assert not denied.close(3).complete

    site.secured.grant("shipper", site.topic)
    allowed = site.recorder("SCRAM", site.secured.as_user("shipper"))
    allowed.start()
    wait_until("what was spooled", lambda: allowed.counters().recovered == EVENTS)
    assert allowed.close(30).complete
    assert site.arrived() == emitted


def test_a_rotated_password_is_noticed_and_the_next_process_sends_everything(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection outlives the password until it has to prove itself anew; then events wait."""
    site.secured.grant("shipper", site.topic)
    recorder = site.recorder("SCRAM", site.secured.as_user("shipper"))
    emitted = emit(recorder)
    assert recorder.flush(30).complete
    try:
        site.secured.set_password("shipper", "new-5050-secret")

        def refused() -> bool:
            emitted.append(recorder.emit_durable(EVENT, 10))
            return "refuses our user name or password" in caplog.text

        wait_until("the end of the old password", refused, 30)
        emitted += emit(recorder)
        left = recorder.close(0.5).unacknowledged
        assert left >= EVENTS

        renewed = site.recorder("SCRAM", site.secured.as_user("shipper", "new-5050-secret"))
        renewed.start()
        wait_until("what was spooled", lambda: renewed.counters().recovered == left)
        assert renewed.close(30).complete
    finally:
        site.secured.set_password("shipper", PASSWORDS["shipper"])
    assert site.arrived() == emitted
    assert "secret" not in caplog.text


def doctor(environment: dict[str, str]) -> tuple[dict[str, Any], str]:
    """The doctor's row about Kafka, and all it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "gatebook.cli.main", "doctor", "--engine", "external", "--json"],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)
    rows = report if isinstance(report, list) else report["checks"]
    return next(row for row in rows if row["name"] == "kafka"), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("listener", "more", "reason", "step"),
    [
        ("ELSEWHERE", {}, "another host name", "GATEBOOK_KAFKA_BOOTSTRAP"),
        ("MTLS", {}, "asks for a client certificate", "SSL_CERTIFICATE_LOCATION"),
        (
            "SCRAM",
            {
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": "shipper",
                "sasl.password": "guess-9999-secret",
            },
            "refuses our user name or password",
            "GATEBOOK_KAFKA_SASL_PASSWORD",
        ),
    ],
)
def test_the_doctor_says_why_a_broker_does_not_let_us_in(
    listener: str, more: dict[str, str], reason: str, step: str, secured: SecuredBroker
) -> None:
    """In the words of the log, and without the password."""
    row, everything = doctor(
        {
            "GATEBOOK_KAFKA_BOOTSTRAP": secured.at(listener),
            "GATEBOOK_ELASTICSEARCH_URL": "http://127.0.0.1:1",
            **as_environment(secured.as_client("TLS") | more),
        }
    )
    assert row["verdict"] == "fail"
    assert reason in row["detail"]
    assert step in row["next_step"]
    assert "guess-9999-secret" not in everything
