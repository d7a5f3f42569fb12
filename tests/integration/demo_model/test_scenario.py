"""The whole scenario: the openai client, the gateway, and llama.cpp, over real sockets."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gatebook.cli.demo.gateway import create_app
from gatebook.cli.demo.model_server import ModelServer
from gatebook.cli.demo.scenario import (
    API_KEYS,
    BURST_FAILURES,
    KEY_GUESSES,
    PLANTED_SECRETS,
    ScenarioReport,
    StepResult,
    run_scenario,
)

from .conftest import serving


@dataclass
class Exchange:
    """What an ASGI application sees of one request."""

    request_body: bytes = b""
    status: int | None = None
    answer: bytes = b""
    finished: bool = False
    client_left: bool = False


class Watcher:
    """ASGI middleware that writes down every exchange, as an access log in its place would."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.exchanges: list[Exchange] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        exchange = Exchange()
        self.exchanges.append(exchange)

        async def watched_receive() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                exchange.request_body += message.get("body", b"")
            else:
                exchange.client_left |= not exchange.finished
            return message

        async def watched_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
            else:
                exchange.answer += message.get("body", b"")
                exchange.finished = not message.get("more_body", False)
            await send(message)

        return await self._app(scope, watched_receive, watched_send)


@dataclass(frozen=True)
class Run:
    report: ScenarioReport
    exchanges: list[Exchange]

    def step(self, name: str) -> StepResult:
        (step,) = [step for step in self.report.steps if step.name == name]
        return step


@pytest.fixture(scope="module")
def run(model_server: ModelServer) -> Run:
    """The scenario, run once."""
    watcher = Watcher(create_app(model_server.url, timeout_seconds=30))
    with serving(watcher) as url:
        report = run_scenario(url)
    # The server has shut down: every exchange is over and may be judged.
    return Run(report, watcher.exchanges)


def test_every_step_observes_what_it_expects(run: Run) -> None:
    """Each step, good or bad, ends the way it is meant to end."""
    assert [step for step in run.report.steps if not step.ok] == []


def test_every_request_is_counted_exactly(run: Run) -> None:
    """The count of requests sent is the count the service received, abandoned ones included."""
    assert run.report.requests_sent == len(run.exchanges)
    assert run.report.requests_sent == sum(step.requests for step in run.report.steps)


@pytest.mark.parametrize(
    ("name", "observed"),
    [
        ("wrong API key", "401 AuthenticationError"),
        ("invalid body holding a secret", "400 BadRequestError"),
        ("error quoting a secret", "400 BadRequestError"),
        ("prompt longer than the context", "400 BadRequestError"),
        ("time-out holding a secret", "504 InternalServerError"),
        ("client leaves mid-stream", "200, closed after 6 chunks"),
        ("client leaves before the answer", "closed, no answer"),
    ],
)
def test_failures_are_real_and_told_apart(run: Run, name: str, observed: str) -> None:
    """Each kind of failure is seen by the client as what it is."""
    assert run.step(name).observed == observed


@pytest.mark.parametrize("name", ["chat, streamed", "stream holding secrets"])
def test_streams_come_in_chunks_with_usage(run: Run, name: str) -> None:
    """A stream has several chunks and ends with the tokens it used."""
    observed = run.step(name).observed
    assert " chunks, " in observed
    assert " tokens in, " in observed


def test_the_service_sees_both_clients_leave(run: Run) -> None:
    """Two clients close their connection: one within a stream, one before any answer."""
    left = [exchange for exchange in run.exchanges if exchange.client_left]
    assert [exchange.status for exchange in left] == [200, None]
    assert not any(exchange.finished for exchange in left)


def test_incidents_are_loud_and_quick(run: Run) -> None:
    """Bursts of refusals arrive within seconds, by one user and by one wrong key."""
    burst, guesses = run.step("burst of failures"), run.step("keys guessed")
    assert (burst.user, burst.requests) == ("mallory", BURST_FAILURES)
    assert guesses.requests == KEY_GUESSES
    assert BURST_FAILURES >= 12
    assert float(burst.observed.split(" in ")[1].removesuffix(" s")) < 30


def test_secrets_reach_the_service_in_every_way(run: Run) -> None:
    """Each secret is sent in an answered request; one also stands in a refusal's own text."""
    answered = [exchange for exchange in run.exchanges if exchange.status == 200]
    for secret in PLANTED_SECRETS.values():
        assert any(secret.encode() in exchange.request_body for exchange in answered)
    refused = [exchange for exchange in run.exchanges if exchange.status == 400]
    assert any(PLANTED_SECRETS["card"].encode() in exchange.answer for exchange in refused)


def test_the_report_holds_no_secret(run: Run) -> None:
    """What the scenario prints is free of what it planted, keys included."""
    printed = repr(run.report)
    for secret in [*PLANTED_SECRETS.values(), *API_KEYS.values()]:
        assert secret not in printed


def test_scale_repeats_ordinary_traffic_only(model_server: ModelServer, run: Run) -> None:
    """A larger scale sends more everyday requests and the same incidents once."""
    with serving(create_app(model_server.url, timeout_seconds=30)) as url:
        larger = run_scenario(url, requests_scale=3)
    assert larger.ok
    ordinary = sum(step.requests for step in larger.steps if step.name == "chat")
    assert ordinary == 3
    assert [step.name for step in larger.steps].count("burst of failures") == 1
