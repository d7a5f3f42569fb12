"""Ollama's native API where it differs from OpenAI's: options, counts, durations, tool calls.

Follows docs/api.md of ollama; `/api/chat`, `/api/generate`, `/api/embed` and `/api/embeddings`. A
request without `stream` asks for a stream there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gatebook.producers.values import mapping, text, whole

# Fields of the answer, in nanoseconds -> names of the event's attributes.
DURATIONS = {
    "total_duration": "total_duration_ns",
    "load_duration": "load_duration_ns",
    "prompt_eval_duration": "prompt_eval_duration_ns",
    "eval_duration": "eval_duration_ns",
}
# llama.cpp's timings, in milliseconds.
_TIMINGS = {"prompt_ms": "prompt_eval_duration_ns", "predicted_ms": "eval_duration_ns"}


def with_options(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A request whose sampling parameters stand at the top, where every other service has them."""
    options = mapping(data.get("options"))
    if not options:
        return data
    lifted = {**options, **data}
    if "num_predict" in options:
        lifted.setdefault("max_tokens", options["num_predict"])
    return lifted


def durations(data: Mapping[str, Any]) -> dict[str, int]:
    """How long loading, reading and answering took, where an answer says it; nanoseconds."""
    found = {name: whole(data.get(field)) for field, name in DURATIONS.items() if field in data}
    timings = mapping(data.get("timings"))
    for field, name in _TIMINGS.items():
        if isinstance(timings.get(field), (int, float)):
            found[name] = whole(round(min(max(timings[field], 0), 1e12) * 1e6))
    return {name: value for name, value in found.items() if value is not None}


def counts(data: Mapping[str, Any]) -> dict[str, int]:
    """Tokens of Ollama's and llama.cpp's own answers. They stand in where there is no `usage`, for
    example in a stream that broke off."""
    timings = mapping(data.get("timings"))
    prompt, cached = whole(timings.get("prompt_n")), whole(timings.get("cache_n"))
    found = {
        "input_tokens": _either(data, "tokens_evaluated", "prompt_eval_count"),
        "output_tokens": _either(data, "tokens_predicted", "eval_count"),
    }
    if prompt is not None:
        found["input_tokens"] = prompt + (cached or 0)
    if "predicted_n" in timings:
        found["output_tokens"] = whole(timings.get("predicted_n"))
    return {name: count for name, count in found.items() if count is not None}


def _either(data: Mapping[str, Any], *names: str) -> int | None:
    found = (whole(data.get(name)) for name in names)
    return next((count for count in found if count is not None), None)


def answer_text(data: Mapping[str, Any]) -> str:
    """The text of a `/api/generate` answer or piece; empty where it is another format."""
    said = data.get("response")
    return said if isinstance(said, str) else ""


def end_reason(data: Mapping[str, Any]) -> str:
    """Why it ended; empty before the end, and from old servers, which only say that it did."""
    return text(data.get("done_reason"), 64) if data.get("done") is True else ""
