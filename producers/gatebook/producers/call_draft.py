"""Accesses that are not HTTP as seen from here: a call in this process, a gateway's callback.

A `CallDraft` is an `AccessDraft` whose bodies are written by the adapter, in the JSON that
`formats` reads: one event building, whatever the door. `Desk` is what adapters share.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, cast

import msgspec

from gatebook.producers import values
from gatebook.producers.classify import Ending, Raised, Verdict, describe, judge
from gatebook.producers.config import ProducerSettings
from gatebook.producers.draft import AccessDraft, IntentDraft
from gatebook.producers.formats import AnswerFacts
from gatebook.producers.identity import ANONYMOUS, Identity, content_key
from gatebook.producers.identity_api_key import ApiKeyResolver, load_known_keys
from gatebook.producers.ids import uuid7
from gatebook.producers.recorder import Draft, NotDurable, Recorder
from gatebook.producers.tape import Tape

log = logging.getLogger("gatebook.producers")

# Fields of a request that say what was asked; the others are not looked at.
ASKED = frozenset(
    {"model", "messages", "prompt", "input", "system", "instructions", "tools", "stream", "user"}
    | {"max_tokens", "max_completion_tokens", "max_output_tokens", "temperature", "top_p", "seed"}
    | {"stop", "conversation"}
)
_JSON = {"content-type": "application/json"}
_UNREADABLE = b"?"
_END = b"[DONE]\n"
_DESK = "desk of its adapters"
_ERROR_MAX_CHARS = 8192
_FILTER_MARKS = ("content_filter", "content_policy", "contentpolicy", "guardrail")

caller: ContextVar[Identity | None] = ContextVar("gatebook_caller", default=None)
traceparent: ContextVar[str] = ContextVar("gatebook_traceparent", default="")


@contextmanager
def within(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    """The variable has this value inside."""
    token = variable.set(value)
    try:
        yield
    finally:
        with suppress(ValueError):  # left in another context, which never had the value
            variable.reset(token)


class Desk:
    """A recorder and what drafts need beside it: settings, the key of digests, known API keys.

    Without `recorder` it makes one, from `settings` or the environment; the recorder closes itself
    when the process ends. Raises Fatal for settings that are refused.
    """

    def __init__(
        self, recorder: Recorder | None = None, settings: ProducerSettings | None = None
    ) -> None:
        if recorder is not None and settings is None:
            settings = recorder.settings
        self.settings = (settings or ProducerSettings.from_env()).check()
        self.secret = self.settings.digest_secret()
        self.content_key = content_key(self.secret)
        self.keys = ApiKeyResolver(self.secret, load_known_keys(self.settings.identity_keys_file))
        self.recorder = recorder or Recorder(self.settings)
        self.strict = self.settings.delivery_mode == "strict"

    def announce(self, draft: AccessDraft) -> None:
        """The call begins now: its intent is handed over, if intents are written. In strict mode
        raises NotDurable where the call could not be recorded; it must not be made then."""
        if self._prepared(draft):
            self.hand_over(IntentDraft(draft, draft.identity))

    async def announce_async(self, draft: AccessDraft) -> None:
        """`announce` for a coroutine."""
        if self._prepared(draft):
            await self.hand_over_async(IntentDraft(draft, draft.identity))

    def _prepared(self, draft: AccessDraft) -> bool:
        """Whether there is an intent to write; it names the event that is to follow."""
        if self.strict and not self.recorder.accepts_durably():
            raise NotDurable("spool_unavailable")
        if self.settings.writes_intents:
            draft.event_id = uuid7()
        return bool(draft.event_id)

    def emit(self, draft: Draft) -> None:
        """Hand over a draft. Not durable on return; an error of the recorder is logged only."""
        try:
            self.recorder.emit(draft)
        except Exception as error:
            _log_lost(error)

    def emit_apart(self, draft: Draft) -> None:
        """`emit` from a finalizer, which may run while this very thread holds the recorder's lock:
        so from another thread. At the end of the interpreter nothing can be recorded any more."""
        with suppress(RuntimeError):
            threading.Thread(target=self.emit, args=(draft,), daemon=True).start()

    def hand_over(self, draft: Draft) -> None:
        """`emit`; in strict mode the draft is durable on return, or NotDurable is raised."""
        if not self.strict:
            self.emit(draft)
            return
        self.recorder.emit_durable(draft)

    async def hand_over_async(self, draft: Draft) -> None:
        """`hand_over` for a coroutine."""
        if not self.strict:
            self.emit(draft)
            return
        await self.recorder.emit_durable_async(draft)


def _log_lost(error: Exception) -> None:
    log.error("an access could not be recorded: %s", type(error).__name__)


_shared: Desk | None = None
_sharing = threading.Lock()


def desk_of(recorder: Recorder | None) -> Desk:
    """The desk of a recorder; without one that of the process, from the environment."""
    global _shared
    with _sharing:
        if recorder is None:
            _shared = _shared or Desk()
            return _shared
        # Kept by the recorder, so that both go at the same time.
        found = vars(recorder).get(_DESK) or Desk(recorder)
        vars(recorder)[_DESK] = found
        return cast(Desk, found)


@dataclasses.dataclass(kw_only=True)
class CallDraft(AccessDraft):
    """What one call showed. `status` is None where no HTTP was seen; `pieces` says that the answer
    was handed on piece by piece."""

    operation: str = "unknown"
    request_id: str = ""
    pieces: bool = False

    @property
    def streamed(self) -> bool:
        """See AccessDraft."""
        return self.pieces

    @property
    def in_parts(self) -> bool:
        """See AccessDraft: the answer is a JSON object a line, whoever wrote it."""
        return True

    @property
    def action(self) -> str:
        """See AccessDraft."""
        return self.operation

    def ask(self, fields: Mapping[str, Any]) -> None:
        """What was asked of the model, as a request of OpenAI's API would say it. Once."""
        self.request.add(encoded(fields) or _UNREADABLE)

    def say(self, value: Any) -> None:
        """An answer or a part of one: a mapping or an object with `model_dump`."""
        line = encoded(value)
        if line:
            self.answer.add(line + b"\n")

    def say_text(self, text: str, choice: int = 0) -> None:
        """A piece of the answer's text."""
        self.say({"choices": [{"index": choice, "delta": {"content": text}}]})

    def count_chunk(self, begun_ns: int) -> None:
        """Another chunk was handed on; `begun_ns` is the call's start by time.perf_counter_ns."""
        if self.first_chunk_ns is None:
            self.first_chunk_ns = time.perf_counter_ns() - begun_ns
        self.chunks += 1

    def end(self, error: BaseException | None, gone: bool) -> None:
        """How the call ended: with an error, with a caller who left, or complete."""
        self.client_gone = gone
        if error is not None and not gone:
            self.raised = describe_call(error)
            self.say({"error": _error_fields(error, self.raised)})
        self.sent_all = not gone and self.raised is None
        if self.sent_all:
            self.answer.add(_END)

    def _ending(self, answer: AnswerFacts) -> Ending:
        return dataclasses.replace(super()._ending(answer), status=self.status or 200)

    def _http(self) -> dict[str, Any]:
        request = {"id": values.text(self.request_id), "method": values.text(self.method, 16)}
        return {"request": request, "response": {"status_code": self.status}}


def new_call(desk: Desk, operation: str) -> CallDraft:
    """A draft of a call that begins now, by the caller and in the trace of this context."""
    trace = traceparent.get()
    return CallDraft(
        settings=desk.settings,
        content_key=desk.content_key,
        started_ns=time.time_ns(),
        headers={**_JSON, "traceparent": trace} if trace else _JSON,
        identity=caller.get() or ANONYMOUS,
        request=Tape(desk.settings.body_max_bytes),
        answer=Tape(desk.settings.body_max_bytes),
        operation=operation,
    )


def encoded(value: Any) -> bytes:
    """JSON in one line, as the value is now; empty for what cannot be written."""
    try:
        return msgspec.json.encode(value, enc_hook=_plain)
    except UnicodeEncodeError:
        with suppress(Exception):
            return msgspec.json.encode(values.clean(msgspec.to_builtins(value, enc_hook=_plain)))
    except Exception as error:
        log.warning("a part of a call could not be read: %s", type(error).__name__)
    return b""


def _plain(value: Any) -> Any:
    """What client libraries return, as mappings; null for anything else."""
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return dump(exclude_none=True)
    return None


def describe_call(error: BaseException) -> Raised:
    """What an exception says of a call: a status code that it carries counts before its class."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    found, status = describe(error), status_of(error)
    if status is None or not isinstance(error, Exception) or found.verdict.reason == "timeout":
        return found
    verdict = judge(Ending(status=status, sent_all=True))
    marks = f"{found.type_name} {getattr(error, 'code', '')}".lower()
    if verdict.reason == "invalid_request" and any(mark in marks for mark in _FILTER_MARKS):
        verdict = Verdict("failure", "content_filtered")
    return Raised(found.type_name, verdict)


def status_of(error: BaseException) -> int | None:
    """The HTTP status code that an exception carries, if it is one of an error."""
    for name in ("status_code", "code"):
        value = getattr(error, name, None)
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return None


def _error_fields(error: BaseException, raised: Raised) -> dict[str, Any]:
    """Type and code for the event, and the text for the content, where that is captured."""
    try:
        text = str(error)[:_ERROR_MAX_CHARS]
    except Exception:  # an error whose own text fails is still an error
        text = ""
    code = getattr(error, "code", None)
    given = code if isinstance(code, (str, int)) else None
    return {"type": raised.type_name, "code": given, "message": text}
