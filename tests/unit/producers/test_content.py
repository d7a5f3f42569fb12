"""Captured content: what is cut, and where."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from gatebook.producers.content import pack
from gatebook.producers.formats import AnswerFacts, RequestFacts

LIMIT = 4_096_000


def packed(messages: list[dict[str, Any]], broken: bool) -> Any:
    data, cut = pack(RequestFacts(), AnswerFacts(messages=messages), LIMIT, broken)
    assert data is not None
    assert not cut
    return json.loads(data)["output_messages"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("write to ada@exam", "write to"),
        ("write to ada@example.com ", "write to ada@example.com "),
        ("-----BEGIN PRIVATE KEY-----\nMIIEabc", "-----BEGIN PRIVATE KEY-----"),
        ("ada@exam", ""),
        ("", ""),
    ],
)
def test_a_broken_answer_loses_its_last_word(text: str, kept: str) -> None:
    """Half a secret is one that redaction does not know; a whole answer stays whole."""
    messages = [{"role": "assistant", "content": text}]
    assert packed(messages, broken=True) == [{"role": "assistant", "content": kept}]
    assert packed(messages, broken=False) == messages


def test_arguments_of_a_broken_answer_lose_theirs_too() -> None:
    """And the names in a message stay."""
    call = {"name": "look_up", "arguments": '{"mail": "ada@ex'}
    message = {"role": "assistant", "tool_calls": [call], "finish_reason": "stop"}
    (found,) = packed([message], broken=True)
    assert found["tool_calls"] == [{"name": "look_up", "arguments": '{"mail":'}]
    assert (found["role"], found["finish_reason"]) == ("assistant", "stop")


def test_one_endless_word_takes_no_time() -> None:
    """A megabyte without a space goes at once."""
    began = time.process_time()
    assert packed([{"content": "x" * 1_000_000}], broken=True) == [{"content": ""}]
    assert time.process_time() - began < 0.5
