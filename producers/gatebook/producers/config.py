"""Settings of a producer: read from the environment once, checked at start.

Every field is one environment variable: GATEBOOK_ and the field's name in capitals. Lists are
separated by commas. GATEBOOK_KAFKA_<NAME> passes any other property to librdkafka, for example
GATEBOOK_KAFKA_SECURITY_PROTOCOL=SASL_SSL sets `security.protocol`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from gatebook.producers.identity_settings import IDENTITY_CHECKS
from gatebook.schemas.codec import MAX_EVENTS_PER_FRAME, MAX_MESSAGE_BYTES
from gatebook.schemas.errors import Fatal, WrongSetting
from gatebook.schemas.key_files import warn_if_exposed
from gatebook.schemas.keys import (
    PUBLIC_NAME,
    FileSource,
    KeySource,
    KeysUnavailable,
    open_source,
    parse,
)
from gatebook.schemas.sealing import require
from gatebook.schemas.setting_errors import wrong_setting
from gatebook.schemas.settings_file import kafka_passthrough, local_addresses, with_file

PREFIX = "GATEBOOK_"
# What would silently break the promise that acknowledged events are kept, once and in order.
FIXED_KAFKA_PROPERTIES = frozenset(
    {
        "acks",
        "request.required.acks",
        "enable.idempotence",
        "bootstrap.servers",
        "metadata.broker.list",
    }
)
LIST_FIELDS = frozenset(
    {
        "trusted_proxies",
        "exclude_paths",
        "identity_resolvers",
        "api_key_headers",
        "oidc_audience",
        "oidc_algorithms",
    }
)
WITH_CONTENT = frozenset({"redacted", "full"})  # capture levels
CAPTURE_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
CAPTURES_EVENTS = frozenset({"true", "event_only", "span_and_event"})
MIN_SECRET_BYTES = 16
MIN_FRAMES_IN_SPOOL = 4
FRAME_OVERHEAD_BYTES = 4096

DeliveryMode = Literal["best_effort", "buffered", "strict"]
CaptureLevel = Literal["none", "metadata", "redacted", "full"]
ForwardedHeader = Literal["x-forwarded-for", "forwarded"]
Intents = Literal["auto", "on", "off"]
CertificateName = Literal["subject", "common_name", "san"]
Positive = Annotated[int, Meta(gt=0)]
Seconds = Annotated[float, Meta(gt=0)]


class ProducerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a producer needs to know. `from_env` returns checked instances; check others yourself
    with `check()`."""

    kafka_bootstrap: Annotated[str, Meta(description="Kafka brokers, host:port,...")] = (
        "127.0.0.1:19092"
    )
    namespace: Annotated[
        str, Meta(pattern=r"^[a-z][a-z0-9_]{0,39}$", description="Prefix of the topics")
    ] = "gatebook"
    home: Annotated[
        str, Meta(description="Where keys and the spool are kept; default: the user's data folder")
    ] = ""
    producer_id: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$|^$",
            description="Stable id of this producer; default: service name and a stable host id",
        ),
    ] = ""
    service_name: Annotated[
        str, Meta(description="Service name; else OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES")
    ] = "model-service"
    service_version: Annotated[
        str, Meta(description="Service version; else service.version of OTEL_RESOURCE_ATTRIBUTES")
    ] = ""
    service_environment: Annotated[
        str,
        Meta(description="production, staging, ...; else deployment.environment.name of OTel"),
    ] = ""
    provider_name: Annotated[
        str, Meta(description="gen_ai.provider.name: llama_cpp, vllm, ollama, openai, ...")
    ] = ""
    delivery_mode: Annotated[
        DeliveryMode,
        Meta(
            description="best_effort: bounded memory; buffered: fsynced spool before the broker; "
            "strict: a request fails when its event cannot be made durable"
        ),
    ] = "buffered"
    intents: Annotated[
        Intents,
        Meta(
            description="Write a record before each call too, so that a request whose service was "
            "killed is seen as incomplete; auto: on in mode strict, else off, since it is two "
            "events a call for spool, Kafka and index: an outage fills the spool twice as fast"
        ),
    ] = "auto"
    spool_dir: Annotated[str, Meta(description="Spool folder; default: `spool` in home")] = ""
    spool_max_bytes: Annotated[Positive, Meta(description="Bytes of spool for one process")] = (
        1024 * 1024 * 1024
    )
    memory_buffer_max_bytes: Annotated[
        Positive, Meta(description="Bytes of events held in memory, approximately")
    ] = 64 * 1024 * 1024
    frame_max_events: Annotated[
        int, Meta(ge=1, le=MAX_EVENTS_PER_FRAME, description="Events of one Kafka message")
    ] = 500
    frame_max_bytes: Annotated[
        int,
        Meta(
            ge=16 * 1024,
            le=MAX_MESSAGE_BYTES,
            description="Bytes of one Kafka message; the broker's max.message.bytes must allow it",
        ),
    ] = 900_000
    linger_seconds: Annotated[
        float, Meta(ge=0, le=10, description="Wait so long for company before an fsync")
    ] = 0.01
    strict_timeout_seconds: Annotated[
        Seconds, Meta(description="strict: a request waits so long for its event to be durable")
    ] = 5.0
    flush_deadline_seconds: Annotated[
        Seconds, Meta(description="At the end of the process, wait so long for the broker")
    ] = 5.0
    heartbeat_interval_seconds: Annotated[
        Seconds, Meta(description="An empty frame this often when there are no events")
    ] = 30.0
    capture_level: Annotated[
        CaptureLevel,
        Meta(
            description="none: that it happened; metadata: no content; redacted: content, sealed "
            "here, redacted at intake; full: the original is kept as well, encrypted"
        ),
    ] = "metadata"
    capture_policy: Annotated[
        str,
        Meta(
            description="TOML file that says what is captured of which access; where it is set, "
            "the capture level has no say. Read again when it changes"
        ),
    ] = ""
    capture_policy_fallback: Annotated[
        Literal["none", "metadata"],
        Meta(
            description="What holds where the capture policy is broken or gone and there never was "
            "a good one here. none: accesses are counted only, and name nobody; metadata: who and "
            "what as well, for all tenants and without the policy's field rules"
        ),
    ] = "none"
    content_max_bytes: Annotated[
        Positive, Meta(description="Captured content of one event is cut at so many bytes")
    ] = 256 * 1024
    body_max_bytes: Annotated[
        Positive, Meta(description="A larger request or answer is not parsed, only counted")
    ] = 4 * 1024 * 1024
    sealing_public_keys: Annotated[
        str,
        Meta(
            description="Public keys to seal content for: file:PATH, env:NAME or a plug-in; "
            "default: keys/sealing-public.json in home. Read again when it changes"
        ),
    ] = ""
    sealing_period_seconds: Annotated[
        float, Meta(ge=1, le=86_400, description="A data key seals content for at most so long")
    ] = 600.0
    key_digest_secret: Annotated[
        str,
        Meta(description="HMAC secret for API keys and content digests; same on all hosts"),
    ] = ""
    key_digest_secret_file: Annotated[
        str, Meta(description="The same from a file; default: keys/key-digest.key in home, made")
    ] = ""
    identity_keys_file: Annotated[
        str, Meta(description="TOML: [keys.<key id>] with user_id, user_name, roles, ...")
    ] = ""
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(description="Addresses or networks of proxies whose headers are believed"),
    ] = ()
    forwarded_header: Annotated[
        ForwardedHeader,
        Meta(description="The one header in which those proxies write the caller's address"),
    ] = "x-forwarded-for"
    identity_resolvers: Annotated[
        tuple[str, ...],
        Meta(
            description="Ways to tell who calls, in order: oidc, api_key, mtls, header, anonymous"
        ),
    ] = ("oidc", "api_key", "mtls", "header", "anonymous")
    api_key_headers: Annotated[
        tuple[str, ...],
        Meta(description="Headers that hold an API key, besides Authorization: Bearer"),
    ] = ("x-api-key", "api-key")
    oidc_issuer: Annotated[
        str, Meta(description="Issuer URL of OIDC tokens, exactly as in their iss; empty: no OIDC")
    ] = ""
    oidc_audience: Annotated[
        tuple[str, ...], Meta(description="A token must be for one of these audiences")
    ] = ()
    oidc_algorithms: Annotated[
        tuple[str, ...], Meta(description="Accepted signature algorithms; public keys only")
    ] = ("RS256", "ES256", "EdDSA")
    oidc_jwks_url: Annotated[
        str, Meta(description="Where the issuer's keys are; default: found by discovery")
    ] = ""
    oidc_leeway_seconds: Annotated[
        float, Meta(ge=0, le=300, description="Clock difference allowed for exp and nbf")
    ] = 30.0
    oidc_refresh_seconds: Annotated[
        float, Meta(ge=1, description="Keys are fetched anew this often, in the background")
    ] = 600.0
    oidc_refetch_seconds: Annotated[
        float, Meta(ge=1, description="An unknown key id leads to a fetch at most this often")
    ] = 30.0
    oidc_stale_seconds: Annotated[
        float, Meta(ge=60, description="Keys are used so long while the issuer cannot be reached")
    ] = 86_400.0
    oidc_timeout_seconds: Annotated[
        Seconds, Meta(description="One fetch from the issuer takes at most so long")
    ] = 10.0
    oidc_user_claim: Annotated[
        str, Meta(min_length=1, description="Claim that is user.id; must not change for a person")
    ] = "sub"
    oidc_name_claim: Annotated[str, Meta(description="Claim that is user.name")] = "name"
    oidc_email_claim: Annotated[str, Meta(description="Claim that is user.email")] = "email"
    oidc_roles_claim: Annotated[
        str, Meta(description="Claim that is user.roles; a dot goes into an object")
    ] = "groups"
    oidc_organization_claim: Annotated[
        str, Meta(description="Claim that is organization.id, for example tid")
    ] = ""
    oidc_session_claim: Annotated[str, Meta(description="Claim that is session.id")] = "sid"
    mtls_name: Annotated[
        CertificateName,
        Meta(description="What of a client certificate is user.id: subject, common_name or san"),
    ] = "subject"
    mtls_xfcc_header: Annotated[
        str, Meta(description="X-Forwarded-Client-Cert, where trusted proxies set it; else empty")
    ] = ""
    mtls_subject_header: Annotated[
        str, Meta(description="X-SSL-Client-S-DN, where trusted proxies set it; else empty")
    ] = ""
    mtls_verify_header: Annotated[
        str, Meta(description="Must say SUCCESS or 0 beside mtls_subject_header; empty: not asked")
    ] = "x-ssl-client-verify"
    identity_user_header: Annotated[
        str, Meta(description="X-Forwarded-User or the like, set or removed by trusted proxies")
    ] = ""
    identity_email_header: Annotated[
        str,
        Meta(description="X-Auth-Request-Email or the like; user.id where that is all there is"),
    ] = ""
    identity_roles_header: Annotated[
        str, Meta(description="X-Auth-Request-Groups or the like: roles, separated by commas")
    ] = ""
    end_user_header: Annotated[
        str, Meta(description="Header in which a caller names the end user it acts for")
    ] = "x-end-user"
    session_header: Annotated[
        str, Meta(description="Header with a session id; stored as it is, so never a secret one")
    ] = ""
    exclude_paths: Annotated[tuple[str, ...], Meta(description="Paths that are not recorded")] = (
        "/health",
        "/healthz",
        "/metrics",
    )
    kafka_properties: Annotated[
        dict[str, str], Meta(description="librdkafka properties, from GATEBOOK_KAFKA_<NAME>")
    ] = {}

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> ProducerSettings:
        """Checked settings from the environment. Raises Fatal that names what is wrong."""
        source = with_file(os.environ) if environ is None else environ
        local = local_addresses(source)
        local.pop("elasticsearch_url", None)  # a producer never speaks to it
        given = local | _from_otel(source) | _own_fields(source)
        given["kafka_properties"] = kafka_passthrough(source)
        try:
            return msgspec.convert(given, cls, strict=False).check()
        except msgspec.ValidationError as error:
            raise wrong_setting(error, cls) from None

    def check(self) -> ProducerSettings:
        """Refuse what would go wrong, or be dangerous, later. Raises Fatal."""
        for check in _CHECKS:
            check(self)
        return self

    @property
    def effective_producer_id(self) -> str:
        """The producer id: as set, or the service's name with an id of this host."""
        if self.producer_id:
            return self.producer_id
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.service_name).strip("-._") or "service"
        return f"{name[:100]}-{host_id()}"

    @property
    def writes_intents(self) -> bool:
        """Whether a record is written before each call."""
        if self.intents == "auto":
            return self.delivery_mode == "strict"
        return self.intents == "on"

    @property
    def may_want_content(self) -> bool:
        """Whether content could be kept of an access; with a policy file, that file decides."""
        return bool(self.capture_policy) or self.capture_level in WITH_CONTENT

    @property
    def home_path(self) -> Path:
        """Where keys and the spool are kept."""
        default = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "gatebook"
        return (Path(self.home) if self.home else default).expanduser().absolute()

    @property
    def spool_path(self) -> Path:
        """Folder of all spools of this namespace, of this process and of others."""
        root = Path(self.spool_dir).expanduser() if self.spool_dir else self.home_path / "spool"
        return root / self.namespace

    @property
    def event_max_bytes(self) -> int:
        """Largest encoded event that still fits a frame of its own."""
        return self.frame_max_bytes - FRAME_OVERHEAD_BYTES

    def digest_secret(self) -> bytes:
        """The HMAC secret: as set, or from the key file, made with mode 0600 where it is absent.
        Raises Fatal where it can be neither read nor kept."""
        if self.key_digest_secret:
            return self.key_digest_secret.encode()
        given = self.key_digest_secret_file
        path = Path(given).expanduser() if given else self.home_path / "keys" / "key-digest.key"
        return _read_or_make_secret(path)

    def public_key_source(self) -> KeySource:
        """Where the public keys of intake are: as set, or in the home. Raises WrongSetting."""
        if self.sealing_public_keys:
            return open_source(self.sealing_public_keys)
        return FileSource(self.home_path / "keys" / PUBLIC_NAME)

    def trusted_networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """`trusted_proxies`, parsed."""
        return tuple(ipaddress.ip_network(item, strict=False) for item in self.trusted_proxies)

    def __repr__(self) -> str:
        """Without secrets: neither the digest secret nor values of Kafka properties."""
        shown = {
            name: getattr(self, name)
            for name in self.__struct_fields__
            if name not in ("key_digest_secret", "kafka_properties")
        }
        shown["kafka_properties"] = sorted(self.kafka_properties)
        return f"ProducerSettings({shown})"


def host_id() -> str:
    """Twelve hex digits that stay the same on this host across restarts, and differ elsewhere."""
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except OSError:
        machine = ""
    # Containers of one image may share a machine id, so the host's name goes in as well.
    return hashlib.sha256(f"{machine}|{socket.gethostname()}".encode()).hexdigest()[:12]


def _own_fields(environ: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name in ProducerSettings.__struct_fields__:
        value = environ.get(PREFIX + name.upper(), "")
        if not value or name == "kafka_properties":
            continue
        is_list = name in LIST_FIELDS
        given[name] = [v.strip() for v in value.split(",") if v.strip()] if is_list else value
    return given


def _capture_level(otel: str) -> str:
    """OpenTelemetry's word on content in events: ours keeps it redacted, never as it is."""
    return "redacted" if otel.strip().lower() in CAPTURES_EVENTS else ""


def _from_otel(environ: Mapping[str, str]) -> dict[str, Any]:
    """Service name, version, environment and capture as OpenTelemetry's variables say them."""
    pairs = (p.split("=", 1) for p in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","))
    resource = {p[0].strip(): unquote(p[1].strip()) for p in pairs if len(p) == 2}
    environment = resource.get("deployment.environment.name")
    found = {
        "service_name": environ.get("OTEL_SERVICE_NAME") or resource.get("service.name"),
        "service_version": resource.get("service.version"),
        "service_environment": environment or resource.get("deployment.environment"),
        "capture_level": _capture_level(environ.get(CAPTURE_VARIABLE, "")),
    }
    return {name: value for name, value in found.items() if value}


def _read_or_make_secret(path: Path) -> bytes:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        secret = _make_secret(path) or path.read_bytes()
    except OSError as error:
        raise Fatal(
            f"the key digest secret cannot be kept at {path}: {error.strerror}",
            "set GATEBOOK_KEY_DIGEST_SECRET, or GATEBOOK_HOME to a folder that can be written",
        ) from None
    if len(secret) < MIN_SECRET_BYTES:
        raise Fatal(f"{path} holds fewer than {MIN_SECRET_BYTES} bytes", "restore or delete it")
    warn_if_exposed(path)
    return secret


def _make_secret(path: Path) -> bytes | None:
    """A new secret at `path`, or None where there is one. Appears whole or not at all, so that two
    processes starting at once end up with the same."""
    if path.exists():
        return None
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # fails where another process was first: then its secret holds
    except FileExistsError:
        return None
    finally:
        draft.unlink()
    return path.read_bytes()


def _check_sealing(settings: ProducerSettings) -> None:
    """A key that is not there yet is no reason not to start; what is dangerous is."""
    source = settings.public_key_source()
    if not settings.may_want_content:
        return
    if not settings.capture_policy:  # a policy may want none, and is read later
        require(f"GATEBOOK_CAPTURE_LEVEL={settings.capture_level}")
    try:
        is_private = parse(source.read()).is_private
    except KeysUnavailable:
        return
    if is_private:
        raise Fatal(
            f"{source} holds private keys, and a producer must not have them",
            f"give it the public bundle, {PUBLIC_NAME}; see `gatebook keys --help`",
        )


def _check_kafka_properties(settings: ProducerSettings) -> None:
    for name in sorted(FIXED_KAFKA_PROPERTIES & settings.kafka_properties.keys()):
        raise WrongSetting(
            f"the Kafka property {name} is fixed: acknowledged means acks=all and idempotent",
            f"remove GATEBOOK_KAFKA_{name.upper().replace('.', '_')}"
            " (brokers are set by GATEBOOK_KAFKA_BOOTSTRAP)",
        )


def _check_sizes(settings: ProducerSettings) -> None:
    least = MIN_FRAMES_IN_SPOOL * settings.frame_max_bytes
    for name in ("spool_max_bytes", "memory_buffer_max_bytes"):
        if getattr(settings, name) < least:
            raise WrongSetting(
                f"GATEBOOK_{name.upper()} is below {MIN_FRAMES_IN_SPOOL} frames",
                f"set at least {least}, or a smaller GATEBOOK_FRAME_MAX_BYTES",
            )


def _check_secret(settings: ProducerSettings) -> None:
    if settings.key_digest_secret and len(settings.key_digest_secret.encode()) < MIN_SECRET_BYTES:
        raise WrongSetting(
            f"GATEBOOK_KEY_DIGEST_SECRET has fewer than {MIN_SECRET_BYTES} bytes",
            "make one with: openssl rand -hex 32",
        )


def _check_proxies(settings: ProducerSettings) -> None:
    for item in settings.trusted_proxies:
        try:
            network = ipaddress.ip_network(item, strict=False)
        except ValueError:
            raise WrongSetting(
                f"GATEBOOK_TRUSTED_PROXIES: {item!r} is neither an address nor a network",
                "write it like 10.0.0.0/8 or 192.0.2.7",
            ) from None
        if network.prefixlen == 0:
            raise WrongSetting(
                "GATEBOOK_TRUSTED_PROXIES trusts every address: any caller could forge its source",
                "name the proxies' own addresses",
            )


_CHECKS = (
    _check_sealing,
    _check_kafka_properties,
    _check_sizes,
    _check_secret,
    _check_proxies,
    *IDENTITY_CHECKS,
)
