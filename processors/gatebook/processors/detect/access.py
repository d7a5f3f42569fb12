"""What detectors see of a document: typed fields, read once per event; never content."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec

NANOSECONDS = 1_000_000_000
ID_DIGEST_BYTES = 8
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(?:Z|([+-])(\d\d):?(\d\d))")
_NONE: Mapping[str, Any] = {}


class Access(msgspec.Struct, gc=False, omit_defaults=True, kw_only=True):
    """One access as detectors see it. An empty string, an empty tuple or None means: not known.

    `timestamp_ns` is event time; where the producer's clock ran too far ahead of intake's it is
    the time intake accepted the event, and `clamped` is true. `id_digest` stands for the event id
    in duplicate checks.

    A frame of a producer is told by the same type: `kind` is "frame", `timestamp_ns` the time it
    came in, and only the fields of the last block mean anything.
    """

    event_id: str
    id_digest: bytes
    timestamp_ns: int
    clamped: bool = False
    kind: str = "access"
    """access or frame."""
    principal: str = ""
    """Who it counts for: tenant and user, key or address."""
    principal_field: str = ""
    """Field that says so."""

    outcome: str = ""
    """success, failure or unknown."""
    reason: str = ""
    """event.reason: unauthenticated, forbidden, rate_limited, content_filtered, ..."""
    action: str = ""
    """chat, embeddings, list_models, ..."""
    category: str = ""
    duration_ns: int = 0

    tenant: str = ""
    """organization.id."""
    user_id: str = ""
    key_id: str = ""
    """Keyed digest of the API key."""
    identity_method: str = ""
    assurance: str = ""
    """verified, asserted or failed."""
    on_behalf_of: str = ""
    source_ip: str = ""
    address_class: str = ""
    """loopback, private, public, ..."""
    user_agent: str = ""
    session_id: str = ""

    service: str = ""
    environment: str = ""
    node: str = ""
    team: str = ""
    """Team of the service, from the catalogue."""
    path: str = ""
    method: str = ""
    status: int = 0
    """HTTP status; 0: none was sent."""
    request_bytes: int = 0
    response_bytes: int = 0

    operation: str = ""
    provider: str = ""
    model: str = ""
    """Model asked for."""
    response_model: str = ""
    resolved_model: str = ""
    streamed: bool = False
    max_tokens: int = 0
    message_count: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    first_chunk_seconds: float = 0.0
    finish_reasons: tuple[str, ...] = ()
    conversation_id: str = ""
    tools_offered: tuple[str, ...] = ()
    tools_called: tuple[str, ...] = ()
    error_type: str = ""
    error_code: str = ""

    stream_completed: bool | None = None
    aborted_by: str = ""
    weights_hash: str = ""
    quantization: str = ""
    adapter: str = ""
    engine: str = ""
    engine_version: str = ""
    input_digest: str = ""
    """HMAC of the input: the same prompt, the same digest."""
    output_digest: str = ""
    capture_level: str = ""
    degraded_reason: str = ""
    break_glass: str = ""
    data_class: str = ""
    redacted: Mapping[str, int] = {}
    """What redaction found, by kind."""
    redaction_failed: str = ""
    """Why content was dropped instead of redacted."""
    sealed_failed: str = ""
    """Why content that was sent could not be opened or kept."""
    signals: tuple[str, ...] = ()
    """Patterns intake saw in the content, such as prompt_injection."""
    attributes: Mapping[str, str] = {}

    producer_id: str = ""
    epoch: int = 0
    sequence: int = -1
    """Number of the event; of a frame, its first one's."""
    frame_count: int = 0
    """Events in the frame; 0: a heartbeat."""
    frame_sent_ns: int = 0
    """The producer's clock when it built the frame."""
    frame_state: str = ""
    """open or closed."""
    frame_losses: int = 0
    """Events the producer says it dropped in this epoch, in all."""


FIELDS = frozenset(Access.__struct_fields__)


@lru_cache(maxsize=4096)
def _second(text: str) -> int:
    return int(datetime.fromisoformat(text + "+00:00").timestamp())


def parse_time_ns(text: str) -> int:
    """ISO 8601 with up to nine decimals to nanoseconds since 1970. Raises ValueError."""
    if (
        len(text) == 30
        and text[10] == "T"
        and text[19] == "."
        and text[29] == "Z"
        and text[20:29].isdigit()
    ):
        return _second(text[:19]) * NANOSECONDS + int(text[20:29])
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("not a timestamp")
    second, decimals, sign, hours, minutes = match.groups()
    offset = (int(hours) * 60 + int(minutes)) * 60 if sign else 0
    shifted = _second(second) + (offset if sign == "-" else -offset)
    return shifted * NANOSECONDS + int((decimals or "").ljust(9, "0"))


def id_digest(event_id: str) -> bytes:
    """Eight bytes that stand for an event id; keyed by nothing, the same in every process."""
    return blake2b(event_id.encode("utf-8", "surrogatepass"), digest_size=ID_DIGEST_BYTES).digest()


def _identity(principal: str, user_id: str, key_id: str, source_ip: str) -> tuple[str, str]:
    """Who the access counts for and the field that says so; intake's principal comes first."""
    if principal:
        return principal, "gatebook.principal"
    if user_id:
        return user_id, "user.id"
    if key_id:
        return key_id, "gatebook.identity.key_id"
    return source_ip, "source.ip"


def _redacted(redaction: Mapping[str, Any]) -> Mapping[str, int]:
    counts: Mapping[str, int] = redaction.get("counts") or _NONE
    entities = redaction.get("entities")
    if not entities:
        return counts
    return {kind: int(counts.get(kind, 1)) for kind in {*entities, *counts}}


def read_access(document: Mapping[str, Any], max_ahead_ns: int) -> Access:
    """The access in a document. Raises ValueError, KeyError, TypeError or AttributeError where
    the document has no id or no time or is not shaped like one.

    `max_ahead_ns` bounds clock skew against `event.ingested`, which is intake's own clock and
    part of the document: the same document gives the same access in every run. A document
    without `event.ingested` is taken at its word.
    """
    event = document["event"]
    timestamp_ns = parse_time_ns(document["@timestamp"])
    ingested = event.get("ingested")
    clamped = False
    if ingested is not None and timestamp_ns - (latest := parse_time_ns(ingested)) > max_ahead_ns:
        timestamp_ns, clamped = latest, True
    gatebook = document.get("gatebook") or _NONE
    identity = gatebook.get("identity") or _NONE
    user_id = (document.get("user") or _NONE).get("id") or ""
    source_ip = (document.get("source") or _NONE).get("ip") or ""
    key_id = identity.get("key_id") or ""
    principal, field = _identity(gatebook.get("principal") or "", user_id, key_id, source_ip)
    event_id = event["id"]
    access = Access(
        event_id=event_id,
        id_digest=id_digest(event_id),
        timestamp_ns=timestamp_ns,
        clamped=clamped,
        principal=principal,
        principal_field=field,
        outcome=event.get("outcome") or "",
        reason=event.get("reason") or "",
        action=event.get("action") or "",
        category=event.get("category") or "",
        duration_ns=event.get("duration") or 0,
        tenant=(document.get("organization") or _NONE).get("id") or "",
        user_id=user_id,
        key_id=key_id,
        source_ip=source_ip,
    )
    if identity:
        access.identity_method = identity.get("method") or ""
        access.assurance = identity.get("assurance") or ""
        access.on_behalf_of = identity.get("on_behalf_of") or ""
    _read_caller(access, document)
    if gen_ai := document.get("gen_ai"):
        _read_model_use(access, gen_ai)
    _read_ours(access, gatebook)
    return access


def _read_caller(access: Access, document: Mapping[str, Any]) -> None:
    """Service, request and answer, as far as they are there."""
    if service := document.get("service"):
        access.service = service.get("name") or ""
        access.environment = service.get("environment") or ""
        access.node = (service.get("node") or _NONE).get("name") or ""
    if http := document.get("http"):
        request, response = http.get("request") or _NONE, http.get("response") or _NONE
        access.method = request.get("method") or ""
        access.request_bytes = (request.get("body") or _NONE).get("bytes") or 0
        access.status = response.get("status_code") or 0
        access.response_bytes = (response.get("body") or _NONE).get("bytes") or 0
    access.path = (document.get("url") or _NONE).get("path") or ""
    access.user_agent = (document.get("user_agent") or _NONE).get("original") or ""
    access.session_id = (document.get("session") or _NONE).get("id") or ""
    if error := document.get("error"):
        access.error_type = error.get("type") or ""
        access.error_code = error.get("code") or ""


def _read_model_use(access: Access, gen_ai: Mapping[str, Any]) -> None:
    """gen_ai.*: what was asked of which model and what it cost."""
    access.operation = (gen_ai.get("operation") or _NONE).get("name") or ""
    access.provider = (gen_ai.get("provider") or _NONE).get("name") or ""
    if request := gen_ai.get("request"):
        access.model = request.get("model") or ""
        access.streamed = bool(request.get("stream"))
        access.max_tokens = request.get("max_tokens") or 0
        access.message_count = request.get("message_count") or 0
    if response := gen_ai.get("response"):
        access.response_model = response.get("model") or ""
        access.finish_reasons = tuple(response.get("finish_reasons") or ())
        access.first_chunk_seconds = response.get("time_to_first_chunk") or 0.0
    if usage := gen_ai.get("usage"):
        access.input_tokens = usage.get("input_tokens") or 0
        access.output_tokens = usage.get("output_tokens") or 0
        access.cached_tokens = (usage.get("cache_read") or _NONE).get("input_tokens") or 0
        access.reasoning_tokens = (usage.get("reasoning") or _NONE).get("output_tokens") or 0
    if conversation := gen_ai.get("conversation"):
        access.conversation_id = conversation.get("id") or ""
    if tool := gen_ai.get("tool"):
        access.tools_offered = tuple(tool.get("offered") or ())
        access.tools_called = tuple(tool.get("called") or ())


def _read_ours(access: Access, ours: Mapping[str, Any]) -> None:
    """gatebook.*: provenance of the model, capture, redaction, numbering."""
    access.producer_id = ours.get("producer_id") or ""
    access.epoch = ours.get("epoch") or 0
    access.sequence = ours.get("sequence", -1)
    access.team = (ours.get("service") or _NONE).get("team") or ""
    access.address_class = (ours.get("source") or _NONE).get("address_class") or ""
    access.attributes = ours.get("attributes") or _NONE
    if model := ours.get("model"):
        access.weights_hash = model.get("weights_hash") or ""
        access.quantization = model.get("quantization") or ""
        access.adapter = model.get("adapter") or ""
        access.engine = model.get("engine") or ""
        access.engine_version = model.get("engine_version") or ""
        access.resolved_model = model.get("resolved") or ""
    if stream := ours.get("stream"):
        access.stream_completed = stream.get("completed")
        access.aborted_by = stream.get("aborted_by") or ""
    if capture := ours.get("capture"):
        access.capture_level = capture.get("level") or ""
        access.degraded_reason = capture.get("degraded_reason") or ""
        access.break_glass = capture.get("break_glass") or ""
        access.data_class = capture.get("data_class") or ""
    if digest := ours.get("content_digest"):
        access.input_digest = digest.get("input") or ""
        access.output_digest = digest.get("output") or ""
    if redaction := ours.get("redaction"):
        access.redacted = _redacted(redaction)
        access.redaction_failed = redaction.get("failed") or ""
    if sealed := ours.get("sealed"):
        access.sealed_failed = sealed.get("failed") or ""
    if content := ours.get("content"):
        access.signals = tuple(content.get("signals") or ())


def is_intent(document: Mapping[str, Any]) -> bool:
    """Whether this is the record written before the call; its terminal event is what counts."""
    return bool((document.get("gatebook") or _NONE).get("phase") == "intent")
