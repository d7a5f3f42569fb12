"""Enrichment adds what is known and never changes what the producer said."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.processors.enrich import (
    Catalog,
    CatalogInvalid,
    address_class,
    enrich,
    load_directory,
    load_services,
    parse_user_agent,
)
from gatebook.processors.redact import Pseudonyms

PSEUDONYMS = Pseudonyms(b"a pseudonym key for tests only", "e1")
DIRECTORY = """
[[user]]
id = "u-17"
name = "ada"
full_name = "Ada Lovelace"
email = " Ada@Example.com "
roles = ["analyst", "admin"]
organization = "acme"
organization_name = "Acme Ltd"
key_ids = ["key-7", "key-8"]

[[user]]
id = "u-18"
name = "bob"
key_ids = ["key-9"]
"""
SERVICES = """
[[service]]
name = "chat"
component = "gateway"
team = "assistants"
environment = "production"
criticality = "high"
"""


def hash_email(address: str) -> str:
    return PSEUDONYMS.of("email", address)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    (tmp_path / "users.toml").write_text(DIRECTORY)
    (tmp_path / "services.toml").write_text(SERVICES)
    return Catalog.load(tmp_path / "users.toml", tmp_path / "services.toml", hash_email)


def test_a_key_is_resolved_to_its_owner(catalog: Catalog) -> None:
    """An event that carries only a key id says who used the key, and never a mail address."""
    event = {"gatebook": {"identity": {"key_id": "key-8", "assurance": "verified"}}}
    enriched = enrich(event, catalog)
    assert enriched["user"] == {
        "id": "u-17",
        "name": "ada",
        "full_name": "Ada Lovelace",
        "hash": PSEUDONYMS.of("email", "ada@example.com"),
        "roles": ["analyst", "admin"],
    }
    assert enriched["organization"] == {"id": "acme", "name": "Acme Ltd"}
    assert enriched["gatebook"]["identity"] == event["gatebook"]["identity"]
    assert "example.com" not in repr(enriched)
    assert "example.com" not in repr(catalog)


def test_without_a_key_there_is_no_hash(tmp_path: Path) -> None:
    """A bare hash of a mail address could be guessed back, so none is made."""
    path = tmp_path / "users.toml"
    path.write_text(DIRECTORY)
    enriched = enrich({"user": {"id": "u-17"}}, Catalog.load(path, None))
    assert "hash" not in enriched["user"]
    assert "example.com" not in repr(enriched)


def test_a_user_is_resolved_by_id(catalog: Catalog) -> None:
    """A user id finds its name; what the directory does not know is not added."""
    assert enrich({"user": {"id": "u-18"}}, catalog)["user"] == {"id": "u-18", "name": "bob"}


def test_what_the_producer_proved_is_never_overwritten(catalog: Catalog) -> None:
    """Verified fields stand, even where the directory says otherwise."""
    user = {"id": "u-17", "name": "countess", "roles": ["guest"], "hash": "h"}
    event = {
        "user": user,
        "organization": {"id": "other"},
        "service": {"name": "chat", "environment": "staging"},
        "gatebook": {"identity": {"assurance": "verified", "key_id": "key-9"}},
    }
    enriched = enrich(event, catalog)
    assert enriched["user"] == {**user, "full_name": "Ada Lovelace"}
    assert enriched["organization"] == {"id": "other"}
    assert enriched["service"] == {"name": "chat", "environment": "staging"}


def test_a_key_owner_is_not_mixed_into_another_user(catalog: Catalog) -> None:
    """An unknown user over a known key stays unknown."""
    event = {"user": {"id": "stranger"}, "gatebook": {"identity": {"key_id": "key-7"}}}
    assert enrich(event, catalog)["user"] == {"id": "stranger"}


def test_a_claimed_identity_earns_a_name_but_no_rights(catalog: Catalog) -> None:
    """Roles and organisation are added only to an identity that is not merely asserted."""
    event = {"user": {"id": "u-17"}, "gatebook": {"identity": {"assurance": "asserted"}}}
    enriched = enrich(event, catalog)
    assert enriched["user"]["full_name"] == "Ada Lovelace"
    assert "roles" not in enriched["user"]
    assert "organization" not in enriched


def test_a_service_gets_its_place_in_the_catalogue(catalog: Catalog) -> None:
    """Team and criticality come from the file, the environment where the producer left it empty."""
    enriched = enrich({"service": {"name": "chat", "environment": ""}}, catalog)
    assert enriched["service"]["environment"] == "production"
    assert enriched["gatebook"]["service"] == {
        "component": "gateway",
        "team": "assistants",
        "criticality": "high",
    }


def test_an_unknown_event_comes_out_equal_and_new(catalog: Catalog) -> None:
    """Nothing known, nothing added; the result is a new dict all the same."""
    event = {"user": {"id": "nobody"}, "service": {"name": "x"}, "n": 1}
    enriched = enrich(event, catalog)
    assert enriched == event
    assert enriched is not event


def test_the_event_is_not_changed(catalog: Catalog) -> None:
    """Frozen in, new out, at every level."""
    event = {
        "user": {"id": "u-17"},
        "source": {"ip": "10.0.0.1"},
        "user_agent": {"original": "curl/8.5.0"},
        "service": {"name": "chat"},
        "gatebook": {"component": "c"},
    }
    before = copy.deepcopy(event)
    enriched = enrich(event, catalog)
    assert event == before
    assert enriched["gatebook"] == {
        "component": "c",
        "source": {"address_class": "private"},
        "service": {"component": "gateway", "team": "assistants", "criticality": "high"},
    }
    assert enriched["user_agent"] == {"original": "curl/8.5.0", "name": "curl", "version": "8.5.0"}


@given(
    st.dictionaries(
        st.sampled_from(["user", "source", "user_agent", "service", "gatebook", "organization"]),
        st.one_of(
            st.none(),
            st.text(max_size=5),
            st.integers(),
            st.lists(st.none(), max_size=2),
            st.dictionaries(
                st.sampled_from(["id", "ip", "original", "name", "identity"]),
                st.one_of(st.none(), st.text(max_size=9), st.integers(), st.just({})),
            ),
        ),
    )
)
def test_odd_events_are_taken_as_they_are(event: dict[str, Any]) -> None:
    """Wrong types and missing groups raise nothing, and filled fields keep their values."""
    enriched = enrich(event, Catalog())
    for name, value in event.items():
        if isinstance(value, dict):
            assert {k: v for k, v in enriched[name].items() if k in value} == value
        elif value:
            assert enriched[name] == value


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("10.1.2.3", "private"),
        ("172.31.0.1", "private"),
        ("192.168.1.1", "private"),
        ("fd00::1", "private"),
        ("169.254.169.254", "link_local"),
        ("fe80::1%eth0", "link_local"),
        ("100.64.0.1", "shared"),
        ("8.8.8.8", "public"),
        ("2606:4700::1111", "public"),
        ("203.0.113.7", "reserved"),
        ("224.0.0.1", "reserved"),
        ("0.0.0.0", "reserved"),
        ("256.1.1.1", "invalid"),
        ("10.0.0.1:80", "invalid"),
        ("unix:", "invalid"),
    ],
)
def test_addresses_are_classed(address: str, expected: str) -> None:
    """A detector can tell inside from outside without parsing addresses."""
    assert address_class(address) == expected


CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0"


@pytest.mark.parametrize(
    ("original", "expected"),
    [
        ("OpenAI/Python 1.2.3", ("OpenAI/Python", "1.2.3")),
        ("AsyncOpenAI/Python 2.0.0-beta.1", ("AsyncOpenAI/Python", "2.0.0-beta.1")),
        ("OpenAI/JS 4.52.0", ("OpenAI/JS", "4.52.0")),
        ("AsyncAnthropic/Python 0.34.2", ("AsyncAnthropic/Python", "0.34.2")),
        ("curl/8.5.0", ("curl", "8.5.0")),
        ("python-requests/2.31.0", ("python-requests", "2.31.0")),
        ("python-httpx/0.27.0", ("python-httpx", "0.27.0")),
        ("Python/3.12 aiohttp/3.9.5", ("aiohttp", "3.9.5")),
        ("Python-urllib/3.11", ("Python-urllib", "3.11")),
        ("Go-http-client/2.0", ("Go-http-client", "2.0")),
        ("ollama/0.3.1 (amd64 linux) Go/go1.22.5", ("ollama", "0.3.1")),
        ("Apache-HttpClient/4.5.14 (Java/17.0.9)", ("Apache-HttpClient", "4.5.14")),
        ("PostmanRuntime/7.39.0", ("PostmanRuntime", "7.39.0")),
        ("node", ("node", "")),
        (f"{CHROME} Safari/537.36", ("Chrome", "126.0.0.0")),
        (f"{CHROME} Safari/537.36 Edg/126.0.2592.56", ("Edge", "126.0.2592.56")),
        ("Mozilla/5.0 (X11; rv:127.0) Gecko/20100101 Firefox/127.0", ("Firefox", "127.0")),
        (
            "Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 (KHTML) Version/17.5 Safari/605.1.15",
            ("Safari", "17.5"),
        ),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://x)", ("Googlebot", "2.1")),
        ("Mozilla/4.0", ("Mozilla", "")),
        ("Mozilla/5.0 Chrome/1\x1b[31m", ("Chrome", "1")),
        ("", ("", "")),
        ("(((", ("", "")),
        ("\x1b[31m<script>", ("", "")),
    ],
)
def test_user_agents_are_named(original: str, expected: tuple[str, str]) -> None:
    """SDKs, tools and browsers come out under their own names."""
    assert parse_user_agent(original) == expected


@given(st.text(max_size=2000))
def test_any_user_agent_is_parsed(original: str) -> None:
    """Whatever the header holds, name and version are short and printable."""
    name, version = parse_user_agent(original)
    assert len(name) <= 64
    assert len(version) <= 40
    assert (name + version).isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[user]]\nid = hunter2", "not TOML (at line 2, column 6)"),
        ('[[user]]\nid = "hunter2"\nhunter2 = 1', "unknown field at $.user[0]"),
        ('[[user]]\nname = "hunter2"', "required field missing at $.user[0]"),
        ('[[user]]\nid = ["hunter2"]', "wrong type at $.user[0].id"),
        ('[[user]]\nid = "hunter2"\n[[user]]\nid = "hunter2"', "user id number 2 was used before"),
        ('[[user]]\nid = ""', "user id number 1 is empty"),
        (
            '[[user]]\nid="a"\nkey_ids=["hunter2"]\n[[user]]\nid="b"\nkey_ids=["hunter2"]',
            "key id number 2 was used before",
        ),
    ],
)
def test_a_bad_directory_is_refused_without_showing_it(
    tmp_path: Path, content: str, message: str
) -> None:
    """The error names file and place, so it can be mended, and none of what stands there."""
    path = tmp_path / "users.toml"
    path.write_text(content)
    with pytest.raises(CatalogInvalid) as caught:
        load_directory(path, hash_email)
    assert str(caught.value) == f"users.toml: {message}"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_bad_service_catalogue_is_refused(tmp_path: Path) -> None:
    """A criticality outside the list, a missing file and bytes that are no text are named."""
    path = tmp_path / "services.toml"
    with pytest.raises(CatalogInvalid, match=r"services.toml: cannot be read"):
        load_services(path)
    path.write_text('[[service]]\nname = "x"\ncriticality = "hunter2"')
    with pytest.raises(CatalogInvalid, match="value not allowed") as caught:
        load_services(path)
    assert "hunter2" not in str(caught.value)
    path.write_bytes(b"\xff")
    with pytest.raises(CatalogInvalid, match="not UTF-8 at byte 0"):
        load_services(path)
