"""Passwords told by the word before them: in settings, code, tags and prose."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from .assigned import AFTER_NAME, AFTER_SPEECH, BESIDE, PHRASE, POINTED, is_wordy, stated_before
from .below import below_name
from .probe import Found, Probe, is_variable, plain

_MIXED = re.compile(rb"[0-9]|[a-z][A-Z]{1,3}[a-z]|[a-z][!$%&#][A-Za-z]")
_MIN_BYTES = 4
_QUOTED = re.compile(rb"""[*`]{0,2}(?:"([^"\n]{4,200})"|'([^'\n]{4,200})')""")
# A shell's escaped space belongs to the value.
_BARE = re.compile(rb"""[*`]{0,2}((?:[^\s"'`,;&<>|{}]|(?<=\\)[ ](?=[^\s"'])){1,200})""")
# A comma, semicolon or apostrophe within a password: letters and a digit stand behind it, and they
# are no name of the next setting.
_REST = re.compile(
    rb"""(?:[,;'](?=[^\s"'`,;&<>|{}()\[\]=:]{0,40}[0-9])(?=[^\s"'`,;&<>|{}()\[\]=:]{0,40}[A-Za-z])"""
    rb"""[^\s"'`,;&<>|{}()\[\]=:]{3,120}+(?![=:({\[])){1,4}"""
)
# ODBC puts what holds a semicolon in braces; what reads as an expression is a template.
_BRACED = re.compile(
    rb"""\{(?=[^{}]{0,80}[0-9])(?=[\w.\-]{0,80}[;,@#%^&*?~+])([^\s{}"'`$]{4,200})\}(?=[;\s"']|\Z)"""
)
_TAG_TEXT = re.compile(rb"([^<>\s][^<>\n]{0,200}?)\s{0,8}</")
_LABEL = re.compile(
    rb"(?i)(?:(?:please|enter|your|the|a|new|old|current|confirm|repeat|retype|forgot|reset|change"
    rb"|show|hide|password|passwort|passphrase)[ .:?!*]{0,3}){2,8}"
)
# `$ecret9Pass` after a name in capitals: no shell has names of both cases around a digit.
_SIGIL = re.compile(
    rb"\$(?=[A-Za-z0-9]{0,80}[A-Z])(?=[A-Za-z0-9]{0,80}[a-z])[A-Za-z0-9]{0,80}[0-9][A-Za-z0-9]+"
)


def assigned_password(probe: Probe) -> Iterator[Found]:
    """Accept an assigned password: any after `=`, in quotes or a tag, a mixed one in prose."""
    below = below_name(probe)
    if below is not None:
        yield from below
        return
    demand = _demand(probe)
    if demand is None or _is_other_name(probe):
        return
    for found in _assigned(probe):
        if demand(probe.data, found):
            yield _to_line_end(probe, found)


_ALONE_BEFORE = re.compile(rb"(?:\A|\n)[ \t#>*\-]{0,8}\Z")
_NEXT_LINE = re.compile(rb"[:*]{0,3}[ \t]{0,8}\r?\n[ \t]{0,8}")
_LINE_REST = re.compile(rb"([&<>|{},;]\S{1,120}?)[ \t]{0,8}(?:\r?\n|\Z)")


def _to_line_end(probe: Probe, found: Found) -> Found:
    """All of a value that stands alone on the line below its name: no mark in it ends it."""
    rest = _LINE_REST.match(probe.data, found.end)
    if rest is None or not _NEXT_LINE.fullmatch(probe.data, probe.end, found.start):
        return found
    if not _ALONE_BEFORE.search(probe.data, max(0, probe.start - 12), probe.start):
        return found
    return Found(found.start, rest.end(1), plain(probe.data[found.start : rest.end(1)]))


def _assigned(probe: Probe) -> Iterator[Found]:
    data = probe.data
    operator = AFTER_NAME.match(data, probe.end) or _attributes(probe)
    if operator:
        found = _password(probe, operator.end(), operator[0])
        if found:
            yield found
            yield from _more(probe, operator[0], found.end)
            return
    called = _called(probe)
    if called:
        yield called
        return
    for after in (AFTER_SPEECH, BESIDE, POINTED, PHRASE):
        spoken = after.match(data, probe.end)
        found = _password(probe, spoken.end(), b"") if spoken else None
        if found and _MIXED.search(data, found.start, found.end):
            yield found
            return
    stated = stated_before(probe)
    if stated and is_mixed(stated.of(data)):
        yield stated


def is_mixed(value: bytes) -> bool:
    """Tell what may be a password where words could stand, too: with a digit or mixed cases."""
    return bool(_MIXED.search(value)) and not (is_wordy(value) or is_variable(value))


# Chinese, Japanese and Korean put no space around a value: their letters end it, and begin none.
_WIDE = re.compile(rb"[\xe0-\xed][\x80-\xbf]{2}")


def _before_wide(value: bytes) -> bytes:
    return _WIDE.split(value, maxsplit=1)[0]


_SUFFIX = re.compile(rb"[A-Za-z0-9_.\-]{1,48}")
_OTHERS = tuple(
    b"timeout length len file path url uri hint policy field label placeholder required enabled"
    b" expiry expires age days attempts retries count size type prompt regex pattern strength"
    b" message error history ttl validators form page link env".split()
)


def _is_other_name(probe: Probe) -> bool:
    """Tell `PASSWORD_RESET_TIMEOUT` and `passwordFile`: what is about a password, and none."""
    following = probe.data[probe.end : probe.end + 1]
    if not (following.isupper() or following in (b"_", b"-", b".")):
        return False
    suffix = _SUFFIX.match(probe.data, probe.end)
    return suffix is not None and suffix[0].lower().endswith(_OTHERS)


# Chinese stops, commas and exclamation marks, which end a value that stands in a sentence.
_WIDE_STOP = re.compile(rb"\xe3\x80[\x81\x82\x8d]|\xef\xbc[\x81\x89\x8c\x9b\x9f]")
_PASS_BEFORE = re.compile(rb"[_\-.\"'&;]\Z")
_PASS_AFTER = re.compile(rb"\s{0,2}=[^=]|[\"']\s{0,2}:")
_LOGIN_BEFORE = re.compile(
    rb"(?i)\b(?:user(?:name| id)?|login|e-?mail|account|ssid|benutzer|usuario|utilisateur|my)\b"
    rb"[^\n]{0,60}(?:\n[ \t]{0,8}|[,;/ ])\Z"
)
_SURE = frozenset(
    {"password", "passwd", "passphrase", "passcode", "pwd", "passwort", "kennwort", "contraseña"}
    | {"mot de passe", "senha", "wachtwoord"}
)
_SHORT = frozenset(("pw", "pswd", "psw", "psk", "pass"))
_Demand = Callable[[bytes, Found], bool]


def _demand(probe: Probe) -> _Demand | None:
    """What is asked of a value behind this name; None: it is part of a longer word."""
    name = plain(probe.value).lower()
    if name in _SURE:
        return _any
    left, right = probe.data[max(0, probe.start - 1) : probe.start], probe.data[probe.end :][:1]
    if (name[0].isascii() and left.isalpha()) or (name[-1].isascii() and right.isalpha()):
        return None
    if name == "pass":
        return _demand_of_pass(probe, left, right)
    return _quoted_or_mixed if name in _SHORT else _mixed


def _demand_of_pass(probe: Probe, left: bytes, right: bytes) -> _Demand:
    """`pass=` and `smtp_pass: `; not `PASS: test_it` nor the pass over the mountains."""
    assigned = _PASS_AFTER.match(probe.data, probe.end) is not None
    if assigned or (right == b":" and _PASS_BEFORE.search(left) is not None):
        return _any
    before = max(0, probe.start - 100)
    return _mixed if _LOGIN_BEFORE.search(probe.data, before, probe.start) else _strong


def _any(data: bytes, found: Found) -> bool:
    return True


_CALL = re.compile(rb"[A-Za-z_][\w.]{0,80}\(")


def _mixed(data: bytes, found: Found) -> bool:
    value = found.of(data)
    return len(value) > _MIN_BYTES and is_mixed(value) and not _CALL.match(value)


def _quoted_or_mixed(data: bytes, found: Found) -> bool:
    quoted = data[max(0, found.start - 1) : found.start] in (b'"', b"'")
    return _mixed(data, found) or (quoted and b" " not in found.of(data))


_STRONG = re.compile(
    rb"(?=.{0,60}[0-9])(?=.{0,60}[a-z])(?=.{0,60}[A-Z])(?=.{0,60}[!@#$%^&*?]).{6,64}"
)


def _strong(data: bytes, found: Found) -> bool:
    return _STRONG.fullmatch(found.of(data)) is not None


# `set_password("...")`: only what is done with a password has one for its argument.
_SETTER = re.compile(
    rb"(?i)(?:set|with|change|update|reset|check|verify|hash|encrypt|encode)_?(?:[a-z]{1,8}_)?\Z"
)
_ARGUMENT = re.compile(rb"""\(\s{0,4}(?:"([^"\s]{4,200})"|'([^'\s]{4,200})')\s{0,4}[,)]""")


def _called(probe: Probe) -> Found | None:
    """The first argument of a call that is named for what it does with a password."""
    call = _ARGUMENT.match(probe.data, probe.end)
    if not call or not _SETTER.search(probe.data, max(0, probe.start - 18), probe.start):
        return None
    start, end = call.span(call.lastindex or 0)
    value = probe.data[start:end]
    return None if is_variable(value) else Found(start, end, plain(value))


_TAG_BEFORE = re.compile(rb"<(?:[A-Za-z0-9_]{1,24}:)?\Z")
_ATTRIBUTES = re.compile(rb"\s[^<>\n]{1,200}(?<!/)>\s{0,16}")


def _attributes(probe: Probe) -> re.Match[bytes] | None:
    """The rest of a tag of this name: `<wsse:Password Type="...">`."""
    if not _TAG_BEFORE.search(probe.data, max(0, probe.start - 26), probe.start):
        return None
    return _ATTRIBUTES.match(probe.data, probe.end)


def _is_explicit(operator: bytes) -> bool:
    return b"=" in operator or b">" in operator or b"{" in operator


def _password(probe: Probe, start: int, operator: bytes) -> Found | None:
    """The value that begins here, after an operator or, with none, after words."""
    span = _tag_text(probe.data, start, operator) or _quoted(probe.data, start, operator)
    quoted = span is not None
    span = span or _bare(probe.data, start, operator)
    if span is None:
        return None
    start, end = span
    value = probe.data[start:end].rstrip(b"\\*")
    if not (quoted or probe.value.isascii()):
        value = _before_wide(value)
    if len(value) < _MIN_BYTES:
        return None
    if not (quoted or _is_explicit(operator)):
        value = _WIDE_STOP.split(value, 1)[0]
        value = value.rstrip(b".,;:)]*`")  # what ends in `!` may be a password that does
        word = plain(value)
        if len(value) < 5 or (word.isalpha() and word[1:].islower()):
            return None
    if _stands_for_one(probe, operator, value) or (not quoted and _is_compared(operator, value)):
        return None
    return Found(start, start + len(value), plain(value))


def _tag_text(data: bytes, start: int, operator: bytes) -> tuple[int, int] | None:
    text = _TAG_TEXT.match(data, start) if operator.rstrip().endswith(b">") else None
    return text.span(1) if text and text.end(1) - start >= _MIN_BYTES else None


def _quoted(data: bytes, start: int, operator: bytes) -> tuple[int, int] | None:
    match = _QUOTED.match(data, start)
    if match is None and operator.endswith(b"="):
        match = _BRACED.match(data, start)
    return match.span(match.lastindex or 0) if match else None


def _bare(data: bytes, start: int, operator: bytes) -> tuple[int, int] | None:
    match = _BARE.match(data, start)
    if match is None:
        return None
    start, end = match.span(1)
    rest = _REST.match(data, end) if b"=" in operator or b":" in operator else None
    end = rest.end() if rest else end
    return (start, end) if end - start >= _MIN_BYTES else None


def _stands_for_one(probe: Probe, operator: bytes, value: bytes) -> bool:
    """Tell a variable, `None` before the end of its line, the label of a field."""
    if not (is_variable(value) or is_variable(value.rstrip(b"):,;]"))):
        return b">" in operator and _LABEL.fullmatch(value) is not None
    named = probe.value.isupper() and operator == b"="
    return not (named and _SIGIL.fullmatch(value))


_NAME = re.compile(rb"(?:[A-Za-z_]+[.(])*(?:[A-Za-z_]+|\w*(?i:password|passwd|pwd)\w*)[):;(.\]]*")


def _is_compared(operator: bytes, value: bytes) -> bool:
    """Tell `password == other_password`, where the other one is a name."""
    return b"==" in operator and _NAME.fullmatch(value) is not None


_PLURAL = re.compile(rb"s\b[^\n]*\b(?:are|sind|sont|son|sono|zijn)\s")
_AND = re.compile(rb",?[ ](?:and|or|und|oder|et|ou|y|e|en)[ ]|,[ ]")
_MORE = 4


def _more(probe: Probe, operator: bytes, end: int) -> Iterator[Found]:
    """The others of several: `the passwords are ... and ...`."""
    if not _PLURAL.match(operator):
        return
    for _ in range(_MORE):
        joint = _AND.match(probe.data, end)
        found = _password(probe, joint.end(), b"") if joint else None
        if found is None or not is_mixed(found.of(probe.data)):
            return
        yield found
        end = found.end
