"""Passwords told by the word before them: in settings, code, tags and prose."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .assigned import AFTER_NAME, AFTER_SPEECH, BESIDE, PHRASE, POINTED, is_wordy, stated_before
from .probe import Found, Probe, is_variable, plain

_MIXED = re.compile(rb"[0-9]|[a-z][A-Z]{1,3}[a-z]|[a-z][!$%&#][A-Za-z]")
_MIN_BYTES = 4
_QUOTED = re.compile(rb"""[*`]{0,2}(?:"([^"\n]{4,200})"|'([^'\n]{4,200})')""")
_BARE = re.compile(rb"""[*`]{0,2}([^\s"'`,;&<>|{}]{1,200})""")
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
    data = probe.data
    if _is_other_name(probe) or (probe.value.lower() == b"pass" and not _is_pass(probe)):
        return
    operator = AFTER_NAME.match(data, probe.end) or _attributes(probe)
    if operator:
        found = _password(probe, operator.end(), operator[0])
        if found:
            yield found
            yield from _more(probe, operator[0], found.end)
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


def _is_pass(probe: Probe) -> bool:
    """`pass=` and `smtp_pass: `; not `PASS: test_it` nor the pass over the mountains."""
    left, right = probe.data[max(0, probe.start - 1) : probe.start], probe.data[probe.end :][:1]
    if left.isalpha() or right.isalpha():
        return False
    assigned = _PASS_AFTER.match(probe.data, probe.end) is not None
    return assigned or (right == b":" and _PASS_BEFORE.search(left) is not None)


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
    if not (quoted or _is_explicit(operator)):
        value = _WIDE_STOP.split(value, 1)[0]
        value = value.rstrip(b".,;:)]*`")  # what ends in `!` may be a password that does
        if len(value) < 5 or (value.isalpha() and value[1:].islower()):
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
