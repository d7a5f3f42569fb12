"""What a client writes into headers does not change where it comes from, nor who it is."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integration.identity import tokens

from gatebook.producers.addresses import source_of
from gatebook.producers.config import ProducerSettings
from gatebook.producers.identity import Identity, key_id
from gatebook.producers.identity_api_key import ApiKeyResolver, KnownKey
from gatebook.producers.identity_chain import Identifier
from gatebook.producers.identity_oidc import OidcResolver

ISSUER = "https://login.example.test"
SECRET = b"0123456789abcdef-secret"
SETTINGS = ProducerSettings(
    trusted_proxies=("10.0.0.0/8", "fd00::/8"),
    identity_user_header="x-forwarded-user",
    identity_email_header="x-auth-request-email",
    identity_roles_header="x-auth-request-groups",
    mtls_xfcc_header="x-forwarded-client-cert",
    mtls_subject_header="x-ssl-client-s-dn",
    oidc_issuer=ISSUER,
    oidc_audience=(tokens.AUDIENCE,),
).check()
# Credentials are left out: with them a caller proves who it is.
FORGEABLE = (
    "x-forwarded-for", "forwarded", "x-real-ip", "x-forwarded-user", "x-auth-request-email",
    "x-auth-request-groups", "x-forwarded-client-cert", "x-ssl-client-s-dn", "x-ssl-client-verify",
    "x-end-user", "x-user", "remote-user", "x-forwarded-host", "via", "from", "client-ip",
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        [
            "10.0.0.1",
            "::1",
            "for=10.0.0.1",
            'for="[fd00::1]"',
            "root",
            "SUCCESS",
            "0",
            "alice",
            'Subject="CN=root";URI=spiffe://x/root',
            "CN=root",
            'for="',
            "1.1.1.1, 10.0.0.1",
        ]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60),
)
HEADERS = st.dictionaries(st.sampled_from(FORGEABLE), VALUES, max_size=8)
PEERS = st.sampled_from(
    [("203.0.113.1", 40), ("2001:db8::1", 40), ("9.255.255.255", 1), ("10.0.0.1", 0), None]
)  # fmt: skip


class Asked:
    """An identifier with keys, and proofs of one user each."""

    def __init__(self) -> None:
        self.token = tokens.signed(tokens.claims_of(ISSUER, exp=int(time.time()) + 86_400))
        self.identifier = Identifier(SETTINGS, SECRET, first=[self._tokens(), self._keys()])
        self.proofs = {
            "nothing": {},
            "token": {"authorization": f"Bearer {self.token}"},
            "key": {"x-api-key": "sk-1"},
            "unknown key": {"x-api-key": "sk-2"},
            "broken token": {"authorization": f"Bearer {self.token[:-9]}AAAAAAAAA"},
        }

    def _tokens(self) -> OidcResolver:
        made = OidcResolver(SETTINGS)
        made.keys._fetch = lambda: {"keys": [tokens.public_jwk("RS256")]}
        made.keys._ensure_thread = lambda: None  # type: ignore[method-assign]  # no network here
        made.keys.refresh(time.monotonic())
        return made

    def _keys(self) -> ApiKeyResolver:
        return ApiKeyResolver(SECRET, {key_id(SECRET, "sk-1"): KnownKey(user_id="alice")})

    def who(self, client: Any, proof: str, headers: dict[str, str]) -> tuple[Any, ...]:
        """All of an identity that counts; not the end user, which is the caller's own word."""
        both = {**headers, **self.proofs[proof]}
        found = self.identifier.identify({"client": client}, both, 200, time.time())
        return _what_counts(found)


def _what_counts(found: Identity) -> tuple[Any, ...]:
    names = [name for name in found.__struct_fields__ if name != "on_behalf_of"]
    return tuple(getattr(found, name) for name in names)


@cache
def asked() -> Asked:
    return Asked()


PROOFS = st.sampled_from(["nothing", "token", "key", "unknown key", "broken token"])


@settings(deadline=None)  # a busy machine is no failure
@given(PEERS, PROOFS, HEADERS)
def test_without_a_trusted_peer_no_header_changes_who_calls(
    client: Any, proof: str, headers: dict[str, str]
) -> None:
    """Who proves nothing stays anonymous, and who proves to be somebody stays that."""
    assert asked().who(client, proof, headers) == asked().who(client, proof, {})


@settings(deadline=None)  # a busy machine is no failure
@given(PEERS, st.sampled_from(["x-forwarded-for", "forwarded"]), HEADERS)
def test_without_a_trusted_peer_no_header_changes_where_a_call_comes_from(
    client: Any, header: str, headers: dict[str, str]
) -> None:
    """source.ip is the peer."""
    trusted = SETTINGS.trusted_networks()

    assert source_of(client, headers, trusted, header) == (client[0] if client else "")


@settings(deadline=None)  # a busy machine is no failure
@given(VALUES, st.sampled_from(["198.51.100.2", '"[2001:db8::7]:443"']))
def test_behind_a_trusted_proxy_what_a_client_wrote_first_changes_nothing(
    forged: str, address: str
) -> None:
    """The proxy appends to what it got; only what it appended counts."""
    trusted, proxy = SETTINGS.trusted_networks(), ("10.0.0.1", 40)
    expected = address.strip('"').partition("]")[0].lstrip("[")

    plain = {"x-forwarded-for": f"{forged}, {address.strip(chr(34))}"}
    standard = {"forwarded": f"{forged}, for={address}"}
    assert source_of(proxy, plain, trusted, "x-forwarded-for") == expected
    assert source_of(proxy, standard, trusted, "forwarded") == expected


@settings(deadline=None)  # a busy machine is no failure
@given(PROOFS, st.dictionaries(st.sampled_from(("x-end-user", "x-user", "from")), VALUES))
def test_behind_a_trusted_proxy_a_header_that_is_not_set_counts_for_nothing(
    proof: str, headers: dict[str, str]
) -> None:
    """Only the headers that the proxy is known to set name anybody."""
    client = ("10.0.0.1", 40)

    assert asked().who(client, proof, headers) == asked().who(client, proof, {})
