"""What a pattern alone cannot tell: checksums, entropy, and exact extents.

A validator gets a `Probe` (a candidate in a view of the text) and yields the findings in it:
none, one or several, inside the candidate or reaching beyond it. It spends work units, so hostile
text runs into `RedactionFailed` instead of time.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice

import re2
from stdnum import numdb

from .assigned import (
    assigned_secret,
    is_identifier,
    is_random_token,
    reads,
)
from .coins import crypto
from .columns import password_column
from .dates import birth_date
from .national import checked, ssn
from .passwords import assigned_password, is_mixed
from .phones import phone, phone_alone, phone_announced, phone_nanp
from .probe import (
    Found,
    Probe,
    Validator,
    compile_pattern,
    is_drawn,
    is_placeholder,
    is_variable,
    plain,
)
from .rules import Rule
from .spans import tells
from .tables import table_keywords
from .vendors import vendor_assigned, vendor_token

__all__ = ["ANCHORED", "VALIDATORS", "Found", "Probe", "Validator", "compile_pattern"]

_LATIN1 = re2.Options()
_LATIN1.encoding = re2.Options.Encoding.LATIN1

# ---- any, tokens and assigned values -----------------------------------------------------------

_CLASSES = (re.compile(rb"[0-9]"), re.compile(rb"[a-z]"), re.compile(rb"(?s).[A-Z]"))


def _whole(probe: Probe, end: int | None = None) -> Found:
    end = probe.end if end is None else end
    return Found(probe.start, end, plain(probe.data[probe.start : end]))


def any_value(probe: Probe) -> Iterator[Found]:
    """Accept what the pattern found."""
    yield _whole(probe)


def token(probe: Probe) -> Iterator[Found]:
    """Accept a value that looks random enough for its rule and is no placeholder."""
    end = probe.end - len(probe.value) + len(probe.value.rstrip(b"\\.:"))
    value = probe.data[probe.start : end]
    if value and _is_random(value, probe.rule) and not is_variable(value):
        yield _whole(probe, end)


def unread_token(probe: Probe) -> Iterator[Found]:
    """The same, unless it reads as words: a short beginning such as `hf_` is no proof."""
    yield from (found for found in token(probe) if not is_identifier(probe.value))


def drawn(probe: Probe) -> Iterator[Found]:
    """Accept what looks drawn by chance, not written: with a digit, or long and unreadable."""
    if is_random_token(probe.value, probe.rule.min_entropy_bits):
        yield _whole(probe)


def dotted(probe: Probe) -> Iterator[Found]:
    """Accept a beginning and a dot before what looks drawn by chance; they belong to the value."""
    if is_random_token(probe.value.partition(b".")[2], probe.rule.min_entropy_bits):
        yield _whole(probe)


def option(probe: Probe) -> Iterator[Found]:
    """Accept what is given to a program as a secret, unless it is a variable."""
    if not is_variable(probe.value):
        yield _whole(probe)


def mixed(probe: Probe) -> Iterator[Found]:
    """Accept what is no word, variable or identifier: with a digit, or mixed as passwords are."""
    if is_mixed(probe.value):
        yield _whole(probe)


_MAX_LOGIN_BYTES = 512
_LOGIN = re.compile(r"[^:\x00\s]{0,128}(?::|\x00[^\x00]{1,128}\x00)[^\x00]{1,256}")


def encoded_login(probe: Probe) -> Iterator[Found]:
    """Accept base64 of `user:password`, or of both after a null byte each."""
    if len(probe.value) > _MAX_LOGIN_BYTES:
        return
    bare = probe.value.rstrip(b"=")
    try:
        decoded = base64.b64decode(bare + b"=" * (-len(bare) % 4), validate=True).decode("utf-8")
    except ValueError:
        return
    if decoded.replace("\x00", "").isprintable() and _LOGIN.fullmatch(decoded):
        yield _whole(probe)


def _is_random(value: bytes, rule: Rule) -> bool:
    classes = sum(1 for pattern in _CLASSES if pattern.search(value))
    return classes >= rule.min_classes and is_drawn(value[:256], rule.min_entropy_bits)


_SAMPLE_LOGIN = re2.compile(
    rb"(?i)[^:]+:(?:change(?:it|me)|pass(?:word|wd)?|pwd|test|token|secret|[*xy]+|\[[^\]]*\]|<[^>]*>)"
    rb"|[$][\w{(].*|[^:]*:[$][\w{(].*|.*\{\{.*|.*<[^>]+>:<[^>]+>.*|<.*",
    _LATIN1,
)


_LOGIN_REST = re.compile(rb"""[^\s"']{0,4096}""")


def login(probe: Probe) -> Iterator[Found]:
    """Accept `user:password` that is no example and no variable; without quotes, to its end."""
    end = probe.end
    if probe.data[probe.start] not in b"\"'":
        rest = _LOGIN_REST.match(probe.data, end)
        end = rest.end() if rest else end
    value = probe.data[probe.start : end].strip(b"\"'")
    if b":" in value and not _SAMPLE_LOGIN.fullmatch(value):
        yield _whole(probe, end)


_MANIFEST_DATA = re2.compile(rb"(?m)^[ \t]{0,8}(?:data|stringData)[ \t]*:", _LATIN1)


def manifest(probe: Probe) -> Iterator[Found]:
    """Accept a value below `data:` in the manifest that a Secret is in."""
    left = max(0, probe.start - probe.rule.before_bytes)
    headings = list(_MANIFEST_DATA.finditer(probe.data, left, probe.start))
    if not headings or b"\n---" in probe.data[headings[-1].end() : probe.start]:
        return
    if not is_placeholder(probe.value):
        yield _whole(probe)


def near(probe: Probe) -> Iterator[Found]:
    """Accept random values of the rule's `value` form shortly after its keyword."""
    stop = min(len(probe.data), probe.end + probe.rule.window_bytes)
    for match in _value_pattern(probe.rule.value).finditer(probe.data, probe.end, stop):
        start, end = match.span(match.lastindex or 0)
        probe.budget.spend(4)
        if _is_random(probe.data[start:end], probe.rule):
            yield Found(start, end, plain(probe.data[start:end]))


@lru_cache(maxsize=256)
def _value_pattern(pattern: str) -> re2._Regexp:
    return compile_pattern(pattern)


# ---- private keys ------------------------------------------------------------------------------

MAX_PEM_BYTES = 32_768
_MIN_PEM_BYTES = 64
_PEM_END = re2.compile(rb"(?i)-----END[A-Z0-9 _\-]*PRIVATE KEY[A-Z ]*-----", _LATIN1)
_PEM_BODY = re2.compile(
    rb"(?:(?:\s|\\+[nrt])*[A-Za-z0-9+/=]{20,})+(?:(?:\s|\\+[nrt])*[A-Za-z0-9+/=]+)?", _LATIN1
)


def pem(probe: Probe) -> Iterator[Found]:
    """Accept from BEGIN to END, or to where base64 ends in a truncated key."""
    stop = min(len(probe.data), probe.end + MAX_PEM_BYTES)
    probe.budget.spend((stop - probe.end) // 128)
    ending = _PEM_END.search(probe.data, probe.end, stop)
    ending = ending or _PEM_BODY.match(probe.data, probe.end, stop)
    if ending and ending.end() - probe.end >= _MIN_PEM_BYTES:
        yield _whole(probe, ending.end())


# ---- mail --------------------------------------------------------------------------------------

_URL_LOGIN = re2.compile(rb"""://[^\s:/@"'<>]{0,100}:\z""", _LATIN1)


_WIDE_DOT = b"\xe3\x80\x82"


def email(probe: Probe) -> Iterator[Found]:
    """Accept an address with a plausible top-level domain; keep its domain in lower case."""
    start, end = probe.start, probe.end
    if not _ends_plausibly(probe.value):
        # What is none may have taken the local part of one behind it: `git@host.1ada@example.org`.
        behind = _DOMAIN.match(probe.data, end, end + _DOMAIN_BYTES)
        if behind is None:
            return
        start, end = probe.data.index(b"@", start) + 1, behind.end()
        if not _ends_plausibly(probe.data[start:end]):
            return
    elif _is_url_login(probe):
        return
    address = plain(probe.data[start:end].replace(_WIDE_DOT, b".")).lower()
    yield Found(start, end, address, "@" + address.rpartition("@")[2])


_DOMAIN = re2.compile(
    rb"@(?:(?:[A-Za-z0-9\-]|[\xc3-\xdf][\x80-\xbf])+\.)+(?:[A-Za-z0-9\-]|[\xc3-\xdf][\x80-\xbf])+",
    _LATIN1,
)
_DOMAIN_BYTES = 512


def _ends_plausibly(address: bytes) -> bool:
    top = address.replace(_WIDE_DOT, b".").rpartition(b"@")[2].rpartition(b".")[2]
    return len(top) >= 2 and not top.isdigit()


def _is_url_login(probe: Probe) -> bool:
    """In `scheme://user:password@host` it is the password that counts, and has its own rule."""
    before = probe.data[max(0, probe.start - 128) : probe.start]
    return before[-1:] == b":" and bool(_URL_LOGIN.search(before))


# ---- cards -------------------------------------------------------------------------------------

_GROUP = re.compile(rb"[0-9]+")
_RUN_ON = re.compile(rb"[0-9]{0,24}")
_ISSUERS = re.compile(
    rb"4(?:.{12}|.{15}|.{18})|(?:5[1-5]|220[0-4]|22[2-9]|2[3-6]|27[01]|2720).{12,14}"
    rb"|3[47].{13}|3[0689].{12,17}|35.{14,17}|(?:2131|1800).{11}"
    rb"|6.{15,18}|(?:8[12]|9792|50).{12,17}|(?:5018|5020|5038|5893|5[678]..).{8,15}"
    rb"|(?:0604|6304|6390|6759|676[1-3]).{8,15}"
)
_MOST_CARD_DIGITS = 19
_LAYOUTS = {(4, 6, 5), (4, 6, 4), (6, 13), (4, 12), (12, 4)}
_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HEX = re.compile(rb"[0-9a-fA-F]+")


def card(probe: Probe) -> Iterator[Found]:
    """Accept each run of digit groups that is laid out like a card and passes Luhn."""
    value = probe.value
    if value.isdigit() and len(value) <= _MOST_CARD_DIGITS:
        probe.budget.spend(3)
        if _is_card(value, [len(value)]) and not _in_identifier(probe.data, probe.start, probe.end):
            yield Found(probe.start, probe.end, value.decode(), "*" + value[-4:].decode())
        return
    # Read as they are needed: the work on a megabyte of groups ends with the budget.
    # A candidate that began within a longer number may end within the card that comes after it.
    last = _RUN_ON.match(probe.data, probe.end)
    end = last.end() if last else probe.end
    ahead = (m.span() for m in _GROUP.finditer(probe.data, probe.start, end))
    groups: list[tuple[int, int]] = []
    first = 0
    while True:
        if len(groups) - first < _MOST_CARD_DIGITS:
            groups, first = groups[first:] + list(islice(ahead, 2 * _MOST_CARD_DIGITS)), 0
        if first == len(groups):
            return
        found = _card_from(probe, groups, first)
        if found:
            yield found[0]
        first += found[1] if found else 1


# The rows of a table, and the masks of what stood there.
_ROW_BEFORE = re.compile(
    rb"(?:[0-9]|[A-Z0-9]{4}\])[ \t,;|.\-]{0,4}\Z"
    rb"|(?:[0-9]{4}[ \-][0-9]{4}|[A-Z0-9]{4}\])[ \t]{0,4}\r?\n[ \t>]{0,8}\Z"
)
_ROW_AFTER = re.compile(
    rb"[ \t,;|.\-]{0,4}(?:[0-9]|\[[A-Z]{2})"
    rb"|[ \t]{0,4}\r?\n[ \t>]{0,8}(?:[0-9]{4}[ \-][0-9]{4}|\[[A-Z]{2})"
)


def card_wrapped(probe: Probe) -> Iterator[Found]:
    """Accept four groups over two lines that pass Luhn, unless there are more such rows."""
    data, start, end = probe.data, probe.start, probe.end
    before = data[max(0, start - 24) : start]
    if probe.value.count(b"\n") != 1 or _ROW_BEFORE.search(before) or _ROW_AFTER.match(data, end):
        return
    groups = _GROUP.findall(probe.value)
    digits = b"".join(groups)
    if _is_card(digits, [len(group) for group in groups]):
        yield Found(start, end, digits.decode(), "*" + digits[-4:].decode())


def _card_from(probe: Probe, groups: list[tuple[int, int]], first: int) -> tuple[Found, int] | None:
    """The longest card that begins with a group, and how many groups it has."""
    data, start = probe.data, groups[first][0]
    digits, sizes, found = b"", [], None
    for begin, end in groups[first : first + _MOST_CARD_DIGITS]:
        if end - begin > _MOST_CARD_DIGITS - len(digits):
            break
        digits += data[begin:end]
        sizes.append(end - begin)
        if len(digits) < 12:
            continue
        probe.budget.spend(3)
        if _is_card(digits, sizes) and not _in_identifier(data, start, end):
            found = Found(start, end, digits.decode(), "*" + digits[-4:].decode()), len(sizes)
    return found


_ONES = bytes((byte - 48) % 256 for byte in range(256))
_TWOS = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))


def _passes_luhn(digits: bytes) -> bool:
    return (sum(digits[-1::-2].translate(_ONES)) + sum(digits[-2::-2].translate(_TWOS))) % 10 == 0


def _is_card(digits: bytes, sizes: list[int]) -> bool:
    return (
        _passes_luhn(digits)
        and (len(sizes) == 1 or _is_laid_out(sizes))
        and _ISSUERS.fullmatch(digits) is not None
        and len(set(digits)) > 1
    )


def _is_laid_out(sizes: list[int]) -> bool:
    even = sizes[-1] <= sizes[0] and sizes.count(sizes[0]) >= len(sizes) - 1
    return (even and all(s == sizes[0] for s in sizes[:-1])) or tuple(sizes) in _LAYOUTS


_HEX_EDGES = frozenset(bytes([byte]) for byte in b"0123456789abcdefABCDEF-")


def _in_identifier(data: bytes, start: int, end: int) -> bool:
    """Digits inside a UUID or a long hex digest are no card."""
    if data[start - 1 : start] not in _HEX_EDGES and data[end : end + 1] not in _HEX_EDGES:
        return False
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
    size = _iban_characters(plain(probe.data[probe.start : probe.start + 2]).upper())
    rest = _IBAN_REST.match(probe.data, probe.end) if size else None
    if not rest:
        return
    written = probe.data[probe.start : rest.end()]
    compact = plain(written.translate(None, b" .-")).upper()[:size]
    if len(compact) < size or not _iban_form(compact[:2]).fullmatch(compact[4:]):
        return
    end = probe.start + _written_bytes(written, size)
    if _passes_mod97(compact) and not _is_glued(probe.data, probe.start, end):
        yield Found(probe.start, end, compact)


def _written_bytes(written: bytes, characters: int) -> int:
    """How many bytes hold so many letters and digits, separators between them included."""
    end = characters
    while end - sum(map(written[:end].count, (b" ", b".", b"-"))) < characters:
        end += 1
    return end


_BASE36 = {ord(c): str(int(c, 36)) for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def _passes_mod97(compact: str) -> bool:
    return int((compact[4:] + compact[:4]).translate(_BASE36)) % 97 == 1


_IBAN_KINDS = {"n": "[0-9]", "a": "[A-Z]", "c": "[A-Z0-9]"}


@lru_cache(maxsize=256)
def _iban_form(country: str) -> re.Pattern[str]:
    """The structure of the account number in `country`, such as `8!n10!n`."""
    structure = numdb.get("iban").info(country)[0][1].get("bban", "")
    parts = re.findall(r"(\d+)!([nac])", structure)
    return re.compile("".join(f"{_IBAN_KINDS[kind]}{{{size}}}" for size, kind in parts) or "(?!)")


def _is_glued(data: bytes, start: int, end: int) -> bool:
    """Letters or digits on both sides: base64, where a right mod 97 is chance."""
    return data[max(0, start - 1) : start].isalnum() and data[end : end + 1].isalnum()


@lru_cache(maxsize=1024)
def _iban_characters(country: str) -> int:
    """Return an IBAN's length in `country`, or 0 where it has none."""
    structure = numdb.get("iban").info(country)[0][1].get("bban", "")
    return 4 + sum(map(int, _IBAN_PART.findall(structure))) if structure else 0


# ---- addresses ---------------------------------------------------------------------------------

_WORD = re.compile(rb"[A-Za-z0-9_]")


def ipv4(probe: Probe) -> Iterator[Found]:
    """Accept a dotted quad, unless it is loopback, unspecified or a version like v1.2.3.4 or
    Chrome/120.0.0.0."""
    before = probe.data[max(0, probe.start - 2) : probe.start]
    if before[-1:] in (b"v", b"V") and not before[:-1].isalnum():
        return
    if _is_product_version(probe) or _is_pinned(probe):
        return
    parts = _DOTS.split(probe.value)
    if len(parts) != 4 or not _OCTETS.issuperset(parts):
        return
    parts = [part.lstrip(b"0") or b"0" for part in parts]
    if parts[0] != b"127" and parts != [b"0"] * 4:
        yield Found(probe.start, probe.end, plain(b".".join(parts)))


_DOTS = re.compile(rb"(?i)\[\.\]|\(\.\)|\[dot\]|[.\-]")
_PIN = re.compile(rb"(?:\A|[\s\"'(,;])([A-Za-z][\w.\-]{0,40})(?:\[[\w,\-]{0,40}\])?[=<>~!]=\Z")
_ADDRESSED = re.compile(
    rb"(?i)(?:\A|[._\-])(?:ip[46v]?|addr|address|host|src|dst|server|client|peer)"
)
_PIN_BYTES = 96


def _is_pinned(probe: Probe) -> bool:
    """Tell the version of a package, `foo==1.2.3.4`, from a filter: `ip.src==10.1.2.3`."""
    if probe.data[probe.start - 1 : probe.start] != b"=":
        return False
    pin = _PIN.search(probe.data, max(0, probe.start - _PIN_BYTES), probe.start)
    return pin is not None and not _ADDRESSED.search(pin[1])


# The product tokens that give their version as four numbers. Named, because `host/10.0.0.1` and
# `Peer/8.8.8.8` are written the same way and are addresses.
_PRODUCT = re.compile(
    rb"(?:^|[\s(;\"])(?:Headless)?(?:Chrome|Chromium|CriOS|Edge|Edg|EdgA|EdgiOS|OPR|OPiOS|Opera"
    rb"|Vivaldi|YaBrowser|SamsungBrowser|Electron|Brave|Whale|QtWebEngine)/\Z"
)
_PRODUCT_BYTES = 32


def _is_product_version(probe: Probe) -> bool:
    """Tell whether a browser's name stands before, as a token, and the token ends after."""
    before = probe.data[max(0, probe.start - _PRODUCT_BYTES) : probe.start]
    after = probe.data[probe.end : probe.end + 1]
    return after in (b"", b" ", b";", b")", b'"') and _PRODUCT.search(before) is not None


_OCTETS = {form % octet for octet in range(256) for form in (b"%d", b"%03d")}


_MORE_HEX = re.compile(rb":[0-9A-Fa-f]")


def ipv6(probe: Probe) -> Iterator[Found]:
    """Accept an address with a digit in it that stands apart from words (`std::dec` is none)."""
    start, end = probe.start, probe.end
    if end - start > 64 or not (b"::" in probe.value or probe.value.count(b":") >= 7):
        return
    whole = _standing(probe, start, end)
    if whole:
        yield whole
        return
    starts = [start, *(i + 1 for i in range(start, end) if probe.data[i : i + 1] == b":")]
    ends = [end, *(i for i in range(end - 1, start, -1) if probe.data[i : i + 1] in (b":", b"."))]
    for left in starts[:10]:
        for right in ends[:10]:
            found = _standing(probe, left, right)
            if found:
                yield found
                return


def _standing(probe: Probe, left: int, right: int) -> Found | None:
    """The address from one byte to another, if it stands apart."""
    if right - left < 3 or _touches_word(probe.data, left, right):
        return None
    if _MORE_HEX.match(probe.data, right):
        return None
    probe.budget.spend(5)
    return _address(probe, left, right)


def _touches_word(data: bytes, start: int, end: int) -> bool:
    if (start > 0 and _WORD.match(data, start - 1)) or _WORD.match(data, end):
        return True
    return _ANY_DIGIT.search(data, start, end) is None


_ANY_DIGIT = re.compile(rb"[0-9]")


def _address(probe: Probe, start: int, end: int) -> Found | None:
    try:
        packed = socket.inet_pton(socket.AF_INET6, probe.data[start:end].decode("ascii"))
    except OSError:
        return None
    if packed in _NO_ONES:
        return None
    written = socket.inet_ntop(socket.AF_INET6, packed)
    # Both shorten alike, but for what holds an IPv4 address.
    return Found(start, end, written if "." not in written else str(ipaddress.IPv6Address(packed)))


_NO_ONES = (b"\x00" * 16, b"\x00" * 15 + b"\x01")
"""Unspecified and loopback."""


# ---- network cards, long random strings ---------------------------------------------------------

_MAC_SEPARATORS = re.compile(rb"[:.\- ]")


def mac(probe: Probe) -> Iterator[Found]:
    """Accept a hardware address of a device: not broadcast, not zero, with one separator."""
    digits = _MAC_SEPARATORS.sub(b"", probe.value).lower()
    if (
        len(digits) == 12
        and len(set(digits)) > 1
        and not _touches_word(probe.data, probe.start, probe.end)
        and not _goes_on(probe)
    ):
        yield Found(probe.start, probe.end, plain(digits))


_HEX_PAIR_BEFORE = re.compile(rb"[0-9A-Fa-f]{2}[:.\-]\Z")
_HEX_PAIR_AFTER = re.compile(rb"[:.\-][0-9A-Fa-f]{2}")


def _goes_on(probe: Probe) -> bool:
    """More hex pairs beside it: a fingerprint or a dump, no address."""
    before = _HEX_PAIR_BEFORE.search(probe.data, max(0, probe.start - 3), probe.start)
    return bool(before or _HEX_PAIR_AFTER.match(probe.data, probe.end))


def high_entropy(probe: Probe) -> Iterator[Found]:
    """Accept a token that looks drawn by chance: three kinds of characters, high entropy."""
    value = probe.value.rstrip(b"=")
    if not _is_random(value, probe.rule) or reads(value[:4096]) or is_placeholder(value):
        return
    if _PATH.match(value):
        return
    if not _names_public(probe.data[max(0, probe.start - 40) : probe.start]):
        yield _whole(probe)


_PATH = re.compile(rb"/?[a-z]{2,12}/")
# What is made to be public, or only compared: it is random and no secret.
_names_public = tells(
    rb"(?i)(?:sha[0-9]*|md5|hash|checksum|digest|integrity|signature|fingerprint|thumbprint|public"
    rb"|nonce|etag|cursor|commit|revision|uuid|trace|[/~%])[\w.\-]{0,16}[\"' :=(\[]{0,4}\z"
)


VALIDATORS: dict[str, Validator] = {
    "any": any_value,
    "token": token,
    "unread_token": unread_token,
    "option": option,
    "mixed": mixed,
    "encoded_login": encoded_login,
    "drawn": drawn,
    "dotted": dotted,
    "assigned_secret": assigned_secret,
    "assigned_password": assigned_password,
    "password_column": password_column,
    "near": near,
    "login": login,
    "manifest": manifest,
    "pem": pem,
    "email": email,
    "card": card,
    "card_wrapped": card_wrapped,
    "iban": iban,
    "checked": checked,
    "ssn": ssn,
    "birth_date": birth_date,
    "crypto": crypto,
    "mac": mac,
    "high_entropy": high_entropy,
    "vendor_token": vendor_token,
    "vendor_assigned": vendor_assigned,
    "phone": phone,
    "phone_alone": phone_alone,
    "phone_announced": phone_announced,
    "phone_nanp": phone_nanp,
    "ipv4": ipv4,
    "ipv6": ipv6,
}

NARROWING = frozenset(
    {"any", "token", "unread_token", "mixed", "encoded_login", "drawn", "dotted", "checked", "ssn"}
    | {"birth_date"}
    | {"phone", "phone_alone", "phone_announced", "phone_nanp", "mac", "ipv4", "card", "crypto"}
    | {"card_wrapped"}
    | {"high_entropy", "iban"}
)
"""Validators that find nothing beyond their candidate, but for the extension of a telephone. The
candidate of an IBAN is its beginning: within another value, it is none."""

ANCHORED: dict[str, Callable[[Rule], Sequence[str]]] = {
    "vendor_token": table_keywords,
    "vendor_assigned": table_keywords,
    "assigned_secret": lambda rule: rule.keywords,
    "assigned_password": lambda rule: rule.keywords,
    "password_column": lambda rule: rule.keywords,
}
"""Validators that read on from each of these keywords; the rule's own pattern is not run."""
