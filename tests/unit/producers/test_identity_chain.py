"""The resolvers together: their order, what counts, and what a caller may only claim."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gatebook.processors.intake import principal_of
from gatebook.producers.asgi import GatebookMiddleware
from gatebook.producers.config import ProducerSettings
from gatebook.producers.identity import Identity, key_id
from gatebook.producers.identity_chain import Identifier, make_resolvers
from gatebook.schemas.documents import to_document
from gatebook.schemas.errors import Fatal

SECRET = "0123456789abcdef-secret"
PROXY = ("10.0.0.1", 4000)
BEHIND_PROXY = {"trusted_proxies": ("10.0.0.0/8",), "identity_user_header": "x-forwarded-user"}


def identifier(first: Any = (), hook: Any = None, **settings: Any) -> Identifier:
    return Identifier(ProducerSettings(**settings).check(), SECRET.encode(), hook, first)


def said(assurance: str, name: str = "", method: str = "oidc") -> Any:
    """A resolver that always says the same."""

    class Fixed:
        def resolve(self, scope: Any, headers: Any) -> Identity:
            return Identity(method=method, assurance=assurance, user_id=name, reason=f"by {name}")

    return Fixed()


class Broken:
    def resolve(self, scope: Any, headers: Any) -> None:
        raise RuntimeError("planted")


@pytest.mark.parametrize(
    ("first", "counts"),
    [
        ([said("verified", "a"), said("verified", "b")], "by a"),
        ([said("asserted", "a"), said("verified", "b")], "by b"),
        ([said("failed", "a"), said("verified", "b")], "by b"),
        ([said("asserted", "a"), said("failed", "b")], "by b"),
        ([said("failed", "a"), said("failed", "b")], "by a"),
        ([Broken(), said("asserted", "b")], "by b"),
        ([], ""),
    ],
)
def test_the_first_proof_counts_then_the_first_failure_then_the_first_claim(
    first: Any, counts: str
) -> None:
    """A resolver that breaks is passed over."""
    assert identifier(first).identify({}, {}, 200, 1.0).reason == counts


def test_the_order_is_the_one_that_is_set(tmp_path: Path) -> None:
    """Between two proofs the earlier resolver decides."""
    digest = key_id(SECRET.encode(), "sk-1")
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[keys.{digest}]\nuser_id = "by-key"\n')
    headers = {"x-api-key": "sk-1", "x-forwarded-user": "by-header"}
    found = {}
    for order in (("api_key", "header"), ("header", "api_key"), ("header", "anonymous"), ()):
        asked = identifier(identity_resolvers=order, identity_keys_file=str(keys), **BEHIND_PROXY)
        found[order] = asked.identify({"client": PROXY}, headers, 200, 1.0).user_id

    assert list(found.values()) == ["by-key", "by-header", "by-header", ""]


def test_a_hook_is_asked_first_and_what_it_says_holds() -> None:
    """The service itself knows best; a hook that says nothing or breaks is passed over."""
    asked = [said("verified", "resolver")]

    hook = lambda scope: Identity(user_id="hook", method="sso", assurance="asserted")  # noqa: E731  # short
    assert identifier(asked, hook).identify({}, {}, 200, 1.0).user_id == "hook"
    for silent in (lambda scope: None, lambda scope: 1 / 0):
        assert identifier(asked, silent).identify({}, {}, 200, 1.0).user_id == "resolver"


@pytest.mark.parametrize(
    ("assurance", "status", "named"),
    [
        ("verified", 200, True),
        ("verified", 403, True),
        ("verified", 401, False),
        ("asserted", 200, True),
        ("asserted", 403, False),
    ],
)
def test_a_refused_caller_is_not_named_but_why_is_kept(
    assurance: str, status: int, named: bool
) -> None:
    """Whoever is known and only not allowed (403) stays known."""
    found = identifier([said(assurance, "x")]).identify({}, {}, status, 1.0)

    assert (found.user_id, found.reason) == ("x" if named else "", "by x")
    assert found.assurance == (assurance if named else "failed")


def test_without_any_proof_a_refusal_says_so() -> None:
    """A failed authentication without credentials is told from one with wrong ones."""
    asked = identifier()

    assert asked.identify({}, {}, 401, 1.0).reason == "no_credentials"
    with_key = asked.identify({}, {"x-api-key": "sk-1"}, 401, 1.0)
    assert (with_key.reason, with_key.method) == ("refused_by_service", "api_key")
    assert with_key.key_id == key_id(SECRET.encode(), "sk-1")


def test_a_key_is_taken_from_the_header_that_is_set() -> None:
    """And from no other, but for Authorization."""
    asked = identifier(api_key_headers=("X-Model-Key",))

    assert asked.identify({}, {"x-model-key": "sk-1"}, 200, 1.0).method == "api_key"
    assert asked.identify({}, {"x-api-key": "sk-1"}, 200, 1.0).method == "anonymous"


def test_the_end_user_and_the_session_a_caller_names_are_only_beside_who_it_is() -> None:
    """A header with them never makes anybody verified or somebody else."""
    asked = identifier([said("verified", "app")], session_header="X-Session-Id")
    headers = {"x-end-user": "root", "x-session-id": "s-1"}

    found = asked.identify({}, headers, 200, 1.0)

    assert (found.user_id, found.on_behalf_of, found.session_id) == ("app", "root", "s-1")
    nobody = identifier(end_user_header="").identify({}, headers, 200, 1.0)
    assert (nobody.on_behalf_of, nobody.session_id, nobody.assurance) == ("", "", "")


REFUSED = {
    "an unknown resolver": {"GATEBOOK_IDENTITY_RESOLVERS": "oidc,saml"},
    "a resolver twice": {"GATEBOOK_IDENTITY_RESOLVERS": "oidc,oidc"},
    "somebody behind nobody": {"GATEBOOK_IDENTITY_RESOLVERS": "anonymous,api_key"},
    "a secret algorithm": {"GATEBOOK_OIDC_ALGORITHMS": "RS256,HS256"},
    "no algorithm": {"GATEBOOK_OIDC_ALGORITHMS": "none"},
    "tokens for anybody": {"GATEBOOK_OIDC_ISSUER": "https://login.example.test"},
    "tokens in the clear": {
        "GATEBOOK_OIDC_ISSUER": "http://login.example.test", "GATEBOOK_OIDC_AUDIENCE": "a"},
    "a file as issuer": {
        "GATEBOOK_OIDC_ISSUER": "file:///etc/passwd", "GATEBOOK_OIDC_AUDIENCE": "a"},
    "an issuer with a password": {
        "GATEBOOK_OIDC_ISSUER": "https://u:p@login.example", "GATEBOOK_OIDC_AUDIENCE": "a"},
    "keys in the clear": {
        "GATEBOOK_OIDC_ISSUER": "https://login.example", "GATEBOOK_OIDC_AUDIENCE": "a",
        "GATEBOOK_OIDC_JWKS_URL": "http://login.example/keys"},
    "a name by header from anybody": {"GATEBOOK_IDENTITY_USER_HEADER": "x-forwarded-user"},
    "a certificate by header from anybody": {"GATEBOOK_MTLS_XFCC_HEADER": "x-client-cert"},
    "a cookie as session": {"GATEBOOK_SESSION_HEADER": "Cookie"},
    "a header with an underscore": {"GATEBOOK_END_USER_HEADER": "x_end_user"},
    "a key stored as end user": {"GATEBOOK_END_USER_HEADER": "X-API-Key"},
    "both forwarded headers": {"GATEBOOK_FORWARDED_HEADER": "x-forwarded-for,forwarded"},
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_would_let_names_be_forged_are_refused(name: str) -> None:
    """At the start, with what to do instead."""
    with pytest.raises(Fatal) as caught:
        ProducerSettings.from_env(REFUSED[name])

    assert caught.value.next_step


def test_the_defaults_believe_no_header_and_need_no_library() -> None:
    """Who trusts proxies for addresses only does not trust them with names by that."""
    settings = ProducerSettings(trusted_proxies=("10.0.0.0/8",)).check()
    asked = Identifier(settings, SECRET.encode())
    headers = {"x-forwarded-user": "root", "x-forwarded-client-cert": 'Subject="CN=root"'}

    assert [type(r).__name__ for r in make_resolvers(settings, SECRET.encode())] == [
        "ApiKeyResolver", "MtlsResolver",
    ]  # fmt: skip
    assert asked.identify({"client": PROXY}, headers, 200, 1.0).method == "anonymous"


async def events_of(
    make_recorder: Any, published: Any, requests: list[dict[str, str]], **settings: Any
) -> list[dict[str, Any]]:
    """The documents of requests with these headers, through the middleware."""
    recorder = make_recorder(key_digest_secret=SECRET, **settings)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    middleware = GatebookMiddleware(app, recorder)
    for headers in requests:
        body = {"user": headers.pop("body-user", ""), "safety_identifier": "safe-1"}
        scope = {
            "type": "http", "method": "POST", "path": "/v1/chat/completions",
            "client": ("198.51.100.7", 5),
            "headers": [(n.encode(), v.encode()) for n, v in headers.items()],
        }  # fmt: skip

        async def receive(body: Any = body) -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps(body).encode()}

        async def send(message: Any) -> None:
            pass

        await middleware(scope, receive, send)
    assert recorder.close(10).complete
    return [to_document("access_event.v2", event) for event in published.events()]


async def test_a_rotated_key_is_the_same_principal(
    make_recorder: Any, published: Any, tmp_path: Path
) -> None:
    """Two keys of one owner count for one; which key it was can still be told."""
    keys = tmp_path / "keys.toml"
    ids = [key_id(SECRET.encode(), key) for key in ("sk-old", "sk-new")]
    keys.write_text("".join(f'[keys.{known}]\nuser_id = "alice"\n' for known in ids))
    requests = [{"x-api-key": "sk-old"}, {"x-api-key": "sk-new"}, {"x-api-key": "sk-stranger"}]

    old, new, stranger = await events_of(
        make_recorder, published, requests, identity_keys_file=str(keys)
    )

    assert principal_of(old) == principal_of(new) == "user:alice"
    assert principal_of(stranger).startswith("key:key_")
    assert [e["gatebook"]["identity"]["key_id"] for e in (old, new)] == ids


async def test_forging_the_end_user_never_changes_the_principal(
    make_recorder: Any, published: Any, tmp_path: Path
) -> None:
    """By header, by the body's user or by safety_identifier."""
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[keys.{key_id(SECRET.encode(), "sk-1")}]\nuser_id = "app"\n')
    key = {"x-api-key": "sk-1"}
    requests = [key | {"x-end-user": "root"}, key | {"body-user": "root"}, dict(key)]

    events = await events_of(make_recorder, published, requests, identity_keys_file=str(keys))

    assert {principal_of(event) for event in events} == {"user:app"}
    assert [e["gatebook"]["identity"]["on_behalf_of"] for e in events] == ["root", "root", "safe-1"]
