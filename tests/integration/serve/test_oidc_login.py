"""Signing in at a real provider over HTTP, and tokens of it at the API."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from tests.access_service import ORIGIN, Service, running_service
from tests.identity_provider import CLIENT_ID, CLIENT_SECRET, Provider, running_provider

from gatebook.cli.token_check import IssuerTokens, bearer_check, id_token_check
from gatebook.processors.serve.access.settings import AccessSettings

LOOK = "/api/v1/look"
API = "gatebook-api"


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running_provider(f"{ORIGIN}/login/callback") as found:
        yield found


@pytest.fixture
def settings(provider: Provider, tmp_path: Path) -> AccessSettings:
    secret = tmp_path / "secret"
    secret.write_text(CLIENT_SECRET + "\n")
    return AccessSettings(
        oidc_issuer=provider.issuer,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret_file=str(secret),
        oidc_api_audience=(API,),
        oidc_tenants_claim="tenants",
        oidc_all_tenants="everything",
        failed_logins_per_minute=100,
    ).check()


@pytest.fixture
async def service(
    engines: Any, namespace: str, settings: AccessSettings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Service]:
    monkeypatch.setattr("gatebook.cli.token_check.REFETCH_SECONDS", 0.1)
    checks = id_token_check(settings), bearer_check(settings)
    assert isinstance(checks[0], IssuerTokens)
    assert isinstance(checks[1], IssuerTokens)
    async with running_service(
        engines.elasticsearch_url, namespace, settings, id_tokens=checks[0], bearer=checks[1]
    ) as found:
        yield found
    checks[0].close()
    checks[1].close()


async def sign_in(client: httpx.AsyncClient, return_to: str = "/") -> httpx.Response:
    """The whole way: to the provider and back."""
    return await client.get(await way_back(client, return_to))


async def way_back(client: httpx.AsyncClient, return_to: str = "/") -> str:
    """To the provider; the address by which it sends the browser back."""
    away = await client.get("/login/oidc", params={"return": return_to})
    assert away.status_code == 303
    async with httpx.AsyncClient(trust_env=False) as browser:
        back = await browser.get(away.headers["location"])
    assert back.status_code == 302, back.text
    return back.headers["location"]


async def test_a_person_signs_in_and_is_who_the_provider_says(
    service: Service, provider: Provider
) -> None:
    """Roles and tenants are those of the claims, the way leads back to where it began, and the
    login is in the log."""
    provider.person |= {"tenants": ["acme"]}
    async with service.client() as client:
        answer = await sign_in(client, "/search?q=a")
        assert (answer.status_code, answer.headers["location"]) == (303, "/search?q=a")
        session = (await client.get("/api/v1/session")).json()
        assert session["caller"] == {
            "id": "ada-7", "name": "Ada", "method": "oidc", "roles": ["analyst"],
            "tenants": ["acme"],
        }  # fmt: skip
        assert (await client.get(LOOK)).status_code == 200
    name, outcome, details, caller = service.audit.acts[0]
    assert (name, outcome, details["method"]) == ("login", "success", "oidc")
    assert caller is not None
    assert caller.id == "ada-7"


async def test_what_goes_to_the_provider_is_pkce_state_and_nonce(
    service: Service, provider: Provider
) -> None:
    """All three, new for each sign-in, and the verifier stays here."""
    seen = []
    async with service.client() as client:
        for _ in range(2):
            away = await client.get("/login/oidc")
            seen.append(parse_qs(urlsplit(away.headers["location"]).query))
            cookie = away.headers["set-cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=lax" in cookie
    for name in ("state", "nonce", "code_challenge"):
        assert seen[0][name] != seen[1][name]
    assert seen[0]["code_challenge_method"] == ["S256"]
    assert "code_verifier" not in seen[0]


def _with(**more: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda claims: {**claims, **more}


SPOILED = {
    "issuer": _with(iss="https://evil.example"),
    "audience": _with(aud="another-client"),
    "nonce": _with(nonce="another"),
    "expired": lambda c: {**c, "exp": int(time.time()) - 3600},
    "not_yet_valid": lambda c: {**c, "nbf": int(time.time()) + 3600},
    "authorized_party": _with(azp="another-client"),
    "claims": lambda c: {k: v for k, v in c.items() if k != "sub"},
}


@pytest.mark.parametrize("reason", sorted(SPOILED))
async def test_an_id_token_that_does_not_hold_signs_nobody_in(
    service: Service, provider: Provider, reason: str
) -> None:
    """Each wrong claim is refused by its own reason, which is recorded."""
    provider.spoil = SPOILED[reason]  # type: ignore[assignment]  # functions of claims
    async with service.client() as client:
        answer = await sign_in(client)
        assert answer.status_code == 401
        assert (await client.get(LOOK)).status_code == 401
    assert service.audit.of("login")[0]["refused"] == reason


async def test_a_token_without_a_nonce_is_refused(service: Service, provider: Provider) -> None:
    """A token from elsewhere cannot be slipped in."""
    provider.spoil = lambda claims: {k: v for k, v in claims.items() if k != "nonce"}
    async with service.client() as client:
        assert (await sign_in(client)).status_code == 401
    assert service.audit.of("login")[0]["refused"] == "nonce"


async def test_several_audiences_need_an_authorized_party(
    service: Service, provider: Provider
) -> None:
    """A token for us and for another is ours only where it says that it was made for us."""
    provider.spoil = _with(aud=[CLIENT_ID, "another"])
    async with service.client() as client:
        assert (await sign_in(client)).status_code == 401
    provider.spoil = _with(aud=[CLIENT_ID, "another"], azp=CLIENT_ID)
    async with service.client() as client:
        assert (await sign_in(client)).status_code == 303


def _unsigned(claims: dict[str, Any]) -> str:
    parts = ({"alg": "none", "typ": "JWT"}, claims)
    head, body = (
        base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts
    )
    return f"{head}.{body}."


def _by_hmac(provider: Provider) -> Callable[[dict[str, Any]], str]:
    """Signed with the public key as if it were a shared secret."""
    modulus = provider.jwks()["keys"][0]["n"]
    return lambda claims: jwt.encode(claims, modulus, "HS256", headers={"kid": provider.key_id})


async def test_unsigned_and_wrongly_signed_tokens_are_refused(
    service: Service, provider: Provider
) -> None:
    """alg none, a shared secret made of the public key, and a key of somebody else's."""
    forger = Provider(provider.issuer, provider.redirect_uri)
    for sign in (_unsigned, _by_hmac(provider), forger.signed):
        provider.sign = sign
        async with service.client() as client:
            assert (await sign_in(client)).status_code == 401
            token = provider.token(API)
            answer = await client.get(LOOK, headers={"authorization": f"Bearer {token}"})
            assert answer.status_code == 401
    assert {one["refused"] for one in service.audit.of("login")} == {"algorithm", "signature"}


async def test_keys_may_rotate_between_two_sign_ins(service: Service, provider: Provider) -> None:
    """A key that is not known yet is fetched while the sign-in waits; a withdrawn one ends."""
    async with service.client() as client:
        assert (await sign_in(client)).status_code == 303
    old = provider.token(API)
    provider.rotate("k2")
    async with service.client() as client:
        assert (await sign_in(client)).status_code == 303
        new = provider.token(API)
        for token, status in ((new, 200), (old, 401)):
            answer = await client.get(LOOK, headers={"authorization": f"Bearer {token}"})
            assert answer.status_code == status


async def test_an_answer_of_the_provider_works_once_and_in_one_browser(service: Service) -> None:
    """A replayed state, one of another browser, and one that was never given."""
    async with service.client() as client, service.client() as another:
        back = await way_back(client)
        assert (await client.get(back)).status_code == 303
        assert (await client.get(back)).status_code == 401
        stolen = await way_back(client)
        assert (await another.get(stolen)).status_code == 401
        assert (await another.get(LOOK)).status_code == 401
        made_up = await client.get("/login/callback?code=c&state=s")
        assert made_up.status_code == 401
        no_state = await client.get("/login/callback?code=c")
        assert no_state.status_code == 401
    reasons = [one["refused"] for one in service.audit.of("login") if "refused" in one]
    assert reasons == ["state", "other_browser", "state", "state"]


async def test_an_answer_of_another_provider_is_refused(service: Service) -> None:
    """Mix-up: the code of one provider is not sent to another."""
    async with service.client() as client:
        back = await way_back(client)
        parts = parse_qs(urlsplit(back).query)
        spoiled = {"code": parts["code"], "state": parts["state"], "iss": "https://evil.example"}
        assert (await client.get("/login/callback", params=spoiled)).status_code == 401
    assert service.audit.of("login")[0]["refused"] == "issuer"


async def test_a_person_without_a_role_is_known_and_refused(
    service: Service, provider: Provider
) -> None:
    """Whoever the provider knows is not thereby an auditor; who tried is recorded."""
    provider.person |= {"roles": ["employee"]}
    async with service.client() as client:
        answer = await sign_in(client)
        assert (answer.status_code, "gatebook_session" in str(answer.headers)) == (403, False)
    name, outcome, details, caller = service.audit.acts[0]
    assert (name, outcome, details["refused"]) == ("login", "failure", "no_role")
    assert caller is not None
    assert caller.id == "ada-7"
    assert "ada-7" in answer.text
    assert "Ask an administrator" in answer.text


async def test_a_sign_in_that_failed_says_why_and_what_to_do(service: Service) -> None:
    """An answer that is not of this browser's sign-in, a refusal of the provider, and one that does
    not hold: each has its own words, and the way to begin again."""
    async with service.client() as client:
        late = await client.get("/login/callback?code=x&state=of-long-ago")
        assert "begun more than ten minutes ago" in late.text
        state = parse_qs(urlsplit(await way_back(client)).query)["state"][0]
        refused = await client.get(f"/login/callback?error=access_denied&state={state}")
        assert "did not let you in" in refused.text
        state = parse_qs(urlsplit(await way_back(client)).query)["state"][0]
        mixed = await client.get(f"/login/callback?code=x&iss=https://evil.example&state={state}")
        assert "does not hold (issuer)" in mixed.text
        assert "evil" not in mixed.text
        for page in (late, refused, mixed):
            assert page.status_code == 401
            assert "Sign in again" in page.text
            assert 'href="/login/oidc?return=' in page.text


async def test_a_provider_that_is_away_or_refuses_lets_nobody_in(
    engines: Any, namespace: str, service: Service, provider: Provider, settings: AccessSettings
) -> None:
    """No discovery, a wrong client secret, an error instead of a code."""
    import msgspec

    away = msgspec.structs.replace(settings, oidc_issuer="http://127.0.0.1:1")
    check = id_token_check(away)
    async with (
        running_service(engines.elasticsearch_url, namespace, away, id_tokens=check) as lost,
        lost.client() as client,
    ):
        assert (await client.get("/login/oidc")).status_code == 503
    assert check is not None
    check.close()
    provider.secret = "another"
    async with service.client() as client:
        assert (await sign_in(client)).status_code in (401, 503)
        state = parse_qs(urlsplit(await way_back(client)).query)["state"][0]
        refused = await client.get(f"/login/callback?error=access_denied&state={state}")
        assert refused.status_code == 401
        assert (await client.get(LOOK)).status_code == 401


async def test_access_tokens_open_the_api_for_their_audience_alone(
    service: Service, provider: Provider
) -> None:
    """An ID token, a token of another API, a late one and one of another issuer do not."""
    good = provider.token(API, roles=["viewer"])
    wrong = [
        provider.token(CLIENT_ID),
        provider.token("another-api"),
        provider.token(API, exp=int(time.time()) - 3600),
        provider.token(API, iss="https://evil.example"),
        good[:-6] + "AAAAAA",
    ]
    async with service.client() as client:
        answer = await client.get(LOOK, headers={"authorization": f"Bearer {good}"})
        assert answer.json() == {"caller": "ada-7"}
        for token in wrong:
            answer = await client.get(LOOK, headers={"authorization": f"Bearer {token}"})
            assert (answer.status_code, token in answer.text) == (401, False)
    assert len(service.audit.of("login")) == len(wrong)
