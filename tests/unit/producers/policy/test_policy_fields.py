"""Field rules: fields go, are disguised or lose their host part, and nothing else changes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gatebook.producers.policy.fields import (
    digest_text,
    expanded,
    known_fields,
    strictest,
    with_fields,
    without_parts,
)
from gatebook.producers.policy.hold import held
from gatebook.producers.policy.match import Facts, Policy
from gatebook.schemas.codec import decode_event, encode_event

KEY = b"k" * 32


def event() -> dict[str, Any]:
    return {
        "timestamp": 1,
        "user": {"id": "ada", "email": "ada@example.org", "roles": ["a", "b"]},
        "source": {"ip": "203.0.113.77", "port": 4711},
        "attributes": {"door": "x"},
    }


def test_fields_are_dropped_digested_and_truncated() -> None:
    """And the event that came in stays as it was."""
    actions = {
        "user.email": "drop",
        "user.id": "digest",
        "user.roles": "digest",
        "source.ip": "truncate",
        "source.port": "drop",
        "gatebook.attributes": "drop",
        "gatebook.identity.key_id": "digest",
    }
    given = event()
    found = with_fields(given, actions, KEY)
    assert given == event()
    assert found["user"] == {
        "id": digest_text("ada", KEY),
        "email": "",
        "roles": [digest_text("a", KEY), digest_text("b", KEY)],
    }
    assert found["source"] == {"ip": "203.0.113.0", "port": None}
    assert found["attributes"] == {}
    decode_event(encode_event(found))


def test_a_digest_needs_its_key() -> None:
    """The same text reads the same; under another key it reads another."""
    assert digest_text("ada", KEY) == digest_text("ada", KEY)
    assert digest_text("ada", KEY) != digest_text("ada", b"other")
    assert "ada" not in digest_text("ada", KEY)
    without = with_fields(event(), {"user.id": "digest", "user.roles": "digest"}, b"")
    assert (without["user"]["id"], without["user"]["roles"]) == ("", [])


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("203.0.113.77", "203.0.113.0"),
        ("2001:db8:1:2:3::9", "2001:db8:1::"),
        ("::ffff:203.0.113.77", "203.0.113.0"),
        ("fe80::1%eth0", "fe80::"),
        ("nonsense", ""),
    ],
)
def test_a_truncated_address_names_a_network(address: str, kept: str) -> None:
    """What is no address goes."""
    found = with_fields({"source": {"ip": address}}, {"source.ip": "truncate"}, KEY)
    assert found["source"]["ip"] == kept


def test_later_tables_go_over_earlier_ones_and_a_star_means_all() -> None:
    """A rule may keep what the policy drops."""
    found = expanded({"user.*": "drop"}, {"user.id": "keep", "source.ip": "truncate"})
    assert found["user.email"] == "drop"
    assert "user.id" not in found
    assert found["source.ip"] == "truncate"


def test_of_two_the_stricter_counts() -> None:
    """Where it is not sure which rule holds."""
    one, other = {"user.id": "digest", "source.ip": "truncate"}, {"user.id": "drop"}
    assert strictest(one, other) == {"user.id": "drop", "source.ip": "truncate"}
    assert strictest(other, one) == {"user.id": "drop", "source.ip": "truncate"}


def test_every_known_field_can_be_dropped() -> None:
    """The event still fits its schema without any of them."""
    rules = {name: "drop" for name in known_fields() if not name.startswith("content.")}
    found = decode_event(encode_event(with_fields(event(), rules, KEY)))
    assert found["user"] == {"id": "", "name": "", "email": "", "hash": "", "roles": []}


def test_parts_of_content_go_and_what_cannot_be_read_goes_whole() -> None:
    """Fails closed: unreadable content cannot be taken apart."""
    content = json.dumps({"input_messages": [1], "output_messages": [2]}).encode()
    assert json.loads(without_parts(content, frozenset({"output_messages"})) or b"") == {
        "input_messages": [1]
    }
    assert without_parts(content, frozenset({"input_messages", "output_messages"})) is None
    assert without_parts(b"no json", frozenset({"tools"})) is None


def test_a_rule_keeps_the_question_and_drops_the_answer() -> None:
    """By the rule's own fields."""
    policy = Policy.read(
        b'version = 1\nname = "x"\n[[rule]]\nname = "r"\nlevel = "redacted"\n'
        b'fields = { "content.output_messages" = "drop" }\n'
    )
    content = json.dumps({"input_messages": [1], "output_messages": [2]}).encode()
    found = held({"content": content, "content_encoding": "json"}, policy.decide(Facts()), KEY)
    assert json.loads(found["content"]) == {"input_messages": [1]}
    assert found["content_encoding"] == "json"
