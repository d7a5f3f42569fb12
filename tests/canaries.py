"""Synthetic secrets that are nobody's and nowhere else, and a scanner that finds what is left of
them: raw, in other spellings, and decoded (JSON escapes, percent-encoding, base64, gzip, lz4, zstd,
within each other)."""

from __future__ import annotations

import base64
import itertools
import json
import re
import string
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from urllib.parse import unquote_to_bytes

import cramjam
from tests.benchmarks.redaction import values

SEED = 2026
CORE_CHARS = 12
MAX_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Canary:
    """A secret: what it is called, how somebody writes it, and what in it is its own alone.

    `cores` are pieces of letters and digits, lower-case, CORE_CHARS long; a number has `digits`
    instead, for a run of digits as long as a telephone number may stand anywhere.
    """

    kind: str
    called: str
    text: str
    cores: tuple[str, ...] = ()
    digits: str = ""


def canaries(count: int) -> list[Canary]:
    """That many, all different; the same every time."""
    draw = Random(SEED)
    kinds = itertools.cycle(_WEIGHTED)
    found: dict[str, Canary] = {}
    while len(found) < count:
        canary = _made(next(kinds), draw)
        if canary is not None:
            found.setdefault(canary.text, canary)
    return list(found.values())


def _made(kind: str, draw: Random) -> Canary | None:
    """One of a kind; None where chance made one that could stand anywhere."""
    called, make = _MAKERS[kind]
    text = make(draw)
    if kind == "national_id":
        called, text = values.national_id(draw)
    plain = _plain(text.encode()).decode()
    if kind in _NUMBERS and plain.isdigit():
        return Canary(kind, called, text, digits=plain) if len(plain) >= 9 else None
    cores = tuple(_cores(kind, text))
    usable = all(len(core) == CORE_CHARS and not core.isdigit() for core in cores)
    return Canary(kind, called, text, cores) if cores and usable else None


def _cores(kind: str, text: str) -> Iterator[str]:
    if kind == "private_key":
        for line in text.splitlines()[1:-1]:
            yield _plain(line.encode()).decode()[:CORE_CHARS]
        return
    parts = {"jwt": text.split(".")[-1], "mail": text.partition("@")[0]}
    plain = _plain(parts.get(kind, text).encode()).decode()
    yield plain[-CORE_CHARS:]


def _mail(draw: Random) -> str:
    return f"{values.some(draw, string.ascii_lowercase, 14)}@{draw.choice(values.DOMAINS)}"


def _phone(draw: Random) -> str:
    while True:
        written = values.phone(draw)
        if written.startswith("+") and "x" not in written:
            return written


def _strong_password(draw: Random) -> str:
    return f"{values.some(draw, values.ALNUM, 15)}{draw.randint(0, 9)}!"


def _generic_key(draw: Random) -> str:
    """Letters and a digit at least: without one it could be a word."""
    return f"{values.some(draw, values.ALNUM, 39)}{draw.randint(0, 9)}"


_MAKERS: dict[str, tuple[str, Callable[[Random], str]]] = {
    "card": ("card number", values.card),
    "iban": ("IBAN", values.iban),
    "ssn": ("social security number", values.ssn),
    "mail": ("email", _mail),
    "ip": ("address", values.ip),
    "phone": ("phone number", _phone),
    "mac": ("MAC address", values.mac),
    "crypto": ("wallet", values.crypto),
    "national_id": ("", lambda _: ""),
    "vendor_key": ("api key", values.vendor_key),
    "jwt": ("token", values.jwt),
    "private_key": ("private key", values.private_key),
    "generic_key": ("client_secret", _generic_key),
    "password": ("password", _strong_password),
}
_NUMBERS = frozenset({"card", "ssn", "phone", "national_id", "ip"})
_WEIGHTED = [kind for kind in _MAKERS for _ in range(1 if kind in ("private_key", "jwt") else 3)]


# ---- scanning ----------------------------------------------------------------------------------

_LETTERS = bytes(c | 32 if 65 <= c <= 90 else c for c in range(256))
_NOT_PLAIN = bytes(c for c in range(256) if not chr(c).isascii() or not chr(c).isalnum())
_DIGIT_RUN = re.compile(rb"[0-9]+(?:[ .()/+\-]{1,3}[0-9]+)*")
# Numbers that nobody wrote: nine decimals of a second, a run of digits within a digest.
_DRAWN = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]+Z|[0-9a-f]{32,}")
_ESCAPE = re.compile(rb"""\\+(u[0-9A-Fa-f]{4}|["'/bfnrt])""")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{12,}")
_CONTROL = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b" ", b"f": b" "}
_GROUPS = 8
_PACKED: tuple[tuple[bytes, Callable[[bytes], object]], ...] = (
    (b"\x1f\x8b\x08", lambda data: zlib.decompressobj(31).decompress(data)),
    (b"\x04\x22\x4d\x18", cramjam.lz4.decompress),
    (b"\x28\xb5\x2f\xfd", cramjam.zstd.decompress),
)


@dataclass
class Scanner:
    """Looks for canaries in bytes. `found` has each text that was, and the places it was in."""

    all: list[Canary]
    found: dict[str, set[str]] = field(default_factory=dict)
    scanned_bytes: int = 0
    _cores: dict[bytes, Canary] = field(default_factory=dict, repr=False)
    _digits: dict[bytes, Canary] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for canary in self.all:
            self._cores |= {core.encode(): canary for core in canary.cores}
            if canary.digits:
                self._digits[canary.digits.encode()] = canary

    def scan(self, data: bytes | str | None, place: str) -> None:
        """Note every canary in `data`, however it is written there."""
        raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data or b""
        self.scanned_bytes += len(raw)
        for reading in readings(raw):
            for canary in self._in(reading):
                self.found.setdefault(canary.text, set()).add(place)

    def _in(self, data: bytes) -> Iterator[Canary]:
        plain = _plain(data)
        windows = {plain[at : at + CORE_CHARS] for at in range(len(plain) - CORE_CHARS + 1)}
        yield from (self._cores[core] for core in windows & self._cores.keys())
        for match in _DIGIT_RUN.finditer(_DRAWN.sub(b" ", data)):
            groups = re.findall(rb"[0-9]+", match[0])
            for first, last in itertools.combinations(range(len(groups) + 1), 2):
                if last - first <= _GROUPS:
                    digits = b"".join(groups[first:last])
                    if digits in self._digits:
                        yield self._digits[digits]


def _plain(data: bytes) -> bytes:
    """Letters and digits only, lower-case."""
    return data.translate(_LETTERS, _NOT_PLAIN)


def readings(data: bytes, depth: int = 0) -> Iterator[bytes]:
    """The bytes as they are, and whatever they decode to, again and again."""
    yield data
    if depth == MAX_DEPTH:
        return
    for decoded in _decoded(data):
        if decoded and decoded != data:
            yield from readings(decoded, depth + 1)


def _decoded(data: bytes) -> Iterator[bytes]:
    if b"\\" in data:
        yield _ESCAPE.sub(_unescaped, data)
    if b"%" in data:
        yield unquote_to_bytes(data)
    yield b"\n".join(_from_base64(data))
    for magic, unpack in _PACKED:
        at = data.find(magic)
        while at >= 0:
            yield _unpacked(unpack, data[at:])
            at = data.find(magic, at + 1)


def _unescaped(match: re.Match[bytes]) -> bytes:
    body = match[1]
    if body[:1] == b"u":
        return chr(int(body[1:], 16)).encode("utf-8", "replace")
    return _CONTROL.get(body, body)


def _from_base64(data: bytes) -> Iterator[bytes]:
    """What base64 in the bytes may say: letters before it may have put it off its beat. Kept is
    what is text, or packed."""
    for match in _BASE64.finditer(data):
        run = match[0].replace(b"-", b"+").replace(b"_", b"/")
        for skip in range(4):
            part = run[skip:]
            part = part[:-1] if len(part) % 4 == 1 else part
            decoded = base64.b64decode(part + b"=" * (-len(part) % 4))
            if _says_something(decoded):
                yield decoded


_TEXT = bytes(range(32, 127)) + b"\t\n\r"


def _says_something(data: bytes) -> bool:
    if any(data.startswith(magic) for magic, _ in _PACKED):
        return True
    head = data[:96]
    return len(head) >= CORE_CHARS - 3 and len(head.translate(None, _TEXT)) * 5 <= len(head)


def _unpacked(unpack: Callable[[bytes], object], data: bytes) -> bytes:
    try:
        return bytes(unpack(data))  # type: ignore[call-overload]  # a buffer
    except (cramjam.DecompressionError, zlib.error):
        return b""


def escaped(text: str) -> str:
    """Every character as JSON may write it."""
    return json.dumps("".join(f"\\u{ord(c):04x}" for c in text))[1:-1].replace("\\\\", "\\")
