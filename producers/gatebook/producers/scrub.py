"""Keeps secrets out of what an event says beside its content: names, paths, headers, codes.

Clients put anything there: a card number as a stop sequence, a key in a user agent. Content is
sealed before it leaves the producer; these texts travel in the open, and intake masks them only
when spool and broker have had them. So what looks like a secret is withheld here: replaced by a
keyed digest in the form of the redactor's masks, the same for the same text.

Rather too much than too little, for nothing but readability is lost; except in ids, which look
random by nature: in what is shaped like one, only what tells itself is withheld. Who called, and
for whom, stays as it is: that is what a log of accesses is about.
"""

from __future__ import annotations

import base64
import hmac
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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

# How keys begin that tell their issuer.
_PREFIXES = (
    "sk-", "sk_", "rk_", "pk_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-",
    "gldt-", "glrt-", "glcbt-", "glptt-", "xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxe-",
    "xapp-", "hf_", "hvs.", "hvb.", "AIza", "ya29.", "GOCSPX-", "SG.", "npm_", "pypi-", "dop_v1_",
    "doo_v1_", "dor_v1_", "shpat_", "shpca_", "shppa_", "shpss_", "dckr_pat_", "lin_api_",
    "rubygems_", "AGE-SECRET-KEY-", "pscale_", "dapi", "NRAK-", "dp.pt.", "dp.st.", "glsa_",
    "tfp_", "sntryu_", "sntrys_", "EAAA", "pplx-", "key-", "whsec_", "AKIA", "ASIA", "gb_",
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


class Scrubber:
    """Withholds. `secret` gives the key of the digests; it is asked when there is something to
    withhold, and what it raises costs the digest only. `withheld` counts texts."""

    def __init__(self, secret: Callable[[], bytes]) -> None:
        self._secret = secret
        self._key: bytes | None = None
        self._clean: set[str] = set()
        self.withheld = 0

    def scrubbed(self, event: dict[str, Any]) -> dict[str, Any]:
        """The event, or a copy without what looks like a secret."""
        for path in TEXTS:
            value = _value_at(event, path)
            if value and not self._is_clean(value):
                event = self._without(event, path, value)
        for path in IDS:
            value = _value_at(event, path)
            if value and not _is_plain_id(value):
                event = self._without(event, path, value)
        return event

    def _without(self, event: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
        scrubbed = self._scrub(value)
        return event if scrubbed == value else _replaced(event, path, scrubbed)

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
