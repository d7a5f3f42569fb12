"""Code that calls a model in its own process: a decorator and a context manager.

    @recorded_call("chat", model="tiny")
    async def answer(messages, temperature=0.2): ...

    with record_call("chat", model="tiny", user="alice") as call:
        call.request(messages=messages)
        call.output(model.generate(messages))
        call.usage(input_tokens=12, output_tokens=40)

One event per call, whatever its end: complete, an exception, a cancelled task, a generator that was
closed early. A time-out inside the call is a time-out; an `asyncio.timeout` around it looks like a
cancelled task from within. Who calls, and in which trace, is taken from the context:

    with identity("alice", method="oidc", assurance="verified"), trace(headers["traceparent"]):
        await answer(messages)
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
import time
import types
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar, cast

import msgspec

from gatebook.producers.call_draft import (
    ASKED,
    CallDraft,
    Desk,
    caller,
    desk_of,
    encoded,
    new_call,
    traceparent,
    within,
)
from gatebook.producers.classify import MESSAGES, Raised, Verdict
from gatebook.producers.identity import Identity
from gatebook.producers.recorder import NotDurable, Recorder

__all__ = ["RecordedCall", "current_call", "identity", "record_call", "recorded_call", "trace"]

P = ParamSpec("P")
T = TypeVar("T")

_LEFT = (GeneratorExit, asyncio.CancelledError)
_MAX_ATTRIBUTES = 32

_current: ContextVar[RecordedCall | None] = ContextVar("gatebook_call", default=None)


def current_call() -> RecordedCall | None:
    """The innermost recorded call this code runs in; inside a decorated function, its own."""
    return _current.get()


def identity(
    user_id: str,
    *,
    user_name: str = "",
    user_email: str = "",
    user_roles: tuple[str, ...] = (),
    organization_id: str = "",
    method: str = "",
    assurance: str = "asserted",
    issuer: str = "",
) -> AbstractContextManager[None]:
    """Calls inside are made by this user. `assurance` is `verified` only where the service proved
    who it is, by `method` (sso, oidc, api_key, mtls, header)."""
    who = Identity(
        user_id=user_id,
        user_name=user_name,
        user_email=user_email,
        user_roles=user_roles,
        organization_id=organization_id,
        method=method,
        assurance=assurance,
        issuer=issuer,
    )
    return within(caller, who)


def trace(header: str) -> AbstractContextManager[None]:
    """Calls inside belong to the trace of this W3C `traceparent` header."""
    return within(traceparent, header)


class RecordedCall:
    """One call of a model. A context manager, also an asynchronous one; each is for one call.

    Nothing is recorded before it ends, and no method raises for what it is given. In strict mode
    entering raises NotDurable where the call could not be recorded, and leaving returns once the
    event is durable, or raises NotDurable.
    """

    def __init__(self, desk: Desk, operation: str, given: Mapping[str, Any]) -> None:
        self._desk = desk
        self._operation = operation
        self._given = given
        self._asked: dict[str, Any] = {}
        self._attributes: dict[str, str] = {}
        self._error: BaseException | None = None
        self._begun_ns = 0
        self._ended = False
        self._ending = threading.Lock()
        self._draft: CallDraft | None = None
        self._token: Any = None

    # -- what the caller of the model says ------------------------------------------------------

    def request(self, **fields: Any) -> None:
        """What is asked, in the names of OpenAI's API: messages, prompt, input, temperature,
        max_tokens, tools, stream, user (the end user) ... As it is now: later changes to a list do
        not count."""
        for name, value in fields.items():
            written = encoded(value)
            if written:
                self._asked[name] = msgspec.Raw(written)

    def chunk(self, value: Any) -> None:
        """A piece that is handed on: text, or an object with what it says."""
        self.draft.pieces = True
        self.draft.count_chunk(self._begun_ns)
        if isinstance(value, str):
            self.draft.say_text(value)
        else:
            self.answer(value)

    def output(self, text: str, choice: int = 0) -> None:
        """The text of the answer, or more of it."""
        self.draft.say_text(text, choice)

    def answer(self, value: Any) -> None:
        """An answer as OpenAI's API or another known one gives it: a mapping or what the client
        library returned. Anything else is passed over."""
        if isinstance(value, Mapping) or hasattr(value, "model_dump"):
            self.draft.say(value)

    def usage(
        self,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int | None = None,
        reasoning_tokens: int | None = None,
    ) -> None:
        """Tokens. Called again, what is given replaces what was."""
        output = {"reasoning_tokens": reasoning_tokens}
        counts = {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "cached_tokens": cached_tokens,
            "output_tokens_details": output,
        }
        self.draft.say({"usage": counts})

    def finish(self, *reasons: str) -> None:
        """Why each choice ended: stop, length, tool_calls, content_filter ..."""
        choices = [
            {"index": index, "delta": {}, "finish_reason": reason}
            for index, reason in enumerate(reasons)
        ]
        self.draft.say({"choices": choices})

    def tool_call(self, name: str, arguments: str = "", index: int = 0) -> None:
        """The answer calls a tool; `index` tells several calls apart."""
        call = {"index": index, "function": {"name": name, "arguments": arguments}}
        self.draft.say({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})

    def returned(self, model: str = "", response_id: str = "") -> None:
        """Which model says it answered, and its id of the answer."""
        self.draft.say({"model": model, "id": response_id})

    def served_by(self, **facts: str) -> None:
        """Which weights answered: resolved, weights_hash, quantization, adapter, engine,
        engine_version."""
        known = ("resolved", "weights_hash", "quantization", "adapter", "engine", "engine_version")
        found = {name: str(facts[name]) for name in known if facts.get(name)}
        self.draft.model = {**self.draft.model, **found}

    def identity(self, who: Identity) -> None:
        """Who calls, where that is learned on the way."""
        self.draft.identity = who

    def attribute(self, name: str, value: str) -> None:
        """An extra pair, no content. At most 32."""
        if name in self._attributes or len(self._attributes) < _MAX_ATTRIBUTES:
            self._attributes[str(name)[:256]] = str(value)[:1024]

    def fail(self, reason: str) -> None:
        """The call did not succeed though nothing was raised: content_filtered, rate_limited,
        forbidden ... ValueError for a reason that is not known."""
        if reason not in MESSAGES:
            raise ValueError(f"reason is one of {', '.join(MESSAGES)}")
        self.draft.raised = Raised("", Verdict("failure", reason))

    @property
    def begun(self) -> bool:
        """Whether the call has begun."""
        return self._draft is not None

    @property
    def draft(self) -> CallDraft:
        """What is known so far. RuntimeError before the call began."""
        if self._draft is None:
            raise RuntimeError("the call has not begun: use it in a `with` statement")
        return self._draft

    # -- its life -------------------------------------------------------------------------------

    def begin(self) -> None:
        """The call begins now; its intent is recorded, where intents are written."""
        draft = self._start()
        try:
            self._desk.announce(draft)
        except NotDurable:
            self._refuse()
            raise

    async def begin_async(self) -> None:
        """`begin` for a coroutine."""
        draft = self._start()
        try:
            await self._desk.announce_async(draft)
        except NotDurable:
            self._refuse()
            raise

    def _start(self) -> CallDraft:
        if self._draft is not None:
            raise RuntimeError("a recorded call is for one call; make another")
        draft = self._draft = new_call(self._desk, self._operation)
        self._begun_ns = time.perf_counter_ns()
        fields = dict(self._given)
        draft.provider = fields.pop("provider", "")
        draft.component = fields.pop("component", "")
        user = fields.pop("user", "")
        if isinstance(user, Identity):
            draft.identity = user
        elif user:
            draft.identity = Identity(user_id=str(user), method="", assurance="asserted")
        self.request(**{n: v for n, v in fields.items() if v and n not in self._asked})
        return draft

    def _refuse(self) -> None:
        """What could not be recorded durably is recorded as refused, as well as can be."""
        self.fail("unavailable")
        if self._claim():
            self._desk.emit(self._finished(None))

    def _finished(self, error: BaseException | None) -> CallDraft:
        draft = self.draft
        refused = draft.raised
        draft.ask(self._asked)
        draft.attributes = self._attributes
        draft.end(error, isinstance(error, _LEFT))
        if refused is not None and error is None:
            draft.raised, draft.sent_all = refused, False
        draft.duration_ns = time.perf_counter_ns() - self._begun_ns
        return draft

    def _claim(self) -> bool:
        """Whether this is the end; there is one, whatever comes after."""
        with self._ending:
            if self._ended or self._draft is None:
                return False
            self._ended = True
            return True

    def end(self, error: BaseException | None = None) -> None:
        """The call is over, with an error or without. A second end changes nothing."""
        if self._claim():
            self._give(error)

    def _give(self, error: BaseException | None) -> None:
        draft = self._finished(error)
        if error is None:
            self._desk.hand_over(draft)
        else:  # the caller gets its own error, which must not be hidden
            self._desk.emit(draft)

    async def end_async(self, error: BaseException | None = None) -> None:
        """`end` for a coroutine."""
        if not self._claim():
            return
        if error is None:
            await self._desk.hand_over_async(self._finished(None))
        else:
            self._give(error)

    def __enter__(self) -> RecordedCall:
        self.begin()
        self._token = _current.set(self)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, where: Any) -> None:
        self._leave()
        self.end(error)

    async def __aenter__(self) -> RecordedCall:
        await self.begin_async()
        self._token = _current.set(self)
        return self

    async def __aexit__(self, kind: Any, error: BaseException | None, where: Any) -> None:
        self._leave()
        await self.end_async(error)

    def _leave(self) -> None:
        with suppress(ValueError):  # a generator that was closed from another context
            _current.reset(self._token)

    def __del__(self) -> None:
        """A call that was begun and forgotten, such as a stream nobody read, was left."""
        if self._claim():
            self._desk.emit_apart(self._finished(GeneratorExit()))


def record_call(
    operation: str = "chat",
    *,
    model: str = "",
    user: str | Identity = "",
    provider: str = "",
    component: str = "",
    recorder: Recorder | None = None,
) -> RecordedCall:
    """A call to use in `with` or `async with`. `operation` is chat, text_completion, embeddings,
    execute_tool ...; `user` goes before the identity of the context. Without `recorder` the one of
    the process is used, from the environment: Fatal where its settings are refused."""
    given = {"model": model, "user": user, "provider": provider, "component": component}
    return RecordedCall(desk_of(recorder), operation, given)


# -- the decorator ------------------------------------------------------------------------------


def recorded_call(
    operation: str = "chat",
    *,
    model: str = "",
    user: str | Identity = "",
    provider: str = "",
    component: str = "",
    recorder: Recorder | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Record every call of a function, coroutine function, generator or asynchronous generator.

    Arguments named as in OpenAI's API (messages, prompt, input, model, temperature, tools ...) are
    what is asked; what is returned or yielded is the answer, where it is text or an object of a
    known API. `current_call()` inside says the rest. Values pass unchanged. A returned generator or
    coroutine is recorded when it ends.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        given = {"model": model, "user": user, "provider": provider, "component": component}
        return cast(Callable[P, T], _wrapped(_Calls(function, operation, given, recorder)))

    return decorate


class _Calls:
    """Makes the recorded call for one call of a function; it has not begun then."""

    def __init__(
        self,
        function: Callable[..., Any],
        operation: str,
        given: Mapping[str, Any],
        recorder: Recorder | None,
    ) -> None:
        self.function = function
        self._operation = operation
        self._given = given
        self._recorder = recorder
        self._signature = inspect.signature(function)

    def new(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> RecordedCall:
        call = RecordedCall(desk_of(self._recorder), self._operation, self._given)
        try:
            found = self._signature.bind(*args, **kwargs).arguments
        except TypeError:  # the function itself says so
            found = {}
        extra = [p.name for p in self._signature.parameters.values() if p.kind is p.VAR_KEYWORD]
        for name in extra:
            found = {**found, **found.get(name, {})}
        asked = {k: v for k, v in found.items() if k in ASKED and v is not None}
        call.request(**asked)
        return call


def _wrapped(calls: _Calls) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(calls.function):
        return _wrap_async_generator(calls)
    if inspect.isgeneratorfunction(calls.function):
        return _wrap_generator(calls)
    if inspect.iscoroutinefunction(calls.function):
        return _wrap_coroutine(calls)
    return _wrap_plain(calls)


def _wrap_plain(calls: _Calls) -> Callable[..., Any]:
    @functools.wraps(calls.function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = calls.new(args, kwargs)
        call.begin()
        try:
            with within(_current, call):
                result = calls.function(*args, **kwargs)
        except BaseException as error:
            call.end(error)
            raise
        if isinstance(result, types.GeneratorType):
            return _steps(call, result)
        if isinstance(result, types.AsyncGeneratorType):
            return _async_steps(call, result)
        if isinstance(result, types.CoroutineType):
            return _awaited(call, result)
        _note(call, result)
        call.end()
        return result

    return wrapper


def _wrap_coroutine(calls: _Calls) -> Callable[..., Any]:
    @functools.wraps(calls.function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = calls.new(args, kwargs)
        await call.begin_async()
        return await _awaited(call, calls.function(*args, **kwargs))

    return wrapper


def _wrap_generator(calls: _Calls) -> Callable[..., Any]:
    @functools.wraps(calls.function)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inner, call = calls.function(*args, **kwargs), calls.new(args, kwargs)
        call.begin()
        return (yield from _steps(call, inner))

    return wrapper


def _wrap_async_generator(calls: _Calls) -> Callable[..., Any]:
    @functools.wraps(calls.function)
    def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        inner = calls.function(*args, **kwargs)
        return _async_steps(calls.new(args, kwargs), inner)

    return wrapper


def _steps(call: RecordedCall, inner: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """The generator `inner`, step by step. This code's own variable is set only while it runs."""
    call.draft.pieces = True
    try:
        value = _step(call, inner.send, None)
        while True:
            call.chunk(value)
            try:
                sent = yield value
            except GeneratorExit:
                inner.close()
                raise
            except BaseException as error:
                value = _step(call, inner.throw, error)
            else:
                value = _step(call, inner.send, sent)
    except StopIteration as stop:
        call.end()
        return stop.value
    except BaseException as error:
        call.end(error)
        raise


def _step(call: RecordedCall, advance: Callable[[Any], Any], value: Any) -> Any:
    with within(_current, call):
        return advance(value)


async def _async_steps(
    call: RecordedCall, inner: AsyncGenerator[Any, Any]
) -> AsyncGenerator[Any, Any]:
    """`_steps` of an asynchronous generator."""
    if not call.begun:
        await call.begin_async()
    call.draft.pieces = True
    try:
        value = await _async_step(call, inner.asend, None)
        while True:
            call.chunk(value)
            try:
                sent = yield value
            except GeneratorExit:
                await inner.aclose()
                raise
            except BaseException as error:
                value = await _async_step(call, inner.athrow, error)
            else:
                value = await _async_step(call, inner.asend, sent)
    except StopAsyncIteration:
        await call.end_async()
    except BaseException as error:
        await call.end_async(error)
        raise


async def _async_step(call: RecordedCall, advance: Callable[[Any], Any], value: Any) -> Any:
    with within(_current, call):
        return await advance(value)


async def _awaited(call: RecordedCall, result: Coroutine[Any, Any, Any]) -> Any:
    try:
        with within(_current, call):
            value = await result
    except BaseException as error:
        await call.end_async(error)
        raise
    _note(call, value)
    await call.end_async()
    return value


def _note(call: RecordedCall, value: Any) -> None:
    """What a function returned, as its answer."""
    if isinstance(value, str):
        call.output(value)
    else:
        call.answer(value)
