"""What a pattern alone cannot tell: checksums, number plans, entropy, and exact extents.

A validator gets a `Probe` (a candidate in a view of the text) and yields the findings in it:
none, one or several, inside the candidate or reaching beyond it. It spends work units, so hostile
text runs into `RedactionFailed` instead of time.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import phonenumbers
import re2
from stdnum import iban as stdnum_iban
from stdnum import luhn, numdb

from .errors import RedactionFailed
from .rules import Rule

_LATIN1 = re2.Options()
_LATIN1.encoding = re2.Options.Encoding.LATIN1


def compile_pattern(pattern: str) -> re2._Regexp:
    """Compile a rule's pattern to run over bytes in linear time."""
    return re2.compile(pattern.encode("ascii"), _LATIN1)


class Budget:
    """Work units left for one pass over one text: time-bounded without a clock."""

    __slots__ = ("left",)

    def __init__(self, units: int) -> None:
        self.left = units

    def spend(self, units: int) -> None:
        self.left -= units
        if self.left < 0:
            raise RedactionFailed(RedactionFailed.TOO_MUCH_WORK)


@dataclass(frozen=True, slots=True)
class Probe:
    """A candidate: bytes `start` to `end` of `data`, found by `rule`."""

    data: bytes
    start: int
    end: int
    rule: Rule
    budget: Budget

    @property
    def value(self) -> bytes:
        return self.data[self.start : self.end]


@dataclass(frozen=True, slots=True)
class Found:
    """A confirmed value: its bytes in the view, its normal form, and what the mask may keep."""

    start: int
    end: int
    normalised: str
    kept: str = ""


Validator = Callable[[Probe], Iterable[Found]]


# ---- any, tokens and assigned values -----------------------------------------------------------

_PLACEHOLDER = re2.compile(
    rb"(?i)(?:\$[A-Z_][A-Z0-9_]*|\$[{(].*|\{\{.*|%[({s].*|\*+|\.+|x+|-+|_+|none|null|nil|true|false"
    rb"|undefined|changeme|redacted|hidden|masked|optional|required|string|str|your[_-]?[a-z_-]*"
    rb"|https?:.*|(?:os|env|self|config|settings|process|request|args)\.[a-z_.]+.*"
    rb"|[a-z_.]+\([^)]*\)?;?)",
    _LATIN1,
)
_CLASSES = (re.compile(rb"[0-9]"), re.compile(rb"[a-z]"), re.compile(rb"(?s).[A-Z]"))


def _whole(probe: Probe, end: int | None = None) -> Found:
    end = probe.end if end is None else end
    return Found(probe.start, end, _plain(probe.data[probe.start : end]))


def _plain(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def any_value(probe: Probe) -> Iterator[Found]:
    """Accept what the pattern found."""
    yield _whole(probe)


def token(probe: Probe) -> Iterator[Found]:
    """Accept a value that looks random enough for its rule and is no placeholder."""
    end = probe.end - len(probe.value) + len(probe.value.rstrip(b"\\.:"))
    value = probe.data[probe.start : end]
    if value and _is_random(value, probe.rule) and not _PLACEHOLDER.fullmatch(value):
        yield _whole(probe, end)


def _is_random(value: bytes, rule: Rule) -> bool:
    classes = sum(1 for pattern in _CLASSES if pattern.search(value))
    return classes >= rule.min_classes and entropy_bits(value[:256]) >= rule.min_entropy_bits


def entropy_bits(value: bytes) -> float:
    """Return the Shannon entropy in bits per byte."""
    total = len(value)
    return -sum(n / total * math.log2(n / total) for n in Counter(value).values())


def password(probe: Probe) -> Iterator[Found]:
    """Accept an assigned password: any after `=` or in quotes or a tag, a mixed one in prose."""
    end = probe.end - len(probe.value) + len(probe.value.rstrip(b"\\"))
    value = probe.data[probe.start : end]
    before = probe.data[max(0, probe.start - 4) : probe.start].rstrip(b" \t")
    explicit = before[-1:] in (b"=", b'"', b"'", b">")
    if not explicit:
        value = value.rstrip(b".,;:!?)]")
        end = probe.start + len(value)
    mixed = len(value) >= 5 and any(c < 97 or c > 122 for c in value[1:])
    if value and (explicit or mixed) and not _PLACEHOLDER.fullmatch(value):
        yield _whole(probe, end)


def near(probe: Probe) -> Iterator[Found]:
    """Accept random values of the rule's `value` form shortly after its keyword."""
    stop = min(len(probe.data), probe.end + probe.rule.window_bytes)
    for match in _value_pattern(probe.rule.value).finditer(probe.data, probe.end, stop):
        start, end = match.span(match.lastindex or 0)
        probe.budget.spend(4)
        if _is_random(probe.data[start:end], probe.rule):
            yield Found(start, end, _plain(probe.data[start:end]))


@lru_cache(maxsize=256)
def _value_pattern(pattern: str) -> re2._Regexp:
    return compile_pattern(pattern)


# ---- private keys ------------------------------------------------------------------------------

MAX_PEM_BYTES = 32_768
_PEM_END = re2.compile(rb"-----END[A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----", _LATIN1)
_PEM_BODY = re2.compile(
    rb"(?:(?:\s|\\+[nrt])*[A-Za-z0-9+/=]{20,})+(?:(?:\s|\\+[nrt])*[A-Za-z0-9+/=]+)?", _LATIN1
)


def pem(probe: Probe) -> Iterator[Found]:
    """Accept from BEGIN to END, or to where base64 ends in a truncated key."""
    stop = min(len(probe.data), probe.end + MAX_PEM_BYTES)
    probe.budget.spend((stop - probe.end) // 256)
    ending = _PEM_END.search(probe.data, probe.end, stop)
    ending = ending or _PEM_BODY.match(probe.data, probe.end, stop)
    if ending:
        yield _whole(probe, ending.end())


# ---- mail --------------------------------------------------------------------------------------

_URL_LOGIN = re2.compile(rb"""://[^\s:/@"'<>]{0,100}:\z""", _LATIN1)


def email(probe: Probe) -> Iterator[Found]:
    """Accept an address with a plausible top-level domain; keep its domain in lower case."""
    domain = probe.value.rpartition(b"@")[2]
    top = domain.rpartition(b".")[2]
    if len(top) < 2 or top.isdigit() or _is_url_login(probe):
        return
    address = _plain(probe.value).lower()
    yield Found(probe.start, probe.end, address, "@" + address.rpartition("@")[2])


def _is_url_login(probe: Probe) -> bool:
    """In `scheme://user:password@host` it is the password that counts, and has its own rule."""
    before = probe.data[max(0, probe.start - 128) : probe.start]
    return before[-1:] == b":" and bool(_URL_LOGIN.search(before))


# ---- cards -------------------------------------------------------------------------------------

_GROUP = re.compile(rb"[0-9]+")
_ISSUERS = re.compile(
    r"4(?:.{12}|.{15}|.{18})|(?:5[1-5]|220[0-4]|22[2-9]|2[3-6]|27[01]|2720).{12,14}"
    r"|3[47].{13}|3[0689].{12,17}|35.{14,17}|(?:2131|1800).{11}"
    r"|6.{15,18}|(?:8[12]|9792|50).{12,17}|(?:5018|5020|5038|5893|5[678]|6304|6759|676[1-3]).{8,17}"
)
_LAYOUTS = {(4, 6, 5), (4, 6, 4), (6, 13)}
_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HEX = re.compile(rb"[0-9a-fA-F]+")


def card(probe: Probe) -> Iterator[Found]:
    """Accept each run of digit groups that is laid out like a card and passes Luhn."""
    groups = [m.span() for m in _GROUP.finditer(probe.data, probe.start, probe.end)]
    for first in range(len(groups)):
        yield from _cards_from(probe, groups, first)


def _cards_from(probe: Probe, groups: list[tuple[int, int]], first: int) -> Iterator[Found]:
    digits = ""
    sizes: list[int] = []
    for start, end in groups[first : first + 19]:
        if end - start > 19 - len(digits):
            return
        probe.budget.spend(1)
        digits += probe.data[start:end].decode("ascii")
        sizes.append(end - start)
        if len(digits) >= 12 and _is_card(digits, sizes):
            probe.budget.spend(10)
            span = (groups[first][0], end)
            if not _in_identifier(probe.data, *span):
                yield Found(*span, digits, "*" + digits[-4:])


def _is_card(digits: str, sizes: list[int]) -> bool:
    return (
        _is_laid_out(sizes)
        and bool(_ISSUERS.fullmatch(digits))
        and len(set(digits)) > 1
        and luhn.is_valid(digits)
    )


def _is_laid_out(sizes: list[int]) -> bool:
    even = all(size == sizes[0] for size in sizes[:-1]) and sizes[-1] <= sizes[0]
    return even or tuple(sizes) in _LAYOUTS


def _in_identifier(data: bytes, start: int, end: int) -> bool:
    """Digits inside a UUID or a long hex digest are no card."""
    left, right = max(0, start - 64), end + 64
    around = data[left:right]
    if any(m.start() + left <= start and end <= m.end() + left for m in _UUID.finditer(around)):
        return True
    tokens = (m for m in _HEX.finditer(around) if m.start() + left <= start < m.end() + left)
    return any(len(m[0]) >= 24 and not m[0].isdigit() for m in tokens)


# ---- IBAN --------------------------------------------------------------------------------------

_IBAN_REST = re2.compile(rb"(?:[ .-]{0,2}[A-Za-z0-9]){11,30}", _LATIN1)
_IBAN_PART = re.compile(r"(\d+)!")


def iban(probe: Probe) -> Iterator[Found]:
    """Accept a valid IBAN (country length and structure, mod 97) that starts at the anchor."""
    size = _iban_characters(_plain(probe.data[probe.start : probe.start + 2]).upper())
    rest = _IBAN_REST.match(probe.data, probe.end) if size else None
    if not rest:
        return
    ends = [i + 1 for i in range(probe.start, rest.end()) if probe.data[i : i + 1].isalnum()]
    compact = "".join(chr(probe.data[end - 1]) for end in ends[:size]).upper()
    if len(compact) != size or _is_glued(probe.data, probe.start, ends[size - 1]):
        return
    if stdnum_iban.is_valid(compact, check_country=False):
        yield Found(probe.start, ends[size - 1], compact)


def _is_glued(data: bytes, start: int, end: int) -> bool:
    """Letters or digits on both sides: base64, where a right mod 97 is chance."""
    return data[max(0, start - 1) : start].isalnum() and data[end : end + 1].isalnum()


@lru_cache(maxsize=1024)
def _iban_characters(country: str) -> int:
    """Return an IBAN's length in `country`, or 0 where it has none."""
    structure = numdb.get("iban").info(country)[0][1].get("bban", "")
    return 4 + sum(map(int, _IBAN_PART.findall(structure))) if structure else 0


# ---- phones ------------------------------------------------------------------------------------

_DIGITS_ONLY = re.compile(rb"[^0-9]")
MAX_PHONE_DIGITS = 17


def phone(probe: Probe) -> Iterator[Found]:
    """Accept the longest valid number at the candidate's start, dropping groups from its end."""
    if probe.data[max(0, probe.start - 1) : probe.start].isdigit():
        return
    ends = [m.end() for m in _GROUP.finditer(probe.data, probe.start, probe.end)]
    for end in reversed(ends):
        digits = _DIGITS_ONLY.sub(b"", probe.data[probe.start : end]).decode("ascii")
        if not 7 <= len(digits) <= MAX_PHONE_DIGITS + 2 or probe.data[end : end + 1].isdigit():
            continue
        probe.budget.spend(probe.rule.cost)
        normal = _e164(digits, probe)
        if normal:
            close = _GROUP_CLOSE.match(probe.data, end)
            yield Found(probe.start, close.end() if close else end, normal)
            return


_GROUP_CLOSE = re.compile(rb"\)(?=\s|$)")


def _e164(digits: str, probe: Probe) -> str:
    region = probe.rule.region
    if not region:
        international = probe.data[probe.start : probe.start + 1] == b"+"
        digits = "+" + (digits if international else digits.removeprefix("00"))
        digits = _without_trunk_zero(digits, probe.value)
    try:
        number = phonenumbers.parse(digits, region or None)
    except phonenumbers.NumberParseException:
        return ""
    if not phonenumbers.is_valid_number(number):
        return ""
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


_TRUNK_ZERO = re.compile(rb"^(?:\+|00) ?\(?([0-9]{1,3})\)?[ .-]?\(0\)")


def _without_trunk_zero(digits: str, value: bytes) -> str:
    """`+44 (0) 20 ...` is dialled without the zero in brackets."""
    match = _TRUNK_ZERO.match(value)
    if not match:
        return digits
    country = 1 + len(match[1])
    return digits[:country] + digits[country + 1 :]


# ---- addresses ---------------------------------------------------------------------------------

_WORD = re.compile(rb"[A-Za-z0-9_]")


def ipv4(probe: Probe) -> Iterator[Found]:
    """Accept a dotted quad, unless it is loopback, unspecified or a version like v1.2.3.4."""
    before = probe.data[max(0, probe.start - 2) : probe.start]
    if before[-1:] in (b"v", b"V") and not before[:-1].isalnum():
        return
    yield from _address(probe, probe.start, probe.end)


def ipv6(probe: Probe) -> Iterator[Found]:
    """Accept an address with a digit in it that stands apart from words (`std::dec` is none)."""
    start, end = probe.start, probe.end
    if end - start > 64 or not (b"::" in probe.value or probe.value.count(b":") >= 7):
        return
    starts = [start, *(i + 1 for i in range(start, end) if probe.data[i : i + 1] == b":")]
    ends = [end, *(i for i in range(end - 1, start, -1) if probe.data[i : i + 1] in (b":", b"."))]
    for left in starts[:10]:
        for right in ends[:10]:
            if right - left < 3 or _touches_word(probe.data, left, right):
                continue
            probe.budget.spend(5)
            found = list(_address(probe, left, right))
            if found:
                yield found[0]
                return


def _touches_word(data: bytes, start: int, end: int) -> bool:
    touches_left = start > 0 and bool(_WORD.match(data, start - 1))
    return touches_left or bool(_WORD.match(data, end)) or not re.search(rb"[0-9]", data[start:end])


def _address(probe: Probe, start: int, end: int) -> Iterator[Found]:
    try:
        address = ipaddress.ip_address(probe.data[start:end].decode("ascii"))
    except ValueError:
        return
    if not (address.is_loopback or address.is_unspecified):
        yield Found(start, end, str(address))


VALIDATORS: dict[str, Validator] = {
    "any": any_value,
    "token": token,
    "password": password,
    "near": near,
    "pem": pem,
    "email": email,
    "card": card,
    "iban": iban,
    "phone": phone,
    "ipv4": ipv4,
    "ipv6": ipv6,
}
