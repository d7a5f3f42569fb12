"""The retention policy: a TOML file, checked, and what it says of a group of documents. Pure.

A document of day D is due once D has ended and the duration has passed since: never earlier than
the policy says, at most a day (and the time to the next run) later. All documents of a day that
the policy does not tell apart are due at once, so a day is rewritten a few times in its life.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gatebook.processors.sinks.slots import GROUP_FIELDS, Group
from gatebook.schemas.errors import GatebookError

MAX_FILE_BYTES = 1_000_000
FOREVER = "forever"
HOUR_SECONDS = 3600
DAY_SECONDS = 24 * HOUR_SECONDS
UNITS = {"h": HOUR_SECONDS, "d": DAY_SECONDS, "w": 7 * DAY_SECONDS, "y": 365 * DAY_SECONDS}
_DURATION = re.compile(r"(\d{1,5})([hdwy])")
_SIZE = re.compile(r"(\d{1,6})(kb|mb|gb|tb)")
_SIZES = {"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}
# Topics keep messages for an hour, and a segment of twenty minutes, whatever a policy says: workers
# have to read them first.
LEAST_IN_TOPIC_SECONDS = 80 * 60
METADATA, REDACTED, FULL = "metadata", "redacted", "full"
LAYERS = (METADATA, REDACTED, FULL)
STORED_AT = {REDACTED: (REDACTED,), FULL: (REDACTED, FULL)}  # layers by capture level
POSITION = {name: number for number, (name, _) in enumerate(GROUP_FIELDS)}

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Patterns = str | tuple[str, ...]
Kind = Literal["finding", "alert", "deadletter", "summary-hour", "summary-day"]
# Rows of summaries name principals, so they do not stay for ever unless somebody says so. Hours:
# any week can be set beside the same one a year ago. Days: as long as most laws ask for records.
SUMMARY_DEFAULTS = {"summary-hour": "400d", "summary-day": "7y"}


class PolicyInvalid(GatebookError):
    """The file is not a policy. Says where and why; nothing is done with it."""

    exit_code = 2
    next_step = "correct the file; processors/gatebook/processors/retention/README.md explains it"


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a rule is about: globs, all of which have to fit. `class` is the name of the metadata's
    retention class, as the capture policy gave it."""

    tenant: Patterns | None = None
    model: Patterns | None = None
    service: Patterns | None = None
    operation: Patterns | None = None
    outcome: Patterns | None = None
    data_class: Patterns | None = None
    class_: Patterns | None = msgspec.field(default=None, name="class")


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long the layers of the accesses it matches are kept: a duration or the name of a class;
    empty: as the class that stands on the event says, else the default. sample_after and
    keep_one_in: from that age on one in so many is kept, chosen by trace."""

    name: Name
    match: Match = Match()
    metadata: str = ""
    redacted: str = ""
    full: str = ""
    sample_after: str = ""
    keep_one_in: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    description: str = ""


class Defaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """For what no rule and no class decides."""

    metadata: str
    redacted: str
    full: str


class Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Before an index is deleted as a whole it goes into this repository, without content."""

    repository: Name
    kinds: tuple[Literal["access", "finding", "alert", "deadletter"], ...] = ("access",)


class Cold(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Days that nobody writes to any more: merged into one segment, and written anew with the
    codec best_compression where the cluster has it and this asks for it."""

    after: str = "2d"
    best_compression: bool = False


class Size(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A day whose index is larger goes on in another one from a full hour on."""

    max_index: str = ""


class Disk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is done when disks fill up, before Elasticsearch blocks writing: at `warn_percent` it is
    told; at `act_percent` the steps of `order` are taken, oldest days first, one after the other
    until less than that is used. Nothing younger than `keep_at_least` goes, nothing that is
    held."""

    warn_percent: Annotated[int, Meta(ge=1, le=99)] = 75
    act_percent: Annotated[int, Meta(ge=1, le=99)] = 85
    keep_at_least: str = "7d"
    order: tuple[
        Literal["delete_snapshotted", "strip_full", "strip_redacted", "delete_oldest"], ...
    ] = ()


class Kafka(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Topics hold the same layers. `replay`: how far back a replay must reach. `set`: whether
    `gatebook retention apply` sets the topics' retention."""

    replay: str = "1d"
    set: bool = False


class PolicyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    version: Literal[1]
    name: Name
    description: str = ""
    defaults: Defaults
    classes: dict[Name, str] = {}
    rule: Annotated[tuple[Rule, ...], Meta(max_length=1000)] = ()
    kinds: dict[Kind, str] = {}
    summaries: bool = True
    snapshot: Snapshot | None = None
    cold: Cold = Cold()
    size: Size = Size()
    disk: Disk = Disk()
    kafka: Kafka = Kafka()


def duration_seconds(text: str) -> float:
    """Seconds of `12h`, `30d`, `8w`, `1y` (365 days); infinite for `forever`. Raises ValueError."""
    if text == FOREVER:
        return float("inf")
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError("not a duration: write it like 12h, 30d, 8w, 1y, or forever")
    return int(found[1]) * UNITS[found[2]]


def size_bytes(text: str) -> int:
    """Bytes of `500mb`, `40gb`. Raises ValueError."""
    found = _SIZE.fullmatch(text.lower())
    if found is None:
        raise ValueError("not a size: write it like 500mb or 40gb")
    return int(found[1]) * _SIZES[found[2]]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a policy says of a group. Durations in seconds; `classes`: what decided, by layer.
    keep_one_in 0: nothing is thinned."""

    rule: str
    seconds: Mapping[str, float]
    classes: Mapping[str, str]
    sample_after_seconds: float = float("inf")
    keep_one_in: int = 0
    unknown_classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Due:
    """What has to happen to the documents of a group that nobody holds. keep_one_in above 1:
    only so many stay."""

    drop: bool = False
    strip: frozenset[str] = frozenset()
    keep_one_in: int = 0

    @property
    def is_nothing(self) -> bool:
        """Nothing is due."""
        return not (self.drop or self.strip or self.keep_one_in > 1)


NOTHING_DUE = Due()
DEFAULT_RULE = "default"


@dataclass(frozen=True)
class Policy:
    """A checked policy. `digest`: SHA-256 of the file."""

    file: PolicyFile
    digest: str

    @classmethod
    def read(cls, data: bytes) -> Policy:
        """The policy in a file's bytes. Raises PolicyInvalid."""
        if len(data) > MAX_FILE_BYTES:
            raise PolicyInvalid(f"the policy is larger than {MAX_FILE_BYTES} bytes")
        try:
            found = msgspec.convert(tomllib.loads(data.decode()), PolicyFile)
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise PolicyInvalid(f"the policy is not TOML: {error}") from None
        except msgspec.ValidationError as error:
            raise PolicyInvalid(f"the policy is invalid: {error}") from None
        for where, fault in _faults(found):
            raise PolicyInvalid(f"the policy is invalid at {where}: {fault}")
        return cls(found, hashlib.sha256(data).hexdigest())

    def seconds_of(self, text: str) -> float:
        """The duration of a class of this policy, or of a duration."""
        return duration_seconds(self.file.classes.get(text, text))

    def terms(self, group: Group) -> Terms:
        """What the first rule that matches says, filled up by the classes that stand on the
        event, then by the defaults. A class that the policy does not know is kept for ever: a
        deletion cannot be taken back, a question can be answered."""
        rule = next((r for r in self.file.rule if _fits(r.match, group)), None)
        classes: dict[str, str] = {}
        seconds: dict[str, float] = {}
        unknown: list[str] = []
        for layer in LAYERS:
            said = (getattr(rule, layer) if rule else "") or group[POSITION[layer]]
            found = said or getattr(self.file.defaults, layer)
            classes[layer] = found
            if found in self.file.classes or _is_duration(found):
                seconds[layer] = self.seconds_of(found)
            else:
                unknown.append(found)
                seconds[layer] = float("inf")
        for layer in (REDACTED, FULL):  # content never outlives its event
            seconds[layer] = min(seconds[layer], seconds[METADATA])
        is_thinned = rule is not None and rule.keep_one_in > 1
        return Terms(
            rule.name if rule else DEFAULT_RULE,
            seconds,
            classes,
            self.seconds_of(rule.sample_after) if rule and is_thinned else float("inf"),
            rule.keep_one_in if rule and is_thinned else 0,
            tuple(dict.fromkeys(unknown)),
        )

    def due(self, group: Group, day: str, now_seconds: float) -> Due:
        """What is due for access documents of a group and a day `YYYY.MM.DD`."""
        terms, age = self.terms(group), age_seconds(day, now_seconds)
        if age >= terms.seconds[METADATA]:
            return Due(drop=True)
        there = STORED_AT.get(group[POSITION["level"]], ())
        strip = frozenset(layer for layer in there if age >= terms.seconds[layer])
        thins = age >= terms.sample_after_seconds
        return Due(False, strip, terms.keep_one_in if thins else 0)

    def kind_seconds(self, kind: str) -> float:
        """How long an index of findings, alerts, dead letters or summaries is kept."""
        return self.seconds_of(kept_by_kind(self.file).get(kind, FOREVER))

    def shortest_seconds(self, layer: str) -> float:
        """The shortest time a layer is kept of anything this policy can say."""
        said = [getattr(self.file.defaults, layer), *self.file.classes.values()]
        said += [text for rule in self.file.rule if (text := getattr(rule, layer))]
        return min(self.seconds_of(text) for text in said)

    def first_due_seconds(self) -> float:
        """The least age of a day at which anything can be due."""
        thinned = [r.sample_after for r in self.file.rule if r.keep_one_in > 1]
        return min(
            *(self.shortest_seconds(layer) for layer in LAYERS),
            *(self.seconds_of(text) for text in thinned),
            float("inf"),
        )

    def warnings(self) -> Iterator[str]:
        """What is allowed, and perhaps not meant."""
        for layer, lower in ((REDACTED, METADATA), (FULL, METADATA), (FULL, REDACTED)):
            told = getattr(self.file.defaults, layer), getattr(self.file.defaults, lower)
            if self.seconds_of(told[0]) > self.seconds_of(told[1]):
                yield f"defaults: {layer} ({told[0]}) is longer than {lower} ({told[1]})"
        for number, rule in enumerate(self.file.rule):
            if rule.match == Match() and number + 1 < len(self.file.rule):
                yield f"rule {rule.name}: matches everything, so the rules after it never do"
        for kind in ("finding", "alert", "deadletter"):
            if kind not in self.file.kinds:
                yield f"kinds: {kind} is not named, so it is kept for ever"
        if min(self.shortest_seconds(layer) for layer in LAYERS) < LEAST_IN_TOPIC_SECONDS:
            yield (
                "kafka: a layer goes sooner than in 1 h 20 min; topics keep messages for so long "
                "all the same, so that workers can read them"
            )
        if not self.file.summaries and any(r.keep_one_in > 1 for r in self.file.rule):
            yield "summaries = false, but a rule thins: what it takes away is counted nowhere else"


def kept_by_kind(found: PolicyFile) -> dict[str, str]:
    """What goes by whole indices, and how long it is kept."""
    return {**SUMMARY_DEFAULTS, **{str(kind): text for kind, text in found.kinds.items()}}


def age_seconds(day: str, now_seconds: float) -> float:
    """Time since the end of a day `YYYY.MM.DD`; negative while it lasts."""
    start = datetime.strptime(day, "%Y.%m.%d").replace(tzinfo=UTC).timestamp()
    return now_seconds - (start + DAY_SECONDS)


def _is_duration(text: str) -> bool:
    return text == FOREVER or _DURATION.fullmatch(text) is not None


def _fits(match: Match, group: Group) -> bool:
    wanted = {
        "tenant": match.tenant,
        "model": match.model,
        "service": match.service,
        "operation": match.operation,
        "outcome": match.outcome,
        "data_class": match.data_class,
        "metadata": match.class_,
    }
    return all(
        patterns is None or _matches(patterns, group[POSITION[name]])
        for name, patterns in wanted.items()
    )


def _matches(patterns: Patterns, value: str) -> bool:
    some = (patterns,) if isinstance(patterns, str) else patterns
    return any(fnmatchcase(value, pattern) for pattern in some)


def _faults(found: PolicyFile) -> Iterator[tuple[str, str]]:
    for where, text in _durations(found):
        is_class = where.startswith("classes.")  # a class is a duration, not another class
        try:
            duration_seconds(text if is_class else found.classes.get(text, text))
        except ValueError as error:
            yield where, str(error)
    names: set[str] = set()
    for rule in found.rule:
        if rule.name in names or rule.name == DEFAULT_RULE:
            yield f"rule {rule.name}", "this name is taken"
        names.add(rule.name)
        if (rule.keep_one_in > 1) != bool(rule.sample_after):
            yield f"rule {rule.name}", "sample_after and keep_one_in (2 or more) go together"
    if found.size.max_index:
        try:
            size_bytes(found.size.max_index)
        except ValueError as error:
            yield "size.max_index", str(error)
    kinds = kept_by_kind(found)
    with suppress(ValueError):  # told above
        hours, days = (
            duration_seconds(found.classes.get(text, text))
            for text in (kinds["summary-hour"], kinds["summary-day"])
        )
        if hours > days:
            yield "kinds.summary-hour", f"longer than summary-day ({kinds['summary-day']})"
    if found.disk.warn_percent > found.disk.act_percent:
        yield "disk", "warn_percent is above act_percent"
    if "delete_snapshotted" in found.disk.order and found.snapshot is None:
        yield "disk.order", "delete_snapshotted needs [snapshot]"


def _durations(found: PolicyFile) -> Iterator[tuple[str, str]]:
    """Every place that has to hold a duration or the name of a class."""
    for layer in LAYERS:
        yield f"defaults.{layer}", getattr(found.defaults, layer)
    for name, text in found.classes.items():
        yield f"classes.{name}", text
    for rule in found.rule:
        for field in (*LAYERS, "sample_after"):
            if text := getattr(rule, field):
                yield f"rule {rule.name}: {field}", text
    for kind, text in found.kinds.items():
        yield f"kinds.{kind}", text
    yield "cold.after", found.cold.after
    yield "disk.keep_at_least", found.disk.keep_at_least
    yield "kafka.replay", found.kafka.replay


def explained(terms: Terms) -> dict[str, Any]:
    """What a policy says, as it is printed."""
    return {
        "rule": terms.rule,
        "classes": dict(terms.classes),
        "keep_one_in": terms.keep_one_in,
        "unknown_classes": list(terms.unknown_classes),
    }
