"""Failures as people see them in a browser: what happened, and what to do now. Without scripts."""

from __future__ import annotations

import html
import json
from functools import cache
from pathlib import Path

from fastapi import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

ASSETS = Path(__file__).parents[1] / "static" / "assets"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Gatebook: {title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">{style}</head>
<body><main class="lone"><h1>Gatebook</h1>{body}</main></body></html>
"""
# What became of a sign-in at the identity provider, by the code of its refusal.
SIGN_INS = {
    "state": (
        "This sign-in was begun more than ten minutes ago, was finished before, or the service was "
        "started anew meanwhile.",
        "Sign in again from here.",
    ),
    "other_browser": (
        "This sign-in was begun in another browser, or this one keeps no cookies of this service.",
        "Sign in again from here; allow cookies if it lasts.",
    ),
    "provider_refused": (
        "Your organisation's identity provider did not let you in, or you left its page.",
        "Sign in again; if it lasts, ask whoever runs the provider whether this service may be "
        "used.",
    ),
}
OTHER_SIGN_IN = (
    "What your organisation's identity provider answered does not hold ({reason}), so nobody was "
    "signed in.",
    "Sign in again; if it lasts, tell an administrator of this service the word in brackets.",
)


def sign_in_failure(reason: str) -> tuple[str, str]:
    """What happened and what to do, of a sign-in that led to nobody."""
    what, then = SIGN_INS.get(reason, OTHER_SIGN_IN)
    return what.format(reason=reason), then


def lone_page(title: str, parts: list[str], status: int) -> HTMLResponse:
    """A page with nothing but these parts, which are HTML."""
    return HTMLResponse(_PAGE.format(title=title, style=_style(), body="".join(parts)), status)


def told(what: str, then: str) -> str:
    """A failure as HTML: what happened, and what to do."""
    return f'<p role="alert">{html.escape(what)}</p><p>{html.escape(then)}</p>'


def for_browser(request: Request, response: JSONResponse) -> Response:
    """An error as a page, where a browser asked for one; programs get the JSON as it is."""
    if request.url.path.startswith("/api/") or not _wants_page(request):
        return response
    error = json.loads(bytes(response.body))["error"]
    what = _sentence(str(error["message"]))
    then = _sentence(str(error.get("next_step") or "go back, and try again"))
    back = _way_back(request, response.status_code, str(error["type"]))
    page = lone_page("this did not work", [told(what, then), back], response.status_code)
    for name, value in response.headers.items():
        if name not in ("content-length", "content-type"):
            page.headers[name] = value
    return page


def _way_back(request: Request, status: int, kind: str) -> str:
    """A link as HTML, to where one can go on."""
    if kind in ("wrong_host", "direct"):  # of this service under another name none leads anywhere
        return ""
    if status == 404 and not request.url.path.startswith("/login"):
        return '<p><a href="/">To the console</a></p>'
    return '<p><a href="/login">Sign in</a></p>'


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."


@cache
def _style() -> str:
    """The console's style sheet; none where the console is not built."""
    found = sorted(ASSETS.glob("index-*.css"))
    return f'<link rel="stylesheet" href="/assets/{found[0].name}">' if found else ""
