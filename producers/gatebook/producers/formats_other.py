"""Answers that do not come as OpenAI's `choices`: Anthropic's messages, OpenAI's responses,
llama.cpp's own route, Ollama's and TGI's. Pure.

Each reader takes one JSON object, adds what it finds to the assembly, and leaves alone what is
not its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gatebook.producers import formats_ollama
from gatebook.producers.formats_assembly import Assembly
from gatebook.producers.values import mapping, sequence, text, whole

_NOT_OVER = frozenset({"in_progress", "queued"})
_ENDS = frozenset({"message_stop", "response.completed", "response.incomplete", "response.failed"})


def read_other(data: Mapping[str, Any], into: Assembly) -> None:
    """Whatever of these formats is in it."""
    for read in (_read_plain, _read_anthropic, _read_responses, _read_tgi):
        read(data, into)


def is_end(data: Mapping[str, Any]) -> bool:
    """Whether this is a stream's own end mark."""
    over = text(data.get("type")) in _ENDS or data.get("done") is True
    return over or isinstance(data.get("generated_text"), str)


def _read_plain(data: Mapping[str, Any], into: Assembly) -> None:
    """llama.cpp's `content` and Ollama's `message` or `response`."""
    if isinstance(data.get("content"), str):
        into.add_text(0, data["content"])
    into.add_message(0, mapping(data.get("message")))
    into.add_text(0, formats_ollama.answer_text(data))
    if data.get("done") is not None:
        into.add_message(0, {"thinking": data.get("thinking")})
    into.end(0, formats_ollama.end_reason(data) or data.get("stop_type"))


def _read_anthropic(data: Mapping[str, Any], into: Assembly) -> None:
    delta = mapping(data.get("delta"))
    into.end(0, data.get("stop_reason") or delta.get("stop_reason"))
    into.add_text(0, delta.get("text"))
    at = whole(data.get("index")) or 0
    if isinstance(delta.get("partial_json"), str):
        into.add_call(0, at, None, delta["partial_json"])
    blocks = [(at, data.get("content_block")), *enumerate(sequence(data.get("content")))]
    for place, found in blocks:
        block = mapping(found)
        into.add_text(0, block.get("text"))
        if block.get("type") == "tool_use":
            into.add_call(0, place, block.get("name"), block.get("input"))


def _read_responses(data: Mapping[str, Any], into: Assembly) -> None:
    kind = text(data.get("type"))
    if kind in ("response.output_text.delta", "response.refusal.delta"):
        into.add_text(0, data.get("delta"))
    elif kind == "response.function_call_arguments.delta":
        into.add_call(0, _item_key(data), None, data.get("delta"))
    elif kind.startswith("response.output_item."):
        _read_item(data, mapping(data.get("item")), into)
    whole_answer = mapping(data.get("response")) or data
    for item in sequence(whole_answer.get("output")):
        found = mapping(item)
        if not kind:  # at the end of a stream this repeats what its pieces said
            into.add_text(0, found.get("content"))
        _read_item({}, found, into)
    if isinstance(whole_answer.get("output"), list) and whole_answer.get("status"):
        into.end(0, _response_end(whole_answer))


def _item_key(data: Mapping[str, Any]) -> str:
    return text(data.get("item_id"))


def _read_item(data: Mapping[str, Any], item: Mapping[str, Any], into: Assembly) -> None:
    """A tool call among the items; the same item comes when it begins, ends, and at the end."""
    if item.get("type") == "function_call":
        key = text(item.get("id")) or text(item.get("call_id"))
        into.add_call(0, key, item.get("name"))
        if item.get("arguments"):
            into.set_arguments(0, key, item["arguments"])


def _response_end(answer: Mapping[str, Any]) -> str:
    status = text(answer.get("status"), 64)
    why = text(mapping(answer.get("incomplete_details")).get("reason"), 64)
    return "" if status in _NOT_OVER else why or status


def _read_tgi(data: Mapping[str, Any], into: Assembly) -> None:
    token, details = mapping(data.get("token")), mapping(data.get("details"))
    if token:
        if token.get("special") is not True:
            into.add_text(0, token.get("text"))
    else:
        into.add_text(0, data.get("generated_text"))
    into.end(0, details.get("finish_reason"))


def tgi_counts(data: Mapping[str, Any]) -> dict[str, int]:
    """Tokens as TGI's details say them."""
    details = mapping(data.get("details"))
    read = whole(details.get("input_length")) or len(sequence(details.get("prefill"))) or None
    found = {"input_tokens": read, "output_tokens": whole(details.get("generated_tokens"))}
    return {name: count for name, count in found.items() if count is not None}
