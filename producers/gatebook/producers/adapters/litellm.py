"""LiteLLM: a callback for its proxy, and for its Python library.

    # config.yaml of the proxy
    litellm_settings:
      callbacks: gatebook.producers.adapters.litellm.callback

    # the library
    litellm.callbacks = [GatebookCallback()]

Settings come from the environment (GATEBOOK_*). One event per request: a retry or fallback of the
router is no access of its own. Never LiteLLM 1.82.7, 1.82.8 or 1.107.0: those releases were
compromised and steal credentials.

Not seen by any callback: GET /v1/models and other routes that call no model. In strict mode a
request is refused beforehand where it could not be recorded; its answer is not held back. Stop the
proxy by SIGINT (STOPSIGNAL SIGINT in a Dockerfile): at SIGTERM its server ends the process without
Python's exit handlers, so what LiteLLM had not told yet is lost; what it had told is in the spool,
and GATEBOOK_INTENTS=on shows the rest as incomplete.

What LiteLLM does that one would not expect, and what is made of it here:

- `user_api_key_dict.api_key` and `user_api_key_hash` hold the *plain key* where it does not begin
  with `sk-`. Both are digested again, always.
- `litellm_call_id` is the caller's choice (header x-litellm-call-id), so nothing is matched by it:
  the callback puts a token of its own into the request's metadata, which nobody can forge.
- A caller who leaves a stream leads to a *success* event; so does a stream nobody has left. What is
  passed on is counted in the stream's own hook, which tells one from the other.
- A refused key may be answered by 400 (`No connected db.`), and its body is unchecked input.
- Failures are told twice, to async_log_failure_event and async_post_call_failure_hook. Of a request
  to the proxy only the second one counts, which comes after the last retry and fallback.
- Hooks are looked up in `vars()` of the class: an inherited one is not called.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import importlib
import itertools
import logging
import secrets
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from gatebook.producers import values
from gatebook.producers.call_draft import (
    ASKED,
    CallDraft,
    Desk,
    desk_of,
    encoded,
    new_call,
    status_of,
)
from gatebook.producers.classify import Raised, Verdict
from gatebook.producers.formats import action_of
from gatebook.producers.identity import Identity, key_id
from gatebook.producers.recorder import NotDurable, Recorder

if TYPE_CHECKING:

    class CustomLogger:
        """LiteLLM's base class."""

else:
    try:
        from litellm.integrations.custom_logger import CustomLogger
    except ImportError:  # the callback can be made, and tested, without LiteLLM

        class CustomLogger:
            """Stands in for LiteLLM's base class."""


__all__ = ["GatebookCallback"]

log = logging.getLogger("gatebook.producers")

_TOKEN = "gatebook_request"  # noqa: S105  # the name of a field
_PASS_THROUGH = "pass_through_endpoint"  # noqa: S105  # a type of call
_MASTER_KEY = "litellm_proxy_master_key"
_JWT = "hashed-jwt-"
_MAX_OPEN = 20_000
_MAX_KEPT_CHUNKS = 4_096
_SHA256_HEX_DIGITS = 64
_ACTIONS = {"completion": "chat", "text_completion": "text_completion", "embedding": "embeddings"}
_ACTIONS |= {"responses": "chat", "anthropic_messages": "chat", "rerank": "rerank"}
_BY_TYPE = {
    "auth_error": "unauthenticated",
    "expired_key": "unauthenticated",
    "token_not_found_in_db": "unauthenticated",
    "no_db_connection": "unauthenticated",
    "budget_exceeded": "rate_limited",
}
_KEY_FIELDS = ("hash", "alias", "user_id", "user_email", "org_id", "team_id", "team_alias")
_HEADERS = ("user-agent", "host", "traceparent")
_ADDRESS = "requester_ip_address"
_REDACTED = "redacted-by-litellm"


class GatebookCallback(CustomLogger):
    """Records what LiteLLM tells. No method raises into LiteLLM, but for async_pre_call_hook in
    strict mode. Without `recorder` the one of the process, made at the first request."""

    def __init__(self, recorder: Recorder | None = None) -> None:
        super().__init__()
        self._recorder = recorder
        self._open: OrderedDict[str, _Request] = OrderedDict()
        self._lock = threading.Lock()
        self._exit_registered = False
        self._ours = secrets.token_hex(16)
        self._numbers = itertools.count()

    @property
    def desk(self) -> Desk:
        """See call_draft. What is open when the process ends is recorded before it closes."""
        desk = desk_of(self._recorder)
        if not self._exit_registered:
            self._exit_registered = True
            atexit.register(_close_at_exit, weakref.ref(self))
        return desk

    # -- the proxy ------------------------------------------------------------------------------

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: Any, call_type: str
    ) -> None:
        """A request came through authentication. In strict mode raises an HTTP 503 where it could
        not be recorded."""
        try:
            token = self._opened(user_api_key_dict, data, str(call_type))
        except Exception as error:
            _log_failure(error)
            return
        if token:
            await self._announce(token)

    def _opened(self, key: Any, data: Any, call_type: str) -> str:
        """The token of a request that is open from now on; empty where it is so already, or where
        no later hook could know it again."""
        metadata = _metadata_of(data)
        if metadata is None or call_type == _PASS_THROUGH or metadata.get(_TOKEN) in self._open:
            return ""
        request = _Request(self.desk, data, call_type)
        request.identify(key, admitted=True)
        token = metadata[_TOKEN] = f"{self._ours}-{next(self._numbers)}"
        with self._lock:
            self._open[token] = request
            oldest = self._open.popitem(last=False)[1] if len(self._open) > _MAX_OPEN else None
        if oldest is not None:
            oldest.lost()
        return token

    async def _announce(self, token: str) -> None:
        try:
            await self.desk.announce_async(self._open[token].announced())
        except NotDurable as error:
            http_exception = importlib.import_module("fastapi").HTTPException  # the proxy's own
            refusal = http_exception(503, "The access could not be recorded, so it was refused.")
            request = self._taken({_TOKEN: token})
            if request is not None:
                request.failed(refusal, {})
            raise refusal from error
        except Exception as error:
            _log_failure(error)

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: Any
    ) -> AsyncIterator[Any]:
        """The answer's pieces as they are; a caller who leaves is seen here."""
        request = self._find(request_data)
        if request is not None:
            request.answered_by(response)
        try:
            async for item in response:
                if request is not None:
                    request.passed_on(item)
                yield item
        except (GeneratorExit, asyncio.CancelledError):
            # LiteLLM tells of a success later; by then the request is not open any more.
            self._left(request_data)
            raise
        if request is not None:
            request.stream_ended()

    def _left(self, request_data: Any) -> None:
        taken = self._taken(_metadata_of(request_data))
        try:
            if taken is not None:
                taken.left({})
        except Exception as error:
            _log_failure(error)

    async def async_post_call_failure_hook(
        self,
        request_data: Any,
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """A request to the proxy failed for good, or was refused."""
        request = self._taken(_metadata_of(request_data))
        if request is None:
            if self._ended_before(_metadata_of(request_data)):
                return
            request = _Request(self.desk, request_data, str(request_data.get("call_type", "")))
            request.path = str(getattr(user_api_key_dict, "request_route", "") or "")
            request.identify(user_api_key_dict, admitted=False)
        payload = values.mapping(request_data.get("standard_logging_object"))
        request.failed(original_exception, payload)

    # -- both -----------------------------------------------------------------------------------

    async def async_log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """A call succeeded, or a stream was left."""
        self._succeeded(kwargs, response_obj)

    def log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """The same of the library's synchronous calls."""
        self._succeeded(kwargs, response_obj)

    async def async_log_failure_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """A call of the library failed. The proxy's are told by async_post_call_failure_hook."""
        self._library_failed(kwargs)

    def log_failure_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """The same of the library's synchronous calls."""
        self._library_failed(kwargs)

    def _succeeded(self, kwargs: Mapping[str, Any], response: Any) -> None:
        payload = values.mapping(kwargs.get("standard_logging_object"))
        metadata = _logged_metadata(kwargs)
        request = self._taken(metadata)
        if request is None:
            if self._ended_before(metadata):  # its caller left, for one
                return
            request = _Request.of_library(self.desk, kwargs, payload)
        if _says_client_left(payload, metadata):
            request.left(payload)
        else:
            request.succeeded(response, payload)

    def _library_failed(self, kwargs: Mapping[str, Any]) -> None:
        payload = values.mapping(kwargs.get("standard_logging_object"))
        metadata = _logged_metadata(kwargs)
        told = values.mapping(payload.get("metadata"))
        if self._ended_before(metadata) or told.get("user_api_key_request_route"):
            return
        error = kwargs.get("exception")
        raised = error if isinstance(error, BaseException) else RuntimeError()
        _Request.of_library(self.desk, kwargs, payload).failed(raised, payload)

    # -- open requests --------------------------------------------------------------------------

    def _find(self, data: Any) -> _Request | None:
        return self._open.get((_metadata_of(data) or {}).get(_TOKEN, ""))

    def _taken(self, metadata: Mapping[str, Any] | None) -> _Request | None:
        """The open request, which is not open from now on: so it ends once."""
        token = (metadata or {}).get(_TOKEN)
        with self._lock:
            return self._open.pop(token, None) if isinstance(token, str) else None

    def _ended_before(self, metadata: Mapping[str, Any] | None) -> bool:
        """Whether this is a token of ours, asked of one that is not open. A caller's body can hold
        any other."""
        return str((metadata or {}).get(_TOKEN, "")).startswith(self._ours)

    def end_open(self) -> None:
        """Record what is still open: the process ends. If it is killed instead, nobody does."""
        with self._lock:
            left, self._open = list(self._open.values()), OrderedDict()
        for request in left:
            request.lost()


def _close_at_exit(reference: weakref.ref[GatebookCallback]) -> None:
    callback = reference()
    if callback is not None:
        callback.end_open()


def _log_failure(error: Exception) -> None:
    log.error("a request to LiteLLM could not be followed: %s", type(error).__name__)


def __getattr__(name: str) -> Any:
    """`callback`, made when LiteLLM asks for it: importing this module has no effects."""
    if name != "callback":
        raise AttributeError(name)
    globals()[name] = made = GatebookCallback()
    desk_of(None)  # refused settings stop the proxy at its start, not at its first request
    return made


class _Request:
    """What is known of one request."""

    def __init__(self, desk: Desk, data: Mapping[str, Any], call_type: str) -> None:
        self._desk = desk
        self._begun_ns = time.perf_counter_ns()
        self._ended_ns = 0
        self._chunks: list[Any] = []
        self._call_type = call_type
        self.draft: CallDraft = new_call(desk, "unknown")
        sent = values.mapping(data.get("proxy_server_request"))
        headers = {str(k).lower(): str(v) for k, v in values.mapping(sent.get("headers")).items()}
        kept = {name: headers[name] for name in _HEADERS if name in headers}
        self.draft.headers = {**self.draft.headers, **kept}
        self.draft.method = values.text(sent.get("method"))
        self.draft.component = "litellm"
        self.path = ""
        url = values.text(sent.get("url"), 2048)
        if url:
            self.path = "/" + url.partition("://")[2].partition("/")[2].partition("?")[0]
        self._attributes: dict[str, str] = {}
        # What the caller sent, where LiteLLM kept it: it renames models in what it works on.
        self._asked(values.mapping(sent.get("body")) or data)
        self.draft.request_id = values.text(data.get("litellm_call_id"))
        self.draft.source_ip = values.text((_metadata_of(data) or {}).get(_ADDRESS), 64)

    @classmethod
    def of_library(
        cls, desk: Desk, kwargs: Mapping[str, Any], payload: Mapping[str, Any]
    ) -> _Request:
        """A call that was not open: of the library, or of a route that has no hooks. It began when
        LiteLLM says it did."""
        given = {**values.mapping(payload.get("model_parameters")), **kwargs}
        given["model"] = payload.get("model_group") or kwargs.get("model")
        request = cls(desk, given, str(kwargs.get("call_type", "")))
        request.draft.pieces = kwargs.get("stream") is True
        told = values.mapping(payload.get("metadata"))
        if told.get("user_api_key_hash"):
            known = {n: told.get(f"user_api_key_{n}") for n in _KEY_FIELDS}
            known["key_alias"], known["token"] = known.pop("alias"), known.pop("hash")
            request.identify(SimpleNamespace(**known), admitted=True)
        began = values.number(payload.get("startTime"))
        if began is not None:
            request.draft.started_ns = int(began * 1e9)
        return request

    def _asked(self, body: Mapping[str, Any]) -> None:
        fields = {k: v for k, v in body.items() if k in ASKED and v is not None}
        if _REDACTED.encode() in encoded(fields.get("messages"))[:256]:
            fields.pop("messages")
        self.draft.pieces = fields.get("stream") is True
        self.draft.ask(fields)

    def identify(self, key: Any, *, admitted: bool) -> None:
        """The caller as LiteLLM knows them. A proxy without a master key admits any key, so only
        one that LiteLLM has an owner for is verified."""
        shown = str(getattr(key, "token", None) or getattr(key, "api_key", None) or "")
        owned = shown == _MASTER_KEY or any(_told(key, n) for n in ("user_id", "team_id", "org_id"))
        by_token = shown.startswith(_JWT)
        self.draft.identity = Identity(
            user_id=_told(key, "user_id"),
            user_name=_told(key, "key_alias"),
            user_email=_told(key, "user_email"),
            user_roles=tuple(filter(None, (_told(key, "user_role"),))),
            organization_id=_told(key, "org_id") or _told(key, "team_id"),
            method=("oidc" if by_token else "api_key") if shown else "anonymous",
            assurance=("verified" if admitted and owned else "asserted") if shown else "",
            issuer="litellm",
            # A token is another one every hour: it says nothing of who calls.
            key_id=_key_id(self._desk.secret, shown) if shown and not by_token else "",
        )
        for name in ("team_id", "team_alias", "key_alias", "end_user_id"):
            self._note(name, _told(key, name))

    def _note(self, name: str, value: object) -> None:
        if value not in (None, ""):
            self._attributes[name] = values.text(str(value))

    # -- what happens to it ---------------------------------------------------------------------

    def announced(self) -> CallDraft:
        """The draft as far as an intent needs it."""
        self.draft.operation, self.draft.path = self._action(), self.path
        return self.draft

    def answered_by(self, response: Any) -> None:
        """The stream's own words on its model, should its end never be told."""
        self.draft.provider = values.text(getattr(response, "custom_llm_provider", ""))
        model = values.text(getattr(response, "model", ""))
        if model:
            resolved = f"{self.draft.provider}/{model}" if self.draft.provider else model
            self.draft.model = {"resolved": resolved}

    def passed_on(self, chunk: Any) -> None:
        """A piece went to the caller. The first thousands are kept: they tell what was said, where
        LiteLLM does not."""
        self.draft.pieces = True
        self.draft.count_chunk(self._begun_ns)
        if len(self._chunks) < _MAX_KEPT_CHUNKS:
            self._chunks.append(chunk)

    def stream_ended(self) -> None:
        """The last piece went to the caller; LiteLLM's success event follows."""
        self._ended_ns = time.perf_counter_ns()

    def succeeded(self, response: Any, payload: Mapping[str, Any]) -> None:
        """It is over, and complete."""
        said = values.mapping(payload.get("response"))
        if said.get("choices") or said.get("usage"):
            # Without vectors, which say nothing that is recorded.
            self.draft.say({name: value for name, value in said.items() if name != "data"})
        else:
            self.draft.say(response)
        self._end(None, payload)

    def left(self, payload: Mapping[str, Any]) -> None:
        """The caller left."""
        self._say_chunks()
        self.draft.status = 200 if self.draft.chunks else None
        self._end(None, payload, gone=True)

    def failed(self, error: BaseException, payload: Mapping[str, Any]) -> None:
        """It failed, or was refused."""
        self._say_chunks()
        self.draft.status = status_of(error)
        if self.draft.status == 499:
            self._end(None, payload, gone=True)
            return
        self._end(error, payload)

    def lost(self) -> None:
        """LiteLLM never told the end."""
        self._say_chunks()
        self._end(None if self._ended_ns else SystemExit(), {})

    def _say_chunks(self) -> None:
        for chunk in self._chunks:
            self.draft.say(chunk)

    def _end(
        self, error: BaseException | None, payload: Mapping[str, Any], gone: bool = False
    ) -> None:
        draft = self.draft
        draft.end(error, gone)
        if error is None and not gone:
            draft.status = 200
        if draft.raised is not None:
            draft.raised = _refined(draft.raised, error, payload)
            self._judge_caller(draft.raised.verdict.reason)
        draft.operation = self._action()
        draft.path = self.path
        self._read(payload)
        draft.attributes = self._attributes
        draft.duration_ns = self._duration_ns(payload)
        self._chunks = []
        self._desk.emit(draft)

    def _judge_caller(self, reason: str) -> None:
        """Nobody is named after a key that proved nothing."""
        who = self.draft.identity
        if reason == "unauthenticated":
            self.draft.identity = Identity(
                method=who.method, assurance="failed", issuer=who.issuer, key_id=who.key_id
            )

    def _action(self) -> str:
        by_path = action_of(self.path)
        kind = self._call_type.removeprefix("a") if self._call_type.startswith("a") else ""
        known = _ACTIONS.get(self._call_type) or _ACTIONS.get(kind)
        return by_path if by_path != "unknown" else known or "unknown"

    def _read(self, payload: Mapping[str, Any]) -> None:
        draft, hidden = self.draft, values.mapping(payload.get("hidden_params"))
        metadata = values.mapping(payload.get("metadata"))
        self.path = draft.path = self.path or values.text(
            metadata.get("user_api_key_request_route")
        )
        draft.source_ip = values.text(payload.get(_ADDRESS), 64) or draft.source_ip
        agent = values.text(payload.get("user_agent"), 512)
        if agent:
            draft.headers = {**draft.headers, "user-agent": agent}
        draft.provider = values.text(payload.get("custom_llm_provider")) or draft.provider
        resolved = values.text(payload.get("model"))
        draft.model = {"resolved": resolved} if resolved else draft.model
        self._note("deployment_id", payload.get("model_id"))
        self._note("upstream", payload.get("api_base") or hidden.get("api_base"))
        self._note("cost_usd", payload.get("response_cost"))
        self._note("litellm_trace_id", payload.get("trace_id"))
        if payload.get("cache_hit"):
            self._note("cache_hit", "true")
        blocked = [g for g in _guardrails(payload) if _intervened(g)]
        self._note("guardrail", ",".join(str(g.get("guardrail_name", "")) for g in blocked))

    def _duration_ns(self, payload: Mapping[str, Any]) -> int:
        """Until the last piece of a stream, else until LiteLLM says it was over."""
        over = values.number(payload.get("endTime"))
        if self._ended_ns or over is None or self.draft.chunks:
            return (self._ended_ns or time.perf_counter_ns()) - self._begun_ns
        return max(1, int(over * 1e9) - self.draft.started_ns)


def _metadata_of(data: Any) -> dict[str, Any] | None:
    """LiteLLM's own metadata of a request: on routes where `metadata` is the caller's and goes to
    the provider, it is litellm_metadata."""
    if not isinstance(data, dict):
        return None
    for name in ("litellm_metadata", "metadata"):
        if isinstance(data.get(name), dict):
            found: dict[str, Any] = data[name]
            return found
    return None


def _logged_metadata(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same metadata, where logging events have it."""
    params = values.mapping(kwargs.get("litellm_params"))
    for name in ("litellm_metadata", "metadata"):
        found = values.mapping(params.get(name))
        if found.get(_TOKEN):
            return found
    return values.mapping(params.get("metadata"))


def _told(key: Any, name: str) -> str:
    value = getattr(key, name, None)
    return values.text(str(getattr(value, "value", value))) if value is not None else ""


def _key_id(secret: bytes, shown: str) -> str:
    """The keyed digest of what LiteLLM calls a hash. Where that is the key, as it can be, the key
    is hashed first as LiteLLM does it, so that both ways give the same id."""
    is_hash = len(shown) == _SHA256_HEX_DIGITS and set(shown) <= set("0123456789abcdef")
    return key_id(secret, shown if is_hash else hashlib.sha256(shown.encode()).hexdigest())


def _says_client_left(payload: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    information = values.mapping(payload.get("error_information"))
    return metadata.get("client_disconnected") is True or information.get("error_code") == "499"


def _guardrails(payload: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [values.mapping(item) for item in values.sequence(payload.get("guardrail_information"))]


def _intervened(guardrail: Mapping[str, Any]) -> bool:
    return guardrail.get("guardrail_status") == "guardrail_intervened"


def _refined(raised: Raised, error: BaseException | None, payload: Mapping[str, Any]) -> Raised:
    """What LiteLLM's own types say beyond the status code."""
    reason = _reason(error, payload)
    if not reason:
        return raised
    aborted_by = "upstream" if reason == "upstream_error" else ""
    return Raised(raised.type_name, Verdict("failure", reason, aborted_by))


def _reason(error: BaseException | None, payload: Mapping[str, Any]) -> str:
    name = type(error).__name__.lower()
    detail = str(getattr(error, "detail", ""))[:512].lower()
    blocked = "guardrail" in name or "contentpolicy" in name or "guardrail" in detail
    if blocked or any(map(_intervened, _guardrails(payload))):
        return "content_filtered"
    if "modelnotfound" in name:
        return "not_found"
    kind = getattr(error, "type", "")
    kind = str(getattr(kind, "value", kind))  # an enumeration's name is not its value
    if kind.endswith("_access_denied"):
        return "forbidden"
    by_provider = bool(getattr(error, "llm_provider", ""))
    status = status_of(error) if error is not None else None
    failed = by_provider and status in (500, 502)
    return _BY_TYPE.get(kind, "upstream_error" if failed else "")
