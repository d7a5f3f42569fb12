"""Settings of the workers: read from the environment once, checked at start.

Every field is one environment variable: GATEBOOK_ and the field's name in capitals.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gatebook.schemas.errors import Fatal, WrongSetting
from gatebook.schemas.key_files import warn_if_exposed
from gatebook.schemas.keys import PRIVATE_NAME, FileSource, KeySource, open_source
from gatebook.schemas.setting_errors import wrong_setting
from gatebook.schemas.settings_file import kafka_passthrough, local_addresses

PREFIX = "GATEBOOK_"
MIN_KEY_BYTES = 16

Port = Annotated[int, Meta(ge=0, le=65_535)]
Positive = Annotated[int, Meta(gt=0)]
Seconds = Annotated[float, Meta(gt=0)]


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker needs to know. `check()` has been called on every instance `from_env` makes."""

    kafka_bootstrap: Annotated[str, Meta(description="Kafka brokers, host:port,...")] = (
        "127.0.0.1:19092"
    )
    elasticsearch_url: Annotated[str, Meta(description="Elasticsearch, http(s)://host:port")] = (
        "http://127.0.0.1:19200"
    )
    namespace: Annotated[
        str,
        Meta(pattern=r"^[a-z][a-z0-9_]{0,39}$", description="Prefix of topics, indices, groups"),
    ] = "gatebook"
    home: Annotated[
        str,
        Meta(description="Where keys and local state are kept; default: the user's data folder"),
    ] = ""
    redaction_key_file: Annotated[
        str, Meta(description="Key for pseudonyms, shared by all workers; made if absent")
    ] = ""
    redaction_epoch: Annotated[
        str, Meta(pattern=r"^[a-z0-9]{1,8}$", description="Name of the pseudonym epoch")
    ] = "e1"
    redaction_rules: Annotated[
        str, Meta(description="Folder of redaction rules of your own, run beside the packaged ones")
    ] = ""
    redaction_policy: Annotated[
        str, Meta(description="TOML: values that stay unmasked, rules that are switched off")
    ] = ""
    redaction_ner: Annotated[
        str, Meta(description="Python module that finds names and addresses, run in a process")
    ] = ""
    sealing_keys: Annotated[
        str,
        Meta(
            description="Private keys that open sealed content: file:PATH, env:NAME or a plug-in; "
            "default: keys/sealing-private.json in home. Read again when it changes"
        ),
    ] = ""
    directory_file: Annotated[str, Meta(description="TOML: users by id and by key id")] = ""
    services_file: Annotated[str, Meta(description="TOML: the service catalogue")] = ""
    detectors_file: Annotated[str, Meta(description="TOML: parameters of detectors")] = ""
    rules_path: Annotated[str, Meta(description="Folder with detection rules of your own")] = ""
    detect_idle_seconds: Annotated[
        Seconds, Meta(description="How often partitions without events are told the time")
    ] = 5.0
    clock_margin_seconds: Annotated[
        Seconds,
        Meta(description="How far clocks of workers and brokers may be apart, at most"),
    ] = 5.0
    batch_messages: Annotated[Positive, Meta(description="Kafka messages a batch")] = 200
    batch_bytes: Annotated[Positive, Meta(description="Bytes of messages a batch")] = (
        8 * 1024 * 1024
    )
    commit_interval_seconds: Annotated[Seconds, Meta(description="Between offset commits")] = 1.0
    session_timeout_seconds: Annotated[
        float,
        Meta(ge=6, le=300, description="A worker that is silent so long loses its partitions"),
    ] = 30.0
    stall_seconds: Annotated[
        Seconds, Meta(description="No progress for so long with work waiting: exit, be restarted")
    ] = 120.0
    stop_deadline_seconds: Annotated[
        Seconds, Meta(description="After SIGTERM the process ends within this time")
    ] = 15.0
    reconcile_after_seconds: Annotated[
        Seconds,
        Meta(description="An intent without an end is incomplete so long after it came in"),
    ] = 3600.0
    reconcile_interval_seconds: Annotated[
        Seconds, Meta(description="Between two searches for intents without an end")
    ] = 60.0
    reconcile_lookback_seconds: Annotated[
        Seconds, Meta(description="How far back a reconciler looks when it starts")
    ] = 7 * 86_400.0
    metrics_port: Annotated[
        Port,
        Meta(
            description="Prometheus metrics on loopback at this port; 0: none. `gatebook worker` "
            "gives each of its workers a port of its own: this one and those that follow, in the "
            "order intake, index, detect, notify, reconcile, summaries (which opens none), "
            "retention"
        ),
    ] = 0
    log_level: Annotated[
        str,
        Meta(pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least level that is logged"),
    ] = "INFO"

    def check(self) -> WorkerSettings:
        """Refuse what would go wrong later. Raises Fatal."""
        if not self.elasticsearch_url.startswith(("http://", "https://")):
            raise WrongSetting(
                "GATEBOOK_ELASTICSEARCH_URL is not an http(s) address",
                "set it like http://127.0.0.1:19200",
            )
        return self

    @property
    def home_path(self) -> Path:
        """Where local state is kept, GATEBOOK_HOME or the user's data folder."""
        default = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "gatebook"
        return (Path(self.home) if self.home else default).expanduser().absolute()

    def private_key_source(self) -> KeySource:
        """Where the keys are that open content: as set, or in the home. Raises WrongSetting."""
        if self.sealing_keys:
            return open_source(self.sealing_keys)
        return FileSource(self.home_path / "keys" / PRIVATE_NAME)

    def redaction_key(self) -> bytes:
        """The pseudonym key; made with mode 0600 where no file is there yet."""
        given = self.redaction_key_file
        path = Path(given) if given else self.home_path / "keys" / "redaction.key"
        return read_or_make_key(path)


def read_or_make_key(path: Path) -> bytes:
    """At least 16 bytes from a file, made there (mode 0600) by the first who asks."""
    try:
        if not path.exists():
            _make_key(path)
        key = path.read_bytes()
    except OSError as error:
        raise Fatal(
            f"the key {path} cannot be made or read: {error.strerror}",
            "set GATEBOOK_HOME to a folder that can be written, or GATEBOOK_REDACTION_KEY_FILE",
        ) from None
    if len(key) < MIN_KEY_BYTES:
        raise Fatal(f"{path} holds fewer than {MIN_KEY_BYTES} bytes", "delete it or restore it")
    warn_if_exposed(path)
    return key


def _make_key(path: Path) -> None:
    """A key that stands there whole or not at all, whoever else makes one at the same moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())  # pseudonyms made with a key that is lost cannot be matched
        with suppress(FileExistsError):
            os.link(draft, path)  # the first one wins, unlike with a rename
    finally:
        draft.unlink()


def from_env(environ: Mapping[str, str] | None = None) -> WorkerSettings:
    """Settings from GATEBOOK_* variables. Raises Fatal naming the variable that is wrong."""
    source = os.environ if environ is None else environ
    names = WorkerSettings.__struct_fields__
    given = {n: source[PREFIX + n.upper()] for n in names if source.get(PREFIX + n.upper())}
    given = local_addresses(source) | given
    try:
        return msgspec.convert(given, WorkerSettings, strict=False).check()
    except msgspec.ValidationError as error:
        raise wrong_setting(error, WorkerSettings) from None


def kafka_properties(bootstrap: str, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """librdkafka properties: GATEBOOK_KAFKA_SECURITY_PROTOCOL -> security.protocol, and so on."""
    source = os.environ if environ is None else environ
    # librdkafka's own lines are no JSON and come by the hundred; what matters comes as an error.
    return {"bootstrap.servers": bootstrap, "log_level": 0, **kafka_passthrough(source)}
