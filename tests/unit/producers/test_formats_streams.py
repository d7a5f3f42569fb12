"""Streams, however they are cut: into chunks, within lines, by a limit, or for good."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.producers.formats import AnswerFacts, read_stream
from gatebook.producers.formats_stream import stream_values
from gatebook.producers.tape import Tape

from .test_formats import STREAMS, sse
from .test_formats_ollama import RECORDED, ndjson


def choice(index: int, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def call(at: int, **function: str) -> dict[str, Any]:
    return choice(0, tool_calls=[{"index": at, "function": function}])


TWO_CHOICES = sse(
    {"id": "c", "model": "m", **choice(0, role="assistant")},
    choice(1, role="assistant"),
    choice(1, content="second"),
    choice(0, content="fi"),
    choice(0, content="rst"),
    choice(1, "length"),
    choice(0, "stop"),
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
    end=b"data: [DONE]\n\n",
)
TOOLS = sse(
    {"id": "c", "model": "m", **call(0, name="look_up", arguments='{"a')},
    call(1, name="send"),
    call(0, arguments='":1}'),
    choice(0, "tool_calls"),
    end=b"data: [DONE]\n\n",
)
ALL = {
    **STREAMS,
    "two choices": TWO_CHOICES,
    "tools": TOOLS,
    "ollama chat": ndjson(RECORDED["chat_stream"]["lines"]),
    "ollama generate": ndjson(RECORDED["generate_stream"]["lines"]),
}


def taped(data: bytes, cuts: list[int], max_bytes: int = 1 << 20) -> Tape:
    """The stream as it passes by in chunks."""
    tape = Tape(max_bytes)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for begin, end in itertools.pairwise(edges):
        tape.add(data[begin:end])
    return tape


def facts_of(tape: Tape) -> dict[str, Any]:
    return dataclasses.asdict(read_stream([tape.head(), tape.tail()]))


@pytest.mark.parametrize("name", ALL)
@settings(deadline=None)  # a busy machine is no failure
@given(cuts=st.lists(st.integers(min_value=0, max_value=5000), max_size=30))
def test_any_split_into_chunks_gives_the_same_facts(name: str, cuts: list[int]) -> None:
    """Where the network cuts says nothing: in the middle of a line, of a character, of CRLF."""
    data = ALL[name].replace(b"\n", b"\r\n")
    whole = dataclasses.asdict(read_stream([ALL[name]]))
    assert facts_of(taped(data, cuts)) == whole


@pytest.mark.parametrize("name", ALL)
@settings(deadline=None)  # a busy machine is no failure
@given(length=st.integers(min_value=0, max_value=5000))
def test_a_stream_cut_anywhere_never_raises_and_never_invents(name: str, length: int) -> None:
    """A truncated stream says a part of what the whole one says."""
    data = ALL[name]
    whole, cut = read_stream([data]), read_stream([data[: length % (len(data) + 1)]])
    for part in cut.messages:
        assert any(full["content"].startswith(part["content"]) for full in whole.messages)
    assert cut.model in ("", whole.model)
    assert cut.deltas <= whole.deltas
    assert not cut.failed
    assert set(cut.tools_called) <= set(whole.tools_called)


@settings(deadline=None)  # a busy machine is no failure
@given(junk=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_bytes_that_are_no_stream_cost_nothing(junk: bytes, cuts: list[int]) -> None:
    """Whatever a server sends under a stream's content type."""
    facts = read_stream([junk])
    assert facts_of(taped(junk, cuts)) == dataclasses.asdict(facts)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_line_end_of_the_standard_is_one(end: bytes) -> None:
    """LF, CRLF and CR."""
    data = TWO_CHOICES.replace(b"\n", end)
    assert read_stream([data]) == read_stream([TWO_CHOICES])


def test_comments_other_fields_and_a_byte_order_mark_are_passed_over() -> None:
    """Keep-alives and event names say nothing about the answer."""
    lines = b"\xef\xbb\xbf: ping\n\nevent: message\nid: 7\nretry: 10\n"
    assert list(stream_values(lines + b'data:{"a":1}\n\n: ping\n\n')) == [{"a": 1}]


def test_an_event_may_have_its_json_on_several_data_lines() -> None:
    """As the standard allows; and several whole ones without a blank line between, as some do."""
    assert list(stream_values(b'data: {"a":\ndata: 1}\n\n')) == [{"a": 1}]
    assert list(stream_values(b'data: {"a":1}\ndata: {"b":2}\ndata: [DONE]\n')) == [
        {"a": 1},
        {"b": 2},
        None,
    ]


def test_choices_are_told_apart() -> None:
    """Each has its own text and its own reason to end."""
    facts = read_stream([TWO_CHOICES])
    assert [m["content"] for m in facts.messages] == ["first", "second"]
    assert facts.finish_reasons == ["stop", "length"]
    assert (facts.input_tokens, facts.output_tokens) == (3, 4)


def test_a_stream_in_which_one_choice_is_cut_has_not_ended() -> None:
    """One finish reason is not the end of all."""
    data = sse(choice(0, content="a"), choice(1, content="b"), choice(0, "stop"))
    assert not read_stream([data]).ended
    assert read_stream([data + sse(choice(1, "stop"))]).ended


def test_calls_that_all_have_index_0_are_told_apart_by_their_ids() -> None:
    """Some servers number each call 0."""
    pieces = [
        choice(0, tool_calls=[{"index": 0, "id": i, "function": {"name": i, "arguments": "{}"}}])
        for i in ("one", "two")
    ]
    facts = read_stream([sse(*pieces)])
    assert facts.tools_called == ["one", "two"]
    assert [c["arguments"] for c in facts.messages[0]["tool_calls"]] == ["{}", "{}"]


def test_a_usage_chunk_behind_the_end_still_counts() -> None:
    """OpenAI sends it after the finish reason, with no choices in it."""
    only = sse({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    facts = read_stream([sse(choice(0, "stop")) + only])
    assert (facts.input_tokens, facts.output_tokens) == (3, 4)


RESPONSES = sse(
    {"type": "response.created", "response": {"id": "r", "model": "m", "status": "in_progress",
                                              "output": []}},
    {"type": "response.output_item.added", "output_index": 0,
     "item": {"id": "fc_1", "type": "function_call", "name": "look_up", "arguments": ""}},
    {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": '{"a'},
    {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": '":1}'},
    {"type": "response.output_item.done",
     "item": {"id": "fc_1", "type": "function_call", "name": "look_up", "arguments": '{"a":1}'}},
    {"type": "response.output_text.delta", "item_id": "m_1", "delta": "Hello"},
)  # fmt: skip


def responses_end(kind: str, **more: Any) -> bytes:
    output = [
        {"id": "fc_1", "type": "function_call", "name": "look_up", "arguments": '{"a":1}'},
        {"id": "m_1", "type": "message", "content": [{"type": "output_text", "text": "Hello"}]},
    ]
    usage = {"input_tokens": 3, "output_tokens": 2}
    answer = {"id": "r", "model": "m", "output": output, "usage": usage, **more}
    return sse({"type": kind, "response": answer})


@pytest.mark.parametrize(
    ("end", "reason", "failed"),
    [
        (responses_end("response.completed", status="completed"), "completed", False),
        (
            responses_end(
                "response.incomplete",
                status="incomplete",
                incomplete_details={"reason": "max_output_tokens"},
            ),
            "max_output_tokens",
            False,
        ),
        (
            responses_end("response.failed", status="failed", error={"code": "server_error"}),
            "failed",
            True,
        ),
    ],
)
def test_the_events_of_responses_are_put_together_once(
    end: bytes, reason: str, failed: bool
) -> None:
    """The last event repeats what the pieces said; the reason is its status or why it was cut."""
    facts = read_stream([RESPONSES + end])
    assert facts.messages[0]["content"] == "Hello"
    assert facts.messages[0]["tool_calls"] == [{"name": "look_up", "arguments": '{"a":1}'}]
    assert facts.finish_reasons == [reason]
    assert facts.ended
    assert facts.failed is failed
    assert (facts.id, facts.model) == ("r", "m")
    assert not read_stream([RESPONSES]).ended


def test_anthropics_tool_use_comes_in_pieces() -> None:
    """The name in the first, the arguments in the others."""
    facts = read_stream(
        [
            sse(
                {"type": "content_block_start", "index": 1,
                 "content_block": {"type": "tool_use", "id": "t", "name": "look_up", "input": {}}},
                {"type": "content_block_delta", "index": 1,
                 "delta": {"type": "input_json_delta", "partial_json": '{"a"'}},
                {"type": "content_block_delta", "index": 1,
                 "delta": {"type": "input_json_delta", "partial_json": ":1}"}},
                {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
                {"type": "message_stop"},
            )
        ]
    )  # fmt: skip
    assert facts.messages[0]["tool_calls"] == [{"name": "look_up", "arguments": '{"a":1}'}]
    assert facts.finish_reasons == ["tool_use"]


def test_tgis_own_stream_is_read() -> None:
    """Tokens one by one; the text as a whole, again, and details in the last."""
    facts = read_stream(
        [
            sse(
                {"index": 1, "token": {"id": 5, "text": "Hel", "special": False}},
                {"index": 2, "token": {"id": 6, "text": "lo", "special": False}},
                {"index": 3, "token": {"id": 2, "text": "</s>", "special": True},
                 "generated_text": "Hello",
                 "details": {"finish_reason": "eos_token", "generated_tokens": 3,
                             "input_length": 4}},
            )
        ]
    )  # fmt: skip
    assert facts.messages[0]["content"] == "Hello"
    assert facts.finish_reasons == ["eos_token"]
    assert (facts.input_tokens, facts.output_tokens) == (4, 3)
    assert facts.ended


def test_an_error_event_is_a_failure() -> None:
    """In each of the shapes services use."""
    for data in (
        b'error: {"error":{"code":500,"message":"x","type":"server_error"}}\n\n',
        b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n',
        sse({"type": "error", "code": "server_error", "message": "planted"}),
        sse({"error": "planted", "error_type": "generation"}),
    ):
        facts: AnswerFacts = read_stream([sse(choice(0, content="a")) + data])
        assert facts.failed, data
        assert facts.error_type or facts.error_code


def test_a_long_stream_keeps_its_beginning_and_its_end() -> None:
    """Beyond the limit of a body, model and usage are still known."""
    filler = sse(*[choice(0, content="x" * 100)] * 2000)
    data = sse({"id": "c", "model": "m", **choice(0, content="a")}) + filler
    data += sse(choice(0, "stop"), {"choices": [], "usage": {"completion_tokens": 2001}})
    tape = taped(data, list(range(0, len(data), 1000)), max_bytes=10_000)
    facts = facts_of(tape)
    assert tape.kept_bytes < len(data) / 2
    assert (facts["model"], facts["output_tokens"], facts["ended"]) == ("m", 2001, True)
