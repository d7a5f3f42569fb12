"""What stands beside content: secrets in it never leave the producer, what it names does."""

from __future__ import annotations

import random
import string
import time
import uuid
from typing import Any

import pytest
from tests.canaries import Scanner, canaries
from tests.event_texts import texts_of_events

from gatebook.processors.redact.masks import is_mask
from gatebook.producers.scrub import CODES, IDS, TEXTS, TOLD, Scrubber
from gatebook.schemas.codec import decode_event, encode_event

KEY = b"scrub-test-key-0123456789"
ORDINARY = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/120.0.6099.109 Safari/537.36",
    "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/115.0",
    "OpenAI/Python 2.9.0",
    "/v1/chat/completions",
    "/openai/deployments/gpt-4o/chat/completions",
    "/v1/models/meta-llama/Llama-3.1-8B-Instruct",
    "Qwen/Qwen3-4B-Instruct-2507-GGUF",
    "claude-3-5-sonnet-20241022",
    "gpt-4o-mini-2024-07-18",
    "ft:gpt-3.5-turbo-0613:acme::7p4lURel",
    "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M",
    "context_length_exceeded",
    "tool_calls",
    "get_current_weather",
    "\n\n",
    "the bearer token was missing",
)
IDENTIFIERS = (
    "550e8400-e29b-41d4-a716-446655440000",
    "chatcmpl-AbC123def456GHI789jkl012mno34",
    "conv_68af4030592c81938ec0a5fbab4a3e9f05438e46b5f69a3b",
    "1790000000123456789",
    "api.example.com",
    "10.0.0.7",
)


def event_with(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    event: Any = value
    for name in reversed(path):
        event = {name: event}
    return dict(event)


def value_in(event: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        event = event[name]
    return event


def scrubber() -> Scrubber:
    return Scrubber(lambda: KEY)


@pytest.mark.parametrize("path", TEXTS + IDS, ids=".".join)
def test_named_secrets_are_withheld_in_every_field(path: tuple[str, ...]) -> None:
    """Of every kind, wherever the text is a client's, a server's or an operator's."""
    some = canaries(1_000)
    scanner, scrub = Scanner(some), scrubber()
    for canary in some:
        text = f"{canary.called}: {canary.text}"
        value = {"a": text} if path == ("attributes",) else text
        scanner.scan(repr(scrub.scrubbed(event_with(path, value))), canary.kind)
    assert scanner.found == {}
    assert scrub.withheld == len(some)


# Who called, for whom and from where, ids of ours, and digests: these stay as they are.
LEFT = {
    ("event", "id"),
    ("user", "id"),
    ("user", "name"),
    ("organization", "id"),
    ("gatebook", "identity", "on_behalf_of"),
    ("source", "ip"),
    ("trace", "id"),
    ("span", "id"),
    ("gatebook", "content_digest", "input"),
    ("gatebook", "content_digest", "output"),
}


def test_every_text_of_the_event_is_in_one_list() -> None:
    """A field that is added to the schema has to be decided on: what is in no list is not read."""
    attributes = {("attributes",): ("gatebook", "attributes")}
    listed = [attributes.get(path, path) for path in (*TEXTS, *IDS, *CODES, *TOLD)]
    assert sorted(texts_of_events()) == sorted([*listed, *LEFT])


def test_a_number_under_the_name_of_a_measurement_stays() -> None:
    """Durations and sizes are numbers of ten digits, and no telephone numbers."""
    measured = {"eval_duration_ns": "4535599000", "input_bytes": "4155552671"}
    event = {"attributes": measured}
    assert scrubber().scrubbed(event)["attributes"] == measured
    other = {"attributes": {"caller": "4155552671", "note_count": "call 4155552671"}}
    assert "4155552671" not in repr(scrubber().scrubbed(other))


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_texts_stay(text: str) -> None:
    """Agents, paths, models and codes read as they were sent; the event is the same object."""
    scrub = scrubber()
    for path in TEXTS[:-1]:
        event = event_with(path, text)
        assert scrub.scrubbed(event) is event
        assert scrub.scrubbed(event) is event, "remembered as clean"
    assert scrub.withheld == 0


@pytest.mark.parametrize("text", IDENTIFIERS)
def test_ids_stay_however_random(text: str) -> None:
    """Whoever has a request's id finds its event."""
    for path in IDS:
        event = event_with(path, text)
        assert scrubber().scrubbed(event) is event


def test_keys_in_ids_are_withheld() -> None:
    """A vendor's key tells itself, although it is shaped like an id."""
    keys = [canary.text for canary in canaries(1_000) if canary.kind == "jwt"]
    keys += ["sk-" + "ant-api03-" + "aB3" * 20, "gh" + "p_" + "aB3" * 12, "ada@example.com"]
    for path in IDS:
        for key in keys:
            assert key not in repr(scrubber().scrubbed(event_with(path, key)))


def test_the_same_secret_reads_the_same_and_tells_nothing() -> None:
    """A mask like the redactor's, which leaves it alone; another key gives another."""
    path = ("user_agent", "original")
    event = event_with(path, "card 4111 1111 1111 1111")
    ours = value_in(scrubber().scrubbed(event), path)
    assert ours == value_in(scrubber().scrubbed(event), path)
    assert ours != value_in(Scrubber(lambda: b"another" * 5).scrubbed(event), path)
    assert is_mask(ours.removeprefix("card ").encode())
    assert scrubber().scrubbed(event_with(path, ours)) == event_with(path, ours)


def test_the_rest_of_the_event_stays() -> None:
    """Neighbours of what is withheld are untouched, and so is the event that was given."""
    given = {
        "user": {"id": "ada@example.com"},
        "gen_ai": {"request": {"model": "slm", "stop_sequences": ["x", "4111 1111 1111 1111"]}},
        "content": b"4111 1111 1111 1111",
    }
    before = repr(given)
    scrubbed = scrubber().scrubbed(given)
    assert repr(given) == before
    assert scrubbed["user"] == given["user"]
    assert scrubbed["content"] == given["content"]
    request = scrubbed["gen_ai"]["request"]
    assert request["model"] == "slm"
    assert request["stop_sequences"][0] == "x"
    assert request["stop_sequences"][1].startswith("[WITHHELD_p_")


def test_without_a_key_it_is_withheld_all_the_same() -> None:
    """Where the secret cannot be read, the digest says nothing; the text still goes."""

    def broken() -> bytes:
        raise OSError("4111 1111 1111 1111")

    path = ("url", "path")
    scrubbed = Scrubber(broken).scrubbed(event_with(path, "/x/ada@example.com"))
    assert "ada" not in value_in(scrubbed, path)


def test_fields_of_other_types_pass() -> None:
    """What the schema will refuse is not this step's to judge."""
    for value in (7, None, True, {"a": 1}, [None, "x"], b"x"):
        event = {"url": value, "gen_ai": value, "attributes": value}
        assert scrubber().scrubbed(event) == event


def test_hostile_texts_take_no_time() -> None:
    """Of the longest that a field may hold, in any shape, each is read in milliseconds."""
    shapes = ("4", "a@", "a1", "-", "a-", "aB3", "1.", "a:", "key-", "AB12", "eyJ", "://a:", "1( ")
    scrub = scrubber()
    for shape in (*shapes, "password ", "a", " ", "\n", "A", "0x", "AB 12 "):
        began = time.process_time()
        scrub.scrubbed(event_with(("url", "path"), shape * (1024 // len(shape))))
        assert time.process_time() - began < 0.1, shape


def test_a_scrubbed_event_still_encodes() -> None:
    """Masks are texts like any other."""
    event = {"user_agent": {"original": "x ada@example.com"}, "attributes": {"a": "b c@d.example"}}
    decoded = decode_event(encode_event(scrubber().scrubbed(event)))
    assert "WITHHELD" in decoded["user_agent"]["original"]
    assert "WITHHELD" in decoded["attributes"]["a"]


TELLING = (
    "4398259791907482",
    "4398-2597-9190-7482",
    "req_4398259791907482",
    "371449635398431",
    "536-90-4399",
    "DE89370400440532013000",
    "GB82-WEST-1234-5698-7654-32",
    "password:hunter2",
    "api_key=k9x7w5z3q1",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzzzzzzKEY",
    "xai-" + "aB3" * 12,
    "gsk_" + "aB3" * 12,
)


@pytest.mark.parametrize("path", IDS + CODES + TOLD, ids=".".join)
@pytest.mark.parametrize("text", TELLING)
def test_what_tells_itself_is_withheld_in_ids_and_codes(path: tuple[str, ...], text: str) -> None:
    """Every time it comes: cards, accounts, social security numbers, keys, and what is named."""
    scrub = scrubber()
    event = event_with(path, [text, "reader"] if path == ("user", "roles") else text)
    for _ in range(2):
        found = repr(scrub.scrubbed(event))
        assert text.removeprefix("req_") not in found
        assert "[WITHHELD_p_" in found
    assert scrub.scrubbed(scrub.scrubbed(event)) == scrub.scrubbed(event)


@pytest.mark.parametrize("path", CODES + TOLD, ids=".".join)
def test_codes_and_names_from_the_configuration_stay(path: tuple[str, ...]) -> None:
    """Digests, versions, hosts and addresses of people are none; the event is the same object."""
    scrub = scrubber()
    names = ("support-4155552671", "gpu-03:4117", "sha256:" + "9f2c6b7e" * 8, "https://sso.acme.io")
    for text in (*names, "10.2.3.4", "hmac-sha256:k1:90aa17", "ada@example.com", *IDENTIFIERS):
        for value in (text, [text]) if path == ("user", "roles") else (text,):
            event = event_with(path, value)
            assert scrub.scrubbed(event) is event
            assert scrub.scrubbed(event) is event


def generated_ids(count: int) -> list[str]:
    """Ids as services make them: UUIDs, hex, ULIDs, and drawn letters and digits after a word."""
    draw = random.Random(41)
    crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    mixed = string.ascii_letters + string.digits

    def of(alphabet: str, size: int) -> str:
        return "".join(draw.choices(alphabet, k=size))

    makers = (
        lambda: str(uuid.UUID(int=draw.getrandbits(128), version=4)),
        lambda: str(uuid.UUID(int=draw.getrandbits(128), version=4)).upper(),
        lambda: f"{draw.getrandbits(128):032x}",
        lambda: f"{draw.getrandbits(64):016x}",
        lambda: "0" + of(crockford, 25),
        lambda: "chatcmpl-" + of(mixed, 29),
        lambda: "req_" + of(string.hexdigits.lower()[:16], 24),
        lambda: "req_" + of(mixed, 20),
        lambda: f"Root=1-{draw.getrandbits(32):08x}-{draw.getrandbits(96):024x}",
        lambda: f"00-{draw.getrandbits(128):032x}-{draw.getrandbits(64):016x}-01",
    )
    return [makers[number % len(makers)]() for number in range(count)]


def test_no_id_of_a_hundred_thousand_is_withheld() -> None:
    """A withheld id joins nothing any more."""
    scrub = scrubber()
    for text in generated_ids(100_000):
        event = {"http": {"request": {"id": text}}}
        assert scrub.scrubbed(event) is event, text
