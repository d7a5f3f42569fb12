"""The canary scanner finds what is planted, in whatever form, and nothing where nothing is."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Callable
from urllib.parse import quote

import cramjam
import pytest
from tests.canaries import Canary, Scanner, canaries, escaped

SOME = canaries(300)
FORMS: dict[str, Callable[[str], bytes]] = {
    "raw": str.encode,
    "upper case": lambda text: text.upper().encode(),
    "without separators": lambda text: re.sub(r"[ .-]", "", text).encode(),
    "in JSON": lambda text: json.dumps({"a": text}).encode(),
    "in JSON in JSON": lambda text: json.dumps(json.dumps({"a": text})).encode(),
    "as unicode escapes": lambda text: escaped(text).encode(),
    "percent-encoded": lambda text: quote(text, safe="").encode(),
    "every byte percent-encoded": lambda text: "".join(f"%{b:02X}" for b in text.encode()).encode(),
    "base64": lambda text: base64.b64encode(text.encode()),
    "base64 within text": lambda text: b"x" + base64.b64encode(b"a card, " + text.encode()) + b".",
    "base64url": lambda text: base64.urlsafe_b64encode(b"\xc3\xbc: " + text.encode()),
    "gzip": lambda text: bytes(cramjam.gzip.compress(text.encode())),
    "zstd after bytes": lambda text: b"\0\1" + bytes(cramjam.zstd.compress(text.encode())),
    "lz4 in base64": lambda text: base64.b64encode(bytes(cramjam.lz4.compress(text.encode()))),
    "JSON in base64 in JSON": lambda text: json.dumps(
        {"a": base64.b64encode(json.dumps({"b": text}).encode()).decode()}
    ).encode(),
}
# What a spelling changes for good: base64 and keys tell capitals apart, an address its dots.
PACKED = frozenset({"gzip", "zstd after bytes", "lz4 in base64"})  # these end what they are in
NOT_IN = {"without separators": {"ip"}}


@pytest.mark.parametrize("form", FORMS)
def test_every_canary_is_found_in_every_form(form: str) -> None:
    """Each of the kinds, whatever it is wrapped in."""
    for canary in SOME:
        if canary.kind in NOT_IN.get(form, set()):
            continue
        scanner = Scanner([canary])
        after = b"" if form in PACKED else b'", "after": 2}'
        scanner.scan(b'{"before": 1, "v": "' + FORMS[form](canary.text) + after, "x")
        assert list(scanner.found) == [canary.text], canary


def test_a_piece_of_a_private_key_is_found() -> None:
    """Any line of it."""
    key = next(canary for canary in SOME if canary.kind == "private_key")
    for line in key.text.splitlines()[1:-1]:
        scanner = Scanner(SOME)
        scanner.scan(line, "x")
        assert list(scanner.found) == [key.text]


def test_nothing_is_found_where_nothing_is() -> None:
    """Not in other secrets of the same kinds, nor in times, ids and digests."""
    others = canaries(6_000)[3_000:]
    scanner = Scanner(canaries(3_000))
    for canary in others:
        scanner.scan(json.dumps({"at": 1790000000123456789, "value": canary.text}), "x")
    assert scanner.found == {}
    assert scanner.scanned_bytes > 100_000


def test_ten_thousand_are_different_and_of_all_kinds() -> None:
    """None is part of another, and each kind is there."""
    some = canaries(10_000)
    assert len({canary.text for canary in some}) == len(some) == 10_000
    marks = [mark for canary in some for mark in (*canary.cores, canary.digits) if mark]
    assert len(set(marks)) == len(marks)
    kinds: Counter[str] = Counter(canary.kind for canary in some)
    assert len(kinds) == 14
    assert min(kinds.values()) > 150
    assert canaries(50) == some[:50]


def test_places_are_told() -> None:
    """Where a canary was found, each place once."""
    canary: Canary = SOME[0]
    scanner = Scanner(SOME)
    for place in ("a log", "a topic", "a log"):
        scanner.scan(canary.text, place)
    assert scanner.found == {canary.text: {"a log", "a topic"}}
