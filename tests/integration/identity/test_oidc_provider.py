"""Tokens of a real provider on loopback, through the real middleware."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.integration.identity import tokens
from tests.integration.identity.provider import DISCOVERY, KEYS, Provider, running
from tests.waiting import wait_until

from gatebook.processors.intake import principal_of
from gatebook.producers.asgi import GatebookMiddleware
from gatebook.producers.config import ProducerSettings
from gatebook.producers.identity_oidc import OidcResolver
from gatebook.producers.publisher import MemoryPublisher
from gatebook.producers.recorder import Recorder
from gatebook.schemas.codec import decode_event, open_frame
from gatebook.schemas.documents import to_document

CHAT = "/v1/chat/completions"
CALLER = ("203.0.113.9", 4321)


async def answer(request: Request) -> Response:
    await request.body()
    return JSONResponse({"choices": []}, 401 if request.headers.get("x-refuse") else 200)


class Service:
    """A model service behind the middleware, with what it recorded."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.published = MemoryPublisher()
        given = {"home": str(home), "linger_seconds": 0.0, **settings}
        self.recorder = Recorder(ProducerSettings(**given), lambda _: self.published)
        app = Starlette(routes=[Route(CHAT, answer, methods=["POST"])])
        self.app = GatebookMiddleware(app, self.recorder)

    @property
    def oidc(self) -> OidcResolver:
        """The middleware's resolver of tokens."""
        found = [r for r in self.app.identifier._resolvers if isinstance(r, OidcResolver)]
        return found[0]

    async def ask(self, token: str, client: tuple[str, int] = CALLER, **headers: str) -> float:
        """One request; how many seconds it took."""
        transport = httpx.ASGITransport(app=self.app, client=client)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient(transport=transport, base_url="http://model.test") as http:
            begun = time.perf_counter()
            await http.post(CHAT, json={}, headers={"authorization": f"Bearer {token}", **given})
            return time.perf_counter() - begun

    def events(self) -> list[dict[str, Any]]:
        """The documents of all requests so far."""
        assert self.recorder.flush(10).complete
        frames = [open_frame(message) for _, message in self.published.messages]
        events = [decode_event(data) for frame in frames for data in frame.events]
        return [to_document("access_event.v2", event) for event in events]

    def last(self) -> tuple[str, str, str]:
        """Assurance, reason and user of the latest event."""
        event = self.events()[-1]
        reason = event.get("gatebook", {}).get("attributes", {}).get("identity_reason", "")
        assurance = event["gatebook"]["identity"].get("assurance", "")
        return assurance, reason, event.get("user", {}).get("id", "")

    def close(self) -> None:
        """End its threads."""
        self.app.identifier.close()
        self.recorder.close(0.5)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running() as made:
        yield made


@pytest.fixture
def serve(tmp_path: Path, provider: Provider) -> Iterator[Any]:
    """Makes services that accept the provider's tokens."""
    made: list[Service] = []

    def make(**settings: Any) -> Service:
        given = {
            "oidc_issuer": provider.issuer, "oidc_audience": (tokens.AUDIENCE,),
            "oidc_timeout_seconds": 2.0, **settings,
        }  # fmt: skip
        made.append(Service(tmp_path, **given))
        return made[-1]

    yield make
    for service in made:
        service.close()


def with_keys(service: Service) -> Service:
    """The service, once it has the provider's keys."""
    service.app.identifier.start()
    wait_until("keys are fetched", lambda: service.oidc.keys.usable(time.monotonic()))
    return service


def token_of(provider: Provider, name: str = "k1", algorithm: str = "RS256", **changes: Any) -> str:
    return tokens.signed(tokens.claims_of(provider.issuer, **changes), algorithm, name)


@asynccontextmanager
async def lifespan(service: Service) -> AsyncIterator[None]:
    """The application between its start and its end, as a server runs it."""
    begun, end = asyncio.Event(), asyncio.Event()
    first = True

    async def receive() -> dict[str, Any]:
        nonlocal first
        if first:
            first = False
            return {"type": "lifespan.startup"}
        await end.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: Any) -> None:
        begun.set()

    scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}}
    task = asyncio.create_task(service.app(scope, receive, send))
    await begun.wait()
    yield
    end.set()
    await task


async def test_a_token_of_the_provider_names_its_user(serve: Any, provider: Provider) -> None:
    """Keys are found by discovery while the service starts; the token stands nowhere."""
    service = serve()
    async with lifespan(service):
        wait_until("keys are fetched", lambda: service.oidc.keys.usable(time.monotonic()))
        token = token_of(provider)
        await service.ask(token)

        (event,) = service.events()
        assert event["user"]["id"] == "user-7"
        assert event["user"]["roles"] == ["ml", "ops"]
        assert event["session"]["id"] == "session-1"
        assert event["gatebook"]["identity"] == {
            "method": "oidc", "assurance": "verified", "issuer": provider.issuer,
        }  # fmt: skip
        assert token not in repr(event)
        assert token.rpartition(".")[2] not in repr(service.published.messages)
    assert provider.asked == [DISCOVERY, KEYS]


async def test_the_event_loop_never_waits_for_the_provider(serve: Any, provider: Provider) -> None:
    """While the provider is slow requests are answered, and their tokens are asserted."""
    provider.may_answer.clear()
    service = serve()

    took = [await service.ask(token_of(provider)) for _ in range(20)]

    assert max(took) < 1.0
    assert service.last() == ("asserted", "keys_not_loaded", "")
    event = service.events()[-1]
    assert event["gatebook"]["attributes"]["identity_claimed_subject"] == "user-7"
    assert principal_of(event) == f"ip:{CALLER[0]}"
    provider.may_answer.set()
    with_keys(service)
    await service.ask(token_of(provider))
    assert service.last() == ("verified", "", "user-7")


async def test_rotated_keys_are_found_and_the_user_stays_the_same_principal(
    serve: Any, provider: Provider
) -> None:
    """A token by a new key is asserted until the key is there, and verified from then on."""
    service = with_keys(serve(oidc_refetch_seconds=1.0))
    await service.ask(token_of(provider))
    provider.keys = [tokens.public_jwk("ES256", "k2")]
    renewed = token_of(provider, "k2", "ES256", sid="session-2")

    async def verified() -> bool:
        await service.ask(renewed)
        return service.last() == ("verified", "", "user-7")

    for _ in range(200):
        if await verified():
            break
        await asyncio.sleep(0.05)  # waits: for the background fetch of the new key
    before, after = service.events()[0], service.events()[-1]
    assert service.last() == ("verified", "", "user-7")
    assert principal_of(before) == principal_of(after) == "user:user-7"
    await service.ask(token_of(provider))
    assert service.last() == ("failed", "unknown_key", "")  # withdrawn


async def test_invented_key_ids_do_not_become_requests_to_the_provider(
    serve: Any, provider: Provider
) -> None:
    """A flood of forged tokens costs the provider nothing within the interval."""
    service = with_keys(serve())
    claims = tokens.claims_of(provider.issuer, sub="root")

    for number in range(50):
        await service.ask(tokens.signed(claims, signed_by="attacker", name=f"invented-{number}"))

    assert service.last() == ("failed", "unknown_key", "")
    assert provider.count(KEYS) == 1


async def test_a_provider_that_is_down_takes_nobodys_name(serve: Any) -> None:
    """The keys that are there are used on; new tokens by them are verified."""
    with running() as provider:
        service = with_keys(
            serve(oidc_issuer=provider.issuer, oidc_refresh_seconds=1.0, oidc_refetch_seconds=1.0)
        )
    wait_until("a fetch has failed", lambda: service.oidc.keys._failures > 0)

    await service.ask(token_of(provider, sid="later"))

    assert service.last() == ("verified", "", "user-7")


@pytest.mark.parametrize("status", [500, 404, 204])
async def test_a_provider_that_answers_badly_is_asked_again(
    serve: Any, provider: Provider, status: int
) -> None:
    """Until it answers well a token is asserted."""
    provider.status = status
    service = serve()
    await service.ask(token_of(provider))
    wait_until("it was asked twice", lambda: provider.count(DISCOVERY) >= 2)
    await service.ask(token_of(provider))
    assert service.last() == ("asserted", "keys_not_loaded", "")

    provider.status = 200
    with_keys(service)


def refused(service: Service, caplog: pytest.LogCaptureFixture, reason: str) -> None:
    """The keys were not taken, for that reason."""
    service.app.identifier.start()
    wait_until("the fetch is refused", lambda: service.oidc.keys._failures > 0)
    assert f"cannot be fetched: {reason}" in caplog.text
    assert not service.oidc.keys.usable(time.monotonic())


def test_redirects_are_not_followed(
    serve: Any, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """A provider, or who is between, cannot send a producer to another address."""
    with running() as inside:
        provider.redirect_to = inside.issuer
        refused(serve(), caplog, "redirect")
        assert inside.asked == []


def test_keys_on_another_origin_are_not_fetched(
    serve: Any, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """Discovery cannot point into the network; who wants that sets the URL."""
    with running() as elsewhere:
        url = elsewhere.issuer.removesuffix("/realm") + KEYS
        provider.discovery["jwks_uri"] = url
        refused(serve(), caplog, "other_origin")
        assert elsewhere.asked == []

        with_keys(serve(oidc_jwks_url=url))
        assert elsewhere.asked == [KEYS]


@pytest.mark.parametrize(
    ("jwks_uri", "reason"),
    [("file:///etc/passwd", "other_origin"), ("http://[", "other_origin"), (7, "other_origin"),
     ("gopher://127.0.0.1/", "other_origin")],
)  # fmt: skip
def test_odd_addresses_in_discovery_are_refused(
    serve: Any, provider: Provider, caplog: pytest.LogCaptureFixture, jwks_uri: Any, reason: str
) -> None:
    """Files and other protocols too."""
    provider.discovery["jwks_uri"] = jwks_uri

    refused(serve(), caplog, reason)


def test_a_document_of_another_issuer_is_refused(
    serve: Any, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """The provider must be the one that is set."""
    provider.discovery["issuer"] = "https://evil.example"

    refused(serve(), caplog, "other_issuer")


def test_a_huge_key_set_is_refused(
    serve: Any, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not read to its end."""
    provider.padding_bytes = 50 * 1024 * 1024

    refused(serve(), caplog, "too_large")


def test_a_provider_that_does_not_answer_is_given_up(
    serve: Any, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """After the time that is set."""
    provider.may_answer.clear()

    refused(serve(oidc_timeout_seconds=0.2), caplog, "timeout")


async def test_a_failed_authentication_is_recorded_with_its_source(
    serve: Any, provider: Provider
) -> None:
    """A forged token that the service refuses: from where, why, and nobody's name."""
    service = with_keys(
        serve(trusted_proxies=("10.0.0.0/8",), identity_user_header="x-forwarded-user")
    )
    claims = tokens.claims_of(provider.issuer, sub="root")
    forged = tokens.signed(claims, signed_by="attacker")

    await service.ask(forged, x_refuse="1", x_forwarded_for="1.1.1.1", x_forwarded_user="root")

    (event,) = service.events()
    assert service.last() == ("failed", "signature", "")
    assert event["event"]["category"] == "authentication"
    assert event["event"]["reason"] == "unauthenticated"
    assert event["source"]["ip"] == CALLER[0]
    assert principal_of(event) == f"ip:{CALLER[0]}"
    assert "root" not in repr(event)


async def test_forged_headers_change_neither_the_user_nor_the_source(
    serve: Any, provider: Provider
) -> None:
    """A good token beside every header that could name somebody else."""
    service = with_keys(
        serve(
            trusted_proxies=("10.0.0.0/8",),
            identity_resolvers=("header", "mtls", "oidc"),
            identity_user_header="x-forwarded-user",
            mtls_xfcc_header="x-forwarded-client-cert",
            mtls_subject_header="x-ssl-client-s-dn",
        )
    )
    forged = {
        "x_forwarded_user": "root", "x_forwarded_for": "10.0.0.1", "forwarded": "for=10.0.0.1",
        "x_forwarded_client_cert": 'Subject="CN=root"', "x_ssl_client_s_dn": "CN=root",
        "x_ssl_client_verify": "SUCCESS", "x_end_user": "root",
    }  # fmt: skip
    await service.ask(token_of(provider), **forged)
    await service.ask(token_of(provider), client=("10.0.0.1", 9), x_forwarded_user="by-proxy")

    direct, behind = service.events()
    assert (direct["user"]["id"], direct["source"]["ip"]) == ("user-7", CALLER[0])
    assert direct["gatebook"]["identity"]["method"] == "oidc"
    assert direct["gatebook"]["identity"]["on_behalf_of"] == "root"
    assert behind["user"]["id"] == "by-proxy"
    assert behind["gatebook"]["identity"]["issuer"] == "10.0.0.1"
