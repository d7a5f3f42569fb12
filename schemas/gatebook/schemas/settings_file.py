"""Settings from a TOML file: the file named by GATEBOOK_CONFIG, below the environment.

A key is a setting's name in lower case without GATEBOOK_; tables join their names. The environment
wins over the file, so that one file can serve many hosts:

    kafka_bootstrap = "kafka-1:9092,kafka-2:9092"
    trusted_proxies = ["10.0.0.0/8"]
    capture_level = "redacted"

    [kafka]
    security_protocol = "SASL_SSL"        # GATEBOOK_KAFKA_SECURITY_PROTOCOL
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gatebook.schemas.errors import WrongSetting

VARIABLE = "GATEBOOK_CONFIG"
PREFIX = "GATEBOOK_"
KAFKA_PREFIX = "GATEBOOK_KAFKA_"
# GATEBOOK_KAFKA_* names that are settings of their own, here or of the embedded engines.
NOT_LIBRDKAFKA = frozenset({"BOOTSTRAP", "PORT", "CONTROLLER_PORT", "HEAP_MIB"})
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_NEXT_STEP = "see infra/SETTINGS.md for the names, or `gatebook settings`"


def with_file(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment over the settings of the file it names, if it names one.

    Raises WrongSetting, never with a value, for a file that cannot be read or is no settings.
    """
    path = environ.get(VARIABLE, "")
    return {**(_read(Path(path).expanduser()) if path else {}), **environ}


def local_addresses(environ: Mapping[str, str]) -> dict[str, str]:
    """Where engines on this machine are, for whoever was told their ports and no addresses."""
    kafka = environ.get("GATEBOOK_KAFKA_PORT")
    elasticsearch = environ.get("GATEBOOK_ELASTICSEARCH_PORT")
    found = {}
    if kafka:
        found["kafka_bootstrap"] = f"127.0.0.1:{kafka}"
    if elasticsearch:
        found["elasticsearch_url"] = f"http://127.0.0.1:{elasticsearch}"
    return found


def kafka_passthrough(environ: Mapping[str, str]) -> dict[str, str]:
    """librdkafka properties: GATEBOOK_KAFKA_SECURITY_PROTOCOL -> security.protocol, and so on."""
    return {
        name.removeprefix(KAFKA_PREFIX).lower().replace("_", "."): value
        for name, value in environ.items()
        if name.startswith(KAFKA_PREFIX) and name.removeprefix(KAFKA_PREFIX) not in NOT_LIBRDKAFKA
    }


def _read(path: Path) -> dict[str, str]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise WrongSetting(
            f"{VARIABLE}: {path} cannot be read: {type(error).__name__}", _NEXT_STEP
        ) from None
    return {PREFIX + name.upper(): value for name, value in _settings(tables, "")}


def _settings(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        name = prefix + key
        if not _NAME.fullmatch(key):
            raise WrongSetting(f"{VARIABLE}: {name!r} is no name of a setting", _NEXT_STEP)
        if isinstance(value, dict):
            yield from _settings(value, f"{name}_")
        else:
            yield name, _text(name, value)


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list):
        return ",".join(_text(name, item) for item in value)
    raise WrongSetting(f"{VARIABLE}: {name} is of a kind no setting has", _NEXT_STEP)
