"""What requests and answers of model services say: OpenAI's format with llama.cpp's additions, and
others where they differ. Pure: JSON in, facts out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gatebook.producers import formats_ollama
from gatebook.producers.formats_actions import ACTIONS, OPERATIONS, action_of
from gatebook.producers.formats_assembly import MAX_TOOLS, Assembly
from gatebook.producers.formats_other import is_end, read_other, tgi_counts
from gatebook.producers.formats_stream import values_of
from gatebook.producers.values import mapping, number, sequence, text, texts, whole

__all__ = [
    "ACTIONS",
    "MAX_TOOLS",
    "OPERATIONS",
    "AnswerFacts",
    "AnswerReader",
    "RequestFacts",
    "action_of",
    "read_answer",
    "read_request",
    "read_stream",
]

_STOP_MAX_CHARS = 64
_STOP_MAX_ITEMS = 16
_TOKEN_LIMITS = (
    "max_completion_tokens",
    "max_tokens",
    "max_output_tokens",
    "n_predict",
    "max_new_tokens",
)
_INPUTS = ("system", "instructions", "messages", "prompt", "input")
_MORE_INPUTS = ("query", "documents", "inputs", "suffix", "images")
_BUILD = "system_fingerprint"
_SYSTEM_ROLES = frozenset({"system", "developer"})
# Any of these in an answer, and its format is one that is known here.
_KNOWN = frozenset(
    {
        "choices", "usage", "timings", "data", "message", "response", "content", "models",
        "embeddings", "embedding", "results", "token", "generated_text", "output", "done",
    }
)  # fmt: skip


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
    data = _flattened(mapping(body))
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
        on_behalf_of=_end_user(data),
        conversation_id=_conversation(data.get("conversation")),
        input=_input(data),
        tools=sequence(data.get("tools")),
    )
    system = [data[name] for name in ("system", "instructions") if data.get(name)]
    facts.system_instructions = [m for m in messages if _role(m) in _SYSTEM_ROLES] + system
    facts.input_messages = [m for m in messages if _role(m) not in _SYSTEM_ROLES]
    return facts


def _flattened(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Sampling parameters at the top: Ollama keeps them in `options`, TGI in `parameters`."""
    inner = mapping(data.get("parameters"))
    return formats_ollama.with_options({**inner, **data} if inner else data)


def _input(data: Mapping[str, Any]) -> list[Any]:
    """What digests are made of: the same whatever else a request says."""
    return [data.get(name) for name in _INPUTS] + [
        {name: data[name]} for name in _MORE_INPUTS if data.get(name)
    ]


def _end_user(data: Mapping[str, Any]) -> str:
    """Whom the caller says it acts for; OpenAI renamed the field, Anthropic has it elsewhere."""
    given = text(data.get("user")) or text(data.get("safety_identifier"))
    return given or text(mapping(data.get("metadata")).get("user_id"))


def _conversation(value: object) -> str:
    return text(value) or text(mapping(value).get("id"))


def _role(message: Any) -> object:
    return mapping(message).get("role")


def _as_messages(data: Mapping[str, Any]) -> list[Any]:
    """A prompt, an input, or a query and its documents as user messages."""
    names = ("prompt", "input", "inputs", "query")
    given = next((data[name] for name in names if data.get(name) is not None), None)
    if given is None:
        return []
    items = given if isinstance(given, list) else [given]
    if items and all(isinstance(item, int) for item in items):
        items = [items]  # one prompt, as tokens
    items = items + sequence(data.get("documents"))
    return [i if _role(i) else {"role": "user", "content": i} for i in items]


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
    whether it is a format known here, `deltas` how many pieces of text a stream had, `extras` what
    has no field of its own in the event."""

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
    extras: dict[str, str] = field(default_factory=dict)


class AnswerReader:
    """Puts an answer together, from one JSON object or from the many of a stream."""

    def __init__(self) -> None:
        self.facts = AnswerFacts()
        self._assembly = Assembly()
        self._counted: dict[str, int] = {}

    def read(self, value: Any) -> None:
        """One JSON object, or a list of them."""
        for item in sequence(value) or [value]:
            self._read_object(mapping(item))

    def _read_object(self, data: Mapping[str, Any]) -> None:
        self._read_error(data)
        self._read_common(data)
        for position, choice in enumerate(sequence(data.get("choices"))):
            self._read_choice(position, mapping(choice))
        if "choices" not in data:
            read_other(data, self._assembly)
            self.facts.ended = self.facts.ended or is_end(data)

    def _read_common(self, data: Mapping[str, Any]) -> None:
        facts = self.facts
        self._read_identity(data)
        if "choices" not in data:
            # Anthropic and OpenAI's responses wrap these in `message` or `response`.
            self._read_identity(mapping(data.get("message")))
            self._read_identity(mapping(data.get("response")))
            self._counted.update(tgi_counts(data))
        if "choices" not in data or "timings" in data:
            self._counted.update(formats_ollama.counts(data))
            found = formats_ollama.durations(data)
            facts.extras.update({name: str(value) for name, value in found.items()})
        facts.recognised = facts.recognised or not _KNOWN.isdisjoint(data)

    def _read_identity(self, data: Mapping[str, Any]) -> None:
        facts = self.facts
        facts.id = facts.id or text(data.get("id"))
        facts.model = facts.model or text(data.get("model"))
        if data.get("usage"):
            self._read_usage(mapping(data["usage"]))
        build = data.get("system_fingerprint")
        if build and facts.extras.get(_BUILD) != build and _identifier(build):
            facts.extras[_BUILD] = build

    def _read_usage(self, usage: Mapping[str, Any]) -> None:
        if not usage:
            return
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
        if found["input_tokens"] is None and found["output_tokens"] is None:
            found["input_tokens"] = whole(usage.get("total_tokens"))  # embeddings, rerank
        for name, value in found.items():
            if value is not None:
                setattr(self.facts, name, value)

    def _read_choice(self, position: int, choice: Mapping[str, Any]) -> None:
        index = whole(choice.get("index"))
        index = position if index is None else index
        self._assembly.begin(index)
        self._assembly.add_message(index, mapping(choice.get("delta") or choice.get("message")))
        self._assembly.add_text(index, choice.get("text"))
        self._assembly.end(index, choice.get("finish_reason"))

    def _read_error(self, data: Mapping[str, Any]) -> None:
        error = data.get("error") or mapping(data.get("response")).get("error")
        if data.get("type") == "error" and not error:
            error = {"code": data.get("code"), "message": data.get("message")}
        if not error:
            return
        inner = mapping(error)
        self.facts.failed = self.facts.recognised = True
        self.facts.error_type = _identifier(inner.get("type")) or _identifier(
            data.get("error_type")
        )
        code = inner.get("code")
        self.facts.error_code = _identifier(str(code) if isinstance(code, int) else code)
        said = error if isinstance(error, str) else inner.get("message")
        self.facts.error_text = text(said, 8192)

    def finish(self) -> AnswerFacts:
        """The facts, put together."""
        facts, assembly = self.facts, self._assembly
        for name, count in self._counted.items():
            if getattr(facts, name) is None:
                setattr(facts, name, count)
        facts.ended = facts.ended or assembly.ended
        facts.finish_reasons = assembly.finish_reasons
        facts.tools_called = assembly.tools_called
        facts.messages = assembly.messages()
        facts.deltas = assembly.pieces
        return facts


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
    for value in values_of(parts):
        if value is None:
            reader.facts.ended = True
        else:
            reader.read(value)
    return reader.finish()
