"""The gate of the search service, with its state in a real Elasticsearch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from tests.access_service import ORIGIN, Service, running_service

from gatebook.processors.serve.access.caller import Caller
from gatebook.processors.serve.access.guard import routes_without_permission, still_holds
from gatebook.processors.serve.access.link import LoginLink
from gatebook.processors.serve.access.settings import AccessSettings
from gatebook.processors.serve.access.state import ConsoleState, StateAway
from gatebook.processors.serve.access.tokens import NewToken, Tokens, _document_id

LOOK, CHANGE = "/api/v1/look", "/api/v1/change"


@pytest.fixture
async def service(engines: Any, namespace: str) -> AsyncIterator[Service]:
    async with running_service(engines.elasticsearch_url, namespace) as found:
        yield found


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def csrf_of(answer: httpx.Response) -> dict[str, str]:
    return {"x-csrf-token": answer.json()["csrf_token"], "origin": ORIGIN}


# --- nobody ------------------------------------------------------------------------------------


async def test_nobody_gets_anything_below_the_api(service: Service) -> None:
    """Also a route that forgot to ask for a permission is answered to nobody, and it is known."""
    async with service.client() as client:
        for path in (LOOK, "/api/v1/forgotten", "/api/v1/session", "/api/v1/no-such-thing"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["error"]["type"]) == (401, "unauthenticated")
            assert answer.headers["www-authenticate"]
    assert routes_without_permission(service.app) == ["GET /api/v1/forgotten"]
    assert {a["refused"] for a in service.audit.of("access.refused")} == {"unauthenticated"}


async def test_every_answer_has_the_secure_headers(service: Service) -> None:
    """Pages, refusals, errors and answers alike."""
    viewer = await service.by_token("viewer")
    async with viewer as client:
        for path in ("/login", LOOK, "/api/v1/fails", "/nowhere"):
            headers = (await client.get(path)).headers
            assert "default-src 'none'" in headers["content-security-policy"], path
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert headers["referrer-policy"] == "no-referrer"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]


async def test_an_error_of_ours_tells_nothing(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """The words of an error may quote content: neither the answer nor the log has them."""
    viewer = await service.by_token("viewer")
    async with viewer as client:
        answer = await client.get("/api/v1/fails")
    assert answer.status_code == 500
    assert "hunter2" not in answer.text + caplog.text
    assert "RuntimeError" in caplog.text


async def test_a_request_for_another_host_is_refused(service: Service) -> None:
    """A name that somebody let point to this machine does not make the service theirs."""
    async with service.client() as client:
        for host, status in (("evil.example", 421), ("localhost:8321", 200), ("", 421)):
            assert (await client.get("/login", headers={"host": host})).status_code == status


# --- tokens ------------------------------------------------------------------------------------


async def test_a_token_opens_what_its_roles_allow(service: Service) -> None:
    """A viewer looks and changes nothing; the refusal is in the log with its caller."""
    viewer = await service.by_token("viewer")
    async with viewer as client:
        assert (await client.get(LOOK)).json()["caller"].startswith("api-token/")
        refused = await client.post(CHANGE)
    assert (refused.status_code, refused.json()["error"]["type"]) == (403, "forbidden")
    name, outcome, details, caller = service.audit.acts[-1]
    assert (name, outcome, details["refused"]) == ("access.refused", "failure", "forbidden")
    assert caller is not None
    assert details["route"] == CHANGE


async def test_a_revoked_token_holds_for_no_later_request(
    engines: Any, namespace: str, service: Service
) -> None:
    """Also where another process revoked it, and for the session that was begun with it."""
    token, facts = await service.token("analyst")
    right = {"authorization": f"Bearer {token}"}
    async with service.client(headers=right) as api, service.client() as browser:
        signed_in = await browser.post("/login", data={"token": token})
        assert signed_in.status_code == 303
        assert (await browser.get(LOOK)).status_code == 200
        assert (await api.get(LOOK)).status_code == 200
        async with running_service(engines.elasticsearch_url, namespace) as other:
            await other.access.tokens.revoke(facts.id, "root")
        assert (await api.get(LOOK)).status_code == 401
        assert (await browser.get(LOOK)).status_code == 401
    assert service.audit.of("login")[-1]["refused"] == "unknown_expired_or_revoked"


async def test_what_is_kept_of_a_token_is_not_the_token(service: Service) -> None:
    """Whoever reads the index cannot sign in with what stands there."""
    token, facts = await service.token("viewer")
    [kept] = await ConsoleState(service.connection, service.app.state.deps.namespace).find("token")
    assert token not in str(kept)
    assert kept.id == _document_id(facts.id)
    for wrong in (token[:-1] + ("A" if token[-1] != "A" else "B"), kept.source["digest"], "gb_"):
        assert await service.access.tokens.caller_of(wrong) is None


async def test_a_token_ends_and_says_when_it_was_used(service: Service) -> None:
    """Expiry is by the clock, and last use is known to the minute."""
    clock = Clock()
    state = ConsoleState(service.connection, service.app.state.deps.namespace)
    tokens = Tokens(state, clock)
    token, facts = await tokens.create(NewToken("ci", ("viewer",), ("acme",), 1), "root")
    found = await tokens.caller_of(token)
    assert found is not None
    assert found.tenants == {"acme"}
    assert (await tokens.find(facts.id)).last_used_at == clock.now
    clock.now += 86_400
    assert await tokens.caller_of(token) is None
    assert not await tokens.has_any()


async def test_wrong_credentials_are_not_made_up_for_by_a_cookie(service: Service) -> None:
    """A request with two kinds of credentials is judged by the one that it states."""
    ada = await service.signed_in("analyst")
    async with ada as client:
        assert (await client.get(LOOK)).status_code == 200
        for given in ("Bearer gb_wrong", "Basic YTpi", "Bearer", "Bearer a.b.c", ""):
            answer = await client.get(LOOK, headers={"authorization": given})
            assert answer.status_code == 401, given


async def test_an_administrator_makes_and_revokes_tokens_by_the_api(service: Service) -> None:
    """Both are durable in the log before they are done; a token is shown once."""
    admin = await service.by_token("admin", "viewer")
    async with admin as client:
        wanted = {"name": "ci", "roles": ["viewer"], "tenants": ["acme"], "days": 5}
        made = (await client.post("/api/v1/tokens", json=wanted)).json()
        token_id = made["facts"]["id"]
        async with service.client(headers={"authorization": f"Bearer {made['token']}"}) as new:
            session = (await new.get("/api/v1/session")).json()
            assert session["caller"]["tenants"] == ["acme"]
            assert "search" in session["permissions"]
            assert (await client.delete(f"/api/v1/tokens/{token_id}")).status_code == 204
            assert (await new.get("/api/v1/session")).status_code == 401
        listed = await client.get("/api/v1/tokens")
        assert made["token"] not in listed.text
        assert (await client.delete("/api/v1/tokens/" + "0" * 16)).status_code in (400, 404)
        service.audit.broken = True
        refused = await client.post("/api/v1/tokens", json=wanted)
        assert refused.status_code == 503
        service.audit.broken = False
        after = (await client.get("/api/v1/tokens")).json()["tokens"]
    assert len(after) == len(listed.json()["tokens"])
    assert service.audit.of("token.new")[0]["tenants"] == "acme"


async def test_nobody_makes_a_token_that_may_more_than_its_maker(service: Service) -> None:
    """An administrator cannot give out what they do not have: neither to others nor to
    themselves."""
    admin = await service.by_token("admin")
    async with admin as client:
        for roles in (["privacy_officer"], ["analyst"], ["viewer"], ["admin", "privacy_officer"]):
            wanted = {"name": "ci", "roles": roles, "tenants": None}
            answer = await client.post("/api/v1/tokens", json=wanted)
            assert (answer.status_code, answer.json()["error"]["type"]) == (403, "forbidden")
            assert "gatebook token new" in answer.json()["error"]["next_step"]
        assert not service.audit.of("token.new")
        wanted = {"name": "ci", "roles": ["admin"], "tenants": None}
        assert (await client.post("/api/v1/tokens", json=wanted)).status_code == 201
    both = await service.by_token("admin", "privacy_officer")
    async with both as client:
        wanted = {"name": "ci", "roles": ["analyst"], "tenants": None}
        assert (await client.post("/api/v1/tokens", json=wanted)).status_code == 201


async def test_an_administrator_of_one_tenant_stays_within_it(service: Service) -> None:
    """No token sees more than its maker, and tokens of others are not there for them."""
    _, foreign = await service.token("viewer", tenants=("other",))
    admin = await service.by_token("admin", tenants=("acme",))
    async with admin as client:
        for tenants in (None, ["other"], ["acme", "other"]):
            wanted = {"name": "ci", "roles": ["viewer"], "tenants": tenants}
            assert (await client.post("/api/v1/tokens", json=wanted)).status_code == 403
        gone = await client.delete(f"/api/v1/tokens/{foreign.id}")
        assert gone.json() == (await client.delete("/api/v1/tokens/" + "0" * 16)).json()
        shown = (await client.get("/api/v1/tokens")).json()["tokens"]
    assert foreign.id not in {one["id"] for one in shown}


# --- sessions ----------------------------------------------------------------------------------


async def test_a_session_planted_before_the_login_is_not_the_session_after_it(
    service: Service,
) -> None:
    """Fixation: the value changes with each login, and the one before is over."""
    token, _ = await service.token("analyst")
    name = service.access.cookie_name
    async with service.client() as client:
        client.cookies.set(name, "x" * 43, domain="127.0.0.1", path="/")
        await client.post("/login", data={"token": token})
        first = client.cookies.get(name, domain="127.0.0.1")
        assert first
        assert first != "x" * 43
        await client.post("/login", data={"token": token})
        second = client.cookies.get(name, domain="127.0.0.1")
    assert first != second
    for value, status in ((first, 401), ("x" * 43, 401), (second, 200)):
        async with service.client(cookies={name: value}) as client:
            assert (await client.get(LOOK)).status_code == status


async def test_a_session_ends_when_idle_and_when_old(service: Service) -> None:
    """Use keeps it alive, but not for ever."""
    clock = Clock()
    sessions = service.access.sessions
    sessions._clock = clock
    value = await sessions.begin(Caller("ada", roles=frozenset({"viewer"})))
    for _ in range(16):  # every 1,700 of 1,800 idle seconds, up to 27,200 of 28,800
        clock.now += 1_700
        assert await sessions.find(value) is not None
    clock.now += 1_601
    assert await sessions.find(value) is None
    value = await sessions.begin(Caller("ada", roles=frozenset({"viewer"})))
    clock.now += 1_801
    assert await sessions.find(value) is None


async def test_signing_out_ends_the_session_at_the_server(service: Service) -> None:
    """The cookie is worth nothing then, whoever kept a copy; and all sessions of one can end."""
    ada = await service.signed_in("analyst")
    async with ada as client:
        session = await client.get("/api/v1/session")
        assert (await client.post("/logout")).status_code == 403
        out = await client.post("/logout", headers=csrf_of(session))
        assert out.status_code == 200
        assert "max-age=0" in out.headers["set-cookie"].lower()
    value = dict(ada.cookies)[service.access.cookie_name]
    async with service.client(cookies={service.access.cookie_name: value}) as copy:
        assert (await copy.get(LOOK)).status_code == 401
    again = await service.signed_in("analyst")
    assert await service.access.sessions.end_all_of("ada") == 1
    async with again as client:
        assert (await client.get(LOOK)).status_code == 401
    assert [name for name, *_ in service.audit.acts if name == "logout"] == ["logout"]


async def test_cookies_are_as_strict_as_they_can_be(engines: Any, namespace: str) -> None:
    """Not for scripts, not over plain http where there is TLS, not for other hosts."""
    settings = AccessSettings(public_url="https://audit.example.org")
    async with running_service(engines.elasticsearch_url, namespace, settings) as service:
        token, _ = await service.token("viewer")
        async with service.client(headers={"host": "audit.example.org"}) as client:
            answer = await client.post("/login", data={"token": token})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-gatebook_session=")
    for part in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"):
        assert part in cookie
    assert "domain" not in cookie.lower()
    assert answer.headers["strict-transport-security"]


async def test_a_change_needs_the_token_of_our_page(service: Service) -> None:
    """CSRF: a cookie alone changes nothing, nor does a right token from a wrong origin; looking
    needs neither, nor does an API token."""
    ada = await service.signed_in("analyst")
    async with ada as client:
        session = await client.get("/api/v1/session")
        good = csrf_of(session)
        assert (await client.get(LOOK)).status_code == 200
        assert (await client.post(CHANGE, headers=good)).status_code == 200
        for wrong in (
            {},
            {"x-csrf-token": "0" * 64},
            {"x-csrf-token": "é".encode()},
            {**good, "origin": "https://evil.example"},
            {**good, "origin": "null"},
            {**good, "sec-fetch-site": "cross-site"},
        ):
            answer = await client.post(CHANGE, headers=wrong)
            assert (answer.status_code, answer.json()["error"]["type"]) == (403, "csrf")
    assert len(service.audit.of("verdict")) == 1
    assert {a["refused"] for a in service.audit.of("access.refused")} == {"csrf"}
    other = await service.signed_in("analyst")
    async with other as client:  # another session's token is none of this one's
        answer = await client.post(CHANGE, headers=good)
        assert answer.status_code == 403
    by_token = await service.by_token("analyst")
    async with by_token as client:
        assert (await client.post(CHANGE)).status_code == 200


async def test_a_login_form_of_another_site_signs_nobody_in(service: Service) -> None:
    """Login CSRF: nobody is signed in as somebody else without knowing."""
    token, _ = await service.token("viewer")
    async with service.client() as client:
        answer = await client.post(
            "/login", data={"token": token}, headers={"origin": "https://evil.example"}
        )
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


async def test_long_requests_notice_that_their_session_is_over(service: Service) -> None:
    """A live tail asks again whether its credentials hold."""
    from fastapi import Request

    caller = Caller("ada", "Ada", "oidc", frozenset({"viewer"}), None)
    value = await service.access.sessions.begin(caller)
    found = await service.access.sessions.find(value)
    assert found is not None
    cookie = f"{service.access.cookie_name}={value}".encode()
    request = Request(
        {"type": "http", "app": service.app, "headers": [(b"cookie", cookie)],
         "state": {"caller": found.caller}}
    )  # fmt: skip
    assert await still_holds(request)
    await service.access.sessions.end(value)
    assert not await still_holds(request)


# --- the link ----------------------------------------------------------------------------------


async def test_the_login_link_works_once(engines: Any, namespace: str) -> None:
    """The login is in the log before there is a session; a second use is refused and recorded."""
    link = LoginLink("root", 900)
    async with running_service(engines.elasticsearch_url, namespace, link=link) as service:
        async with service.client() as client:
            service.audit.broken = True
            spoiled = LoginLink("root", 900)
            service.access.link = spoiled
            answer = await client.get("/login", params={"token": spoiled.token})
            assert (answer.status_code, "set-cookie" in answer.headers) == (503, False)
            service.audit.broken, service.access.link = False, link
            assert (await client.get("/login", params={"token": link.token})).status_code == 303
            session = (await client.get("/api/v1/session")).json()
            assert session["caller"]["method"] == "login_link"
            assert session["caller"]["tenants"] is None
        async with service.client() as thief:
            answer = await thief.get("/login", params={"token": link.token})
            assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
        logins = [(outcome, d) for name, outcome, d, _ in service.audit.acts if name == "login"]
        assert [outcome for outcome, _ in logins] == ["success", "failure"]
        assert link.token not in str(service.audit.acts)


BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def test_a_browser_is_told_what_happened_and_what_to_do(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failures on the way in are pages with a sentence and a next step, never bare JSON; programs
    get JSON still. Nothing that was sent stands in them."""
    mark = "<script>x</script>"
    async with service.client(headers=BROWSER) as client:
        wrong = await client.post("/login", data={"token": f"gb_{mark}"})
        assert (wrong.status_code, "has expired, or was revoked" in wrong.text) == (401, True)
        link = await client.get("/login", params={"token": mark})
        assert (link.status_code, "used already" in link.text) == (401, True)
        assert "gatebook serve" in link.text
        forged = await client.post("/login", data={}, headers={"origin": "https://evil.example"})
        assert (forged.status_code, "was not sent by a page" in forged.text) == (403, True)
        assert "Reload the page" in forged.text
        none = await client.get("/login/oidc")
        assert (none.status_code, "No identity provider is set up" in none.text) == (404, True)
        other = await client.get(f"/{mark}", headers={"host": "evil.example"})
        assert (other.status_code, "does not answer under this name" in other.text) == (421, True)
        assert "/login" not in other.text
        pages = [wrong, link, forged, none, other]

        async def away(_token: str) -> None:
            raise StateAway("the state of the console cannot be read")

        monkeypatch.setattr(service.access.tokens, "caller_of", away)
        lost = await client.post("/login", data={"token": "gb_x"})
        assert (lost.status_code, lost.headers["retry-after"]) == (503, "5")
        for page in (*pages, lost):
            assert page.headers["content-type"].startswith("text/html"), page.url
            assert page.text.count('role="alert"') == 1
            assert page.headers["content-security-policy"]
            assert mark not in page.text
        api = await client.get(LOOK)
        assert api.json()["error"]["type"] == "unauthenticated"
    async with service.client() as program:
        assert (await program.get("/login/oidc")).json()["error"]["type"] == "not_found"


# --- rates -------------------------------------------------------------------------------------


async def test_guessing_is_stopped_by_address(engines: Any, namespace: str) -> None:
    """After some failures not even a right token is looked at from there; others go on."""
    settings = AccessSettings(failed_logins_per_minute=3)
    async with running_service(engines.elasticsearch_url, namespace, settings) as service:
        token, _ = await service.token("viewer")
        right = {"authorization": f"Bearer {token}"}
        async with service.client() as client:
            for _ in range(3):
                assert (
                    await client.get(LOOK, headers={"authorization": "Bearer gb_x"})
                ).status_code == 401
            blocked = await client.get(LOOK, headers=right)
            assert blocked.status_code == 429
            assert int(blocked.headers["retry-after"]) > 0
            assert (await client.post("/login", data={"token": token})).status_code == 429
            assert (await client.get("/login", params={"token": "x"})).status_code == 429
        async with service.client(address="192.0.2.8") as client:
            assert (await client.get(LOOK, headers=right)).status_code == 200
        assert len(service.audit.of("login")) == 3


async def test_callers_and_addresses_have_a_rate(engines: Any, namespace: str) -> None:
    """Neither many addresses of one caller nor many callers of one address get more."""
    settings = AccessSettings(caller_per_minute=3, address_per_minute=8)
    async with running_service(engines.elasticsearch_url, namespace, settings) as service:
        token, _ = await service.token("viewer")
        right = {"authorization": f"Bearer {token}"}
        seen = []
        for number in range(4):
            async with service.client(address=f"192.0.2.{number}", headers=right) as client:
                seen.append((await client.get(LOOK)).status_code)
        assert seen == [200, 200, 200, 429]
        async with service.client(address="198.51.100.1") as client:
            codes = [(await client.get("/login")).status_code for _ in range(9)]
        assert codes == [200] * 8 + [429]


async def test_a_flood_of_refusals_does_not_become_one_of_events(service: Service) -> None:
    """Beyond some a minute of one address they are counted."""
    async with service.client() as client:
        for _ in range(60):
            await client.get(LOOK)
    assert len(service.audit.of("access.refused")) <= 21
    place = "127.0.0.1"
    assert service.access.unrecorded[place] >= 39
    service.access.recorded._buckets.clear()
    async with service.client() as client:
        await client.get(LOOK)
    assert int(service.audit.of("access.refused")[-1]["more_like_it"]) >= 39


# --- behind a proxy, and without Elasticsearch -------------------------------------------------


async def test_who_comes_past_the_proxy_is_refused(engines: Any, namespace: str) -> None:
    """What was not encrypted is not taken; the client's address is the one the proxy saw."""
    settings = AccessSettings(
        host="0.0.0.0", public_url="https://audit.example.org", trusted_proxies=("10.0.0.0/24",)
    )
    async with running_service(engines.elasticsearch_url, namespace, settings) as service:
        token, _ = await service.token("viewer")
        headers = {
            "host": "audit.example.org",
            "authorization": f"Bearer {token}",
            "x-forwarded-for": "1.1.1.1, 203.0.113.9",
        }
        async with service.client(address="192.0.2.1", headers=headers) as direct:
            assert (await direct.get(LOOK)).status_code == 403
        async with service.client(address="10.0.0.5", headers=headers) as proxied:
            assert (await proxied.get(LOOK)).status_code == 200
        assert "203.0.113.9" in service.access.per_address._buckets
        assert "1.1.1.1" not in service.access.per_address._buckets


async def test_without_elasticsearch_nobody_is_let_in(namespace: str) -> None:
    """Closed, not open: what cannot be looked up does not hold."""
    async with running_service("http://127.0.0.1:1", namespace) as service:
        for headers in (
            {"authorization": "Bearer gb_" + "x" * 43},
            {"cookie": f"{service.access.cookie_name}={'x' * 43}"},
        ):
            async with service.client(headers=headers) as client:
                answer = await client.get(LOOK)
            assert answer.status_code == 503, answer.text
            assert answer.json()["error"]["next_step"]
        async with service.client() as client:
            assert (await client.get(LOOK)).status_code == 401
            away = await client.post("/login", data={"token": "gb_" + "x" * 43})
        assert (away.status_code, "set-cookie" in away.headers) == (503, False)
        assert not service.audit.of("search")


async def test_state_that_is_taken_away_lets_nobody_in(service: Service) -> None:
    """An index that is deleted takes the sessions and tokens along."""
    token, _ = await service.token("viewer")
    index = f"/{service.app.state.deps.namespace}-console-state"
    await service.connection.request("DELETE", index)
    async with service.client(headers={"authorization": f"Bearer {token}"}) as client:
        assert (await client.get(LOOK)).status_code == 401
    new, _ = await service.token("viewer")
    assert await service.access.tokens.caller_of(new) is not None


def test_settings_are_frozen() -> None:
    """Nobody loosens them while the service runs."""
    with pytest.raises(AttributeError):
        AccessSettings().host = "0.0.0.0"  # type: ignore[misc]
    assert msgspec.structs.asdict(AccessSettings())["host"] == "127.0.0.1"
