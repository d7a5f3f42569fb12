"""Rules of many vendors as one table: what announces a token, and what its value looks like.

`rules/<id>/table.toml` belongs to the rule beside it. A table of `tokens` names texts that
announce themselves (`ghp_...`); a table of `vendors` names values that only the vendor's name
before them tells (`adafruit_key = ...`). Patterns in a table are anchored, bounded and of ours, so
they run in `re`, which starts five times as fast; RE2 takes each of them too, as a test shows.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from .errors import RuleInvalid
from .rules import Rule

_LITERAL = re.compile(r"(?:[A-Za-z0-9_@~/=-]|\\\.)+")


class TokenEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A token that announces itself."""

    id: str
    pattern: str
    """Read from the keyword on. Its only group, where it has one, is the value."""
    keyword: str = ""
    keywords: tuple[str, ...] = ()
    """Lower-case literals the pattern begins with. Empty: those of the pattern itself."""
    before: str = ""
    """Pattern of what stands right before the keyword and belongs to the value."""
    bits: float = 3.0
    """Shannon entropy per character that the value needs."""


class VendorEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Values that a vendor's name before them tells."""

    id: str
    values: tuple[str, ...]
    """`an32`: 32 letters and digits; `hex`, `dig`, `tok` alike; `uuid`; or `/pattern/`."""
    names: tuple[str, ...] = ()
    """Lower-case; the id where empty."""


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tokens: tuple[TokenEntry, ...] = ()
    vendors: tuple[VendorEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """A token entry, compiled."""

    entry: TokenEntry
    keywords: tuple[bytes, ...]
    match: Callable[..., re.Match[bytes] | None]
    before: re.Pattern[bytes] | None
    distinct: bool
    """Its keyword is no chance inside a longer word: it needs no edge before it."""


@dataclass(frozen=True, slots=True)
class VendorValue:
    """The value forms of one vendor, compiled; each matches a whole value."""

    entry: VendorEntry
    value: re.Pattern[bytes]


@cache
def _read(rule_id: str) -> bytes:
    return (files(__package__) / "rules" / rule_id / "table.toml").read_bytes()


def table_bytes(rule: Rule) -> bytes:
    """The table as it is in the package, for the policy version; empty where a rule has none."""
    return _read(rule.id) if rule.validator in ("vendor_token", "vendor_assigned") else b""


@cache
def _table(rule_id: str) -> _Table:
    try:
        data: dict[str, Any] = tomllib.loads(_read(rule_id).decode("utf-8"))
        return msgspec.convert(data, _Table)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise RuleInvalid(f"rule {rule_id}: table.toml: {error}") from error


def token_entries(rule_id: str) -> tuple[TokenEntry, ...]:
    """The entries of a table of tokens, as they are written."""
    return _table(rule_id).tokens


def vendor_entries(rule_id: str) -> tuple[VendorEntry, ...]:
    """The entries of a table of vendors, as they are written."""
    return _table(rule_id).vendors


@cache
def tokens_by_keyword(rule_id: str) -> dict[bytes, tuple[Token, ...]]:
    """The tokens of a table by the lower-case keyword that announces them."""
    found: dict[bytes, tuple[Token, ...]] = {}
    for entry in token_entries(rule_id):
        token = _token(entry)
        for keyword in token.keywords:
            found[keyword] = (*found.get(keyword, ()), token)
    return found


def _token(entry: TokenEntry) -> Token:
    words = entry.keywords or ((entry.keyword,) if entry.keyword else ())
    literal = _LITERAL.match(re.sub(r"^\(\?i:", "", entry.pattern))
    words = words or ((_beginning(entry, literal[0]),) if literal else ())
    if not words or any(len(word) < 2 for word in words):
        raise RuleInvalid(f"token {entry.id}: its keyword has fewer than two characters")
    return Token(
        entry,
        tuple(word.lower().encode() for word in words),
        re.compile(entry.pattern.encode()).match,
        re.compile(b"(?:" + entry.before.encode() + rb")\Z") if entry.before else None,
        all(len(word) >= 5 and not word.isalnum() for word in words),
    )


def _beginning(entry: TokenEntry, literal: str) -> str:
    """The literal that a pattern begins with: a character before a quantifier is none."""
    after = entry.pattern[len(literal) : len(literal) + 1]
    plain = literal.replace("\\.", ".")
    return plain[:-1] if after in ("?", "*", "+", "{") else plain


_ALPHABETS = {"an": "[a-z0-9]", "hex": "[a-f0-9]", "dig": "[0-9]", "tok": "[a-z0-9=_-]"}
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_SIZED = re.compile(r"(an|hex|dig|tok)([0-9]{1,3})")


def value_pattern(form: str) -> str:
    """The pattern that a `values` form of a vendor stands for."""
    sized = _SIZED.fullmatch(form)
    if sized:
        return f"{_ALPHABETS[sized[1]]}{{{sized[2]}}}"
    if form == "uuid":
        return _UUID
    if len(form) > 2 and form[0] == form[-1] == "/":
        return form[1:-1]
    raise RuleInvalid(f"vendor table: the value form {form!r} is unknown")


@cache
def vendors_by_name(rule_id: str) -> dict[bytes, VendorValue]:
    """The vendors of a table by each lower-case name."""
    found = {}
    for entry in vendor_entries(rule_id):
        forms = "|".join(f"(?:{value_pattern(form)})" for form in entry.values)
        value = VendorValue(entry, re.compile(f"(?i:{forms})".encode()))
        found.update({name.encode(): value for name in entry.names or (entry.id,)})
    return found


def table_keywords(rule: Rule) -> Sequence[str]:
    """The keywords that a rule with a table reads on from."""
    words = tokens_by_keyword(rule.id) if rule.validator == "vendor_token" else None
    return [word.decode() for word in (words or vendors_by_name(rule.id))]
