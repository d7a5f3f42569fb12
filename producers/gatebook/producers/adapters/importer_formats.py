"""Lines of existing access logs, read: our own JSON, other JSON by a mapping, nginx, common. Pure.

A reader turns one line into an event for `outside.Policy.admit`; RecordRejected("invalid_event",
reason) says what is wrong with it, never what stands in it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import msgspec

from gatebook.producers.adapters.outside import leaf_kinds, nanoseconds, rejected
from gatebook.producers.addresses import parse_address
from gatebook.schemas.errors import Fatal, RecordRejected

FORMATS = ("auto", "json", "combined", "common")
MAX_LOG_LINE_BYTES = 64 * 1024
Reader = Callable[[bytes], dict[str, Any]]

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LOG_TIME = re.compile(r"(\d\d)/([A-Za-z]{3})/(\d{4}):(\d\d:\d\d:\d\d) ([+-]\d{4})")
_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_COMMON = re.compile(rf"(\S+) (\S+) ([^\[]*) \[([^\]]+)\] {_QUOTED} (\d{{3}}) (\d+|-)")
# What configurations add behind (X-Forwarded-For, times) says nothing that is known here.
_COMBINED = re.compile(rf"{_COMMON.pattern} {_QUOTED} {_QUOTED}(?: .*)?")
_ESCAPED = re.compile(rb"\\(x[0-9A-Fa-f]{2}|.)", re.DOTALL)
_UNITS = {"unix": 10**9, "unix_ms": 10**6, "unix_us": 10**3, "unix_ns": 1}


def reader_of(name: str, mapping: Path | None, first_line: bytes) -> Reader:
    """The reader of a format; `auto` looks at the first line. Raises Fatal."""
    if mapping is not None:
        return load_mapping(mapping)
    if name == "auto":
        name = guess(first_line)
    return {"json": read_json, "combined": read_combined, "common": read_common}[name]


def guess(first_line: bytes) -> str:
    """The format of a line. Raises Fatal where it looks like none."""
    if first_line.lstrip()[:1] == b"{":
        return "json"
    text = _text(first_line)
    for name, pattern in (("combined", _COMBINED), ("common", _COMMON)):
        if pattern.fullmatch(text):
            return name
    raise Fatal(
        "the first line is neither JSON nor nginx's combined or common log format",
        "name the format with --format, or give a mapping with --mapping",
    )


def _text(line: bytes) -> str:
    return line[:MAX_LOG_LINE_BYTES].decode("utf-8", "replace").rstrip("\r\n")


# -- nginx and common ---------------------------------------------------------------------------


def read_combined(line: bytes) -> dict[str, Any]:
    """nginx's and Apache's `combined`."""
    found = _COMBINED.fullmatch(_text(line))
    if found is None:
        raise RecordRejected("invalid_event", "is not combined log format")
    event = _of_log(found.groups()[:7])
    agent = _unescaped(found[9])
    if agent not in ("", "-"):
        event["user_agent"] = {"original": agent}
    return event


def read_common(line: bytes) -> dict[str, Any]:
    """The common log format."""
    found = _COMMON.fullmatch(_text(line))
    if found is None:
        raise RecordRejected("invalid_event", "is not common log format")
    return _of_log(found.groups())


def _of_log(groups: tuple[str, ...]) -> dict[str, Any]:
    address, _, user, when, request, status, sent = groups
    method, path = _request_line(_unescaped(request))
    event: dict[str, Any] = {
        "timestamp": _log_time(when),
        "source": _source(address),
        "http": {
            "request": {"method": method},
            "response": {
                "status_code": int(status),
                "body": {"bytes": int(sent) if sent.isdigit() and len(sent) < 18 else None},
            },
        },
        "url": {"path": path},
        "gatebook": {"identity": {"method": "anonymous"}},
    }
    if user.strip() not in ("", "-"):
        event["user"] = {"id": _unescaped(user.strip())}
        event["gatebook"] = {"identity": {"assurance": "asserted"}}
    return event


def _request_line(text: str) -> tuple[str, str]:
    """Method and path; what was no HTTP request has neither."""
    parts = text.split(" ")
    if len(parts) < 2 or not re.fullmatch(r"[A-Z]{1,16}", parts[0]):
        return "", ""
    target = re.sub(r"^https?://[^/]*", "", parts[1])
    return parts[0], unquote(re.split(r"[?#]", target, maxsplit=1)[0], errors="replace")


def _source(address: str) -> dict[str, str]:
    """Nothing where the log has a host's name."""
    parsed = parse_address(address)
    return {"ip": str(parsed)} if parsed else {}


def _unescaped(text: str) -> str:
    """Without nginx's escapes."""
    if "\\" not in text:
        return text
    return _ESCAPED.sub(_plain, text.encode()).decode("utf-8", "replace")


def _plain(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1][1:], 16)]) if len(found[1]) == 3 else found[1]


def _log_time(text: str) -> int:
    """Not by strptime, which depends on the machine's language."""
    found = _LOG_TIME.fullmatch(text)
    if found is None or found[2].lower() not in _MONTHS:
        raise rejected("@timestamp", "is not a time like 10/Oct/2026:13:55:36 +0000")
    month = _MONTHS.index(found[2].lower()) + 1
    moment = nanoseconds(f"{found[3]}-{month:02d}-{found[1]}T{found[4]}{found[5]}")
    if moment is None:
        raise rejected("@timestamp", "is not a time")
    return moment


# -- JSON ---------------------------------------------------------------------------------------


def read_json(line: bytes) -> dict[str, Any]:
    """Our own form: an access event a line."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise RecordRejected("invalid_event", "is not JSON") from None
    if not isinstance(value, dict):
        raise RecordRejected("invalid_event", "is not a JSON object")
    return value


class TimeRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How times are written: iso, unix (seconds), unix_ms, unix_us, unix_ns, or a pattern of
    strptime. `zone_is_utc` for texts that name no zone."""

    format: str = "iso"
    zone_is_utc: bool = False


class FieldMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping file."""

    fields: dict[str, str]
    constants: dict[str, str | int | float | bool | list[str]] = {}
    scale: dict[str, float] = {}
    time: TimeRule = TimeRule()
    format: Literal["json"] = "json"


def load_mapping(path: Path) -> Reader:
    """A reader by a mapping file:

        [fields]                      # our field = path in the line; a number is a list's index
        "@timestamp" = "time"
        "user.id" = "auth.user"
        "gen_ai.usage.output_tokens" = "usage.0.out"
        [constants]
        "gen_ai.provider.name" = "vllm"
        [scale]
        "event.duration" = 1e9        # seconds there, nanoseconds here
        [time]
        format = "unix_ms"

    Raises Fatal where the file cannot be used.
    """
    try:
        found = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), FieldMapping)
    except (OSError, ValueError) as error:  # of TOML and of msgspec, too
        reason = error.strerror if isinstance(error, OSError) else error
        raise Fatal(
            f"the mapping {path} cannot be used: {reason}", "see the example in --help"
        ) from None
    kinds = {**leaf_kinds(), "@timestamp": "time"}
    kinds.pop("attributes"), kinds.pop("content"), kinds.pop("content_encoding")
    for name in (*found.fields, *found.constants, *found.scale):
        if name not in kinds and not name.startswith("attributes."):
            raise Fatal(
                f"the mapping {path} has a field that no event has: {name}",
                "names are in FIELDS.md; what has no field goes to attributes.<name>",
            )
    if not {"@timestamp", "timestamp"} & found.fields.keys():
        raise Fatal(f"the mapping {path} does not say where @timestamp is", "add it to [fields]")
    return _by_mapping(found, kinds)


def _by_mapping(rules: FieldMapping, kinds: Mapping[str, str]) -> Reader:
    paths = {name: path.split(".") for name, path in rules.fields.items()}

    def read(line: bytes) -> dict[str, Any]:
        value = read_json(line)
        event: dict[str, Any] = {}
        for name, constant in rules.constants.items():
            _put(event, name, constant)
        for name, path in paths.items():
            found = _get(value, path)
            if found is not None:
                kind = kinds.get(name, "text")
                _put(event, name, _converted(found, kind, name, rules))
        return event

    return read


def _get(value: Any, path: list[str]) -> Any:
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _put(event: dict[str, Any], name: str, value: Any) -> None:
    if name.startswith("attributes."):
        event.setdefault("attributes", {})[name.partition(".")[2]] = str(value)
        return
    *groups, leaf = name.split(".")
    for group in groups:
        event = event.setdefault(group, {})
    event[leaf] = value


def _converted(value: Any, kind: str, name: str, rules: FieldMapping) -> Any:
    """The value in the type of its field, as far as that is clear; else it is refused later."""
    if kind == "time":
        return _time_of(value, rules.time, name)
    if kind in ("whole", "number"):
        return _number_of(value, kind, rules.scale.get(name, 1.0))
    if kind == "text" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if kind == "texts" and isinstance(value, str):
        return [value]
    if kind == "flag" and value in ("true", "false"):
        return value == "true"
    return value


def _number_of(value: Any, kind: str, scale: float) -> Any:
    if isinstance(value, str):
        try:
            value = float(value) if scale != 1.0 or kind == "number" else int(value)
        except ValueError:
            return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if scale != 1.0:
        value = value * scale
    return round(value) if kind == "whole" and abs(value) < 1 << 62 else value


def _time_of(value: Any, rule: TimeRule, name: str) -> int:
    found = None
    if rule.format in _UNITS:
        found = _unix_time(value, _UNITS[rule.format])
    elif isinstance(value, str):
        text = f"{value}Z" if rule.zone_is_utc and rule.format == "iso" else value
        found = nanoseconds(text) if rule.format == "iso" else _by_pattern(text, rule)
    if found is None:
        raise rejected(name, f"is not a time of the form {rule.format}")
    return found


def _unix_time(value: object, unit_ns: int) -> int | None:
    """Exact: a float has no nanoseconds to give away, a text has."""
    try:
        if isinstance(value, str):
            whole, _, fraction = value.partition(".")
            rest = int(fraction[:9].ljust(9, "0")) * unit_ns // 10**9
            return int(whole) * unit_ns + rest
        if isinstance(value, float):
            return int(round(value * 10**6) * unit_ns // 10**6)
    except (ValueError, OverflowError):
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value * unit_ns


def _by_pattern(text: str, rule: TimeRule) -> int | None:
    try:
        moment = datetime.strptime(text, rule.format)
    except ValueError:
        return None
    if moment.tzinfo is None:
        if not rule.zone_is_utc:
            return None
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000
