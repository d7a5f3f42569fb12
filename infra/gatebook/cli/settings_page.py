"""Every setting of every part, read from the structs that define them.

A setting is documented where it is defined: by `Meta(description=...)` or by the string below the
field. Here they are only gathered; a part that is not installed is named, not hidden.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
import typing
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec import inspect as types

PREFIX = "GATEBOOK_"
KAFKA_PASSTHROUGH = "GATEBOOK_KAFKA_<PROPERTY>"


class Source(Struct, frozen=True):
    """A struct of settings: which part reads it, and from variables with which prefix."""

    part: str
    module: str
    struct: str
    prefix: str = PREFIX


SOURCES = (
    Source("producer", "gatebook.producers.config", "ProducerSettings"),
    Source(
        "agent",
        "gatebook.producers.adapters.agent_settings",
        "AgentSettings",
        "GATEBOOK_AGENT_",
    ),
    Source("proxy", "gatebook.producers.adapters.proxy", "ProxySettings", "GATEBOOK_PROXY_"),
    Source("worker", "gatebook.processors.config", "WorkerSettings"),
    Source(
        "worker",
        "gatebook.processors.sinks.settings",
        "ElasticsearchSettings",
        "GATEBOOK_ELASTICSEARCH_",
    ),
    Source(
        "worker", "gatebook.processors.subjects.settings", "SubjectSettings", "GATEBOOK_SUBJECT_"
    ),
    Source("worker index", "gatebook.processors.sinks.settings", "SinkSettings", "GATEBOOK_SINK_"),
    Source(
        "retention",
        "gatebook.processors.retention.settings",
        "RetentionSettings",
        "GATEBOOK_RETENTION_",
    ),
    Source("worker notify", "gatebook.processors.alerts.settings", "AlertSettings"),
    Source(
        "serve",
        "gatebook.processors.serve.access.settings",
        "AccessSettings",
        "GATEBOOK_SERVE_",
    ),
    Source("serve", "gatebook.processors.serve.settings", "ServeSettings", "GATEBOOK_SERVE_"),
    Source("engines", "gatebook.engines.settings", "EngineSettings"),
)
SHARED = "several parts"


class Setting(Struct, frozen=True, kw_only=True):
    """One environment variable."""

    variable: str
    default: str
    """As one would write it; empty: not set."""
    kind: str
    """Type and range, in words."""
    meaning: str
    """Empty where the field says nothing: a test forbids that."""
    read_by: tuple[str, ...]

    @property
    def group(self) -> str:
        """The heading under which it stands."""
        return self.read_by[0] if len(self.read_by) == 1 else SHARED


# Variables that are no field of a struct.
OTHERS = (
    Setting(
        variable=KAFKA_PASSTHROUGH,
        default="",
        kind="text",
        meaning="any property of librdkafka: GATEBOOK_KAFKA_SECURITY_PROTOCOL=SASL_SSL sets "
        "security.protocol",
        read_by=("worker",),
    ),
    Setting(
        variable="GATEBOOK_CONFIG",
        default="",
        kind="path",
        meaning="TOML file of settings: names in lower case without GATEBOOK_, tables join their "
        "names; the environment wins over the file",
        read_by=("producer", "worker", "engines"),
    ),
    Setting(
        variable="GATEBOOK_PROXY_HOST",
        default="127.0.0.1",
        kind="text",
        meaning="address the proxy listens on",
        read_by=("proxy",),
    ),
    Setting(
        variable="GATEBOOK_PROXY_PORT",
        default="8090",
        kind="number, 0 to 65535",
        meaning="port the proxy listens on; 0 takes a free one",
        read_by=("proxy",),
    ),
    Setting(
        variable="SCHEMA_REGISTRY_URL",
        default="",
        kind="text",
        meaning="write the Confluent wire format with schemas in this registry; not set: Avro "
        "single-object encoding, no registry",
        read_by=("producer", "worker"),
    ),
    Setting(
        variable="OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
        default="",
        kind="true | event_only | span_and_event | ...",
        meaning="these three: capture level redacted, where GATEBOOK_CAPTURE_LEVEL is not set",
        read_by=("producer",),
    ),
    Setting(
        variable="OTEL_SERVICE_NAME",
        default="",
        kind="text",
        meaning="service name where GATEBOOK_SERVICE_NAME is not set",
        read_by=("producer",),
    ),
    Setting(
        variable="OTEL_RESOURCE_ATTRIBUTES",
        default="",
        kind="name=value,...",
        meaning="service.name, service.version and deployment.environment.name where the "
        "GATEBOOK_SERVICE_* settings are not set",
        read_by=("producer",),
    ),
    Setting(
        variable="XDG_DATA_HOME",
        default="~/.local/share",
        kind="path",
        meaning="GATEBOOK_HOME is the folder gatebook in here where it is not set",
        read_by=("producer", "worker", "engines"),
    ),
    Setting(
        variable="XDG_CACHE_HOME",
        default="~/.cache",
        kind="path",
        meaning="GATEBOOK_CACHE_DIR is the folder gatebook in here where it is not set",
        read_by=("engines",),
    ),
    Setting(
        variable="GATEBOOK_DEMO_API_KEYS",
        default="",
        kind="list, separated by commas",
        meaning="set by `gatebook demo` for its own model server; of no use elsewhere",
        read_by=("demo",),
    ),
)


class Gathered(Struct, frozen=True):
    """All settings, and what could not be looked at."""

    settings: list[Setting]
    missing: dict[str, str]
    """Module -> the package that it needs and that is not installed."""


def gather(sources: Iterable[Source] = SOURCES) -> Gathered:
    """Every setting, one entry a variable, in the order in which the parts define them."""
    found: list[Setting] = []
    missing: dict[str, str] = {}
    for source in sources:
        try:
            struct = getattr(importlib.import_module(source.module), source.struct)
        except ModuleNotFoundError as error:
            missing[source.module] = error.name or "a package"
            continue
        found += settings_of(struct, source)
    return Gathered(list(merge([*found, *OTHERS]).values()), missing)


def settings_of(struct: type[Struct], source: Source) -> list[Setting]:
    """The settings of one struct."""
    texts = _field_texts(struct)
    return [_setting(field, texts, source) for field in msgspec.structs.fields(struct)]


def merge(settings: Iterable[Setting]) -> dict[str, Setting]:
    """One entry a variable, whichever parts read it."""
    merged: dict[str, Setting] = {}
    for one in settings:
        first = merged.get(one.variable)
        merged[one.variable] = _both(first, one) if first else one
    return merged


def contradictions(sources: Iterable[Source] = SOURCES) -> list[str]:
    """Variables that two parts read with two different defaults."""
    defaults: dict[str, set[str]] = {}
    for source in sources:
        struct = getattr(importlib.import_module(source.module), source.struct)
        for one in settings_of(struct, source):
            if one.default:
                defaults.setdefault(one.variable, set()).add(one.default)
    return [f"{name}: {sorted(values)}" for name, values in defaults.items() if len(values) > 1]


def unknown(environment: Mapping[str, str], settings: Iterable[Setting]) -> list[str]:
    """GATEBOOK_* variables that are set and that no part reads: typing errors, most likely."""
    names = {one.variable for one in settings}
    passed = KAFKA_PASSTHROUGH.partition("<")[0]
    return sorted(
        name
        for name in environment
        if name.startswith(PREFIX) and name not in names and not name.startswith(passed)
    )


def _both(first: Setting, second: Setting) -> Setting:
    parts = dict.fromkeys((*first.read_by, *second.read_by))
    meaning = first.meaning or second.meaning
    if second.meaning and second.meaning not in meaning:
        meaning += f"; {', '.join(second.read_by)}: {second.meaning}"
    return Setting(
        variable=first.variable,
        default=first.default or second.default,
        kind=max(first.kind, second.kind, key=len),
        meaning=meaning,
        read_by=tuple(parts),
    )


def _setting(field: msgspec.structs.FieldInfo, texts: Mapping[str, str], source: Source) -> Setting:
    info = types.type_info(field.type)
    extra = info.extra_json_schema or {} if isinstance(info, types.Metadata) else {}
    inner = info.type if isinstance(info, types.Metadata) else info
    is_passthrough = isinstance(inner, types.DictType)
    variable = KAFKA_PASSTHROUGH if is_passthrough else source.prefix + field.name.upper()
    text = str(extra.get("description", "")) or texts.get(field.name, "")
    return Setting(
        variable=variable,
        default=_default(field),
        kind=_choices(field.type) or kind_of(inner),
        meaning=_clean(text, variable),
        read_by=(source.part,),
    )


def _clean(text: str, variable: str) -> str:
    """One line, without the variable's own name in front, without the full stop."""
    line = " ".join(text.split()).removeprefix(f"{variable}: ")
    return line if line.endswith("...") else line.removesuffix(".")


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default
    if value is NODEFAULT and field.default_factory is not NODEFAULT:
        value = field.default_factory()
    if value is NODEFAULT or value is None or isinstance(value, PurePath | dict):
        return ""  # a path is this machine's: the meaning says how it comes about
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _choices(annotation: Any) -> str:
    """The values of a Literal in the order in which they are written; empty for other types."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    is_literal = typing.get_origin(annotation) is typing.Literal
    return " | ".join(map(str, typing.get_args(annotation))) if is_literal else ""


def kind_of(info: types.Type) -> str:
    """Type and range in words."""
    if isinstance(info, types.Metadata):
        return kind_of(info.type)
    if isinstance(info, types.UnionType):
        return " or ".join(kind_of(t) for t in info.types if not isinstance(t, types.NoneType))
    if isinstance(info, types.VarTupleType | types.ListType):
        return "list, separated by commas"
    if isinstance(info, types.IntType | types.FloatType):
        return _with_range("integer" if isinstance(info, types.IntType) else "number", info)
    if isinstance(info, types.BoolType):
        return "true | false"
    if isinstance(info, types.StrType) and info.pattern:
        closed = re.fullmatch(r"\^\(([\w|]+)\)\$", info.pattern)
        return closed[1].replace("|", " | ") if closed else f"text like {info.pattern}"
    return "path" if isinstance(info, types.CustomType) else "text"


def _with_range(noun: str, info: types.IntType | types.FloatType) -> str:
    if info.ge is not None and info.le is not None:
        return f"{noun}, {info.ge} to {info.le}"
    bounds = {"at least": info.ge, "above": info.gt, "at most": info.le, "below": info.lt}
    said = [f"{word} {bound}" for word, bound in bounds.items() if bound is not None]
    return f"{noun}, {' and '.join(said)}" if said else noun


def _field_texts(struct: type[Struct]) -> dict[str, str]:
    """The string that stands below a field, by the field's name."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(struct))).body
    assert isinstance(body, ast.ClassDef)
    texts: dict[str, str] = {}
    for node, below in zip(body.body, body.body[1:], strict=False):
        is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and is_text:
            assert isinstance(below, ast.Expr)
            assert isinstance(below.value, ast.Constant)
            texts[node.target.id] = str(below.value.value)
    return texts
