"""The policy file: its form, and reading it. What is wrong is told with field and line.

    version = 1                      # of this form
    name = "acme"

    [[rule]]                         # the first that matches decides
    name = "clinic"
    match = { tenant = "clinic-*" }
    level = "none"

README.md beside this file explains every part.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gatebook.producers.policy.fields import field_problem
from gatebook.schemas.errors import GatebookError

MAX_FILE_BYTES = 1024 * 1024
PUBLIC_KEY_BYTES = 32
LEVELS = ("none", "metadata", "redacted", "full")
RANK = {level: rank for rank, level in enumerate(LEVELS)}

Level = Literal["none", "metadata", "redacted", "full"]
Trust = Literal["requested_model", "asserted_tenant"]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Pattern = Annotated[str, Meta(max_length=256)]
Patterns = Pattern | Annotated[tuple[Pattern, ...], Meta(min_length=1, max_length=1000)]
RetentionClass = Annotated[str, Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,31})?$")]
FieldRules = dict[str, Literal["keep", "drop", "digest", "truncate"]]


class PolicyInvalid(GatebookError):
    """The text is no policy. `code` is one of a closed list and `line` a number, so both may be
    logged; the message names fields of the file and is for whoever wrote it."""

    exit_code = 2
    next_step = "correct the file; `gatebook policy check FILE` tells whether it is right"

    def __init__(self, code: str, fault: str, place: str = "", line: int = 0) -> None:
        where = ", ".join(filter(None, (f"line {line}" if line else "", place)))
        super().__init__(f"{where}: {fault}" if where else fault)
        self.code = code
        self.line = line


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an access must be like; what is not given matches anything. Globs: * ? [a-z]."""

    tenant: Patterns | None = None
    model: Patterns | None = None
    route: Patterns | None = None
    operation: Patterns | None = None
    data_class: Patterns | None = None
    service: Patterns | None = None


class DataClass(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An access is of this class if any of these matches."""

    tenants: Patterns | None = None
    models: Patterns | None = None
    routes: Patterns | None = None
    operations: Patterns | None = None
    services: Patterns | None = None


class Retention(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Names of the retention classes of an event's layers; empty: not said."""

    metadata: RetentionClass = ""
    redacted: RetentionClass = ""
    full: RetentionClass = ""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is captured of the accesses it matches."""

    name: Name
    level: Level
    match: Match = Match()
    searchable: bool = True
    fields: FieldRules = {}
    retention: Retention | None = None
    description: str = ""


class BreakGlass(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who may raise a level for a while, how far and for how long. Keys by name, as
    `gatebook policy break-glass key` prints them."""

    max_seconds: Annotated[int, Meta(ge=60, le=7 * 86_400)] = 4 * 3600
    max_level: Literal["metadata", "redacted", "full"] = "redacted"
    approvals: Annotated[int, Meta(ge=2, le=10)] = 2
    approvers: dict[Name, str] = {}
    requesters: dict[Name, str] = {}


class PolicyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    version: Literal[1]
    name: Name
    description: str = ""
    trust: tuple[Trust, ...] = ()
    retention: Retention = Retention()
    fields: FieldRules = {}
    classes: dict[Name, DataClass] = {}
    rule: Annotated[tuple[Rule, ...], Meta(max_length=1000)] = ()
    break_glass: BreakGlass | None = None


def digest_of(data: bytes) -> str:
    """What stands on events as policy_version: SHA-256 of the file, as `sha256sum` prints it."""
    return hashlib.sha256(data).hexdigest()


def read_policy(data: bytes) -> PolicyFile:
    """The policy in a file's bytes. Raises PolicyInvalid."""
    if len(data) > MAX_FILE_BYTES:
        raise PolicyInvalid("too_large", f"larger than {MAX_FILE_BYTES} bytes")
    text, table = _toml(data)
    try:
        found = msgspec.convert(table, PolicyFile)
    except msgspec.ValidationError as error:
        fault, path = _split(str(error))
        raise PolicyInvalid("invalid", fault, _shown(path), line_of(text, path)) from None
    for path, fault in problems(found):
        raise PolicyInvalid("invalid", fault, _shown(path), line_of(text, path))
    return found


def _toml(data: bytes) -> tuple[str, Mapping[str, Any]]:
    try:
        text = data.decode()
        return text, tomllib.loads(text)
    except UnicodeDecodeError:
        raise PolicyInvalid("not_utf8", "the file is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        line = int(found[1]) if found else data.count(b"\n") + 1
        fault = "not TOML: " + str(error).partition(" (at ")[0]
        raise PolicyInvalid("not_toml", fault, line=line) from None
    except RecursionError:
        raise PolicyInvalid("not_toml", "nested too deeply") from None


# -- what the form alone does not say -------------------------------------------------------------

Path = tuple[str | int, ...]
Problem = tuple[Path, str]


def problems(policy: PolicyFile) -> Iterator[Problem]:
    """What is wrong in a file of the right form, with its path."""
    yield from _field_problems(policy.fields, ("fields",))
    yield from _rule_problems(policy)
    if policy.break_glass is not None:
        yield from _key_problems(policy.break_glass)


def _field_problems(rules: FieldRules, path: Path) -> Iterator[Problem]:
    for name, action in rules.items():
        fault = field_problem(name, action)
        if fault:
            yield (*path, name), fault


def _rule_problems(policy: PolicyFile) -> Iterator[Problem]:
    names: set[str] = set()
    for number, rule in enumerate(policy.rule):
        path: Path = ("rule", number)
        if rule.name in names or rule.name == "default":
            yield (*path, "name"), "this name is taken"
        names.add(rule.name)
        yield from _field_problems(rule.fields, (*path, "fields"))
        for pattern in as_patterns(rule.match.data_class):
            if not _is_glob(pattern) and pattern and pattern not in policy.classes:
                yield (*path, "match", "data_class"), "no such class in [classes]"


def _key_problems(given: BreakGlass) -> Iterator[Problem]:
    owners: dict[bytes, str] = {}
    for table in ("approvers", "requesters"):
        for name, text in getattr(given, table).items():
            path: Path = ("break_glass", table, name)
            key = public_key(text)
            if key is None:
                yield path, f"not a public key: base64 of {PUBLIC_KEY_BYTES} bytes"
            elif owners.setdefault(key, name) != name:
                yield path, "the key of somebody else: one person would count twice"
    for name in given.approvers.keys() & given.requesters.keys():
        if given.approvers[name] != given.requesters[name]:
            yield ("break_glass", "requesters", name), "another key than in approvers"


def public_key(text: str) -> bytes | None:
    """The raw Ed25519 public key; None where the text is none."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == PUBLIC_KEY_BYTES else None


def as_patterns(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """One pattern or several, as a tuple; empty where none is given."""
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(given)


def _is_glob(pattern: str) -> bool:
    return any(mark in pattern for mark in "*?[")


def warnings(policy: PolicyFile) -> list[str]:
    """What is allowed and most likely not meant."""
    found = []
    for number, rule in enumerate(policy.rule[:-1]):
        if rule.match == Match():
            later = ", ".join(r.name for r in policy.rule[number + 1 :])
            found.append(f"rule {rule.name} matches everything: never reached: {later}")
            break
    people = policy.break_glass
    if people is not None and len(people.approvers) < people.approvals:
        found.append(f"break_glass: {people.approvals} approvals need as many approvers")
    return found


# -- where it stands ------------------------------------------------------------------------------

_PLACE = re.compile(r" - at `(?:key in )?\$([^`]*)`\Z")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]|\[\.\.\.\]")
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?\Z")
_KEY = re.compile(r"""\s*((?:"[^"]*"|'[^']*'|[\w-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[\w-]+))*)\s*=""")
_PART = re.compile(r""""([^"]*)"|'([^']*)'|([\w-]+)""")


def _split(message: str) -> tuple[str, Path]:
    """msgspec's message without its place, and the place as a path."""
    found = _PLACE.search(message)
    fault = message[: found.start()] if found else message
    steps = _STEP.finditer(found[1]) if found else ()
    path: Path = tuple(int(s[2]) if s[2] else s[1] for s in steps if s[1] or s[2])
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", fault)
    return (f"unknown field {unknown[1]}", (*path, unknown[1])) if unknown else (fault, path)


def _shown(path: Path) -> str:
    text = "".join(f"[{step + 1}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def line_of(text: str, path: Path) -> int:
    """The line that holds the most of this path; 0 where not even its beginning is found."""
    best, found = 0, 0
    table: Path = ()
    counts: dict[Path, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header and not key:
            table = here = _table(header, counts)
        elif key:
            here = (*table, *_parts(key[1]))
        else:
            continue
        depth = len(here)
        if depth > best and here == path[:depth]:
            best, found = depth, number
    return found


def _table(header: re.Match[str], counts: dict[Path, int]) -> Path:
    path: Path = ()
    for part in _parts(header[2]):
        path = (*path, part)
        if path in counts:
            path = (*path, counts[path])
    if header[1] == "[[":
        path = tuple(path[:-1]) if path and isinstance(path[-1], int) else path
        counts[path] = counts.get(path, -1) + 1
        path = (*path, counts[path])
    return path


def _parts(text: str) -> tuple[str, ...]:
    return tuple(m[1] or m[2] or m[3] or "" for m in _PART.finditer(text))
