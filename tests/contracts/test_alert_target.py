"""What every alert target promises, against receivers that know the published APIs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import msgspec
import pytest
from tests.contracts.alert_receivers import (
    GENIE_KEY,
    ROUTING_KEY,
    SIGNING_SECRET,
    SLACK_PATH,
    AlertmanagerReceiver,
    JsmReceiver,
    OpsgenieReceiver,
    PagerDutyReceiver,
    Receiver,
    SlackReceiver,
    WebhookReceiver,
)
from tests.unit.alerts.findings import finding, resolved, step

from gatebook.cli.demo.alert_receiver import Answer
from gatebook.engines.processes import free_ports
from gatebook.processors.alerts.alertmanager import AlertmanagerOptions
from gatebook.processors.alerts.base import AlertTarget, Delivery
from gatebook.processors.alerts.cloudevents import WebhookOptions
from gatebook.processors.alerts.opsgenie import JsmOptions, OpsgenieOptions
from gatebook.processors.alerts.options import TargetOptions
from gatebook.processors.alerts.pagerduty import PagerDutyOptions
from gatebook.processors.alerts.settings import AlertSettings
from gatebook.processors.alerts.slack import SlackOptions

BEARER = "hunter2hunter2"
SETTINGS = AlertSettings(
    alert_allow_private=True,
    alert_deadline_seconds=20.0,
    alert_request_timeout_seconds=5.0,
    alert_first_pause_seconds=0.01,
    alert_longest_pause_seconds=0.05,
    search_base_url="https://search.example.org/",
    runbook_url="https://wiki.example.org/runbooks",
)


@dataclass(frozen=True)
class Case:
    """A kind of target: its receiver, and how it is told where that is."""

    receiver: Callable[..., Any]
    options: Callable[[str], TargetOptions]
    secret: Callable[[str], str]
    path: str = ""
    accepted: int = 202
    deduplicates: bool = True
    """Whether the receiver can tell a repetition."""
    acknowledges: bool = True
    for_people: bool = True
    """Whether what it is told is shown as it comes; else it is data, and exact."""


CASES = {
    "alertmanager": Case(
        AlertmanagerReceiver,
        lambda url: AlertmanagerOptions(url=url, bearer_token="env:SECRET", plaintext_auth="allow"),
        lambda _: BEARER,
        accepted=200,
        acknowledges=False,
    ),
    "pagerduty": Case(
        PagerDutyReceiver,
        lambda url: PagerDutyOptions(
            url=url + "/v2/enqueue", routing_key="env:SECRET", plaintext_auth="allow"
        ),
        lambda _: ROUTING_KEY,
    ),
    "opsgenie": Case(
        OpsgenieReceiver,
        lambda url: OpsgenieOptions(
            url=url, api_key="env:SECRET", teams=("ops",), plaintext_auth="allow"
        ),
        lambda _: GENIE_KEY,
    ),
    "jsm": Case(
        JsmReceiver,
        lambda url: JsmOptions(
            url=url + "/jsm/ops/integration", api_key="env:SECRET", plaintext_auth="allow"
        ),
        lambda _: GENIE_KEY,
    ),
    "slack": Case(
        SlackReceiver,
        lambda _: SlackOptions(url="env:SECRET"),
        lambda url: url + SLACK_PATH,
        accepted=200,
        deduplicates=False,
    ),
    "webhook": Case(
        WebhookReceiver,
        lambda url: WebhookOptions(url=url + "/hook", secrets=("env:SECRET",)),
        lambda _: SIGNING_SECRET,
        for_people=False,
    ),
}


class Pauses:
    """Stands for asyncio.sleep: keeps how long a target wanted to wait, and yields."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    """Every kind of target there is over HTTP."""
    return CASES[request.param]


@pytest.fixture
def receiver(case: Case) -> Iterator[Receiver]:
    with case.receiver() as running:
        yield running


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


def make(case: Case, url: str, settings: AlertSettings = SETTINGS, **seams: Any) -> AlertTarget:
    """A target of this kind, pointed at `url`."""
    environment = seams.pop("environment", {"SECRET": case.secret(url)})
    return case.options(url).build("oncall", settings, environment=environment, **seams)


@pytest.fixture
async def target(case: Case, receiver: Receiver, pauses: Pauses) -> AsyncIterator[AlertTarget]:
    """A target pointed at the receiver."""
    made = make(case, receiver.url, sleep=pauses, jitter=lambda: 1.0)
    yield made
    await made.close()


def outcome(delivery: Delivery) -> tuple[str, str, int | None, int]:
    return delivery.outcome, delivery.reason, delivery.status_code, delivery.attempts


async def test_a_finding_is_accepted(case: Case, receiver: Receiver, target: AlertTarget) -> None:
    """One request, valid by the API's own rules, and the alert is there, with its evidence, its
    figures, the search and the runbook."""
    burst = finding()
    delivery = await target.deliver(burst)
    assert outcome(delivery) == ("success", "", case.accepted, 1)
    assert delivery.duration_ns > 0
    assert receiver.refused == []
    assert (receiver.opened, len(receiver.open_keys)) == (1, 1)
    assert "acme/eve: 10 accesses failed" in receiver.texts
    assert "https://search.example.org/" in receiver.texts
    assert "https://wiki.example.org/runbooks/gatebook" in receiver.texts


async def test_a_finding_delivered_twice_calls_once(
    case: Case, receiver: Receiver, target: AlertTarget
) -> None:
    """After a crash a finding is delivered again; whoever is on call sees one problem."""
    await target.deliver(finding())
    await target.deliver(finding())
    assert receiver.requests == 2
    assert len(receiver.open_keys) == 1
    assert receiver.opened == (1 if case.deduplicates else 2)


async def test_a_resolved_finding_resolves(receiver: Receiver, target: AlertTarget) -> None:
    """The end of a problem closes what its start opened."""
    await target.deliver(finding())
    assert outcome(await target.deliver(resolved(finding())))[:2] == ("success", "")
    assert receiver.refused == []
    assert (receiver.opened, receiver.open_keys) == (1, set())


async def test_a_trigger_repeated_before_its_end_leaves_nothing_open(
    receiver: Receiver, target: AlertTarget
) -> None:
    """The start arrives twice, then the end: closed, with nobody called for what is over."""
    for sent in (finding(), finding(), resolved(finding()), resolved(finding())):
        assert (await target.deliver(sent)).outcome == "success"
    assert receiver.refused == []
    assert receiver.open_keys == set()


async def test_an_acknowledged_finding_stays_open(
    case: Case, receiver: Receiver, target: AlertTarget
) -> None:
    """Somebody has it in hand: told where there is such a step, and never an end."""
    await target.deliver(finding())
    assert (await target.deliver(step(finding(), "acknowledged"))).outcome == "success"
    assert receiver.refused == []
    assert len(receiver.open_keys) == 1
    if case.acknowledges:
        assert len(receiver.acknowledged) == 1  # type: ignore[attr-defined]  # these have it


async def test_many_findings_at_once(receiver: Receiver, target: AlertTarget) -> None:
    """Deliveries may run side by side; each becomes its own alert."""
    jobs = [target.deliver(finding(f"acme/u{n}")) for n in range(50)]
    deliveries = await asyncio.gather(*jobs)
    assert {d.outcome for d in deliveries} == {"success"}
    assert (receiver.opened, len(receiver.open_keys)) == (50, 50)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_passing_failure_is_retried(
    status: int, case: Case, receiver: Receiver, target: AlertTarget
) -> None:
    """Overload and outages pass: tried again until accepted."""
    receiver.answer_next_with(Answer(status), Answer(status))
    assert outcome(await target.deliver(finding())) == ("success", "", case.accepted, 3)
    assert receiver.opened == 1


@pytest.mark.parametrize(
    "answer",
    [Answer(429, keep=True), Answer(500, keep=True), Answer(200, delay_seconds=2, keep=True)],
    ids=["429", "500", "no answer in time"],
)
async def test_failed_but_persisted_anyway_calls_once(
    answer: Answer, case: Case, receiver: Receiver
) -> None:
    """The target took it and said no, or did not answer: the retry is the same alert. Slack has
    no key to tell by: the message is there twice, under one incident."""
    receiver.answer_next_with(answer)
    hasty = msgspec.structs.replace(SETTINGS, alert_request_timeout_seconds=1.0)
    target = make(case, receiver.url, hasty if answer.delay_seconds else SETTINGS)
    assert outcome(await target.deliver(finding())) == ("success", "", case.accepted, 2)
    await target.close()
    assert len(receiver.open_keys) == 1
    assert receiver.opened == (1 if case.deduplicates else 2)


async def test_a_resolve_failed_but_persisted_opens_nothing(
    receiver: Receiver, target: AlertTarget
) -> None:
    """The end arrived though the answer did not: the repeated end changes nothing."""
    await target.deliver(finding())
    receiver.answer_next_with(Answer(500, keep=True))
    assert (await target.deliver(resolved(finding()))).outcome == "success"
    assert (receiver.opened, receiver.open_keys) == (1, set())


async def test_the_target_may_ask_for_a_pause(
    receiver: Receiver, target: AlertTarget, pauses: Pauses
) -> None:
    """Retry-After is waited out, in seconds or as a date, with jitter on top."""
    date = formatdate(time.time() + 10, usegmt=True)
    receiver.answer_next_with(
        Answer(429, {"Retry-After": "3"}), Answer(503, {"Retry-After": date}), Answer(503)
    )
    assert (await target.deliver(finding())).outcome == "success"
    assert pauses.seconds[0] == pytest.approx(3.01)
    assert 7 < pauses.seconds[1] < 11
    assert pauses.seconds[2] == pytest.approx(0.04)


async def test_a_pause_beyond_the_deadline_is_not_waited_for(
    receiver: Receiver, target: AlertTarget, pauses: Pauses
) -> None:
    """Asked to wait an hour, it gives up at once, says why and until when."""
    receiver.answer_next_with(Answer(429, {"Retry-After": "3600"}))
    delivery = await target.deliver(finding())
    assert outcome(delivery) == ("failure", "rate_limited", 429, 1)
    assert delivery.retry_after_seconds == 3600
    assert pauses.seconds == []


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "rejected"),
        (404, "rejected"),
        (410, "rejected"),
        (422, "rejected"),
        (401, "unauthorized"),
        (403, "unauthorized"),
        (301, "redirected"),
        (307, "redirected"),
    ],
)
async def test_a_refusal_is_final(
    status: int, reason: str, receiver: Receiver, target: AlertTarget
) -> None:
    """What will not get better by itself is a failed delivery at the first answer. Redirects
    are not followed: they would lead past the check of the address."""
    receiver.answer_next_with(Answer(status, {"Location": receiver.url + "/elsewhere"}))
    assert outcome(await target.deliver(finding())) == ("failure", reason, status, 1)
    assert receiver.requests == 1


async def test_a_target_that_does_not_answer(case: Case, receiver: Receiver) -> None:
    """Silence until the deadline is a time-out, after more than one attempt."""
    receiver.answer_next_with(*[Answer(200, delay_seconds=5)] * 50)
    settings = msgspec.structs.replace(
        SETTINGS, alert_deadline_seconds=1.2, alert_request_timeout_seconds=0.3
    )
    silent = make(case, receiver.url, settings)
    delivery = await silent.deliver(finding())
    await silent.close()
    assert (delivery.outcome, delivery.reason, delivery.status_code) == ("failure", "timeout", None)
    assert delivery.attempts >= 3
    assert delivery.duration_ns < 3_000_000_000


async def test_a_target_that_is_not_there(case: Case) -> None:
    """Nobody listens: a failure with a reason at the deadline, not an exception."""
    (port,) = free_ports(1)
    settings = msgspec.structs.replace(SETTINGS, alert_deadline_seconds=0.3)
    absent = make(case, f"http://127.0.0.1:{port}", settings)
    delivery = await absent.deliver(finding())
    await absent.close()
    assert (delivery.outcome, delivery.reason) == ("failure", "unreachable")
    assert delivery.attempts > 1


async def test_a_target_that_comes_back(case: Case) -> None:
    """Absent at first, there a moment later: the same delivery still succeeds."""
    (port,) = free_ports(1)
    late = case.receiver(port=port)

    async def start_on_first_pause(_: float) -> None:
        if not late.url:
            late.__enter__()

    returning = make(case, f"http://127.0.0.1:{port}", sleep=start_on_first_pause)
    try:
        expected = ("success", "", case.accepted, 2)
        assert outcome(await returning.deliver(finding())) == expected
    finally:
        await returning.close()
        late.__exit__()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]"])
async def test_an_inner_address_is_refused(host: str, case: Case, receiver: Receiver) -> None:
    """Without permission a loopback address is refused where it is written and where a name
    leads to it; nothing is sent."""
    url = receiver.url.replace("127.0.0.1", host)
    made = make(case, url)  # as where permission is taken away later
    made.settings = msgspec.structs.replace(SETTINGS, alert_allow_private=False)  # type: ignore[attr-defined]  # every target has them
    delivery = await made.deliver(finding())
    await made.close()
    assert outcome(delivery)[:2] == ("failure", "address_refused")
    assert receiver.requests == 0


@pytest.mark.parametrize("broken", [{}, {"event": {}}, {"event": None, "gatebook": 5}])
async def test_an_unusable_finding_is_a_failed_delivery(
    broken: dict[str, Any], receiver: Receiver, target: AlertTarget
) -> None:
    """A record that is no finding is not sent and does not stop the worker."""
    assert outcome(await target.deliver(broken)) == ("failure", "unusable_finding", None, 0)
    assert receiver.requests == 0


async def test_hostile_text_stays_text(case: Case, receiver: Receiver, target: AlertTarget) -> None:
    """Control characters, markup, mentions and quotes in a principal make a valid alert."""
    evil = 'a\r\nb\x00\x1b[2J\u202e"</script>=cmd|x<!channel><@U1>' + "y" * 5000
    assert (await target.deliver(finding(evil))).outcome == "success"
    assert receiver.refused == []
    assert receiver.opened == 1
    marks = [m for m in ("\\u0000", "\\u001b", "\\u202e", "\\r") if m in receiver.texts]
    assert (marks == []) == case.for_people


async def test_keys_that_look_alike_stay_apart(receiver: Receiver, target: AlertTarget) -> None:
    """Two principals that differ in what cannot be shown, or beyond every limit, are two."""
    for principal in ("acme/\x1b", "acme/\u202e", "x" * 600 + "a", "x" * 600 + "b"):
        await target.deliver(finding(principal))
    assert len(receiver.open_keys) == 4


async def test_credentials_come_from_their_reference(case: Case, receiver: Receiver) -> None:
    """A secret is read anew for each delivery, so that a rotated one is taken up, and stands in
    nothing that is kept."""
    good = case.secret(receiver.url)
    environment = {"SECRET": ""}
    made = make(case, receiver.url, environment=environment)
    missing = await made.deliver(finding())
    environment["SECRET"] = good
    accepted = await made.deliver(finding())
    await made.close()
    assert outcome(missing) == ("failure", "secret_unreadable", None, 1)
    assert missing.detail == "env:SECRET is missing or empty"
    assert (accepted.outcome, receiver.refused) == ("success", [])
    assert good not in repr(missing) + repr(accepted) + repr(SETTINGS)


async def test_a_closed_target_opens_again(target: AlertTarget) -> None:
    """close() gives connections back; a later delivery works all the same."""
    await target.deliver(finding())
    await target.close()
    await target.close()
    assert (await target.deliver(finding())).outcome == "success"


def test_a_target_says_its_name_and_type(request: pytest.FixtureRequest, case: Case) -> None:
    """Both stand in metrics and in the alert index."""
    made = make(case, "http://127.0.0.1:9")
    assert (made.name, CASES[made.type]) == ("oncall", case)
