"""Signing in and out: the few pages that are answered to nobody in particular. Without scripts."""

from __future__ import annotations

import html
import secrets
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from gatebook.processors.serve.access.caller import Caller, Refused
from gatebook.processors.serve.access.failures import lone_page, sign_in_failure, told
from gatebook.processors.serve.access.guard import Access, check_origin
from gatebook.processors.serve.access.oidc import (
    ATTEMPT_SECONDS,
    ProviderAway,
    SignInRefused,
    local_path,
    provider_away,
)
from gatebook.processors.serve.audit import Acts, http_facts

router = APIRouter(include_in_schema=False)

ATTEMPT_COOKIE = "gatebook_login"
SECURE_ATTEMPT_COOKIE = "__Host-gatebook_login"
MAX_FORM_BYTES = 4096
LINK_GONE = (
    "This link signs nobody in: it was used already, it is too old, or it is of an earlier start "
    "of the service.",
    "An API token signs in, too: paste one below, or have one made with `gatebook token new`. A "
    "new link comes with a new start of `gatebook serve`.",
)
WHENCE = (
    "Whoever runs the service makes a token: <code>gatebook token new NAME --role analyst "
    "--all-tenants</code>, or <code>--tenant</code> for some. The link that "
    "<code>gatebook serve</code> prints when it starts signs in without one, once."
)
NO_SUCH_TOKEN = (
    "This API token signs nobody in: it was mistyped, has expired, or was revoked.",
    "Paste all of it, from gb_ to its end, or ask an administrator for a new one (`gatebook token "
    "list --all` shows the state of each).",
)


@router.get("/login")
async def login(request: Request) -> Response:
    """The ways to sign in; with ?token= the one-time link."""
    access: Access = request.app.state.access
    if token := request.query_params.get("token"):
        return await _by_link(request, access, token)
    return _page(access, request.query_params.get("return", "/"))


async def _by_link(request: Request, access: Access, token: str) -> Response:
    access.refuse_guessing(request.state.address)
    caller = access.link.redeem(token) if access.link is not None else None
    if caller is None:
        access.failed(http_facts(request), "login_link", "used_or_expired")
        return _page(access, "/", LINK_GONE, 401)
    return await _signed_in(request, access, caller, "/")


@router.post("/login")
async def login_by_token(request: Request) -> Response:
    """Sign in with an API token, from the form of the page."""
    access: Access = request.app.state.access
    check_origin(request, access.settings)
    access.refuse_guessing(request.state.address)
    form = await _form(request)
    caller = await access.tokens.caller_of(form.get("token", "").strip())
    return_to = local_path(form.get("return", "/"))
    if caller is None:
        access.failed(http_facts(request), "api_token", "unknown_expired_or_revoked")
        return _page(access, return_to, NO_SUCH_TOKEN, 401)
    return await _signed_in(request, access, caller, return_to)


async def _form(request: Request) -> dict[str, str]:
    """The fields of a small form. Raises Refused."""
    from urllib.parse import parse_qsl

    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise Refused(413, "too_large", "this is no form of ours")
    try:
        return dict(parse_qsl(body.decode("ascii"), max_num_fields=8))
    except ValueError:
        raise Refused(400, "malformed", "this is no form of ours") from None


@router.get("/login/oidc")
async def login_oidc(request: Request) -> Response:
    """Go to the identity provider."""
    access: Access = request.app.state.access
    if access.oidc is None:
        raise Refused(404, "not_found", "no identity provider is set up here")
    browser = secrets.token_urlsafe(32)
    goal = request.query_params.get("return", "/")
    try:
        url = await access.oidc.begin(browser, goal, request.state.address)
    except ProviderAway as away:
        raise provider_away(away) from None
    answer = RedirectResponse(url, 303)
    _set_cookie(answer, _attempt_cookie(access), browser, access, int(ATTEMPT_SECONDS))
    return answer


@router.get("/login/callback")
async def login_callback(request: Request) -> Response:
    """Come back from the identity provider."""
    access: Access = request.app.state.access
    access.refuse_guessing(request.state.address)
    if access.oidc is None:
        raise Refused(404, "not_found", "no identity provider is set up here")
    browser = request.cookies.get(_attempt_cookie(access), "")
    try:
        caller, return_to = await access.oidc.finish(dict(request.query_params), browser)
    except ProviderAway as away:
        raise provider_away(away) from None
    except SignInRefused as refused:
        return _refused(request, access, refused)
    answer = await _signed_in(request, access, caller, return_to)
    answer.delete_cookie(
        _attempt_cookie(access), path="/", secure=access.settings.has_tls, httponly=True
    )
    return answer


def _refused(request: Request, access: Access, refused: SignInRefused) -> Response:
    facts = http_facts(request)
    if refused.caller is None:
        access.failed(facts, "oidc", refused.reason)
        return _page(access, "/", sign_in_failure(refused.reason), 401)
    details = {"method": "oidc", "refused": refused.reason}
    access.note_refusal(refused.caller, "login", details, facts)
    return _page(access, "/", _no_role(refused.caller), 403)


def _no_role(caller: Caller) -> tuple[str, str]:
    who = f"{caller.name} ({caller.id})" if caller.name and caller.name != caller.id else caller.id
    return (
        f"Your organisation knows you as {who}, who has no role in Gatebook: nothing is shown.",
        "Ask an administrator of this service for a role (viewer, analyst, privacy_officer or "
        "admin), which they give you at the identity provider; then sign in again. That you tried "
        "is in the log.",
    )


async def _signed_in(
    request: Request, access: Access, caller: Caller, return_to: str
) -> RedirectResponse:
    """A new session, once the login is in the log."""
    # Which token it was stands in gatebook.identity.key_id.
    details = {"method": caller.method, "roles": ",".join(sorted(caller.roles))}
    await Acts(caller, access.audit, http_facts(request)).record("login", **details)
    before = request.cookies.get(access.cookie_name, "")
    value = await access.sessions.begin(caller, replaces=before)
    answer = RedirectResponse(return_to, 303)
    lifetime_seconds = int(access.settings.session_absolute_seconds)
    _set_cookie(answer, access.cookie_name, value, access, lifetime_seconds)
    return answer


@router.post("/logout")
async def logout(request: Request) -> Response:
    """End the session, here and everywhere. The gate has checked its CSRF token."""
    access: Access = request.app.state.access
    caller = request.state.caller
    await access.sessions.end(request.cookies.get(access.cookie_name, ""))
    if caller is not None:
        Acts(caller, access.audit, http_facts(request)).note("logout")
    answer = JSONResponse({"signed_out": True})
    answer.delete_cookie(
        access.cookie_name, path="/", secure=access.settings.has_tls, httponly=True
    )
    answer.headers["clear-site-data"] = '"cache", "storage"'
    return answer


def _attempt_cookie(access: Access) -> str:
    return SECURE_ATTEMPT_COOKIE if access.settings.has_tls else ATTEMPT_COOKIE


def _set_cookie(
    answer: Response, name: str, value: str, access: Access, lifetime_seconds: int
) -> None:
    # Lax, not Strict: the way back from the provider, and a link to an event from a chat, are
    # requests from elsewhere.
    answer.set_cookie(
        name,
        value,
        max_age=lifetime_seconds,
        path="/",
        secure=access.settings.has_tls,
        httponly=True,
        samesite="lax",
    )


def _page(
    access: Access, return_to: str, failure: tuple[str, str] | None = None, status: int = 200
) -> HTMLResponse:
    """The ways to sign in, below what happened and what to do where something failed."""
    goal = local_path(return_to)
    parts: list[str] = []
    if failure is not None:
        parts.append(told(*failure))
    if access.oidc is not None:
        address = html.escape(f"/login/oidc?return={quote(goal, safe='')}")
        parts.append(f'<p><a href="{address}">Sign in with your organisation</a></p>')
    parts.append(
        '<form method="post" action="/login">'
        f'<input type="hidden" name="return" value="{html.escape(goal)}">'
        '<p><label for="token">API token</label> '
        '<input id="token" name="token" type="password" autocomplete="off" required '
        'aria-describedby="whence"></p>'
        f'<p id="whence">{WHENCE}</p>'
        '<p><button type="submit">Sign in</button></p></form>'
    )
    return lone_page("sign in" if failure is None else "not signed in", parts, status)
