"""What requests and answers of model services say: OpenAI's format with llama.cpp's additions,
Anthropic's and Ollama's where they differ. Pure: JSON in, facts out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gatebook.producers.values import mapping, number, parse_json, sequence, text, texts, whole

MAX_TOOLS = 64
_STOP_MAX_CHARS = 64
_STOP_MAX_ITEMS = 16

# Path suffix -> event.action. What is not listed is `unknown`.
ACTIONS = {
    "/chat/completions": "chat",
    "/completions": "text_completion",
    "/completion": "text_completion",
    "/embeddings": "embeddings",
    "/embedding": "embeddings",
    "/responses": "chat",
    "/messages": "chat",
    "/api/chat": "chat",
    "/api/generate": "text_completion",
    "/api/embed": "embeddings",
    "/models": "list_models",
    "/api/tags": "list_models",
}
OPERATIONS = frozenset({"chat", "text_completion", "embeddings"})
_TOKEN_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "n_predict")
_INPUTS = ("system", "instructions", "messages", "prompt", "input")
_SYSTEM_ROLES = frozenset({"system", "developer"})


def action_of(path: str) -> str:
    """What a path asks for."""
    path = path.rstrip("/")
    found = [suffix for suffix in ACTIONS if path.endswith(suffix)]
    return ACTIONS[max(found, key=len)] if found else "unknown"


@dataclass
class RequestFacts:
    """What a request asked of the model. `input` is what digests are made of."""

    model: str = ""
    stream: bool | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop_sequences: list[str] = field(default_factory=list)
    message_count: int | None = None
    tools_offered: list[str] = field(default_factory=list)
    on_behalf_of: str = ""
    conversation_id: str = ""
    input: Any = None
    input_messages: list[Any] = field(default_factory=list)
    system_instructions: list[Any] = field(default_factory=list)
    tools: list[Any] = field(default_factory=list)


def read_request(body: Any) -> RequestFacts:
    """The facts of a request's JSON. Anything unexpected is left out, never an error."""
    data = mapping(body)
    stream = data.get("stream")
    messages = sequence(data.get("messages")) or _as_messages(data)
    facts = RequestFacts(
        model=text(data.get("model")),
        stream=stream if isinstance(stream, bool) else None,
        max_tokens=_first_whole(data, *_TOKEN_LIMITS),
        temperature=number(data.get("temperature")),
        top_p=number(data.get("top_p")),
        seed=whole(data.get("seed")),
        stop_sequences=texts(data.get("stop"), _STOP_MAX_ITEMS, _STOP_MAX_CHARS),
        message_count=len(messages) if isinstance(data.get("messages"), list) else None,
        tools_offered=_tool_names(sequence(data.get("tools"))),
        on_behalf_of=text(data.get("user")) or text(mapping(data.get("metadata")).get("user_id")),
        conversation_id=_conversation(data.get("conversation")),
        input=[data.get(name) for name in _INPUTS],
        tools=sequence(data.get("tools")),
    )
    system = [data[name] for name in ("system", "instructions") if data.get(name)]
    facts.system_instructions = [m for m in messages if _role(m) in _SYSTEM_ROLES] + system
    facts.input_messages = [m for m in messages if _role(m) not in _SYSTEM_ROLES]
    return facts


def _conversation(value: object) -> str:
    return text(value) or text(mapping(value).get("id"))


def _role(message: Any) -> object:
    return mapping(message).get("role")


def _as_messages(data: Mapping[str, Any]) -> list[Any]:
    """A prompt or input as user messages."""
    given = data.get("prompt") if data.get("prompt") is not None else data.get("input")
    if given is None:
        return []
    items = given if isinstance(given, list) else [given]
    return [i if isinstance(i, dict) else {"role": "user", "content": i} for i in items]


def _tool_names(tools: Iterable[Any]) -> list[str]:
    rows = [mapping(tool) for tool in tools]
    names = [
        text(mapping(row.get("function")).get("name")) or text(row.get("name")) for row in rows
    ]
    return [name for name in names if name][:MAX_TOOLS]


def _first_whole(data: Mapping[str, Any], *names: str) -> int | None:
    values = (whole(data.get(name)) for name in names)
    return next((value for value in values if value is not None), None)


@dataclass
class AnswerFacts:
    """What an answer said. `ended` says whether a stream's own end mark was seen, `recognised`
    whether it is a format known here, `deltas` how many pieces of text a stream had."""

    id: str = ""
    model: str = ""
    finish_reasons: list[str] = field(default_factory=list)
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    tools_called: list[str] = field(default_factory=list)
    error_type: str = ""
    error_code: str = ""
    error_text: str = ""
    failed: bool = False
    ended: bool = False
    recognised: bool = False
    deltas: int = 0
    messages: list[dict[str, Any]] = field(default_factory=list)


class AnswerReader:
    """Puts an answer together, from one JSON object or from the many of a stream."""

    def __init__(self) -> None:
        self.facts = AnswerFacts()
        self._messages: dict[int, dict[str, Any]] = {}
        self._text: dict[int, list[str]] = {}
        self._calls: dict[tuple[int, int], dict[str, Any]] = {}
        self._finish: dict[int, str] = {}
        self._counted: dict[str, int] = {}

    def read(self, value: Any) -> None:
        """One JSON object."""
        data = mapping(value)
        self._read_error(data)
        self._read_common(data)
        for position, choice in enumerate(sequence(data.get("choices"))):
            self._read_choice(position, mapping(choice))
        if "choices" not in data:
            self._read_other(data)

    def _read_common(self, data: Mapping[str, Any]) -> None:
        # Anthropic and OpenAI's responses wrap these in `message` or `response`.
        for inner in (data, mapping(data.get("message")), mapping(data.get("response"))):
            self.facts.id = self.facts.id or text(inner.get("id"))
            self.facts.model = self.facts.model or text(inner.get("model"))
            self._read_usage(mapping(inner.get("usage")))
        self._read_timings(data)
        known = ("choices", "usage", "timings", "data", "message", "response", "content", "models")
        self.facts.recognised = self.facts.recognised or any(name in data for name in known)

    def _read_usage(self, usage: Mapping[str, Any]) -> None:
        if not usage:
            return
        facts = self.facts
        details = mapping(usage.get("prompt_tokens_details") or usage.get("input_tokens_details"))
        output = mapping(
            usage.get("completion_tokens_details") or usage.get("output_tokens_details")
        )
        found = {
            "input_tokens": _first_whole(usage, "prompt_tokens", "input_tokens"),
            "output_tokens": _first_whole(usage, "completion_tokens", "output_tokens"),
            "cached_tokens": _first_whole(
                {**details, **usage}, "cached_tokens", "cache_read_input_tokens"
            ),
            "reasoning_tokens": whole(output.get("reasoning_tokens")),
        }
        for name, value in found.items():
            if value is not None:
                setattr(facts, name, value)

    def _read_timings(self, data: Mapping[str, Any]) -> None:
        """Counts of llama.cpp and Ollama: they stand in where there is no `usage`, for example in
        a stream that broke off."""
        timings = mapping(data.get("timings"))
        prompt, cached = whole(timings.get("prompt_n")), whole(timings.get("cache_n"))
        found = {
            "input_tokens": _first_whole(data, "tokens_evaluated", "prompt_eval_count"),
            "output_tokens": _first_whole(data, "tokens_predicted", "eval_count"),
        }
        if prompt is not None:
            found["input_tokens"] = prompt + (cached or 0)
        if "predicted_n" in timings:
            found["output_tokens"] = whole(timings.get("predicted_n"))
        self._counted.update({k: v for k, v in found.items() if v is not None})

    def _read_choice(self, position: int, choice: Mapping[str, Any]) -> None:
        index = whole(choice.get("index"))
        index = position if index is None else index
        message = mapping(choice.get("delta") or choice.get("message"))
        self._add_text(index, message.get("content"))
        self._add_text(index, choice.get("text"))
        for place, call in enumerate(sequence(message.get("tool_calls"))):
            self._add_call(index, place, mapping(call))
        self._end(index, choice.get("finish_reason"))

    def _add_text(self, index: int, value: object) -> None:
        if isinstance(value, str) and value:
            self._text.setdefault(index, []).append(value)
            self.facts.deltas += 1
        elif isinstance(value, list):
            for part in value:
                self._add_text(index, mapping(part).get("text"))

    def _add_call(self, index: int, place: int, call: Mapping[str, Any]) -> None:
        at = whole(call.get("index"))
        known = self._calls.setdefault((index, place if at is None else at), {})
        function = mapping(call.get("function"))
        known["name"] = known.get("name") or text(function.get("name"))
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            known["arguments"] = known.get("arguments", "") + arguments

    def _end(self, index: int, reason: object) -> None:
        if isinstance(reason, str) and reason:
            self._finish[index] = text(reason, 64)
            self.facts.ended = True

    def _read_other(self, data: Mapping[str, Any]) -> None:
        """Anthropic, Ollama, llama.cpp's own route and OpenAI's responses."""
        kind = text(data.get("type"))
        message = mapping(data.get("message"))
        self._add_text(0, data.get("content"))
        self._add_text(0, message.get("content"))
        self._add_text(0, mapping(data.get("delta")).get("text"))
        if kind == "response.output_text.delta":
            self._add_text(0, data.get("delta"))
        self._end(0, data.get("done_reason") or data.get("stop_type") or data.get("stop_reason"))
        self._end(0, mapping(data.get("delta")).get("stop_reason"))
        whole_answer = mapping(data.get("response")) or data
        for item in sequence(whole_answer.get("output")):
            if kind != "response.completed":
                self._add_text(0, mapping(item).get("content"))
        if kind in ("message_stop", "response.completed") or data.get("done") is True:
            self.facts.ended = True

    def _read_error(self, data: Mapping[str, Any]) -> None:
        error = data.get("error")
        if not error:
            return
        inner = mapping(error)
        self.facts.failed = self.facts.recognised = True
        self.facts.error_type = _identifier(inner.get("type"))
        code = inner.get("code")
        self.facts.error_code = _identifier(str(code) if isinstance(code, int) else code)
        said = error if isinstance(error, str) else inner.get("message")
        self.facts.error_text = text(said, 8192)

    def finish(self) -> AnswerFacts:
        """The facts, put together."""
        facts = self.facts
        for name, count in self._counted.items():
            if getattr(facts, name) is None:
                setattr(facts, name, count)
        facts.finish_reasons = [self._finish[i] for i in sorted(self._finish)]
        facts.tools_called = [c["name"] for _, c in sorted(self._calls.items()) if c.get("name")]
        facts.tools_called = facts.tools_called[:MAX_TOOLS]
        for index in sorted({*self._text, *(i for i, _ in self._calls)}):
            facts.messages.append(self._message(index))
        return facts

    def _message(self, index: int) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(self._text.get(index, [])),
        }
        calls = [call for (i, _), call in sorted(self._calls.items()) if i == index]
        if calls:
            message["tool_calls"] = calls
        if index in self._finish:
            message["finish_reason"] = self._finish[index]
        return message


def _identifier(value: object) -> str:
    """A type or code of an error, if it looks like one: never a sentence, which may quote."""
    found = text(value, 65)
    plain = found.replace("_", "").replace("-", "").replace(".", "")
    return found if len(found) <= 64 and plain.isascii() and plain.isalnum() else ""


def read_answer(body: Any) -> AnswerFacts:
    """The facts of an answer that is one JSON object."""
    reader = AnswerReader()
    reader.read(body)
    return reader.finish()


def read_stream(parts: Iterable[bytes]) -> AnswerFacts:
    """The facts of a streamed answer, server-sent events or a JSON object a line, given as runs of
    bytes between which something may be missing."""
    reader = AnswerReader()
    for value in (value for part in parts for value in _stream_values(part)):
        if value is None:
            reader.facts.ended = True
        else:
            reader.read(value)
    return reader.finish()


def _stream_values(data: bytes) -> Iterator[Any]:
    """The JSON objects of a run of a stream; None for `[DONE]`. A cut line is passed over."""
    for line in data.splitlines():
        if line.startswith(b"data:"):
            line = line[5:].strip()
        if line == b"[DONE]":
            yield None
        elif line.startswith(b"{"):
            value = parse_json(line)
            if value is not None:
                yield value
