"""What answers of different services say, read from their own formats."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gatebook.producers.formats import action_of, read_answer, read_request, read_stream


def sse(*values: dict[str, Any], end: bytes = b"") -> bytes:
    return b"".join(b"data: " + json.dumps(v).encode() + b"\n\n" for v in values) + end


STREAMS = {
    "openai": sse(
        {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "Hel"}}]},
        {"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
        end=b"data: [DONE]\n\n",
    ),
    "openai responses": sse(
        {"type": "response.created", "response": {"id": "c", "model": "m"}},
        {"type": "response.output_text.delta", "delta": "Hel"},
        {"type": "response.output_text.delta", "delta": "lo"},
        {
            "type": "response.completed",
            "response": {
                "id": "c",
                "output": [{"content": [{"text": "Hello"}]}],
                "usage": {"input_tokens": 3, "output_tokens": 2},
            },
        },
    ),
    "anthropic": sse(
        {
            "type": "message_start",
            "message": {"id": "c", "model": "m", "usage": {"input_tokens": 3, "output_tokens": 1}},
        },
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "lo"}},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 2},
        },
        {"type": "message_stop"},
    ),
    "ollama": b'{"model":"m","message":{"role":"assistant","content":"Hel"},"done":false}\n'
    b'{"model":"m","message":{"content":"lo"},"done":false}\n'
    b'{"model":"m","done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":2}\n',
    "llama.cpp": sse(
        {"content": "Hel", "stop": False},
        {"content": "lo", "stop": False},
        {
            "content": "",
            "stop": True,
            "model": "m",
            "stop_type": "eos",
            "tokens_evaluated": 3,
            "tokens_predicted": 2,
        },
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_put_together(name: str) -> None:
    """Text, model, tokens and the end mark, whatever the format."""
    facts = read_stream([STREAMS[name]])

    assert facts.messages[0]["content"] == "Hello"
    assert facts.model == "m"
    assert (facts.input_tokens, facts.output_tokens) == (3, 2)
    assert facts.ended


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_is_cut_has_not_ended(name: str) -> None:
    """Half a stream does not look like a whole one, nor does it raise."""
    for length in range(0, len(STREAMS[name]) // 2, 3):
        assert not read_stream([STREAMS[name][:length]]).ended


def test_tool_calls_are_joined_over_chunks() -> None:
    """Names and arguments of two calls that come in pieces."""

    def delta(index: int, **function: str) -> dict[str, Any]:
        call = {"index": index, "function": function}
        return {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}

    facts = read_stream(
        [
            sse(
                delta(0, name="look_up", arguments='{"a'),
                delta(0, arguments='":1}'),
                delta(1, name="send"),
            )
        ]
    )

    assert facts.tools_called == ["look_up", "send"]
    assert facts.messages[0]["tool_calls"][0] == {"name": "look_up", "arguments": '{"a":1}'}


def test_usage_wins_over_timings() -> None:
    """llama.cpp's timings stand in only where usage is missing."""
    timings = {"prompt_n": 1, "cache_n": 4, "predicted_n": 9}

    assert read_answer({"timings": timings}).input_tokens == 5
    assert read_answer({"timings": timings, "usage": {"prompt_tokens": 7}}).input_tokens == 7
    assert read_answer({"timings": timings, "usage": {"prompt_tokens": 7}}).output_tokens == 9


def test_an_error_type_that_is_a_sentence_is_not_kept() -> None:
    """It could quote the prompt."""
    facts = read_answer({"error": {"type": "you said planted words", "code": "a_code"}})

    assert facts.failed
    assert (facts.error_type, facts.error_code) == ("", "a_code")


@pytest.mark.parametrize(
    ("path", "action"),
    [
        ("/v1/chat/completions", "chat"),
        ("/v1/completions", "text_completion"),
        ("/openai/deployments/x/embeddings/", "embeddings"),
        ("/v1/models", "list_models"),
        ("/v1/models/tiny", "list_models"),
        ("/api/chat", "chat"),
        ("/api/generate", "text_completion"),
        ("/api/embeddings", "embeddings"),
        ("/api/pull", "manage_model"),
        ("/v1/responses", "chat"),
        ("/v1/rerank", "rerank"),
        ("/v1/files", "file"),
        ("/v1/files/file-1", "file"),
        ("/v1/files/file-1/content", "file"),
        ("/v1/filesystem", "unknown"),
        ("/generate_stream", "text_completion"),
        ("/admin", "unknown"),
    ],
)
def test_an_action_is_known_by_its_path(path: str, action: str) -> None:
    """Prefixes of gateways do not matter."""
    assert action_of(path) == action


@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("POST", "/v1/files", "upload_file"),
        ("GET", "/v1/files", "file"),
        ("DELETE", "/v1/files/file-1", "file"),
        ("POST", "/v1/chat/completions", "chat"),
    ],
)
def test_an_upload_is_told_from_other_uses_of_files(method: str, path: str, action: str) -> None:
    """As FIELDS.md names it."""
    assert action_of(path, method) == action


def test_a_prompt_and_an_input_count_as_messages() -> None:
    """Text completions and embeddings have no `messages`."""
    assert read_request({"prompt": "p"}).input_messages == [{"role": "user", "content": "p"}]
    assert len(read_request({"input": ["a", "b"]}).input_messages) == 2
    assert read_request({"prompt": "p"}).message_count is None


def test_a_query_and_its_documents_are_the_input_of_a_rerank() -> None:
    """The caller's words are digested and redacted like any other."""
    body = {"model": "r", "query": "q", "documents": ["a", {"text": "b"}], "top_n": 1}
    facts = read_request(body)
    assert [m["content"] for m in facts.input_messages] == ["q", "a", {"text": "b"}]
    assert facts.input != read_request({**body, "query": "other"}).input
    answer = {"model": "r", "results": [{"index": 0}], "usage": {"total_tokens": 7}}
    assert read_answer(answer).input_tokens == 7
    assert read_answer(answer).recognised


def test_tgis_parameters_are_the_requests_sampling_parameters() -> None:
    """They stand one level lower than with everybody else."""
    facts = read_request(
        {"inputs": "p", "parameters": {"max_new_tokens": 5, "temperature": 0.1, "stop": ["x"]}}
    )
    assert (facts.max_tokens, facts.temperature, facts.stop_sequences) == (5, 0.1, ["x"])
    assert facts.input_messages == [{"role": "user", "content": "p"}]


def test_a_prompt_of_tokens_is_one_message() -> None:
    """Not one for every number."""
    assert len(read_request({"prompt": [1, 2, 3]}).input_messages) == 1


def test_what_else_a_request_says_does_not_change_its_digest() -> None:
    """`input` is the same with and without sampling parameters."""
    body = {"messages": [{"role": "user", "content": "x"}]}
    assert read_request(body).input == read_request({**body, "options": {"seed": 1}}).input


JUNK: list[Any] = [None, 1, "x", [], [[]], {"choices": {}}, {"choices": [None, 1, {"delta": 3}]}]
JUNK += [{"usage": [1]}, {"usage": {"prompt_tokens": "x"}}, {"error": [1]}, {"error": 5}]
JUNK += [{"choices": [{"message": {"tool_calls": [None, {"function": "x"}]}}]}]
JUNK += [{"options": [1], "parameters": 3, "documents": {"a": 1}, "item": 3, "token": "x"}]
JUNK += [{"type": "response.output_item.done", "item": []}, {"done": "x", "details": [1]}]
JUNK += [{"delta": [1], "message": 4, "response": [], "timings": "x", "output": {"a": 1}}]


@pytest.mark.parametrize("value", JUNK)
def test_unexpected_shapes_are_left_out(value: Any) -> None:
    """Neither a request nor an answer of any shape raises."""
    read_request(value)
    assert read_answer(value).input_tokens is None
