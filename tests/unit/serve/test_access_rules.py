"""Who may do what: roles, masks, rates, addresses and settings, without a server."""

from __future__ import annotations

import ipaddress
import time
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.processors.search.fields import fields_of
from gatebook.processors.search.query import QueryError
from gatebook.processors.serve.access.caller import Caller, Refused, scope_filter
from gatebook.processors.serve.access.claims import TokenRefused, caller_of_claims
from gatebook.processors.serve.access.headers import secured
from gatebook.processors.serve.access.limits import Buckets, network_of
from gatebook.processors.serve.access.link import LoginLink
from gatebook.processors.serve.access.masking import (
    MASK,
    MASKED,
    SEALED,
    check_query,
    is_masked,
    masked,
    refuse_masked,
    visible_fields,
)
from gatebook.processors.serve.access.oidc import (
    MAX_ATTEMPTS,
    Attempts,
    SignInRefused,
    local_path,
)
from gatebook.processors.serve.access.proxies import Proxies
from gatebook.processors.serve.access.roles import ROLES, Permission
from gatebook.processors.serve.access.settings import AccessSettings, access_settings
from gatebook.processors.serve.access.tokens import NewToken, TokenError
from gatebook.schemas.errors import WrongSetting

P = Permission


def caller(*roles: str, tenants: frozenset[str] | None = None) -> Caller:
    return Caller("ada", roles=frozenset(roles), tenants=tenants)


# --- roles -------------------------------------------------------------------------------------

# Written out a second time, so that a slip in the table does not pass for a decision.
EXPECTED = {
    "viewer": "session search overview retention_read",
    "analyst": "session search overview retention_read identities content export verdict "
    "saved_searches reveal_redacted",
    "privacy_officer": "session search overview retention_read identities content export verdict "
    "saved_searches reveal_redacted reveal_full reidentify holds",
    "admin": "session overview retention_read retention policy tokens",
}


@pytest.mark.parametrize("role", sorted(ROLES))
def test_each_role_may_do_what_it_is_for_and_nothing_else(role: str) -> None:
    """The table of permissions says what the documentation says."""
    assert {str(one) for one in caller(role).permissions} == set(EXPECTED[role].split())


def test_an_unknown_role_may_do_nothing() -> None:
    """A role that was taken out of the table does not fall back to another."""
    assert caller("owner").permissions == frozenset()
    assert not caller().may(P.SESSION)


def test_an_administrator_sees_no_content() -> None:
    """Setting up tokens and retention opens nothing of what is logged."""
    shown = {P.SEARCH, P.IDENTITIES, P.CONTENT, P.REVEAL_REDACTED, P.REVEAL_FULL, P.EXPORT}
    assert not shown & caller("admin").permissions


# --- tenants -----------------------------------------------------------------------------------


def test_no_tenants_means_no_documents_and_none_means_all() -> None:
    """A caller for whom nobody named tenants sees nothing."""
    assert scope_filter(caller("analyst", tenants=frozenset())) == {"match_none": {}}
    assert scope_filter(caller("analyst", tenants=frozenset({"b", "a"}))) == {
        "terms": {"organization.id": ["a", "b"]}
    }
    assert scope_filter(caller("analyst")) is None
    assert Caller("somebody").tenants == frozenset()


# --- masks -------------------------------------------------------------------------------------

DOCUMENT: dict[str, Any] = {
    "event": {"id": "e1"},
    "user": {"id": "u1", "name": "Ada Lovelace", "email": "ada@example.org"},
    "source": {"ip": "192.0.2.7", "port": 5000},
    "user_agent": {"original": "curl/8"},
    "gen_ai": {"input": {"messages": "[hello]"}, "request": {"model": "slm"}},
    "gatebook": {
        "principal": "ip:192.0.2.7",
        "subject": "tag-of-ada",
        "identity": {"method": "oidc", "key_id": "key-of-ada", "on_behalf_of": "ada"},
        "attributes": {"query": "user.email:ada@example.org"},
        "sealed": {"full": "AAAA", "key_id": "k1"},
    },
}


def test_a_viewer_sees_a_mark_that_is_the_same_for_every_value() -> None:
    """Neither the value nor its length shows, and what may be seen stays."""
    found = masked(caller("viewer"), DOCUMENT)
    assert found["user"] == {"id": MASK, "name": MASK, "email": MASK}
    assert found["gatebook"]["subject"] == MASK
    assert found["gatebook"]["identity"] == {"method": "oidc", "key_id": MASK, "on_behalf_of": MASK}
    assert found["source"]["ip"] == found["gatebook"]["principal"] == MASK
    assert found["gatebook"]["attributes"] == found["gen_ai"]["input"]["messages"] == MASK
    assert found["gatebook"]["sealed"] == {"full": SEALED, "key_id": "k1"}
    assert found["gen_ai"]["request"] == {"model": "slm"}
    assert DOCUMENT["user"]["name"] == "Ada Lovelace"


def test_an_analyst_sees_identities_and_redacted_content_and_no_ciphertext() -> None:
    """What is sealed is opened by a reveal, not shown."""
    found = masked(caller("analyst"), DOCUMENT)
    assert found["user"] == DOCUMENT["user"]
    assert found["gatebook"]["sealed"]["full"] == SEALED


def test_a_dotted_name_is_masked_like_a_nested_one() -> None:
    """Documents with dots in their names hide nothing less."""
    found = masked(caller("viewer"), {"user.email": "a@b", "user": [{"name": "Ada"}]})
    assert found == {"user.email": MASK, "user": [{"name": MASK}]}


@pytest.mark.parametrize(
    "query",
    [
        "user.email:ada@example.org",
        "event.outcome:failure and not user.name:*",
        "(service.name:x or (source.ip:10.0.0.0/8))",
        "user.id:ada",
        "gatebook.subject:x or gatebook.identity.on_behalf_of:ada",
        "gatebook.attributes.query:*",
        'gen_ai.input.messages:"secret"',
        "source.ip >= 10.0.0.0",
        "user.name:(a or not b)",
        'gatebook.principal:"ip:192.0.2.7"',
    ],
)
def test_a_query_on_a_masked_field_is_refused_wherever_it_stands(query: str) -> None:
    """A filter is an oracle: whether something matched tells the value."""
    with pytest.raises(Refused) as refused:
        check_query(caller("viewer"), query)
    assert refused.value.status == 403
    assert refused.value.kind == "masked_field"
    field = refused.value.message.split()[0]
    assert query.index(field) <= (refused.value.position or 0) < len(query)
    check_query(caller("privacy_officer"), query)


def test_a_wrong_query_is_told_as_such() -> None:
    """The check does not hide what is wrong with the query itself."""
    with pytest.raises(QueryError):
        check_query(caller("viewer"), "user.id:")


@pytest.mark.parametrize("name", [name for names in MASKED.values() for name in names])
def test_every_masked_field_exists_and_can_be_neither_sorted_nor_counted(name: str) -> None:
    """A slip in a name would mask nothing."""
    kinds = ("access", "finding", "alert", "deadletter")
    known = [field for kind in kinds for field in fields_of(kind).types]
    assert any(field == name or field.startswith(f"{name}.") for field in known)
    with pytest.raises(Refused):
        refuse_masked(caller("viewer"), "event.id", name)
    refuse_masked(caller("analyst"), name)


def test_free_text_of_a_viewer_looks_into_no_masked_field() -> None:
    """Words are looked for in visible fields alone."""
    found = visible_fields(caller("viewer"), "access")
    assert found.text_fields == []
    assert "error.message" not in found.sentence_fields
    assert visible_fields(caller("analyst"), "access").text_fields


@given(st.sampled_from(sorted(fields_of("access").types)))
def test_what_is_masked_is_no_field_to_the_compiler(name: str) -> None:
    """Two guards, not one: the check of the query, and the list of fields it is compiled with."""
    viewer = caller("viewer")
    assert (visible_fields(viewer, "access").type_of(name) is None) == is_masked(viewer, name)


# --- rates and addresses -----------------------------------------------------------------------


class Clock:
    """A clock that stands."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_so_many_and_says_when_there_is_more() -> None:
    """Permits come back with time, for each key by itself."""
    clock = Clock()
    buckets = Buckets(3, clock)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 20]
    assert buckets.take("b") == 0
    clock.now += 20
    assert buckets.empty("a") == 0
    assert buckets.take("a") == 0
    assert buckets.empty("a") > 0
    clock.now += 1e6
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 20]


def test_an_ipv6_customer_is_one_address() -> None:
    """Whoever has 2^64 addresses has one bucket."""
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:2")
    assert network_of("2001:db8:0:1::1") != network_of("2001:db8::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("not an address")


def test_only_declared_proxies_are_believed() -> None:
    """A client cannot write the address it is counted by."""
    proxies = Proxies(("10.0.0.0/24",))
    assert proxies.address_behind("192.0.2.9", ["203.0.113.1"]) == "192.0.2.9"
    assert proxies.address_behind("10.0.0.2", ["1.1.1.1, 203.0.113.1"]) == "203.0.113.1"
    assert proxies.address_behind("10.0.0.2", ["203.0.113.1, 10.0.0.3"]) == "203.0.113.1"
    assert proxies.address_behind("10.0.0.2", ["<script>"]) == "10.0.0.2"
    assert proxies.address_behind("::ffff:10.0.0.2", ["203.0.113.1"]) == "203.0.113.1"
    assert Proxies(()).address_behind("10.0.0.2", ["1.1.1.1"]) == "10.0.0.2"


@given(st.ip_addresses(), st.text(max_size=40))
def test_nothing_in_a_header_is_an_address_but_an_address(
    peer: ipaddress.IPv4Address | ipaddress.IPv6Address, header: str
) -> None:
    """Whatever is forwarded, what comes out is an address."""
    found = Proxies((str(peer),)).address_behind(str(peer), [header])
    assert ipaddress.ip_address(found)


# --- signing in --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted",
    ["//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil", "", "javascript:1",
     "/login?token=x", "/logout", "/a\nb", "x" * 3000],
)  # fmt: skip
def test_a_sign_in_leads_nowhere_else(wanted: str) -> None:
    """The way back is a path of the service."""
    assert local_path(wanted) == "/"


def test_a_permalink_survives_signing_in() -> None:
    """Whoever opens a link and has to sign in gets there afterwards."""
    assert local_path("/search?q=a%3Ab&from=1#x") == "/search?q=a%3Ab&from=1#x"


def test_a_state_holds_once_for_one_browser_and_not_for_long() -> None:
    """Replayed, foreign and late answers of a provider are worth nothing."""
    clock = Clock()
    attempts = Attempts(clock)
    state, _ = attempts.begin("browser", "/search")
    assert attempts.take(state, "browser").return_to == "/search"
    with pytest.raises(SignInRefused, match="state"):
        attempts.take(state, "browser")
    state, _ = attempts.begin("browser", "/")
    with pytest.raises(SignInRefused, match="other_browser"):
        attempts.take(state, "another")
    with pytest.raises(SignInRefused, match="state"):  # a wrong try used it up
        attempts.take(state, "browser")
    state, _ = attempts.begin("browser", "/")
    clock.now += 601
    with pytest.raises(SignInRefused, match="state"):
        attempts.take(state, "browser")


def test_who_begins_many_sign_ins_ends_nobody_elses() -> None:
    """One address that begins more than are kept, or one IPv6 customer by many addresses, loses
    its own oldest; and what ended by itself makes room first."""
    clock = Clock()
    attempts = Attempts(clock)
    others = [attempts.begin("browser", "/", f"192.0.2.{n}")[0] for n in range(50)]
    first, _ = attempts.begin("flood", "/", "2001:db8::1")
    for number in range(MAX_ATTEMPTS):
        last, _ = attempts.begin("flood", "/", f"2001:db8::{number:x}")
    for state in others[:25]:
        assert attempts.take(state, "browser").return_to == "/"
    assert attempts.take(last, "flood")
    with pytest.raises(SignInRefused, match="state"):
        attempts.take(first, "flood")
    clock.now += 601
    late = [attempts.begin("late", "/", "198.51.100.1")[0] for _ in range(MAX_ATTEMPTS)]
    assert [attempts.take(state, "late").return_to for state in late] == ["/"] * MAX_ATTEMPTS


def test_a_login_link_holds_once_and_not_for_long() -> None:
    """Who reads it in a terminal's scrollback later gets nothing."""
    clock = Clock()
    link = LoginLink("root", 60, clock)
    token = link.token
    link.forget_token()
    assert link.redeem("") is None
    assert link.redeem("x" * 43) is None
    found = link.redeem(token)
    assert found is not None
    assert found.method == "login_link"
    assert link.redeem(token) is None
    late = LoginLink("root", 60, clock)
    clock.now += 61
    assert late.redeem(late.token) is None


OIDC = AccessSettings(
    oidc_issuer="https://login.example.org",
    oidc_client_id="gatebook",
    oidc_roles_claim="realm.groups",
    oidc_roles=("soc=analyst", "cn=dpo=privacy_officer"),
    oidc_tenants_claim="tenants",
    oidc_all_tenants="soc-lead",
)


def test_claims_become_roles_and_tenants_by_the_settings() -> None:
    """A role of the provider counts as what the settings say it is."""
    claims = {"sub": "7", "name": "Ada", "realm": {"groups": ["soc", "x"]}, "tenants": ["acme"]}
    found = caller_of_claims(claims, OIDC, "d")
    assert (found.id, found.roles, found.tenants) == ("7", {"analyst"}, {"acme"})
    lead = caller_of_claims({"sub": "8", "realm": {"groups": ["soc-lead", "cn=dpo"]}}, OIDC, "d")
    assert (lead.roles, lead.tenants) == ({"privacy_officer"}, None)


def test_claims_that_say_nothing_give_nothing() -> None:
    """A role named like ours does not count where a table of roles is set, and a tenant claim
    that is missing means no tenant."""
    found = caller_of_claims({"sub": "7", "realm": {"groups": ["admin"]}}, OIDC, "d")
    assert (found.roles, found.tenants) == (frozenset(), frozenset())
    for claims in ({}, {"sub": ""}, {"sub": ["a"]}, {"sub": "x" * 300}):
        with pytest.raises(TokenRefused):
            caller_of_claims(claims, OIDC, "d")


def test_a_new_token_is_checked_before_it_is_made() -> None:
    """Wrong wishes are told, not mended."""
    NewToken("ci", ("viewer",), ("acme",), 30).check()
    for wrong in (
        NewToken("ci", ("owner",), None, 30),
        NewToken("ci", (), None, 30),
        NewToken(" ", ("viewer",), None, 30),
        NewToken("a\x1b[31m", ("viewer",), None, 30),
        NewToken("ci", ("viewer",), (), 30),
        NewToken("ci", ("viewer",), None, 0),
        NewToken("ci", ("viewer",), None, 10_000),
    ):
        with pytest.raises(TokenError):
            wrong.check()


# --- settings ----------------------------------------------------------------------------------

GOOD = {
    "OIDC_ISSUER": "https://login.example.org",
    "OIDC_CLIENT_ID": "gatebook",
    "OIDC_ALL_TENANTS": "*",
}


def settings(**given: str) -> AccessSettings:
    return access_settings({f"GATEBOOK_SERVE_{name}": text for name, text in given.items()})


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"HOST": "0.0.0.0"}, "TLS_CERTIFICATE_FILE"),
        ({"HOST": "192.0.2.1", "TRUSTED_PROXIES": "10.0.0.1"}, "PUBLIC_URL"),
        ({"TLS_CERTIFICATE_FILE": "a.pem"}, "TLS_KEY_FILE"),
        (
            {"HOST": "::", "TLS_CERTIFICATE_FILE": "a.pem", "TLS_KEY_FILE": "a.key"},
            "PUBLIC_URL",
        ),
        ({"TRUSTED_PROXIES": "0.0.0.0/0", "PUBLIC_URL": "https://a.example"}, "TRUSTED_PROXIES"),
        ({"TRUSTED_PROXIES": "proxy", "PUBLIC_URL": "https://a.example"}, "TRUSTED_PROXIES"),
        ({"PUBLIC_URL": "https://a.example/console"}, "PUBLIC_URL"),
        (
            {"HOST": "0.0.0.0", "TRUSTED_PROXIES": "10.0.0.1", "PUBLIC_URL": "http://a.example"},
            "PUBLIC_URL",
        ),
        ({**GOOD, "OIDC_CLIENT_ID": ""}, "OIDC_CLIENT_ID"),
        ({**GOOD, "OIDC_API_AUDIENCE": "gatebook"}, "OIDC_API_AUDIENCE"),
        ({**GOOD, "OIDC_ALL_TENANTS": ""}, "OIDC_TENANTS_CLAIM"),
        ({**GOOD, "OIDC_ROLES": "soc=owner"}, "OIDC_ROLES"),
        ({**GOOD, "OIDC_CLIENT_SECRET_FILE": "/nowhere"}, "OIDC_CLIENT_SECRET_FILE"),
        ({"PORT": "70000"}, "PORT"),
    ],
)
def test_unsafe_settings_are_refused_with_their_name(given: dict[str, str], names: str) -> None:
    """What would be open, or would let in nobody, does not start."""
    with pytest.raises(WrongSetting) as refused:
        settings(**given)
    assert names in f"{refused.value} {refused.value.next_step}"


def test_good_settings_are_taken() -> None:
    """Lists are separated by commas, and the origin follows from what is set."""
    found = settings(**GOOD, OIDC_ROLES="soc=analyst, dpo=privacy_officer")
    assert found.oidc_roles == ("soc=analyst", "dpo=privacy_officer")
    assert (found.origin, found.has_tls) == ("http://127.0.0.1:8321", False)
    behind = settings(
        HOST="0.0.0.0", TRUSTED_PROXIES="10.0.0.1,fd00::/8", PUBLIC_URL="https://a.example/"
    )
    assert (behind.origin, behind.has_tls) == ("https://a.example", True)


# --- headers -----------------------------------------------------------------------------------


def test_headers_of_ours_win_and_stand_once() -> None:
    """A route cannot loosen them by accident."""
    given = [(b"Cache-Control", b"public"), (b"content-security-policy", b"*"), (b"x-own", b"1")]
    found = secured(given, "/api/v1/search", 200, has_tls=True)
    names = [name.lower() for name, _ in found]
    assert len(names) == len(set(names))
    told = dict(found)
    assert told[b"cache-control"] == b"no-store"
    assert b"'none'" in told[b"content-security-policy"]
    assert b"unsafe" not in told[b"content-security-policy"]
    assert told[b"x-own"] == b"1"
    assert b"strict-transport-security" in told


def test_an_answer_is_dated_when_it_is_given() -> None:
    """Also where the server has one of its own, from before: a browser's clock is set by it."""
    before = time.time()
    found = secured([(b"Date", b"Mon, 30 Nov 2026 00:00:00 GMT")], "/api/v1/search", 200, False)
    [told] = [value.decode() for name, value in found if name.lower() == b"date"]
    assert int(before) <= parsedate_to_datetime(told).timestamp() <= time.time()


def test_only_built_files_that_are_there_are_kept() -> None:
    """A 404 below /assets/ is not remembered for a year."""
    assert b"immutable" in dict(secured([], "/assets/a-1.js", 200, False))[b"cache-control"]
    assert dict(secured([], "/assets/a-1.js", 404, False))[b"cache-control"] == b"no-store"
