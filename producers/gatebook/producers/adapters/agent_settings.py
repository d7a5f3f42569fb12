"""Settings of `gatebook agent`, and the token that its HTTP clients show."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gatebook.schemas.errors import Fatal, WrongSetting
from gatebook.schemas.setting_errors import wrong_setting

PREFIX = "GATEBOOK_AGENT_"
MIN_TOKEN_BYTES = 16
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

Seconds = Annotated[float, Meta(gt=0)]


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of `gatebook agent`. What is recorded, and where to, the producer's settings say."""

    listen: Annotated[
        str,
        Meta(description="host:port for HTTP; empty: only the Unix socket", pattern=r"^(.+:\d+)?$"),
    ] = "127.0.0.1:4320"
    socket: Annotated[str, Meta(description="Path of a Unix socket; empty: none")] = ""
    socket_mode: Annotated[
        str, Meta(description="Its file mode: who may send events", pattern=r"^0?[0-7]{3}$")
    ] = "0600"
    token_file: Annotated[
        str,
        Meta(
            description="File (mode 0600) with the bearer token that HTTP wants; default: "
            "keys/agent.token in home, made where it is absent"
        ),
    ] = ""
    allow_remote: Annotated[
        bool, Meta(description="Listen beyond loopback: token and events travel without TLS")
    ] = False
    body_max_bytes: Annotated[int, Meta(ge=1024, description="Bytes of one request's body")] = (
        4 * 1024 * 1024
    )
    bodies_max_bytes: Annotated[
        int, Meta(ge=1024, description="Bytes of all bodies under way; above it: 429")
    ] = 64 * 1024 * 1024
    connections_max: Annotated[int, Meta(ge=1, description="Connections at the same time")] = 64
    request_timeout_seconds: Annotated[
        Seconds, Meta(description="A request must have come in whole after so long")
    ] = 15.0
    idle_timeout_seconds: Annotated[
        Seconds, Meta(description="A connection without a request is closed after so long")
    ] = 60.0
    retry_after_seconds: Annotated[
        int, Meta(ge=1, description="Retry-After of an answer 429 or 503")
    ] = 2

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **given: Any) -> AgentSettings:
        """Checked settings from GATEBOOK_AGENT_* variables; `given` goes before them. Raises
        Fatal."""
        source = os.environ if environ is None else environ
        found: dict[str, Any] = {
            name: source[PREFIX + name.upper()]
            for name in cls.__struct_fields__
            if source.get(PREFIX + name.upper())
        }
        found |= {name: value for name, value in given.items() if value is not None}
        try:
            return msgspec.convert(found, cls, strict=False).check()
        except msgspec.ValidationError as error:
            raise wrong_setting(error, cls, PREFIX) from None

    def check(self) -> AgentSettings:
        """Refuse what would be dangerous. Raises Fatal."""
        if not self.listen and not self.socket:
            raise WrongSetting("the agent would listen nowhere", "set --listen or --socket")
        if self.listen and self.address[0] not in _LOOPBACK and not self.allow_remote:
            raise WrongSetting(
                f"{self.listen} can be reached from elsewhere: token and events would travel "
                "without TLS",
                "listen on 127.0.0.1 behind a proxy that speaks TLS, or set "
                f"{PREFIX}ALLOW_REMOTE=true",
            )
        return self

    @property
    def socket_path(self) -> Path:
        """`socket` as a path."""
        return Path(self.socket).expanduser()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `listen`."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def read_token(settings: AgentSettings, home: Path) -> bytes:
    """The bearer token; made where the default file is absent. Raises Fatal for a file that
    others may read, that cannot be read, or that holds no token."""
    path = token_path(settings, home)
    if not path.exists() and not settings.token_file:
        _make_token(path)
    try:
        mode, token = path.stat().st_mode, path.read_bytes().strip()
    except OSError as error:
        raise Fatal(
            f"the agent's token cannot be read from {path}: {error.strerror}",
            f"openssl rand -hex 32 | install -m 600 /dev/stdin {path}",
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Fatal(f"others may read the agent's token, {path}", f"chmod 600 {path}")
    if len(token) < MIN_TOKEN_BYTES:
        raise Fatal(f"{path} holds fewer than {MIN_TOKEN_BYTES} bytes", "make a longer token")
    return token


def token_path(settings: AgentSettings, home: Path) -> Path:
    """Where the token is."""
    given = settings.token_file
    return Path(given).expanduser() if given else home / "keys" / "agent.token"


def _make_token(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    except OSError as error:
        raise Fatal(
            f"the agent's token cannot be kept at {path}: {error.strerror}",
            f"set {PREFIX}TOKEN_FILE, or GATEBOOK_HOME to a folder that can be written",
        ) from None
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32) + "\n")
