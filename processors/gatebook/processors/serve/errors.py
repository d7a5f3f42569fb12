"""Every error as the same JSON body, by class: the words of a foreign error may quote content."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from gatebook.processors.search.asking import BadRequest, SearchFailed, ViewGone
from gatebook.processors.search.query import QueryError
from gatebook.processors.search.times import TimeError
from gatebook.processors.serve.access.caller import Refused
from gatebook.processors.serve.access.failures import for_browser
from gatebook.processors.serve.access.state import StateAway
from gatebook.processors.serve.access.tokens import TokenError
from gatebook.processors.serve.audit import Unrecorded, note_failed
from gatebook.processors.serve.models import ErrorBody
from gatebook.processors.sinks.connection import Unreachable
from gatebook.schemas.errors import Fatal, GatebookError

RETRY_AFTER_SECONDS = 5
TRY_AGAIN = "try again; if it lasts, see `gatebook doctor`"

_MEANINGS: dict[int, str] = {
    400: "The body is no JSON, or its content type says so (`not_json`); or the query, a field, a "
    "time or a range is wrong, and `position` says where in the query.",
    401: "Nobody is signed in.",
    403: "The caller's roles do not allow it, or a field is masked for them.",
    404: "There is no such thing, or none that the caller may see.",
    409: "Somebody else changed it meanwhile, or it is closed already, or it has a verdict and the "
    "note that says why it gets another is missing.",
    410: "The cursor is not open any more: ask for the first page again.",
    413: "The body is larger than the service takes.",
    422: "The body is JSON, but it, or a parameter, is missing or not as described here.",
    429: "Too many requests, or too many open streams; Retry-After says when to come back.",
    503: "Elasticsearch, or what records the act, does not answer. Nothing was done.",
}


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Descriptions of a route's error answers; those of every route are always among them."""
    return {
        status: {"model": ErrorBody, "description": _MEANINGS[status]}
        for status in sorted({400, 401, 403, 422, 429, 503, *statuses})
    }


def body(
    kind: str, message: str, *, position: int | None = None, next_step: str = ""
) -> dict[str, Any]:
    """The JSON body of an error; what is not known is left out."""
    told: dict[str, Any] = {"type": kind, "message": message}
    if position is not None:
        told["position"] = position
    if next_step:
        told["next_step"] = next_step
    return {"error": told}


def answer(
    status: int, content: dict[str, Any], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error as it goes out."""
    found = dict(headers or {})
    if status in (429, 503):
        found.setdefault("retry-after", str(RETRY_AFTER_SECONDS))
    return JSONResponse(content, status, found)


def _query(error: QueryError) -> JSONResponse:
    told = body("query", error.message, position=error.position, next_step=error.next_step)
    return answer(400, told)


def _ours(status: int, kind: str) -> Callable[[GatebookError], JSONResponse]:
    def told(error: GatebookError) -> JSONResponse:
        return answer(status, body(kind, str(error), next_step=getattr(error, "next_step", "")))

    return told


def _refused(error: Refused) -> JSONResponse:
    wait = error.retry_after_seconds
    return answer(error.status, error.body(), {"retry-after": str(wait)} if wait else None)


def _unreachable(_error: Unreachable) -> JSONResponse:
    return answer(503, body("unreachable", "Elasticsearch does not answer", next_step=TRY_AGAIN))


def _fatal(error: Fatal) -> JSONResponse:
    return answer(503, body("unavailable", str(error), next_step=TRY_AGAIN))


def _not_json() -> JSONResponse:
    next_step = "send one JSON object, with the header content-type: application/json"
    return answer(400, body("not_json", "the body is no JSON", next_step=next_step))


def _invalid(error: RequestValidationError) -> JSONResponse:
    """What is wrong with a body or a parameter, by its place; never the value itself."""
    first = error.errors()[0]
    # Of a body whose content type is not that of JSON, FastAPI hands on the bytes.
    if first["type"] == "json_invalid" or isinstance(error.body, bytes):
        return _not_json()
    place = ".".join(str(part) for part in first["loc"])
    message = f"{_printable(place)}: {_printable(str(first['msg']))}"
    return answer(422, body("invalid_request", message, next_step="see /api/v1/openapi.json"))


def _http(error: HTTPException) -> JSONResponse:
    if error.status_code == 400:  # FastAPI: bytes that are no text, or nested without end
        return _not_json()
    known = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
    kind = known.get(error.status_code, "bad_request")
    said = {
        404: "there is nothing here",
        405: "this is not done here",
        413: "the body is larger than the service takes",
    }
    message = said.get(error.status_code, "the request cannot be read")
    return answer(error.status_code, body(kind, message), error.headers)


def _printable(text: str) -> str:
    return ascii(text)[1:-1][:300]


_TOLD: tuple[tuple[type[Exception], Callable[[Any], JSONResponse]], ...] = (
    (Refused, _refused),
    (QueryError, _query),
    (TimeError, _ours(400, "time")),
    (BadRequest, _ours(400, "bad_request")),
    (TokenError, _ours(400, "token")),
    (ViewGone, _ours(410, "cursor_gone")),
    (SearchFailed, _ours(503, "search_failed")),
    (StateAway, _ours(503, "state_away")),
    (Unrecorded, _ours(503, "unrecorded")),
    (Unreachable, _unreachable),
    (Fatal, _fatal),
    (RequestValidationError, _invalid),
    (HTTPException, _http),
)


def told(error: Exception) -> JSONResponse:
    """Any error as an answer. One that nobody expected is logged and told by its class alone."""
    for kind, teller in _TOLD:
        if isinstance(error, kind):
            return teller(error)
    logging.getLogger("gatebook.serve").error(
        "a request ended by %s, which nobody expected", type(error).__name__
    )
    return answer(500, body("internal", "the service failed", next_step="report it"))


def type_of(response: JSONResponse) -> str:
    """The code of an error that was told."""
    return str(json.loads(bytes(response.body))["error"]["type"])


def install(app: FastAPI) -> None:
    """Make the app answer every error this way."""

    async def handler(request: Request, error: Exception) -> Response:
        response = told(error)
        note_failed(request, response.status_code, type_of(response))
        if response.status_code == 405:
            response.headers["allow"] = ", ".join(_methods(request))
        return for_browser(request, response)

    for kind, _teller in _TOLD:
        app.add_exception_handler(kind, handler)


def _methods(request: Request) -> list[str]:
    """All methods of the path that was asked for: several routes may share one."""
    found: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return sorted(found)
