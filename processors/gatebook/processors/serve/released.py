"""A streamed answer that holds a place of its caller's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.responses import StreamingResponse


class Released(StreamingResponse):
    """A stream whose place is given back however it ends, also before its first byte."""

    def __init__(self, body: AsyncIterator[bytes], release: Callable[[], None], **given: Any):
        super().__init__(body, **given)
        self._release = release

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()
