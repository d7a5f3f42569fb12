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


GROUPED = [
    "4398 2597 9190 7482",
    "4398\u00a02597\u00a09190\u00a07482",
    "4 3 9 8 2 5 9 7 9 1 9 0 7 4 8 2",
    "4398 - 2597 - 9190 - 7482",
    "DE89 3704 0044 0532 0130 00",
    "GB82 WEST 1234 5698 7654 32",
    "536 90 4399",
    "+49 (0)30 / 90 18 20 22",
]


@pytest.mark.parametrize("value", GROUPED)
def test_nothing_is_left_of_a_value_in_groups_wherever_an_answer_breaks_off(value: str) -> None:
    """Of a card of four groups, three are no card any more that redaction would know."""
    text = f"it is\nthis one: {value}"
    for end in range(len(text) - len(value) + 1, len(text) + 1):
        (message,) = packed([{"content": text[:end]}], broken=True)
        assert message["content"] == "it is\nthis one:"
    (message,) = packed([{"content": f"{text} and so o"}], broken=True)
    assert message["content"] == f"{text} and so"


@pytest.mark.parametrize("value", GROUPED)
def test_nothing_is_left_of_a_value_in_groups_wherever_content_is_cut(value: str) -> None:
    """Cut to its limit, a long text ends before the value or after it."""
    parts = set(value.replace("\u00a0", " ").split()) - {"-", "/"}
    for words in range(2_000, 2_060):
        text = "w " * words + value + " thanks" + " word" * 2_000
        data, cut = pack(RequestFacts(input_messages=[{"content": text}]), AnswerFacts(), 8_200)
        assert data is not None
        assert cut
        kept = json.loads(data)["input_messages"][0]["content"]
        assert value in kept or parts.isdisjoint(kept.split())


def test_a_table_of_numbers_loses_no_more_than_a_value_has() -> None:
    """What goes with a broken end is bounded, and is never of another line."""
    rows = "1 2 3\n" * 50
    assert packed([{"content": rows + "1 2"}], broken=True) == [{"content": rows.rstrip()}]
    (message,) = packed([{"content": "7 " * 500}], broken=True)
    assert message["content"].count("7") == 460
