"""Field rules: which fields of an event a policy may take away or disguise, and doing it.

Everything in here is pure. Times, outcome, service and what says how much was captured are no
business of field rules: without them an event would prove nothing.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from typing import Any

import msgspec

from gatebook.schemas.codec import EVENT_SCHEMA
from gatebook.schemas.documents import is_group
from gatebook.schemas.registry import Schema, load

CONTENT_PARTS = (
    "input_messages", "system_instructions", "output_messages", "tools", "error_text",
)  # fmt: skip
DIGEST_HEX_DIGITS = 24
IPV4_KEPT_BITS, IPV6_KEPT_BITS = 24, 48
# The strictest of several actions on one field counts.
STRICTNESS = {"keep": 0, "truncate": 1, "digest": 2, "drop": 3}
_FIXED = ("@timestamp", "event.", "service.", "gatebook.capture.", "gatebook.retention.",
          "gatebook.phase")  # fmt: skip
_DIGEST_PURPOSE = b"gatebook field digest v1"

Path = tuple[str, ...]
Actions = Mapping[str, str]


@cache
def known_fields() -> Mapping[str, frozenset[str]]:
    """Every field a rule may name, with the actions that it allows."""
    found = {f"content.{part}": frozenset({"keep", "drop"}) for part in CONTENT_PARTS}
    for name, kind in _leaves(load(EVENT_SCHEMA).raw, ""):
        if not name.startswith(_FIXED):
            found[name] = _allowed(name, kind)
    return found


def _leaves(schema: Schema, prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for field in schema["fields"]:
        name = prefix + str(field.get("es_name", field["name"]))
        if is_group(field):
            found += _leaves(field["type"], f"{name}.")
        elif field.get("es_mapping", "") is not None:
            found.append((name, field["type"]))
    return found


def _allowed(name: str, kind: Any) -> frozenset[str]:
    texts = kind == "string" or (isinstance(kind, dict) and kind["type"] == "array")
    more = {"digest"} if texts else set()
    return frozenset({"keep", "drop", *more, *(["truncate"] if name == "source.ip" else [])})


def field_problem(name: str, action: str) -> str:
    """Why a rule for this field cannot be; empty where it can."""
    hit = matching(name)
    if not hit:
        fixed = name.startswith(_FIXED)
        return "this field always stays as it is" if fixed else "no such field"
    allowed = frozenset.intersection(*(known_fields()[one] for one in hit))
    return "" if action in allowed else f"only {', '.join(sorted(allowed))} can be done here"


def matching(name: str) -> list[str]:
    """The fields a name means: itself, or with a * all that it matches."""
    if "*" not in name:
        return [name] if name in known_fields() else []
    return [one for one in known_fields() if fnmatchcase(one, name)]


def expanded(*tables: Mapping[str, str]) -> dict[str, str]:
    """Actions by field, later tables over earlier ones; what is kept is left out."""
    found: dict[str, str] = {}
    for table in tables:
        for name, action in table.items():
            found |= dict.fromkeys(matching(name), action)
    return {name: action for name, action in found.items() if action != "keep"}


def strictest(one: Actions, other: Actions) -> dict[str, str]:
    """For every field the stricter of two actions."""
    found = dict(one)
    for name, action in other.items():
        if STRICTNESS[action] > STRICTNESS[found.get(name, "keep")]:
            found[name] = action
    return found


# -- doing it -------------------------------------------------------------------------------------


def with_fields(event: Mapping[str, Any], actions: Actions, secret: bytes) -> dict[str, Any]:
    """A new event with these actions carried out; `secret` is what digests are keyed with."""
    changed = dict(event)
    for name, action in actions.items():
        if not name.startswith("content."):
            path = ("attributes",) if name == "gatebook.attributes" else tuple(name.split("."))
            changed = _changed(changed, path, _DO[action], secret)
    return changed


def _changed(
    group: Mapping[str, Any], path: Path, change: Callable[[Any, bytes], Any], secret: bytes
) -> dict[str, Any]:
    name, value = path[0], group.get(path[0])
    if not value:
        return dict(group)
    if len(path) > 1:
        return {**group, name: _changed(value, path[1:], change, secret)}
    return {**group, name: change(value, secret)}


def _drop(value: Any, secret: bytes) -> Any:
    """What the schema takes for `not known`."""
    if isinstance(value, str):
        return ""
    if isinstance(value, list | tuple):
        return []
    return {} if isinstance(value, Mapping) else None


def _digest(value: Any, secret: bytes) -> Any:
    if not secret:  # a digest without a key could be tried out
        return _drop(value, secret)
    if isinstance(value, str):
        return digest_text(value, secret)
    return [digest_text(item, secret) for item in value]


def digest_text(value: str, secret: bytes) -> str:
    """A keyed digest that stands for a text: the same for the same text, and nobody without the
    key can try guesses against it."""
    found = hmac.digest(secret, value.encode("utf-8", "surrogatepass"), "sha256").hex()
    return "hmac_" + found[:DIGEST_HEX_DIGITS]


def digest_key(secret: bytes) -> bytes:
    """The key of field digests, from the producer's digest secret."""
    return hmac.digest(secret, _DIGEST_PURPOSE, "sha256")


def _truncate(value: Any, secret: bytes) -> str:
    return network_of(str(value))


@lru_cache(maxsize=4096)
def network_of(text: str) -> str:
    """An address without its host part; empty for what is no address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    bits = IPV4_KEPT_BITS if address.version == 4 else IPV6_KEPT_BITS
    return str(ipaddress.ip_network((address, bits), strict=False).network_address)


_DO: Mapping[str, Callable[[Any, bytes], Any]] = {
    "drop": _drop,
    "digest": _digest,
    "truncate": _truncate,
}


def without_parts(content: bytes, dropped: frozenset[str]) -> bytes | None:
    """Content without some of its parts; None where nothing is left, or where it is not the JSON
    object it should be: what cannot be read cannot be taken apart, so all of it goes."""
    try:
        parts = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    kept = {name: value for name, value in parts.items() if name not in dropped}
    return msgspec.json.encode(kept) if kept else None
