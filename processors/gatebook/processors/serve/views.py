"""Open points in time of callers, and the cursors that name them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import orjson
from itsdangerous import BadData, URLSafeSerializer

from gatebook.processors.search.asking import BadRequest

SALT = "gatebook.cursor"
MAX_CALLERS = 10_000


class Views:
    """Which views each caller has open, so that nobody can hold more than a few. Counts in this
    process only; a view that is forgotten ends by itself at the server."""

    def __init__(self, per_caller: int) -> None:
        self._per_caller = per_caller
        self._open: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()

    def opened(self, caller_id: str, view: str) -> list[str]:
        """Take note of a view; gives those that are to be closed for it."""
        mine = self._open.setdefault(caller_id, OrderedDict())
        mine[view] = None
        mine.move_to_end(view)
        self._open.move_to_end(caller_id)
        over = [mine.popitem(last=False)[0] for _ in range(len(mine) - self._per_caller)]
        while len(self._open) > MAX_CALLERS:
            over += self._open.popitem(last=False)[1]
        return over

    def closed(self, caller_id: str, view: str) -> None:
        """Forget a view."""
        self._open.get(caller_id, OrderedDict()).pop(view, None)


class Cursors:
    """Cursors: opaque, signed, and good for one caller and one question."""

    def __init__(self, signing_key: bytes) -> None:
        self._serializer = URLSafeSerializer(signing_key, salt=SALT)

    def write(self, owner: str, asked: Any, state: dict[str, Any]) -> str:
        """A cursor that holds `state`."""
        text = self._serializer.dumps({**state, "for": digest(owner, asked)})
        return text if isinstance(text, str) else text.decode()

    def read(self, text: str, owner: str, asked: Any) -> dict[str, Any]:
        """What a cursor holds. Raises BadRequest."""
        try:
            state = self._serializer.loads(text)
        except BadData:
            state = None
        if not isinstance(state, dict):
            raise BadRequest("this is no cursor of ours", "ask for the first page again")
        if state.get("for") != digest(owner, asked):
            raise BadRequest(
                "this cursor belongs to another query",
                "send it with the query, range, kind, fields and sort order of its first page",
            )
        return state


def digest(owner: str, asked: Any) -> str:
    """What a cursor is bound to."""
    return hashlib.sha256(orjson.dumps([owner, asked])).hexdigest()[:32]
