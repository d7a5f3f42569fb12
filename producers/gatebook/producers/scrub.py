"""Keeps secrets out of what an event says beside its content: names, paths, headers, codes.

Clients put anything there: a card number as a stop sequence, a key in a user agent. Content is
sealed before it leaves the producer; these texts travel in the open, and intake masks them only
when spool and broker have had them. So what looks like a secret is withheld here: replaced by a
keyed digest in the form of the redactor's masks, the same for the same text.

Rather too much than too little, for nothing but readability is lost; except in ids, which look
random by nature: in what is shaped like one, and in codes and names from the configuration, only
what tells itself is withheld: a key's beginning, a name and its value, a card or an account whose
check digits hold. Who called, and for whom, stays as it is: that is what a log of accesses is
about.
"""

from __future__ import annotations

import base64
import hmac
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gatebook.schemas.steady import STEADY_FIELDS

log = logging.getLogger("gatebook.producers")

MAX_REMEMBERED = 4096
MAX_REMEMBERED_CHARS = 256
_KIND = "WITHHELD_p"

TEXTS: tuple[tuple[str, ...], ...] = (
    ("user_agent", "original"),
    ("url", "path"),
    ("error", "type"),
    ("error", "code"),
    ("error", "message"),
    ("event", "reason"),
    ("gen_ai", "request", "model"),
    ("gen_ai", "request", "stop_sequences"),
    ("gen_ai", "response", "model"),
    ("gen_ai", "response", "finish_reasons"),
    ("gen_ai", "tool", "offered"),
    ("gen_ai", "tool", "called"),
    ("attributes",),
)
IDS: tuple[tuple[str, ...], ...] = (
    ("url", "domain"),
    ("http", "request", "id"),
    ("gen_ai", "response", "id"),
    ("gen_ai", "conversation", "id"),
    ("session", "id"),
)
CODES: tuple[tuple[str, ...], ...] = (
    *STEADY_FIELDS,
    ("event", "action"),
    ("http", "request", "method"),
    ("gen_ai", "operation", "name"),
    ("gen_ai", "provider", "name"),
    ("gatebook", "identity", "issuer"),
    ("gatebook", "identity", "key_id"),
    ("gatebook", "model", "resolved"),
)
"""The same ones come with every event of a service."""
TOLD: tuple[tuple[str, ...], ...] = (("user", "email"), ("user", "hash"), ("user", "roles"))
"""Codes that come with every event of a person."""

# How keys begin that tell their issuer.
_PREFIXES = (
    "sk-", "sk_", "rk_", "pk_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-",
    "gldt-", "glrt-", "glcbt-", "glptt-", "xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxe-",
    "xapp-", "hf_", "hvs.", "hvb.", "AIza", "ya29.", "GOCSPX-", "SG.", "npm_", "pypi-", "dop_v1_",
    "doo_v1_", "dor_v1_", "shpat_", "shpca_", "shppa_", "shpss_", "dckr_pat_", "lin_api_",
    "rubygems_", "AGE-SECRET-KEY-", "pscale_", "dapi", "NRAK-", "dp.pt.", "dp.st.", "glsa_",
    "tfp_", "sntryu_", "sntrys_", "EAAA", "pplx-", "key-", "whsec_", "AKIA", "ASIA", "gb_",
    "xai-", "gsk_", "ATATT3", "nvapi-", "tvly-", "pcsk_", "lsv2_", "sbp_", "figd_", "rzp_live_",
)  # fmt: skip
# What tells itself, wherever it stands.
_EVIDENT = (
    r"-----BEGIN[A-Z ]{1,40}-----[\s\S]*",
    r"""[^\s@:/"'<>(),;=]{1,64}@[^\s@:/"'<>(),;=]{1,190}\.[A-Za-z]{2,}""",
    r"(?<=://)[^\s/@]{1,200}:[^\s/@]{1,200}(?=@)",
    r"eyJ[\w-]{8,}\.[\w.-]{8,}",
    rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, _PREFIXES))})[\w.+/=-]{{12,}}",
)
_MARKED = re.compile("|".join(map(re.escape, ("-----BEGIN", "@", "eyJ", *_PREFIXES))))
_KEYS = _EVIDENT[-1]
# What is named: `password: x`, `api key is x`.
_NAMED = (
    r"(?i:pass(?:word|wd|phrase)|pwd|secret|token|api[ _-]?key|credentials?|authorization|bearer"
    r"""|basic)["']?(?:\s{0,3}[:=]\s{0,3}|\s{1,3}is\s{1,3})["']?[^\s"',;&<>]{6,}""",
)
# What only looks like one. A version (`Chrome/120.0.6099.109`) comes after a slash.
_LIKELY = (
    r"\b[A-Z]{2}[0-9]{2}(?:[ .-]?[A-Z0-9]){11,30}\b",
    r"\b[a-z]{2}[0-9]{2}(?:[ .-]?[a-z0-9]){11,30}\b",
    r"\b(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\b",
    r"\b[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\b",
    r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}(?![\w:])",
    r"(?<![\w./])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![\w.])",
    r"(?<![\w.])(?<!/(?=[0-9]{1,4}\.))\+?\(?[0-9](?:[ .()/-]{0,3}[0-9]){8,}(?![\w])",
    r"\b[0-9]{6}[-+A][0-9]{3}[0-9A-Z]\b",
    r"\b(?:[A-Z]{2} ?(?:[0-9]{2} ?){3}[A-D]|[A-Z]{5}[0-9]{4}[A-Z]|[XYZ]-[0-9]{7}-?[A-Z])\b",
    r"\b[0-9]{8}-[A-Z]\b",
    r"\b(?=[A-Z0-9]{0,33}[a-z])(?=.[a-z0-9]{0,33}[A-Z])[13LMTD][1-9A-HJ-NP-Za-km-z]{25,33}\b",
    r"\b(?=(?:[A-Za-z]{0,12}[0-9]){5})(?=[0-9]{0,40}[A-Za-z])[A-Za-z0-9]{8,}\b",
    r"(?<![A-Za-z0-9])(?=(?:[A-Za-z]{0,24}[0-9]){2})(?=[0-9]{0,40}[A-Za-z])[A-Za-z0-9+/]{20,}={0,2}",
)
# What tells itself in an id or a code: a card and an account, to be checked, a social security
# number, a secret key of AWS, what a word announces.
_TOLD = re.compile(
    r"(?i:pass(?:word|wd|phrase)|pwd|secret|api[_-]?key|token|authorization|bearer)"
    r"""["']?[ ]?[:=][ ]?["']?[^\s"',;&<>]{4,}"""
    rf"|{_KEYS}|{_EVIDENT[0]}|{_EVIDENT[2]}|{_EVIDENT[3]}"
    r"|(?<![A-Za-z0-9])(?:(?P<card>[2-6][0-9]{3}(?:[ .-]?[0-9]{4}){2}[ .-]?[0-9]{1,4}"
    r"|3[47][0-9]{2}[ .-]?[0-9]{6}[ .-]?[0-9]{5})"
    r"|(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}"
    r"|(?=[A-Za-z0-9]{0,39}[+/])(?=[a-z0-9+/]{0,39}[A-Z])(?=[A-Z0-9+/]{0,39}[a-z])"
    r"(?=[A-Za-z+/]{0,39}[0-9])[A-Za-z0-9+/]{40}"
    r"|(?P<iban>[A-Z]{2}[0-9]{2}(?:[ .-]?[A-Z0-9]){11,30}))(?![A-Za-z0-9])"
)
# One run of letters and digits, behind a word or not, is no card and no account.
_DRAWN = re.compile(
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
    r"|(?:[a-z]{1,12}[-_])?(?![A-Z]{2}[0-9]{2})(?P<run>(?=[0-9]{0,11}[A-Za-z])[A-Za-z0-9]{1,64})"
)
_CARD_SIZES = {"3": (15,), "4": (13, 16), "5": (16,), "2": (16,), "6": (16,)}
_IBAN_COUNTRIES = {
    15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU XK",
    21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS", 23: "AE GI IL IQ TL OM SO",
    24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR",
    27: "FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA",
    30: "JO KW MU", 31: "MT SC", 32: "LC", 33: "RU",
}  # fmt: skip
_IBAN_SIZES = {
    country: size for size, countries in _IBAN_COUNTRIES.items() for country in countries.split()
}


def _holds(match: re.Match[str]) -> bool:
    """Whether the check digits of what looks like a card or an account hold."""
    if match["card"]:
        digits = re.sub("[ .-]", "", match[0])
        return len(digits) in _CARD_SIZES[digits[0]] and _luhn(digits)
    if match["iban"]:
        code = re.sub("[ .-]", "", match[0])
        if len(code) != _IBAN_SIZES.get(code[:2]):
            return False
        return int("".join(str(int(c, 36)) for c in code[4:] + code[:4])) % 97 == 1
    return True


def _luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


_UUID = r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"
_MASK = r"\[[A-Z][A-Z0-9_]*_[a-z0-9]{1,12}_[A-Z2-7]{16}[^\]]{0,70}\]"


def _value_at(node: Any, path: Sequence[str]) -> Any:
    for name in path:
        node = node.get(name) if isinstance(node, dict) else None
    return node


def _replaced(node: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of the event with another value at a path."""
    inner = _replaced(node[path[0]], path[1:], value) if len(path) > 1 else value
    return {**node, path[0]: inner}


def _is_drawn(value: Any) -> bool:
    """One run of letters and digits, behind a word or not, that begins as no key does."""
    match = _DRAWN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return False
    begin = match.start("run")
    return not (value.startswith(_PREFIXES) or (begin > 0 and value.startswith(_PREFIXES, begin)))


def _is_plain_id(value: Any) -> bool:
    """Shaped like an id, and no secret that tells itself."""
    return (
        isinstance(value, str)
        and _ID_SHAPED.fullmatch(value) is not None
        and _MARKED.search(value) is None
    )


# A number under such a name is a measurement, however much it looks like a telephone number.
_MEASURED = re.compile(r"_(?:ns|us|ms|s|seconds|bytes|tokens|count|total)$")


def _is_measurement(name: Any, value: Any) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, str)
        and value.isdecimal()
        and _MEASURED.search(name) is not None
    )


def _any_of(*patterns: str) -> re.Pattern[str]:
    """One pattern; what is to be left as it is comes first, as group `kept`."""
    return re.compile(rf"(?P<kept>{_UUID}|{_MASK})|" + "|".join(patterns))


_IN_TEXT = _any_of(*_EVIDENT, *_NAMED, *_LIKELY)
_ID_SHAPED = re.compile(r"[A-Za-z0-9_.:/+=-]{1,256}")


_IN_CODE = re.compile(rf"(?P<kept>{_UUID}|{_MASK})|{_TOLD.pattern}")


def _leaves(*holder: str) -> list[str]:
    return [path[-1] for path in CODES if path[:-1] == holder]


def _groups(*holder: str) -> list[tuple[str, list[str]]]:
    """The groups within a group, each with its codes."""
    size = len(holder)
    names = dict.fromkeys(p[size] for p in CODES if p[:size] == holder and len(p) == size + 2)
    return [(name, _leaves(*holder, name)) for name in names]


_IN_GROUPS = [(name, _groups(name)) for name in dict.fromkeys(path[0] for path in CODES)]
_TOP = _groups()
_NONE: dict[str, Any] = {}


def _codes_in(event: Mapping[str, Any]) -> tuple[Any, ...]:
    """What stands in the fields of codes. Raises AttributeError where a group is none."""
    values: list[Any] = []
    for name, leaves in _TOP:
        values += map(event.get(name, _NONE).get, leaves)
    for name, groups in _IN_GROUPS:
        if name in event:
            node = event[name]
            for inner, leaves in groups:
                if inner in node:
                    values += map(node[inner].get, leaves)
                else:
                    values.append(inner)
        else:
            values.append(name)
    return tuple(values)


class Scrubber:
    """Withholds. `secret` gives the key of the digests; it is asked when there is something to
    withhold, and what it raises costs the digest only. `withheld` counts texts."""

    def __init__(self, secret: Callable[[], bytes]) -> None:
        self._secret = secret
        self._key: bytes | None = None
        self._clean: set[str] = set()
        self._clean_codes: set[Any] = set()
        self.withheld = 0

    def scrubbed(self, event: dict[str, Any]) -> dict[str, Any]:
        """The event, or a copy without what looks like a secret."""
        for path in TEXTS:
            value = _value_at(event, path)
            if value and not self._is_clean(value):
                event = self._without(event, path, value)
        for path in IDS:
            value = _value_at(event, path)
            if not value:
                continue
            if _is_drawn(value):
                continue
            if _is_plain_id(value):
                event = self._coded(event, path, value)
            else:
                event = self._without(event, path, value)
        return self._without_codes(event)

    def _without(self, event: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
        scrubbed = self._scrub(value)
        return event if scrubbed == value else _replaced(event, path, scrubbed)

    def _without_codes(self, event: dict[str, Any]) -> dict[str, Any]:
        for path in TOLD:
            event = self._coded(event, path, _value_at(event, path))
        try:
            codes = _codes_in(event)
            if codes in self._clean_codes:
                return event
        except (AttributeError, TypeError):  # no event that could be encoded
            codes = None
        scrubbed = event
        for path in CODES:
            scrubbed = self._coded(scrubbed, path, _value_at(event, path))
        if scrubbed is event:
            self._remember_code(codes)
        return scrubbed

    def _coded(self, event: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
        """The event without what tells itself in an id, a code or a list of codes."""
        if not value:
            return event
        scrubbed = [self._code(v) for v in value] if isinstance(value, list) else self._code(value)
        return event if scrubbed == value else _replaced(event, path, scrubbed)

    def _code(self, value: Any) -> Any:
        if not isinstance(value, str) or value in self._clean_codes:
            return value
        found = _IN_CODE.sub(self._withheld_code, value)
        if found != value:
            self.withheld += 1
        elif len(value) <= MAX_REMEMBERED_CHARS:
            self._remember_code(value)
        return found

    def _remember_code(self, value: Any) -> None:
        if len(self._clean_codes) >= MAX_REMEMBERED:
            self._clean_codes.clear()
        self._clean_codes.add(value)

    def _is_clean(self, value: Any) -> bool:
        """Whether all texts in it were looked at before, and nothing was found."""
        if isinstance(value, str):
            return value in self._clean
        if isinstance(value, dict):
            return all(
                k in self._clean and (_is_measurement(k, v) or self._is_clean(v))
                for k, v in value.items()
            )
        return isinstance(value, list) and all(map(self._is_clean, value))

    def _scrub(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {
                self._scrub(k): v if _is_measurement(k, v) else self._scrub(v)
                for k, v in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._scrub(item) for item in value]
        return value

    def _text(self, text: str) -> str:
        found = _IN_TEXT.sub(self._withheld, text)
        if found != text:
            self.withheld += 1
        elif len(text) <= MAX_REMEMBERED_CHARS:
            if len(self._clean) >= MAX_REMEMBERED:
                self._clean.clear()
            self._clean.add(text)
        return found

    def _withheld_code(self, match: re.Match[str]) -> str:
        return self._withheld(match) if match["kept"] or _holds(match) else match[0]

    def _withheld(self, match: re.Match[str]) -> str:
        if match["kept"]:
            return match[0]
        digest = hmac.digest(self._digest_key(), match[0].encode("utf-8", "replace"), "sha256")
        return f"[{_KIND}_{base64.b32encode(digest)[:16].decode()}]"

    def _digest_key(self) -> bytes:
        if self._key is None:
            try:
                self._key = hmac.digest(self._secret(), b"gatebook withheld text", "sha256")
            except Exception as error:  # without a key it is withheld all the same
                log.error("withheld texts cannot be told apart: %s", type(error).__name__)
                self._key = b"?"
        return self._key
