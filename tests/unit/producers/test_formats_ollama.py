"""Ollama's native API, by the objects its documentation shows (recorded/ollama.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gatebook.producers.formats import action_of, read_answer, read_request, read_stream

RECORDED = json.loads((Path(__file__).parent / "recorded" / "ollama.json").read_text())
CASES = sorted(name for name, case in RECORDED.items() if isinstance(case, dict) and "path" in case)


def ndjson(lines: list[Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def facts_of(case: dict[str, Any]) -> Any:
    if "lines" in case:
        return read_stream([ndjson(case["lines"])])
    return read_answer(case["answer"])


@pytest.mark.parametrize("name", CASES)
def test_an_answer_of_the_documentation_is_understood(name: str) -> None:
    """Model, text, tokens, reason, tools and durations."""
    case = RECORDED[name]
    expected, facts = case["facts"], facts_of(case)

    assert action_of(case["path"]) == expected["action"]
    assert facts.model == expected["model"]
    assert [facts.input_tokens, facts.output_tokens] == expected["tokens"]
    assert facts.finish_reasons == expected["finish_reasons"]
    assert facts.tools_called == expected.get("tools", [])
    assert "".join(m["content"] for m in facts.messages) == expected.get("text", "")
    for duration in ("load_duration_ns", "eval_duration_ns"):
        assert facts.extras.get(duration) == expected.get(duration)
    assert facts.recognised
    assert not facts.failed


@pytest.mark.parametrize("name", ["chat_stream", "generate_stream"])
def test_a_stream_without_its_last_object_has_not_ended(name: str) -> None:
    """What came is kept; tokens are not known, only how many pieces there were."""
    lines = RECORDED[name]["lines"]
    assert read_stream([ndjson(lines)]).ended
    cut = read_stream([ndjson(lines[:-1]) + ndjson(lines[-1:])[:40]])
    assert not cut.ended
    assert cut.recognised
    assert cut.output_tokens is None
    assert cut.deltas == 2
    assert cut.messages[0]["content"] == "The sky"


def test_options_are_the_requests_sampling_parameters() -> None:
    """They stand one level lower than with everybody else."""
    facts = read_request(RECORDED["generate_with_options"]["request"])
    assert (facts.temperature, facts.top_p, facts.seed, facts.max_tokens) == (0.8, 0.9, 42, 100)
    assert facts.stop_sequences == ["\n", "user:"]
    assert facts.stream is False
    assert facts.input_messages == [{"role": "user", "content": "Why is the sky blue?"}]


def test_tool_calls_keep_their_arguments() -> None:
    """Ollama sends them as an object, and several calls without an index."""
    facts = facts_of(RECORDED["chat_with_tools"])
    assert json.loads(facts.messages[0]["tool_calls"][0]["arguments"]) == {
        "format": "celsius",
        "location": "Paris, FR",
    }
    call = {"function": {"name": "a", "arguments": {"x": 1}}}
    other = {"function": {"name": "b", "arguments": {}}}
    pieces = [{"message": {"tool_calls": [c]}, "done": False} for c in (call, other, call)]
    assert read_stream([ndjson(pieces)]).tools_called == ["a", "b", "a"]


def test_an_error_within_a_stream_is_a_failure() -> None:
    """Ollama writes a last object with nothing but an error; its words are content."""
    lines = [*RECORDED["chat_stream"]["lines"][:2], {"error": "planted words of the server"}]
    facts = read_stream([ndjson(lines)])
    assert facts.failed
    assert not facts.ended
    assert facts.error_type == ""


def test_a_thinking_models_thoughts_are_content_of_their_own() -> None:
    """They count as pieces, and are not taken for the answer."""
    lines = [
        {"model": "m", "message": {"role": "assistant", "content": "", "thinking": "hm"}},
        {"model": "m", "response": "", "thinking": "hm", "done": False},
        {"model": "m", "message": {"role": "assistant", "content": "yes"}, "done": True},
    ]
    facts = read_stream([ndjson(lines)])
    assert facts.messages[0]["content"] == "yes"
    assert facts.messages[0]["reasoning_content"] == "hmhm"
