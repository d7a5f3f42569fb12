"""OIDC tokens: what is verified names its user; nothing else names anybody."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from tests.integration.identity import tokens

from gatebook.producers.config import ProducerSettings
from gatebook.producers.identity import STARTED_AT, Identity
from gatebook.producers.identity_oidc import OidcResolver, claim
from gatebook.schemas.errors import Fatal

ISSUER = "https://login.example.test/realm"
ALL = ("RS256", "PS256", "ES256", "EdDSA")


def resolver(keys: list[dict[str, Any]] | None = None, **settings: Any) -> OidcResolver:
    """A resolver that has fetched keys, without a network."""
    given = {"oidc_issuer": ISSUER, "oidc_audience": (tokens.AUDIENCE,), **settings}
    made = OidcResolver(ProducerSettings(**given).check())
    loaded = [tokens.public_jwk("RS256")] if keys is None else keys
    made.keys._fetch = lambda: {"keys": loaded}
    made.keys._ensure_thread = lambda: None  # type: ignore[method-assign]  # no thread: tests refresh
    made.keys.refresh(time.monotonic())
    return made


def ask(asked: OidcResolver, token: str, at: float | None = None) -> Identity | None:
    scope = {} if at is None else {STARTED_AT: at}
    return asked.resolve(scope, {"authorization": f"Bearer {token}"})


def verdict(asked: OidcResolver, token: str, at: float | None = None) -> tuple[str, str]:
    """Assurance and reason; whoever is not verified must have no name."""
    found = ask(asked, token, at)
    assert found is not None
    assert found.assurance == "verified" or not (found.user_id or found.user_email or found.key_id)
    return found.assurance, found.reason


def test_a_good_token_names_its_user_by_the_mapped_claims() -> None:
    """Subject, mail address, name, groups, tenant and session come from the claims set."""
    asked = resolver(oidc_organization_claim="tid")

    assert ask(asked, tokens.signed(tokens.claims_of(ISSUER))) == Identity(
        method="oidc", assurance="verified", issuer=ISSUER, user_id="user-7",
        user_name="Seven", user_email="seven@example.test", user_roles=("ml", "ops"),
        organization_id="acme", session_id="session-1",
    )  # fmt: skip


@pytest.mark.parametrize("algorithm", ALL)
def test_public_key_signatures_of_every_kind_are_checked(algorithm: str) -> None:
    """A signature by the issuer's key counts, one by another key of the same id does not."""
    asked = resolver([tokens.public_jwk(algorithm)], oidc_algorithms=ALL)
    claims = tokens.claims_of(ISSUER)

    assert verdict(asked, tokens.signed(claims, algorithm)) == ("verified", "")
    forged = tokens.signed(claims, algorithm, signed_by="attacker")
    assert verdict(asked, forged) == ("failed", "signature")


def changed(**changes: Any) -> str:
    return tokens.signed(tokens.claims_of(ISSUER, **changes))


def tampered() -> str:
    head, _, signature = changed().split(".")
    return f"{head}.{tokens.part(tokens.claims_of(ISSUER, sub='root'))}.{signature}"


def good() -> dict[str, Any]:
    return tokens.claims_of(ISSUER)


# Made when they are used: their times count from then.
REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "algorithm none": (lambda: tokens.unsigned(good()), "algorithm"),
    "none in capitals": (lambda: tokens.unsigned(good(), "nOnE"), "algorithm"),
    "public key as secret": (lambda: tokens.signed_with_public_key(good()), "algorithm"),
    "no signature": (lambda: tokens.unsigned(good(), "RS256"), "signature"),
    "other claims": (tampered, "signature"),
    "other issuer": (lambda: changed(iss="https://evil.example"), "issuer"),
    "no issuer": (lambda: changed(iss=None), "issuer"),
    "other audience": (lambda: changed(aud="other-service"), "audience"),
    "no audience": (lambda: changed(aud=None), "claims"),
    "expired": (lambda: changed(exp=int(time.time()) - 31), "expired"),
    "never expires": (lambda: changed(exp=None), "claims"),
    "expiry is true": (lambda: changed(exp=True), "claims"),
    "not yet valid": (lambda: changed(nbf=int(time.time()) + 90), "not_yet_valid"),
    "nobody": (lambda: changed(sub=None), "no_name"),
    "name too long": (lambda: changed(sub="a" * 257), "name_too_long"),
    "name that is not seen": (lambda: changed(sub="al\u202eice"), "name_not_printable"),
    "logout token": (lambda: tokens.signed(good(), typ="logout+jwt"), "type"),
    "unknown critical header": (lambda: tokens.signed(good(), crit=["x"], x=1), "malformed"),
    "key id is a number": (
        lambda: f"{tokens.part({'alg': 'RS256', 'kid': 7})}.{tokens.part({})}.c2ln", "malformed"),
    "unknown key": (lambda: tokens.signed(good(), name="k9"), "unknown_key"),
    "encrypted": (lambda: f"{tokens.part({'alg': 'RSA-OAEP'})}.a.b.c.d", "encrypted"),
    "huge": (lambda: "a." + "b" * 20_000 + ".c", "too_large"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_token_that_does_not_hold_is_failed_with_its_reason(name: str) -> None:
    """Nobody is named from it, and the reason is a code."""
    make, reason = REFUSED[name]

    assert verdict(resolver(), make()) == ("failed", reason)


def test_an_embedded_key_is_not_believed() -> None:
    """A token that brings its own key, or says where one is, is checked by the issuer's only."""
    own = tokens.public_jwk("RS256", "attacker")
    token = tokens.signed(
        tokens.claims_of(ISSUER), signed_by="attacker", jwk=own, jku="http://169.254.169.254/"
    )

    assert verdict(resolver(), token) == ("failed", "signature")


@pytest.mark.parametrize("header", ["", "Bearer ", "Bearer sk-opaque", "Basic YTpi", "Bearer a.b.c",
                                    "Bearer sk.1.2", "Bearer é.è.ê"])  # fmt: skip
def test_what_is_no_token_is_left_to_the_next_resolver(header: str) -> None:
    """An opaque key stays a key, with dots in it too."""
    assert resolver().resolve({}, {"authorization": header}) is None


def test_a_clock_that_is_a_little_off_does_not_refuse() -> None:
    """exp and nbf have the leeway that is set, and no more."""
    asked = resolver(oidc_leeway_seconds=30.0)
    now = int(time.time())
    token = changed(exp=now + 100, nbf=now)

    assert verdict(asked, token, now - 29) == ("verified", "")
    assert verdict(asked, token, now + 129) == ("verified", "")
    assert verdict(asked, token, now + 131) == ("failed", "expired")
    assert verdict(resolver(), token, now - 31) == ("failed", "not_yet_valid")


def test_a_stream_that_outlives_its_token_keeps_its_caller() -> None:
    """A token counts as of the time its request began."""
    expired_since = changed(exp=int(time.time()) - 100, nbf=None)

    assert verdict(resolver(), expired_since, time.time() - 200) == ("verified", "")


def test_a_refreshed_token_is_the_same_user() -> None:
    """Another token of the same subject, by another key, has the same user id."""
    asked = resolver([tokens.public_jwk("RS256"), tokens.public_jwk("ES256", "k2")])
    first = ask(asked, changed(sid="a"))
    later = ask(asked, tokens.signed(tokens.claims_of(ISSUER, sid="b"), "ES256", "k2"))

    assert first is not None
    assert later is not None
    assert (first.user_id, first.issuer) == (later.user_id, later.issuer)
    assert (first.session_id, later.session_id) == ("a", "b")


def test_a_mail_address_that_the_issuer_did_not_verify_is_nobodys() -> None:
    """Whoever registers with another's address does not get their name."""
    by_email = resolver(oidc_user_claim="email")

    assert verdict(by_email, changed()) == ("verified", "")
    assert verdict(by_email, changed(email_verified=False)) == ("failed", "no_name")
    found = ask(resolver(), changed(email_verified=False))
    assert found is not None
    assert (found.user_id, found.user_email) == ("user-7", "")


def test_without_keys_a_token_is_asserted_and_names_nobody() -> None:
    """Whom it claims to be is told apart from who it is."""
    asked = resolver(keys=[])

    assert verdict(asked, changed()) == ("asserted", "keys_not_loaded")
    found = ask(asked, changed())
    assert found is not None
    assert found.attributes() == {
        "identity_reason": "keys_not_loaded", "identity_claimed_subject": "user-7",
    }  # fmt: skip


def test_a_repeated_token_is_not_checked_again_until_keys_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was verified is remembered by digest; a withdrawn key ends that at once."""
    asked, token, checked = resolver(), changed(), []
    decode = jwt.decode
    monkeypatch.setattr(jwt, "decode", lambda *a, **k: checked.append(1) or decode(*a, **k))

    answers = [ask(asked, token) for _ in range(3)]

    assert len(checked) == 1
    assert answers[0] == answers[1] == answers[2]
    assert token not in repr(vars(asked._remembered))
    asked.keys._fetch = lambda: {"keys": [tokens.public_jwk("RS256", "k2")]}
    asked.keys.refresh(time.monotonic())
    assert verdict(asked, token) == ("failed", "unknown_key")


def test_forged_tokens_push_nobody_out_of_what_is_remembered() -> None:
    """Only verified tokens are remembered, and of those so many."""
    asked = resolver()
    ask(asked, changed())
    for number in range(50):
        ask(asked, tokens.unsigned(tokens.claims_of(ISSUER, sub=str(number)), "RS256"))

    assert len(asked._remembered._entries) == 1


def test_claims_are_found_by_name_first_and_then_within_objects() -> None:
    """Keycloak nests roles; others have dots in names."""
    nested = {"realm_access": {"roles": ["a"]}, "https://x.example/roles": ["b"]}

    assert claim(nested, "realm_access.roles") == ["a"]
    assert claim(nested, "https://x.example/roles") == ["b"]
    assert claim(nested, "realm_access.roles.deeper") is None


def test_without_the_libraries_a_set_issuer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, with what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(Fatal, match="PyJWT is missing") as caught:
        resolver()
    assert "gatebook[oidc]" in caught.value.next_step
