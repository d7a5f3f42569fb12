"""Where the engines live and how large they are; read from the environment once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from gatebook.engines.errors import BadSetting

EngineKind = Literal["auto", "embedded", "docker", "external"]
EngineName = Literal["kafka", "elasticsearch"]
ENGINE_NAMES: tuple[EngineName, ...] = get_args(EngineName)

MAVEN_CENTRAL = "https://repo1.maven.org/maven2"
KAFKA_PREFIX = "GATEBOOK_KAFKA_"
SECRETS = ("elasticsearch_api_key", "elasticsearch_password", "kafka_properties")
LOOPBACK = "127.0.0.1"  # never another address: nothing inside the engines asks who you are

Port = Annotated[int, Meta(ge=1, le=65_535)]
HeapMib = Annotated[int, Meta(ge=128)]
Seconds = Annotated[float, Meta(gt=0)]


def default_home(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the engines keep their data: GATEBOOK_HOME, else the user's data directory."""
    if home := environment.get("GATEBOOK_HOME"):
        return Path(home).expanduser().absolute()
    data = environment.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser().absolute() / "gatebook"


def default_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """Where downloads are kept: GATEBOOK_CACHE_DIR, else the user's cache directory."""
    if cache := environment.get("GATEBOOK_CACHE_DIR"):
        return Path(cache).expanduser().absolute()
    caches = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser().absolute() / "gatebook"


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One set of engines. Two sets side by side need two homes and other ports."""

    engine: EngineKind = "auto"
    """GATEBOOK_ENGINE: which kind to start. `auto` takes the addresses below if they are
    given, else Docker if it answers, else the embedded engines."""

    kafka_bootstrap: str | None = None
    """GATEBOOK_KAFKA_BOOTSTRAP: host:port,... of a Kafka that somebody else runs."""

    elasticsearch_url: str | None = None
    """GATEBOOK_ELASTICSEARCH_URL: address of an Elasticsearch that somebody else runs."""

    kafka_properties: dict[str, str] = {}
    """GATEBOOK_KAFKA_<PROPERTY>: how to log in to that Kafka, in librdkafka's words."""

    elasticsearch_api_key: str = ""
    """GATEBOOK_ELASTICSEARCH_API_KEY: how to log in to that Elasticsearch."""

    elasticsearch_username: str = ""
    """GATEBOOK_ELASTICSEARCH_USERNAME: the same by name, where there is no API key."""

    elasticsearch_password: str = ""
    """GATEBOOK_ELASTICSEARCH_PASSWORD: the password to that name."""

    elasticsearch_ca_file: str = ""
    """GATEBOOK_ELASTICSEARCH_CA_FILE: PEM file of the authority that signed its certificate."""

    namespace: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,39}$")] = "gatebook"
    """GATEBOOK_NAMESPACE: whose topics, indices and groups `gatebook doctor` looks at."""

    home: Path = msgspec.field(default_factory=default_home)
    """GATEBOOK_HOME: engines keep data, logs and state here (default ~/.local/share/gatebook)."""

    cache_dir: Path = msgspec.field(default_factory=default_cache)
    """GATEBOOK_CACHE_DIR: downloaded jars, shared by all homes (default ~/.cache/gatebook)."""

    maven_repository: str = MAVEN_CENTRAL
    """GATEBOOK_MAVEN_REPOSITORY: base URL of the Maven repository to download from."""

    kafka_port: Port = 19092
    """GATEBOOK_KAFKA_PORT: Kafka's port for clients, on loopback."""

    kafka_controller_port: Port = 19093
    """GATEBOOK_KAFKA_CONTROLLER_PORT: Kafka's port for its own controller, on loopback."""

    elasticsearch_port: Port = 19200
    """GATEBOOK_ELASTICSEARCH_PORT: Elasticsearch's HTTP port, on loopback."""

    elasticsearch_transport_port: Port = 19300
    """GATEBOOK_ELASTICSEARCH_TRANSPORT_PORT: its port between nodes, on loopback."""

    kafka_heap_mib: HeapMib = 512
    """GATEBOOK_KAFKA_HEAP_MIB: largest Java heap of Kafka, in MiB."""

    elasticsearch_heap_mib: HeapMib = 1024
    """GATEBOOK_ELASTICSEARCH_HEAP_MIB: largest Java heap of Elasticsearch, in MiB."""

    start_timeout_seconds: Seconds = 120.0
    """GATEBOOK_START_TIMEOUT_SECONDS: how long an engine may take until it answers."""

    stop_timeout_seconds: Seconds = 30.0
    """GATEBOOK_STOP_TIMEOUT_SECONDS: how long an engine may take to stop before SIGKILL."""

    def __post_init__(self) -> None:
        for name in PORT_FIELDS:
            port = getattr(self, name)
            if not 1 <= port <= 65535:
                raise _bad(name, f"{port} is no port number", "choose one from 1024 to 65535")
        if len({getattr(self, name) for name in PORT_FIELDS}) < len(PORT_FIELDS):
            raise _bad("kafka_port", "two engine ports are the same", "give each its own port")
        if (self.kafka_bootstrap is None) != (self.elasticsearch_url is None):
            raise _bad("kafka_bootstrap", "one address is set without the other", BOTH_OR_NONE)

    @property
    def engines_dir(self) -> Path:
        return self.home / "engines"

    @property
    def logs_dir(self) -> Path:
        return self.engines_dir / "logs"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> EngineSettings:
        """Settings from GATEBOOK_* variables; an unusable value raises BadSetting."""
        given: dict[str, Any] = {
            "home": default_home(environment),
            "cache_dir": default_cache(environment),
            "kafka_properties": passed_through(environment),
        }
        for field in msgspec.structs.fields(cls):
            text = environment.get(variable(field.name))
            if text and field.name not in given:
                given[field.name] = _convert(field, text)
        return cls(**_without_own_address(given))

    def __repr__(self) -> str:
        """All fields but the secrets."""
        shown = {n: getattr(self, n) for n in self.__struct_fields__ if n not in SECRETS}
        return f"EngineSettings({shown})"


PORT_FIELDS = (
    "kafka_port",
    "kafka_controller_port",
    "elasticsearch_port",
    "elasticsearch_transport_port",
)
PORT_OF = {"kafka_bootstrap": "kafka_port", "elasticsearch_url": "elasticsearch_port"}
BOTH_OR_NONE = "set both GATEBOOK_KAFKA_BOOTSTRAP and GATEBOOK_ELASTICSEARCH_URL, or neither"


def variable(field_name: str) -> str:
    """The environment variable of a setting."""
    return f"GATEBOOK_{field_name.upper()}"


def passed_through(environment: Mapping[str, str]) -> dict[str, str]:
    """librdkafka's properties: GATEBOOK_KAFKA_SECURITY_PROTOCOL -> security.protocol. Those names
    that are settings of their own are left out."""
    own = {variable(name) for name in EngineSettings.__struct_fields__}
    return {
        name.removeprefix(KAFKA_PREFIX).lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith(KAFKA_PREFIX) and name not in own
    }


def _without_own_address(given: dict[str, Any]) -> dict[str, Any]:
    """One address alone that is where our own engine listens (`gatebook attach` prints Kafka's for
    services) names nobody else's engine. Both together are left as they are."""
    alone = [name for name in PORT_OF if given.get(name)]
    if len(alone) != 1 or given.get("engine") == "external":
        return given
    (name,) = alone
    field = PORT_OF[name]
    port = given.get(field) or getattr(EngineSettings(), field)
    address = given[name].rstrip("/").removeprefix("http://")
    own = {f"{host}:{port}" for host in (LOOPBACK, "localhost")}
    return {key: value for key, value in given.items() if key != name or address not in own}


def _convert(field: msgspec.structs.FieldInfo, text: str) -> Any:
    try:
        return msgspec.convert(text, field.type, strict=False)
    except msgspec.ValidationError as error:
        raise _bad(field.name, str(error), "correct or unset it") from error


def _bad(field_name: str, problem: str, next_step: str) -> BadSetting:
    return BadSetting(f"{variable(field_name)} cannot be used: {problem}.", next_step)


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """Where running engines answer."""

    engine: str
    """embedded, docker or external."""

    kafka_bootstrap: str
    """host:port for Kafka clients."""

    elasticsearch_url: str
    """Base URL, without a trailing slash."""

    best_compression_available: bool = True
    """Whether an index may use `codec: best_compression`. False only for embedded engines on a
    machine without libzstd: there, such an index would fail at its first commit."""

    def as_environment(self) -> dict[str, str]:
        """The two variables with which any Gatebook command or test finds these engines."""
        return {
            "GATEBOOK_KAFKA_BOOTSTRAP": self.kafka_bootstrap,
            "GATEBOOK_ELASTICSEARCH_URL": self.elasticsearch_url,
        }


class EngineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One engine as it is now."""

    name: EngineName
    state: Literal["running", "unhealthy", "stopped", "stale"]
    """unhealthy: the process lives and does not answer; stale: recorded, but its process is
    gone (killed, or the machine was restarted)."""
    address: str
    pid: int | None = None
    uptime_seconds: float | None = None
    log: str | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """All engines of one home."""

    engine: str
    engines: tuple[EngineStatus, ...]
    best_compression_available: bool = True

    @property
    def running(self) -> bool:
        """True when every engine answers."""
        return bool(self.engines) and all(one.state == "running" for one in self.engines)
