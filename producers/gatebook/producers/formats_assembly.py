"""An answer put together from its pieces: text, tool calls and endings, each per choice. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gatebook.producers.values import mapping, sequence, text, whole

MAX_TOOLS = 64
_TEXTS = frozenset({"content", "refusal"})
_REASONING = frozenset({"reasoning_content", "reasoning", "thinking"})


class Assembly:
    """Choices are told apart by their index; of services that have none it is 0."""

    def __init__(self) -> None:
        self.pieces = 0  # of text
        self._text: dict[int, list[str]] = {}
        self._reasoning: dict[int, list[str]] = {}
        self._calls: dict[tuple[int, Any], list[dict[str, Any]]] = {}
        self._finish: dict[int, str] = {}
        self._seen: set[int] = set()

    def begin(self, index: int) -> None:
        """There is such a choice, whatever it will say."""
        self._seen.add(index)

    def add_message(self, index: int, message: Mapping[str, Any]) -> None:
        """A message or a delta as OpenAI's chat has it."""
        for name, value in message.items():  # a delta has few: look at what is there
            if not value or (name == "reasoning" and message.get("reasoning_content")):
                continue  # vLLM says the same under both names
            if name in _TEXTS:
                self.add_text(index, value)
            elif name in _REASONING:
                self._add(self._reasoning, index, value)
            elif name == "tool_calls":
                for place, call in enumerate(sequence(value)):
                    self._add_tool_call(index, place, mapping(call))
            elif name == "function_call":  # as it was before tools
                self._add_tool_call(index, 0, {"function": value})

    def add_text(self, index: int, value: object) -> None:
        """Text, or a list of parts that may have some."""
        self._add(self._text, index, value)

    def _add(self, into: dict[int, list[str]], index: int, value: object) -> None:
        if isinstance(value, str) and value:
            into.setdefault(index, []).append(value)
            self.pieces += 1
        elif isinstance(value, list):
            for part in value:
                found = mapping(part)
                self._add(into, index, found.get("text") or found.get("refusal"))

    def _add_tool_call(self, index: int, place: int, call: Mapping[str, Any]) -> None:
        function = mapping(call.get("function"))
        at = whole(call.get("index"))
        at = whole(function.get("index")) if at is None else at
        if at is None:
            # Ollama sends each call whole, often without an index: none continues another.
            is_whole = isinstance(function.get("arguments"), dict)
            at = len(self._calls) if is_whole else place
        self.add_call(index, at, function.get("name"), function.get("arguments"), call.get("id"))

    def add_call(
        self, index: int, key: Any, name: object, arguments: object = None, call_id: object = None
    ) -> None:
        """A tool call or a piece of one; `key` tells which within the choice. Another id at the
        same key is another call: some services give all of them index 0."""
        calls = self._calls.setdefault((index, key), [{}])
        known = calls[-1]
        if call_id and known.get("id") not in (None, call_id):
            known = {}
            calls.append(known)
        if call_id:
            known["id"] = text(call_id)
        if text(name):
            known["name"] = known.get("name") or text(name)
        if isinstance(arguments, str):
            known["arguments"] = known.get("arguments", "") + arguments
        elif isinstance(arguments, dict) and arguments:
            known["arguments"] = msgspec.json.encode(arguments).decode()

    def set_arguments(self, index: int, key: Any, arguments: object) -> None:
        """The whole arguments of a call, in place of the pieces so far."""
        if isinstance(arguments, str) and (index, key) in self._calls:
            self._calls[(index, key)][-1]["arguments"] = arguments

    def end(self, index: int, reason: object) -> None:
        """Why a choice ended, if it is a reason."""
        if isinstance(reason, str) and reason:
            self._finish[index] = text(reason, 64)

    @property
    def ended(self) -> bool:
        """Whether every choice that was begun has come to its end."""
        return bool(self._finish) and self._begun | self._seen <= self._finish.keys()

    @property
    def _begun(self) -> set[int]:
        return {*self._text, *self._reasoning, *(index for index, _ in self._calls)}

    @property
    def finish_reasons(self) -> list[str]:
        """Of every choice that ended, in order."""
        return [self._finish[index] for index in sorted(self._finish)]

    @property
    def tools_called(self) -> list[str]:
        """Names, in order."""
        return [call["name"] for _, call in self._in_order() if call.get("name")][:MAX_TOOLS]

    def _in_order(self) -> list[tuple[int, dict[str, Any]]]:
        rows = sorted(self._calls.items(), key=lambda row: row[0][0])  # stable: as they came
        return [(index, call) for (index, _), calls in rows for call in calls]

    def messages(self) -> list[dict[str, Any]]:
        """One message a choice."""
        return [self._message(index) for index in sorted(self._begun)]

    def _message(self, index: int) -> dict[str, Any]:
        found: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(self._text.get(index, [])),
        }
        calls = [call for of, call in self._in_order() if of == index]
        if index in self._reasoning:
            found["reasoning_content"] = "".join(self._reasoning[index])
        if calls:
            found["tool_calls"] = [
                {name: value for name, value in call.items() if name != "id"} for call in calls
            ]
        if index in self._finish:
            found["finish_reason"] = self._finish[index]
        return found
