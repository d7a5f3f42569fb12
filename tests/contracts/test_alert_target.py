"""What every alert target promises, against a receiver that knows the published API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from tests.unit.alerts.findings import finding, resolved

from gatebook.cli.demo.alert_receiver import AlertReceiver, Answer
from gatebook.engines.processes import free_ports
from gatebook.processors.alerts.alertmanager import AlertmanagerTarget
from gatebook.processors.alerts.base import AlertTarget, Delivery
from gatebook.processors.alerts.settings import AlertSettings

SECRET = "hunter2hunter2"


def settings_for(url: str) -> AlertSettings:
    return AlertSettings(
        alertmanager_url=url,
        alert_allow_private=True,
        alert_deadline_seconds=20.0,
        alert_request_timeout_seconds=0.5,
        alert_first_pause_seconds=0.01,
        alert_longest_pause_seconds=0.05,
        search_base_url="https://search.example.org/",
    )


class Pauses:
    """Stands for asyncio.sleep: keeps how long a target wanted to wait, and yields."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def receiver() -> Iterator[AlertReceiver]:
    with AlertReceiver() as running:
        yield running


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture(params=["alertmanager"])
async def target(receiver: AlertReceiver, pauses: Pauses) -> AsyncIterator[AlertTarget]:
    """Every target there is, pointed at the receiver."""
    made = AlertmanagerTarget(settings_for(receiver.url), sleep=pauses, jitter=lambda: 1.0)
    yield made
    await made.close()


def outcome(delivery: Delivery) -> tuple[str, str, int | None, int]:
    return delivery.outcome, delivery.reason, delivery.status_code, delivery.attempts


async def test_a_finding_is_accepted(receiver: AlertReceiver, target: AlertTarget) -> None:
    """One request, valid by the API's own rules, and the alert is there."""
    delivery = await target.deliver(finding())
    assert outcome(delivery) == ("success", "", 200, 1)
    assert delivery.duration_ns > 0
    assert receiver.refused == []
    assert [a["labels"]["principal"] for a in receiver.active] == ["acme/eve"]


async def test_a_finding_delivered_twice_is_one_alert(
    receiver: AlertReceiver, target: AlertTarget
) -> None:
    """After a crash a finding is delivered again; whoever is on call sees one problem."""
    await target.deliver(finding())
    await target.deliver(finding())
    assert len(receiver.received) == 2
    assert len(receiver.alerts) == 1


async def test_a_resolved_finding_resolves(receiver: AlertReceiver, target: AlertTarget) -> None:
    """The same labels with an end in the past: no longer active."""
    await target.deliver(finding())
    await target.deliver(resolved(finding()))
    assert len(receiver.alerts) == 1
    assert receiver.active == []


async def test_many_findings_at_once(receiver: AlertReceiver, target: AlertTarget) -> None:
    """Deliveries may run side by side; each becomes its own alert."""
    jobs = [target.deliver(finding(f"acme/u{n}")) for n in range(50)]
    deliveries = await asyncio.gather(*jobs)
    assert {d.outcome for d in deliveries} == {"success"}
    assert len(receiver.alerts) == 50


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_passing_failure_is_retried(
    status: int, receiver: AlertReceiver, target: AlertTarget
) -> None:
    """Overload and outages pass: tried again until accepted."""
    receiver.answer_next_with(Answer(status), Answer(status))
    assert outcome(await target.deliver(finding())) == ("success", "", 200, 3)
    assert len(receiver.alerts) == 1


async def test_failed_but_persisted_anyway_is_one_alert(
    receiver: AlertReceiver, target: AlertTarget
) -> None:
    """The target took it and said 500, or did not answer: the retry is the same alert."""
    receiver.answer_next_with(Answer(500, keep=True), Answer(200, delay_seconds=2, keep=True))
    assert outcome(await target.deliver(finding())) == ("success", "", 200, 3)
    assert len(receiver.received) == 3
    assert len(receiver.alerts) == 1


async def test_the_target_may_ask_for_a_pause(
    receiver: AlertReceiver, target: AlertTarget, pauses: Pauses
) -> None:
    """Retry-After is waited out, with jitter on top."""
    receiver.answer_next_with(Answer(429, {"Retry-After": "3"}), Answer(503))
    assert (await target.deliver(finding())).outcome == "success"
    assert pauses.seconds == pytest.approx([3.01, 0.02])


async def test_a_pause_beyond_the_deadline_is_not_waited_for(
    receiver: AlertReceiver, target: AlertTarget, pauses: Pauses
) -> None:
    """Asked to wait an hour, it gives up at once and says why."""
    receiver.answer_next_with(Answer(429, {"Retry-After": "3600"}))
    assert outcome(await target.deliver(finding())) == ("failure", "rate_limited", 429, 1)
    assert pauses.seconds == []


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "rejected"),
        (404, "rejected"),
        (422, "rejected"),
        (401, "unauthorized"),
        (403, "unauthorized"),
        (301, "redirected"),
        (307, "redirected"),
    ],
)
async def test_a_refusal_is_final(
    status: int, reason: str, receiver: AlertReceiver, target: AlertTarget
) -> None:
    """What will not get better by itself is a failed delivery at the first answer. Redirects
    are not followed: they would lead past the check of the address."""
    receiver.answer_next_with(Answer(status, {"Location": receiver.url + "/api/v2/alerts"}))
    assert outcome(await target.deliver(finding())) == ("failure", reason, status, 1)
    assert receiver.requests == 1


async def test_a_target_that_does_not_answer(receiver: AlertReceiver) -> None:
    """Silence until the deadline is a time-out, after more than one attempt."""
    receiver.answer_next_with(*[Answer(200, delay_seconds=5)] * 50)
    settings = msgspec.structs.replace(
        settings_for(receiver.url), alert_deadline_seconds=1.2, alert_request_timeout_seconds=0.3
    )
    silent = AlertmanagerTarget(settings)
    delivery = await silent.deliver(finding())
    await silent.close()
    assert (delivery.outcome, delivery.reason, delivery.status_code) == ("failure", "timeout", None)
    assert delivery.attempts >= 3
    assert delivery.duration_ns < 3_000_000_000


async def test_a_target_that_is_not_there() -> None:
    """Nobody listens: a failure with a reason at the deadline, not an exception."""
    (port,) = free_ports(1)
    settings = msgspec.structs.replace(
        settings_for(f"http://127.0.0.1:{port}"), alert_deadline_seconds=0.3
    )
    absent = AlertmanagerTarget(settings)
    delivery = await absent.deliver(finding())
    await absent.close()
    assert (delivery.outcome, delivery.reason) == ("failure", "unreachable")
    assert delivery.attempts > 1


async def test_a_target_that_comes_back(receiver: AlertReceiver) -> None:
    """Absent at first, there a moment later: the same delivery still succeeds."""
    (port,) = free_ports(1)
    late = AlertReceiver(port=port)

    async def start_on_first_pause(_: float) -> None:
        if not late.url:
            late.__enter__()

    returning = AlertmanagerTarget(
        settings_for(f"http://127.0.0.1:{port}"), sleep=start_on_first_pause
    )
    try:
        assert outcome(await returning.deliver(finding())) == ("success", "", 200, 2)
    finally:
        await returning.close()
        late.__exit__()


async def test_a_name_that_leads_to_loopback_is_refused(receiver: AlertReceiver) -> None:
    """Without permission, `localhost` is found out when it is resolved; nothing is sent."""
    settings = msgspec.structs.replace(
        settings_for(receiver.url.replace("127.0.0.1", "localhost")), alert_allow_private=False
    )
    refused = AlertmanagerTarget(settings)
    delivery = await refused.deliver(finding())
    await refused.close()
    assert outcome(delivery) == ("failure", "address_refused", None, 1)
    assert receiver.requests == 0


@pytest.mark.parametrize("broken", [{}, {"event": {}}, {"event": None, "gatebook": 5}])
async def test_an_unusable_finding_is_a_failed_delivery(
    broken: dict[str, Any], receiver: AlertReceiver, target: AlertTarget
) -> None:
    """A record that is no finding is not sent and does not stop the worker."""
    assert outcome(await target.deliver(broken)) == ("failure", "unusable_finding", None, 0)
    assert receiver.requests == 0


async def test_hostile_text_stays_text(receiver: AlertReceiver, target: AlertTarget) -> None:
    """Control characters, markup and quotes in a principal make a valid alert."""
    evil = 'a\r\nb\x00\x1b[2J\u202e"</script>=cmd|x' + "y" * 5000
    assert (await target.deliver(finding(evil))).outcome == "success"
    (alert,) = receiver.alerts
    assert all(text.isprintable() for text in alert["labels"].values())
    assert all(text.isprintable() for text in alert["annotations"].values())
    assert len(alert["labels"]["principal"]) <= 256


async def test_credentials_come_from_their_reference(receiver: AlertReceiver) -> None:
    """A token in the environment is sent, and stands in nothing that is kept."""
    settings = msgspec.structs.replace(
        settings_for(receiver.url),
        alertmanager_bearer_token="env:TOKEN",
        alertmanager_plaintext_auth="allow",
    )
    environment = {"TOKEN": SECRET}
    bearer = AlertmanagerTarget(settings, environment=environment)
    receiver.answer_next_with(Answer(401))
    delivery = await bearer.deliver(finding())
    environment["TOKEN"] = SECRET + "rotated"
    assert (await bearer.deliver(finding())).outcome == "success"
    await bearer.close()
    assert receiver.authorizations == [f"Bearer {SECRET}", f"Bearer {SECRET}rotated"]
    assert SECRET not in repr(delivery) + repr(settings) + repr(receiver.received)


async def test_a_missing_secret_is_a_failed_delivery(receiver: AlertReceiver) -> None:
    """Nothing is sent without the credentials that are configured."""
    settings = msgspec.structs.replace(
        settings_for(receiver.url),
        alertmanager_basic_user="me",
        alertmanager_basic_password="env:NONE",
        alertmanager_plaintext_auth="allow",
    )
    basic = AlertmanagerTarget(settings, environment={})
    assert outcome(await basic.deliver(finding())) == ("failure", "secret_unreadable", None, 1)
    assert receiver.requests == 0


async def test_a_closed_target_opens_again(target: AlertTarget) -> None:
    """close() gives connections back; a later delivery works all the same."""
    await target.deliver(finding())
    await target.close()
    await target.close()
    assert (await target.deliver(finding())).outcome == "success"


def test_a_target_says_its_name_and_type(receiver: AlertReceiver) -> None:
    """Both stand in metrics and in the alert index."""
    made: AlertTarget = AlertmanagerTarget(settings_for(receiver.url))
    assert (made.name, made.type) == ("alertmanager", "alertmanager")
