"""Names by header: from trusted proxies, and from nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from gatebook.producers.config import ProducerSettings
from gatebook.producers.identity_header import HeaderResolver

PROXY, CLIENT = ("10.0.0.1", 4000), ("203.0.113.1", 4000)
TRUSTED = ProducerSettings(trusted_proxies=("10.0.0.0/8",)).trusted_networks()
USER, EMAIL, ROLES = "X-Forwarded-User", "x-auth-request-email", "x-auth-request-groups"


def resolver() -> HeaderResolver:
    return HeaderResolver(USER, EMAIL, ROLES, TRUSTED)


def test_a_proxy_that_is_trusted_names_the_caller() -> None:
    """With mail address and roles; who vouches is the proxy's address."""
    headers = {"x-forwarded-user": "alice", EMAIL: "a@example.test", ROLES: "ml, ops,"}

    found = resolver().resolve({"client": PROXY}, headers)

    assert found is not None
    assert (found.method, found.assurance, found.issuer) == ("header", "verified", "10.0.0.1")
    assert (found.user_id, found.user_email) == ("alice", "a@example.test")
    assert found.user_roles == ("ml", "ops")


def test_a_mail_address_alone_is_the_user() -> None:
    """Some proxies know no other name."""
    found = resolver().resolve({"client": PROXY}, {EMAIL: "a@example.test"})

    assert found is not None
    assert found.user_id == "a@example.test"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("mallory,alice", "header_repeated"),
        ("a" * 257, "name_too_long"),
        ("al\u00ad\u0000ice", "name_not_printable"),
    ],
)
def test_a_name_that_cannot_be_trusted_is_failed(value: str, reason: str) -> None:
    """Two names mean that a proxy added its own to a caller's: nobody is named."""
    found = resolver().resolve({"client": PROXY}, {"x-forwarded-user": value})

    assert found is not None
    assert (found.assurance, found.user_id, found.reason) == ("failed", "", reason)


def test_names_in_utf_8_are_read_as_such() -> None:
    """Servers hand headers on in Latin-1."""
    raw = "jürgen".encode().decode("latin-1")
    found = resolver().resolve({"client": PROXY}, {"x-forwarded-user": raw})

    assert found is not None
    assert found.user_id == "jürgen"


@pytest.mark.parametrize("client", [CLIENT, ("10.0.0.1", 0), None, ("", None), ("10.0.0.256", 1)])
def test_from_anybody_else_the_header_is_as_if_it_were_not_there(client: Any) -> None:
    """Neither verified nor failed: the next resolver is asked."""
    assert resolver().resolve({"client": client}, {"x-forwarded-user": "root"}) is None
