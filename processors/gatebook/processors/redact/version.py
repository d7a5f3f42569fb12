"""One digest for everything that decides what is masked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING

import msgspec

from .allow import AllowList
from .rules import Rule
from .tables import table_bytes

if TYPE_CHECKING:
    from .engine import RedactionLimits

ENGINE_VERSION = 8
"""Raised when the engine or a validator finds other values with the same rules, or gives them
other pseudonyms."""
_LIBRARIES = ("phonenumbers", "python-stdnum", "google-re2")


def policy_version(
    rules: Sequence[Rule], allow: AllowList, limits: RedactionLimits, ner: str = ""
) -> str:
    """Return `r<engine>-<16 hex digits>`: equal where the same texts get the same masks.

    Test cases and descriptions do not count; rules, tables, allow lists, limits and the versions
    of the libraries that hold number plans do.
    """
    parts = {
        "rules": [_described(rule) for rule in sorted(rules, key=lambda rule: rule.id)],
        "allow": allow.described,
        "limits": asdict(limits),
        "ner": ner,
        "libraries": {name: version(name) for name in _LIBRARIES},
    }
    digest = hashlib.sha256(msgspec.json.encode(parts, order="deterministic"))
    for rule in sorted(rules, key=lambda rule: rule.id):
        digest.update(table_bytes(rule))
    return f"r{ENGINE_VERSION}-{digest.hexdigest()[:16]}"


def _described(rule: Rule) -> dict[str, object]:
    unread = {"description", "positive", "negative", "blind_spots"}
    fields: dict[str, object] = msgspec.to_builtins(rule)
    return {name: value for name, value in fields.items() if name not in unread}
