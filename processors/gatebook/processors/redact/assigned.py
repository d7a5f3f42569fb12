"""Secrets told by the name before them: `api_key = ...`, `the password is ...`, `<token>...`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from .below import below_name
from .probe import Found, Probe, is_drawn, is_placeholder, is_variable, plain

# All patterns here are read from a keyword on, and what they repeat is bounded.
_SUFFIX = rb"s?(?:[_.\-][A-Za-z0-9_.\-]{0,24}|[A-Z][A-Za-z0-9]{0,16}| (?:key|token|value|hash)\b)?"
_TYPE = rb"""(?:\[[0-9]{0,4}\])?(?:\s?:?\s{1,3}(?:[sS]tring|str|char\*?)\b)?"""
_MARKUP = rb"""["'\]*`)]{0,3}"""
_OPERATOR = (
    rb"""(?:>\s{0,16}"""
    rb"""|["']\s{1,3}value\s{0,2}=\s{0,2}"""
    rb"""|:[ \t]{0,3}[|>][-+]?[ \t]{0,3}\r?\n[ \t]{1,16}"""
    rb"""|\s{0,3}(?:=>|[:?.]{0,3}={1,3}|:{1,3}|\|{1,2})\s{0,3}"""
    rb"""|(?<=["']),\s{0,24}["']value["']\s{0,3}:\s{0,3}"""
    rb"""|\r?\n[ \t]{0,24}value:[ \t]{1,3}"""
    rb"""|(?<=["']),\s{0,3}(?!["'][\w.\-]{1,40}["']\s{0,3}:)"""
    rb"""|\s{1,3}(?:is|are|was|to|equals|lautet|ist|sind|est|sont|es|son|\xc3\xa9|\xc3\xa8|sono"""
    rb"""|\xc3\xa4r|er|jest|je|l\xc3\xa0|\xd1\x8d\xd1\x82\xd0\xbe|\xd9\x87\xd9[\x88\x8a])"""
    rb"""\s{1,3}(?:now\s|set to\s)?"""
    # Particles: Japanese wa and ga, Chinese shi and wei, Korean neun, eun, ga and i.
    rb"""|\s{0,2}(?:\xe3\x81[\xaf\x8c]|\xe6\x98\xaf|\xe4\xb8\xba|\xe7\x82\xba|\xeb\x8a\x94"""
    rb"""|\xec\x9d[\x80\xb4]|\xea\xb0\x80)\s{0,2})"""
)
_SPOKEN = rb"""[ \t][^\n:="'.<>{}]{0,28}:[ \t]{1,3}"""
_WRAPPED = rb"""(?:\{\s{0,3}["']value["']\s{0,3}:\s{0,3})?"""
AFTER_NAME = re.compile(_SUFFIX + _TYPE + _MARKUP + _OPERATOR + _WRAPPED)
AFTER_SPEECH = re.compile(_SPOKEN)
_OPTION = re.compile(rb"--?[a-z0-9\-]{0,40}\Z")
_VALUE_BYTES = 144
"""What may stand between a name and its value, and twenty bytes of that, take less."""
_LONG_RUN = re.compile(rb"\S{20}")


def _is_plain(data: bytes, start: int) -> bool:
    """Neither a digit nor a long word comes after: there is no random value of any size."""
    stop = start + _VALUE_BYTES
    return not (_DIGIT.search(data, start, stop) or _LONG_RUN.search(data, start, stop))


_OPTION_END = re.compile(rb"[a-z\-]{0,16}[ \t]{1,3}")
BESIDE = re.compile(rb"[ \t]{0,2}(?:[ \t]|\r?\n[ \t]{0,8}(?![\w.\-]{1,40}:\s))(?:of |for )?")

# Arrows, dashes, the Chinese "is", the first entry of a list.
POINTED = re.compile(
    rb"""s?["'\]*`)]{0,3}\s{0,3}(?:-{1,2}>|\xe2\x86\x92|\xe2\x80[\x93\x94]|-[ \t]|\xe6\x98\xaf"""
    rb"""|:[ \t]{0,3}\r?\n[ \t]{0,16}-[ \t])\s{0,3}"""
)
PHRASE = re.compile(
    rb"""s?[ ](?:for|of|to|on|at|in)[ ][^\n:="'.<>{},;]{1,40}?[ ](?:is|was|be|ist)[ ](?:now[ ])?"""
)

_WAYS = (
    (AFTER_NAME, 0.0, 8),
    (AFTER_SPEECH, 3.2, 16),
    (BESIDE, 3.2, 24),
    (POINTED, 2.8, 16),
    (PHRASE, 3.2, 16),
)
"""What may stand between name and value, and the entropy and size that the value then needs."""

_TOKEN = re.compile(rb"""[`'"*]{0,3}([^\s"'`,;&<>|(){}\[\]\\=*\xe3-\xef]{8,600}={0,2})""")
_QUOTED_TOKEN = re.compile(rb"""(?P<quote>["'`])([A-Za-z0-9_\-+/.=]{8,600})(?P=quote)""")
# Base64 with its padding in the middle, or with more of it than there should be.
_AFTER_PADDING = re.compile(rb"[A-Za-z0-9_.+/=\-]{1,600}")
_KEY_OF = tuple(
    owner + joint
    for joint in (b"", b" ", b"_", b".", b"-")
    for owner in (
        b"api app access account admin auth client deploy encrypt encryption license master private"
        b" secret service session shared sign signing storage subscription webhook"
    ).split()
)
_NAMES_ONLY = re.compile(
    rb"(?i)s?[_.\-]?(?:id|name|type|url|uri|path|file|len|length|size|count)\b"
)

_KEYS_ONLY = (b"cookie", b"bearer")
"""Names of what has rules of its own: they count only for what stands below them."""


def assigned_secret(probe: Probe) -> Iterator[Found]:
    """Accept a random value after a name such as `api_key`, `secret` or `token`."""
    data = probe.data
    below = below_name(probe)
    if below is not None:
        yield from below
        return
    if data[probe.start : probe.end].lower() in _KEYS_ONLY:
        return
    strong = _strong(probe)
    if strong:
        yield strong
        return
    stated = stated_before(probe)
    if not stated and _is_plain(data, probe.end):
        return
    if _NAMES_ONLY.match(data, probe.end):
        return
    if data[probe.start : probe.end].lower() == b"key":
        before = data[max(0, probe.start - 14) : probe.start].lower()
        if not before.endswith(_KEY_OF):
            return
    if stated and len(stated.normalised) >= 16 and is_random_token(stated.of(data), 3.2):
        yield stated
        return
    for after, least_bits, least_bytes in _WAYS:
        operator = after.match(data, probe.end)
        found = _token(probe, operator.end(), least_bits) if operator else None
        if found and found.end == found.start:
            return
        if found and found.end - found.start >= least_bytes:
            yield found
            return
    if _OPTION.search(data, max(0, probe.start - 44), probe.start):
        option = _OPTION_END.match(data, probe.end)
        found = _token(probe, option.end(), 0.0) if option else None
        if found and found.end > found.start:
            yield found


# `SECRET_KEY=`, `client_secret: "`: what is assigned right behind one of these is a secret, were it
# short, or letters alone of both cases.
_STRONG_REST = re.compile(rb"(?i)(?:[_.\-]?key)?(?:_base)?\b")
_STRONG_VALUE = re.compile(
    rb"""["']?[ ]{0,2}(?:=|:=|:)[ ]{0,2}(?P<quote>["'])?"""
    rb"""(?P<value>[^\s"'`,;&<>|(){}\[\]]{6,64})(?(quote)(?P=quote))"""
)


def _strong(probe: Probe) -> Found | None:
    """A value that no other name than a secret's would make one: with a digit, or of both cases."""
    data, start = probe.data, probe.start
    if data[start : probe.end].lower() != b"secret":
        return None
    rest = _STRONG_REST.match(data, probe.end)
    match = _STRONG_VALUE.match(data, rest.end()) if rest else None
    glued = data[max(0, start - 1) : start].isalpha() and data[start : start + 2] != b"Se"
    if match is None or glued:
        return None
    quoted, value = match["quote"] is not None, match["value"]
    upper = data[start : probe.end].isupper() and b"=" in data[probe.end : match.start("value")]
    if not (_is_short_secret(value) if quoted or upper else _is_of_both_cases(value)):
        return None
    return None if is_variable(value) else Found(*match.span("value"), plain(value))


# `... as my`, `... is the db`: the value stands before its name.
_OWNER = re.compile(rb"(?:[A-Za-z]{1,12} ){0,3}")
_STATED_BYTES = 56
_STATED = re.compile(rb"""[^\s"'`,;&<>|{}()\[\]=]{8,200}\Z""")
_NO_MORE = re.compile(
    rb"""s?[*`"')]{0,2}(?:[.,;:!?\n]|\Z|[ ](?:and|but|for|on|in|at|to|it|so|when|with|now)\b)"""
)


def stated_before(probe: Probe) -> Found | None:
    """What is said to be the secret that is named here: `I typed ... as my password`."""
    data, start = probe.data, probe.start
    if not _NO_MORE.match(data, probe.end):
        return None
    left = max(0, start - _STATED_BYTES)
    before = data[left:start]
    at = max(before.rfind(b" as "), before.rfind(b" is "), before.rfind(b" was "))
    if at < 0 or not _OWNER.fullmatch(before, before.index(b" ", at + 1) + 1):
        return None
    end = left + at
    while end and data[end - 1] in b"\"'`*":
        end -= 1
    left = max(0, end - 201)
    value = _STATED.search(data[left:end])
    if value is None:
        return None
    return Found(left + value.start(), end, plain(value[0]))


def _token(probe: Probe, start: int, least_bits: float) -> Found | None:
    """The value that begins here; an empty one where a stronger rule has found all of it."""
    match = _QUOTED_TOKEN.match(probe.data, start) or _TOKEN.match(probe.data, start)
    if match is None:
        return None
    start, end = match.span(match.lastindex or 0)
    value = probe.data[start:end].rstrip(b".:!?")
    if probe.settled.covers(start, start + len(value)):
        return Found(start, start, "")
    if not is_random_token(value, max(least_bits, probe.rule.min_entropy_bits)):
        return None
    if value.endswith(b"="):
        more = _AFTER_PADDING.match(probe.data, end)
        value += more[0].rstrip(b".") if more else b""
    return Found(start, start + len(value), plain(value))


_DIGIT = re.compile(rb"[0-9]")
_LETTER = re.compile(rb"[A-Za-z]")
_PARTS = re.compile(rb"[-_.:/@+]+")
_PLAIN_PART = re.compile(rb"[A-Za-z]{2,}[0-9]{0,4}|[vV]?[0-9]{1,12}|[A-Za-z]?|[A-Z]+[a-z]*[0-9]*")
_WORD_RUN = re.compile(rb"[A-Z]?[a-z]{3,}|[A-Z]{4,}")


# Several names lead to one value (`client_secret_key=`): so few that nothing stays for long.
@lru_cache(maxsize=16)
def is_random_token(value: bytes, least_bits: float) -> bool:
    """Tell a drawn value from words, names, versions and what stands for a value."""
    if len(value) < 8 or not _LETTER.search(value):
        return False
    if _DIGIT.search(value):
        if is_wordy(value) or is_identifier(value):
            return False
    elif len(value) < 20 or not is_drawn(value[:256], 3.8) or _is_prose(value):
        return False
    if not is_drawn(value[:256], least_bits) or is_placeholder(value):
        return False
    return b"." not in value or _PLACE.fullmatch(value) is None


# A host or a file, as in `AuthSource: mail01.example.org` and `key: server2.pem`.
_PLACE = re.compile(
    rb"(?i)[a-z0-9_/~-]{1,64}(?:\.[a-z0-9_/-]{1,64}){0,8}\.(?:com|net|org|edu|gov|local|internal|lan|io"
    rb"|dev|pem|crt|cer|key|json|ya?ml|toml|txt|conf|env|py|js|ts|go|java|rb|sh|xml|html?|csv|log|md)"
)


_DIGIT_AND_LETTER = re.compile(rb"(?=[^0-9]{0,63}[0-9])(?=[^A-Za-z]{0,63}[A-Za-z])")
_SWITCHES = re.compile(rb"[a-z](?=[A-Z])|[A-Z](?=[A-Z])")


def _is_short_secret(value: bytes) -> bool:
    """Tell `hunter2` and mixed letters from words, names, identifiers, hosts, files."""
    if not _DIGIT_AND_LETTER.match(value):
        return _is_of_both_cases(value)
    return not (
        is_wordy(value)
        or is_identifier(value)
        or _PLACE.fullmatch(value)
        or value.count(b"/") > 1
        or any(map(value.lower().__contains__, (b"secret", b"example", b"xxxx", b"changeme")))
    )


def _is_of_both_cases(value: bytes) -> bool:
    """Tell letters drawn from both cases: no words in capitals, which have runs of small ones."""
    if len(value) < 16 or not value.isalpha() or is_identifier(value):
        return False
    return 4 * len(_SWITCHES.findall(value)) > len(value) and is_drawn(value, 3.2)


def is_wordy(value: bytes) -> bool:
    """Tell `jjwt-jackson-0.11.2` and `NEXUS-GPT4-API-KEY`: every part is a word or a number."""
    parts = _PARTS.split(value)
    return len(parts) > 1 and all(_PLAIN_PART.fullmatch(part) for part in parts)


def reads(value: bytes) -> bool:
    """Tell words, paths and identifiers: half of it is in runs of letters that read as words."""
    in_words = sum(len(run) for run in _WORD_RUN.findall(value))
    return in_words * 2 >= len(value) or value.count(b"/") > 1 + len(value) // 24


def _is_prose(value: bytes) -> bool:
    return reads(value) and not is_unspeakable(value, least_run=5, most_vowels=0.25)


_CONSONANTS = re.compile(rb"[bcdfghjklmnpqrstvwxz]+")


def is_unspeakable(value: bytes, least_run: int, most_vowels: float) -> bool:
    """Tell letters that make no word of any language: many consonants in a row, few vowels."""
    lowered = value.lower()
    if sum(map(lowered.count, (b"a", b"e", b"i", b"o", b"u", b"y"))) > most_vowels * len(lowered):
        return False
    return max(map(len, _CONSONANTS.findall(lowered)), default=0) >= least_run


_CAMEL_RUN = re.compile(rb"[A-Z][a-z]{3,}|[a-z]{5,}")


def is_identifier(value: bytes) -> bool:
    """Tell `SponsoredProductsRemoteSearch`: nearly all of it is in capitalised words."""
    runs = _CAMEL_RUN.findall(value)
    return len(runs) > 2 and sum(map(len, runs)) >= 0.7 * len(value)
