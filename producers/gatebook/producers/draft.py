"""One access as the middleware saw it, and the event it becomes in the writer's thread."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from gatebook.producers import values
from gatebook.producers.classify import MESSAGES, Ending, Raised, Verdict, judge
from gatebook.producers.config import ProducerSettings
from gatebook.producers.content import LateContent, canonical, digest, pack
from gatebook.producers.formats import (
    OPERATIONS,
    AnswerFacts,
    RequestFacts,
    action_of,
    read_answer,
    read_request,
    read_stream,
)
from gatebook.producers.identity import ANONYMOUS, Identity
from gatebook.producers.tape import Tape
from gatebook.schemas.intents import INTENT, intent_id

log = logging.getLogger("gatebook.producers")

STREAM_TYPES = ("text/event-stream", "application/x-ndjson", "application/stream+json")
_PATH_MAX_CHARS = 1024
_AGENT_MAX_CHARS = 512
_FILTER_MARKS = ("content_filter", "content_policy")


class Provenance(Protocol):
    """Knows where the answers of a model come from."""

    def of(self, model: str) -> Mapping[str, str]:
        """Fields of gatebook.model for a model as a request names it. Never waits."""


@dataclass(kw_only=True)
class AccessDraft:
    """What one HTTP request showed. Filled on the event loop, read once in `build`.

    `provider` goes before the setting of that name; `model` is the group gatebook.model, and goes
    before what `provenance` tells of it. `event_id` is empty unless an intent announced it.
    """

    settings: ProducerSettings
    content_key: bytes
    started_ns: int
    method: str = ""
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    source_ip: str = ""
    source_port: int | None = None
    identity: Identity = ANONYMOUS
    request: Tape
    answer: Tape
    status: int | None = None
    answer_headers: Mapping[str, str] = field(default_factory=dict)
    chunks: int = 0
    first_chunk_ns: int | None = None
    duration_ns: int = 0
    sent_all: bool = False
    client_gone: bool = False
    raised: Raised | None = None
    provider: str = ""
    component: str = ""
    model: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    event_id: str = ""
    shed_reason: str = ""

    def shed(self, reason: str) -> bool:
        """Give up the bodies, unread; False where there are none. Not while they still grow."""
        if not self.size_bytes:
            return False
        self.request.drop()
        self.answer.drop()
        self.shed_reason = reason
        return True

    @property
    def size_bytes(self) -> int:
        """Memory it holds, approximately."""
        return self.request.kept_bytes + self.answer.kept_bytes

    @property
    def streamed(self) -> bool:
        """Whether the answer is a stream by its content type."""
        return self.answer_headers.get("content-type", "").startswith(STREAM_TYPES)

    @property
    def in_parts(self) -> bool:
        """Whether the answer's bytes are many JSON objects rather than one."""
        return self.streamed

    @property
    def action(self) -> str:
        """event.action."""
        return action_of(self.path, self.method)

    def build(self) -> dict[str, Any]:
        """The access event. What cannot be read is left out and said in degraded_reason. How much
        of it goes into the log is for the capture policy to say, in the writer."""
        reading = _Reading(self)
        verdict = judge(self._ending(reading.answer))
        event = self._exchange(verdict)
        return {
            **event,
            **self._caller(self.identity),
            "url": self._url(),
            "http": self._http(),
            "gen_ai": self._gen_ai(reading),
            "error": self._error(verdict, reading.answer),
            "attributes": {
                **_attributes(reading.answer),
                **self.attributes,
                **self.identity.attributes(),
            },
            **self._trace(),
            **self._ours(verdict, reading),
        }

    def _ending(self, answer: AnswerFacts) -> Ending:
        marks = (*answer.finish_reasons, answer.error_code, answer.error_type)
        return Ending(
            status=self.status,
            sent_all=self.sent_all,
            client_gone=self.client_gone,
            raised=self.raised,
            streamed=self.streamed,
            recognised=answer.recognised,
            ended=answer.ended,
            answer_failed=answer.failed,
            filtered=any(mark.startswith(_FILTER_MARKS) for mark in marks),
        )

    def _exchange(self, verdict: Verdict) -> dict[str, Any]:
        return {
            "timestamp": self.started_ns,
            "event": {
                "kind": "event",
                "category": verdict.category,
                "type": verdict.event_type,
                "action": self.action,
                "outcome": verdict.outcome,
                "reason": verdict.reason,
                "end": self.started_ns + self.duration_ns,
                "duration": self.duration_ns,
            },
        }

    def build_intent(self, who: Identity) -> dict[str, Any]:
        """The record before the call: who wants what, and nothing of the answer. Reads only what
        is not changed any more once the request has begun."""
        event = {
            "timestamp": self.started_ns,
            "event": {
                "kind": "event",
                "category": "api",
                "type": "access",
                "action": self.action,
                "outcome": "unknown",
            },
        }
        request_id = values.text(self.headers.get("x-request-id"))
        return {
            **event,
            **self._caller(who),
            "url": self._url(),
            "http": {"request": {"id": request_id, "method": values.text(self.method, 16)}},
            "gen_ai": {
                "operation": {"name": self.action if self.action in OPERATIONS else ""},
                "provider": {"name": self.provider or self.settings.provider_name},
            },
            "attributes": who.attributes(),
            **self._trace(),
            "gatebook": {
                "phase": INTENT,
                "component": values.text(self.component),
                "identity": _identity(who, who.on_behalf_of),
            },
        }

    def _caller(self, who: Identity) -> dict[str, Any]:
        return {
            "user": {
                "id": values.text(who.user_id),
                "name": values.text(who.user_name),
                "email": values.text(who.user_email),
                "roles": [values.text(role) for role in who.user_roles],
            },
            "organization": {"id": values.text(who.organization_id)},
            "session": {"id": values.text(who.session_id)},
            "source": {"ip": self.source_ip, "port": self.source_port},
            "user_agent": {
                "original": values.text(self.headers.get("user-agent"), _AGENT_MAX_CHARS)
            },
        }

    def _url(self) -> dict[str, Any]:
        host = values.text(self.headers.get("host"))
        return {
            "path": values.text(self.path, _PATH_MAX_CHARS),
            "domain": host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host,
        }

    def _http(self) -> dict[str, Any]:
        request_id = self.headers.get("x-request-id") or self.answer_headers.get("x-request-id")
        begun = self.status is not None
        return {
            "request": {
                "id": values.text(request_id),
                "method": values.text(self.method, 16),
                "body": {"bytes": self.request.total_bytes},
            },
            "response": {
                "status_code": self.status,
                "body": {"bytes": self.answer.total_bytes if begun else None},
            },
        }

    def _gen_ai(self, reading: _Reading) -> dict[str, Any]:
        asked, said = reading.request, reading.answer
        first = self.first_chunk_ns
        return {
            "operation": {"name": self.action if self.action in OPERATIONS else ""},
            "provider": {"name": self._provider(reading)},
            "request": {
                "model": asked.model,
                "stream": asked.stream,
                "max_tokens": asked.max_tokens,
                "temperature": asked.temperature,
                "top_p": asked.top_p,
                "seed": asked.seed,
                "stop_sequences": asked.stop_sequences,
                "message_count": asked.message_count,
            },
            "response": {
                "id": said.id,
                "model": said.model,
                "finish_reasons": said.finish_reasons,
                "time_to_first_chunk": None if first is None else first / 1e9,
            },
            "usage": {
                "input_tokens": said.input_tokens,
                "output_tokens": said.output_tokens,
                "cache_read": {"input_tokens": said.cached_tokens},
                "reasoning": {"output_tokens": said.reasoning_tokens},
            },
            "conversation": {"id": asked.conversation_id},
            "tool": {"offered": asked.tools_offered, "called": said.tools_called},
        }

    def _provider(self, reading: _Reading) -> str:
        told: str = reading.model.get("engine", "")
        return self.provider or self.settings.provider_name or told

    def _error(self, verdict: Verdict, answer: AnswerFacts) -> dict[str, Any]:
        if verdict.outcome == "success":
            return {}
        raised = self.raised.type_name if self.raised else ""
        return {
            "type": answer.error_type or values.text(raised) or verdict.reason,
            "code": answer.error_code,
            "message": MESSAGES.get(verdict.reason, ""),
        }

    def _trace(self) -> dict[str, Any]:
        found = parse_traceparent(self.headers.get("traceparent", ""))
        return {"trace": {"id": found[0]}, "span": {"id": found[1]}} if found else {}

    def _ours(self, verdict: Verdict, reading: _Reading) -> dict[str, Any]:
        who = self.identity
        content, encoding = reading.content, "json" if reading.content else ""
        ours: dict[str, Any] = {
            "phase": "terminal",
            "component": values.text(self.component),
            "model": reading.model,
            "identity": _identity(who, who.on_behalf_of or reading.request.on_behalf_of),
            "capture": {
                "truncated": reading.truncated,
                "degraded_reason": reading.degraded_reason,
            },
            "content_digest": {"input": reading.input_digest, "output": reading.output_digest},
        }
        if self.streamed:
            ours["stream"] = {
                "chunks": self.chunks,
                "completed": self.sent_all and not verdict.aborted_by,
                "aborted_by": verdict.aborted_by,
            }
        return {"gatebook": ours, "content": content, "content_encoding": encoding}


@dataclass(frozen=True)
class IntentDraft:
    """The intent of an access that has only begun, with the caller as far as it is known then."""

    access: AccessDraft
    identity: Identity

    @property
    def event_id(self) -> str:
        """Names the terminal event that is to follow."""
        return intent_id(self.access.event_id)

    @property
    def size_bytes(self) -> int:
        """Nothing beside the access, which is there anyway."""
        return 0

    def build(self) -> dict[str, Any]:
        """See AccessDraft.build_intent."""
        return self.access.build_intent(self.identity)


def _identity(who: Identity, on_behalf_of: str) -> dict[str, str]:
    return {
        "method": who.method,
        "assurance": who.assurance,
        "issuer": values.text(who.issuer),
        "key_id": who.key_id,
        "on_behalf_of": values.text(on_behalf_of),
    }


def _attributes(answer: AnswerFacts) -> dict[str, str]:
    """A stream that broke off has no usage; how many pieces of text it had bounds its tokens."""
    if answer.output_tokens is None and answer.deltas:
        return {**answer.extras, "output_deltas": str(answer.deltas)}
    return answer.extras


class _Reading:
    """The bodies of an access, read: facts and digests; content later, where it is wanted."""

    def __init__(self, draft: AccessDraft) -> None:
        self._draft = draft
        self._settings = draft.settings
        self.degraded_reason = draft.shed_reason
        self.truncated = not (draft.request.complete and draft.answer.complete)
        self.request = self._guarded(self._read_request, RequestFacts())
        self.answer = self._guarded(self._read_answer, AnswerFacts())
        self.model = self._guarded(self._read_model, {})
        self.input_digest = self._guarded(self._digest_input, "")
        self.output_digest = self._guarded(self._digest_output, "")
        late = self._settings.may_want_content
        self.content = LateContent(self._compose) if late else None

    def _guarded(self, read: Any, otherwise: Any) -> Any:
        """A body that cannot be read costs its facts, never the event."""
        try:
            return read()
        except Exception as error:
            self._degrade("unreadable")
            log.warning("a body could not be read: %s", type(error).__name__)
            return otherwise

    def _degrade(self, reason: str) -> None:
        self.degraded_reason = self.degraded_reason or reason

    def _plain(self, tape: Tape, headers: Mapping[str, str]) -> bytes | None:
        encoding = headers.get("content-encoding", "").strip().lower()
        data = values.decompressed(tape.head(), encoding, self._settings.body_max_bytes)
        if data is None:
            self._degrade("content_encoding")
        return data

    def _read_request(self) -> RequestFacts:
        draft = self._draft
        if not draft.request.complete:
            self._degrade("request_too_large")
            return RequestFacts()
        body = self._plain(draft.request, draft.headers)
        parsed = values.parse_json(body) if body else None
        if body and parsed is None and "json" in draft.headers.get("content-type", ""):
            self._degrade("request_not_json")
        return read_request(parsed)

    def _read_answer(self) -> AnswerFacts:
        draft = self._draft
        body = self._plain(draft.answer, draft.answer_headers)
        if not body:
            return AnswerFacts()
        if draft.in_parts:
            return read_stream([body, draft.answer.tail()])
        if not draft.answer.complete:
            self._degrade("answer_too_large")
            return AnswerFacts()
        return read_answer(values.parse_json(body))

    def _read_model(self) -> dict[str, str]:
        known = self._draft.provenance
        told = known.of(self.request.model) if known is not None else {}
        return {**told, **self._draft.model}

    def _digest_input(self) -> str:
        given = self.request.input
        if given and any(part is not None for part in given):
            return digest(self._draft.content_key, canonical(given))
        return ""

    def _digest_output(self) -> str:
        said = [(m.get("content"), m.get("tool_calls")) for m in self.answer.messages]
        return digest(self._draft.content_key, canonical(said)) if said else ""

    def _compose(self) -> tuple[bytes | None, bool, str]:
        content = self._guarded(self._pack, None)
        return content, self.truncated, self.degraded_reason

    def _pack(self) -> bytes | None:
        broken = self._draft.in_parts and not self.answer.ended
        content, cut = pack(self.request, self.answer, self._settings.content_max_bytes, broken)
        self.truncated = self.truncated or cut
        if content is None and cut:
            self._degrade("content_too_large")
        return content


def parse_traceparent(value: str) -> tuple[str, str] | None:
    """Trace id and span id of a W3C traceparent; None for one that is not valid."""
    parts = value.strip().split("-")
    if len(parts) < 4 or [len(p) for p in parts[:4]] != [2, 32, 16, 2] or parts[0] == "ff":
        return None
    if not all(c in "0123456789abcdef" for c in "".join(parts[:4])):
        return None
    trace_id, span_id = parts[1], parts[2]
    return (trace_id, span_id) if trace_id.strip("0") and span_id.strip("0") else None
