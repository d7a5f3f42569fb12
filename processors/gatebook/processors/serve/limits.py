"""The outermost layer: bodies of bounded size, and no error without an answer. Pure ASGI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from gatebook.processors.serve.errors import told

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class TooLarge(HTTPException):
    """The body is larger than the limit."""

    def __init__(self) -> None:
        super().__init__(413)


class Bounded:
    """Refuses bodies beyond a size, and answers for what failed below in any other way."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._limit = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, self._counted(scope, receive), sending)
        except Exception as error:
            if started:  # the client sees a cut stream, which is what it is
                raise ConnectionAbortedError("the answer was cut") from None
            await told(error)(scope, receive, send)

    def _counted(self, scope: Scope, receive: Receive) -> Receive:
        said = dict(scope["headers"]).get(b"content-length", b"0")
        seen = int(said) if said.isdigit() else 0
        if seen > self._limit:
            raise TooLarge
        read = 0

        async def receiving() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._limit:
                raise TooLarge
            return message

        return receiving
