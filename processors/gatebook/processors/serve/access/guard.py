"""The gate every request passes, before any route sees it.

Host, rates, credentials, and for a session's cookie the CSRF token: in this order, and what does
not hold ends here. Below /api/ nothing but OPEN is answered to nobody, whatever its route asks
for. What goes wrong in here or behind is told by its class alone, to the log and to the caller.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gatebook.processors.serve.access.caller import (
    Caller,
    Refused,
    act_of_request,
    route_of,
    unauthenticated,
)
from gatebook.processors.serve.access.claims import (
    TokenRefused,
    TokenUncheckable,
    TokenVerifier,
    caller_of_claims,
)
from gatebook.processors.serve.access.failures import for_browser
from gatebook.processors.serve.access.headers import secured
from gatebook.processors.serve.access.limits import Buckets, network_of
from gatebook.processors.serve.access.link import LoginLink
from gatebook.processors.serve.access.oidc import OidcLogin
from gatebook.processors.serve.access.proxies import Proxies
from gatebook.processors.serve.access.sessions import Session, Sessions
from gatebook.processors.serve.access.settings import AccessSettings, is_loopback
from gatebook.processors.serve.access.state import ConsoleState, StateAway
from gatebook.processors.serve.access.tokens import PREFIX as TOKEN_PREFIX
from gatebook.processors.serve.access.tokens import Tokens
from gatebook.processors.serve.audit import (
    ACT,
    FAILURE,
    Act,
    Audit,
    HttpFacts,
    http_facts,
    note_failed,
)
from gatebook.processors.serve.errors import told, type_of
from gatebook.processors.sinks.connection import Connection

log = logging.getLogger("gatebook.processors")

API = "/api/"
OPEN = frozenset({"/api/v1/health", "/api/v1/openapi.json"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER = "x-csrf-token"
COOKIE = "gatebook_session"
SECURE_COOKIE = "__Host-gatebook_session"
# Refusals of nobody in particular that are recorded of one address; more only add to a count.
RECORDED_PER_MINUTE = 20.0
MAX_AUTHORIZATION_CHARS = 20_000


@dataclass
class Access:
    """All that decides who gets in. One per process."""

    settings: AccessSettings
    sessions: Sessions
    tokens: Tokens
    audit: Audit
    bearer: TokenVerifier | None = None
    oidc: OidcLogin | None = None
    link: LoginLink | None = None
    per_caller: Buckets = field(init=False)
    per_address: Buckets = field(init=False)
    failures: Buckets = field(init=False)
    recorded: Buckets = field(init=False)
    proxies: Proxies = field(init=False)
    unrecorded: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.per_caller = Buckets(self.settings.caller_per_minute)
        self.per_address = Buckets(self.settings.address_per_minute)
        self.failures = Buckets(self.settings.failed_logins_per_minute)
        self.recorded = Buckets(RECORDED_PER_MINUTE)
        self.proxies = Proxies(self.settings.trusted_proxies)

    @property
    def cookie_name(self) -> str:
        """With TLS the name itself keeps other hosts from planting one."""
        return SECURE_COOKIE if self.settings.has_tls else COOKIE

    def note_refusal(
        self, caller: Caller | None, action: str, details: Mapping[str, str], http: HttpFacts
    ) -> None:
        """Record a refusal. A flood from one address must not become one of events: beyond some a
        minute they are counted, and the next that is recorded says how many."""
        place = network_of(http.address)
        if caller is None and self.recorded.take(place):
            if len(self.unrecorded) < 10_000 or place in self.unrecorded:
                self.unrecorded[place] = self.unrecorded.get(place, 0) + 1
            return
        more = self.unrecorded.pop(place, 0)
        counted = {**details, "more_like_it": str(more)} if more else dict(details)
        self.audit.note(Act(caller, action, FAILURE, counted, http))

    def failed(self, http: HttpFacts, way: str, reason: str) -> None:
        """Credentials did not hold: count it against the address, and record it."""
        self.failures.take(network_of(http.address))
        self.note_refusal(None, "login", {"method": way, "refused": reason}, http)

    def refuse_guessing(self, address: str) -> None:
        """Raises Refused (429) where an address had too many failures, without a look at what it
        brings now."""
        if wait_seconds := self.failures.empty(network_of(address)):
            raise _too_many(wait_seconds)


def make_access(
    settings: AccessSettings,
    connection: Connection,
    namespace: str,
    audit: Audit,
    *,
    bearer: TokenVerifier | None = None,
    id_tokens: TokenVerifier | None = None,
    link: LoginLink | None = None,
) -> Access:
    """Access with the state of this namespace. Without a verifier of ID tokens nobody signs in by
    OpenID Connect; without one of bearer tokens none is accepted."""
    state = ConsoleState(connection, namespace)
    return Access(
        settings,
        Sessions(state, settings.session_idle_seconds, settings.session_absolute_seconds),
        Tokens(state),
        audit,
        bearer=bearer,
        oidc=OidcLogin(settings, id_tokens) if id_tokens is not None else None,
        link=link,
    )


def install(app: FastAPI, access: Access) -> None:
    """Put the gate in front of an app, with its login pages and its answer to refusals. Call it
    after all other middleware was added: the last one added is the first to see a request."""
    from gatebook.processors.serve.access.pages import router

    app.state.access = access
    app.state.audit = access.audit
    app.router.routes.extend(router.routes)
    app.add_exception_handler(Refused, _answer_refused)
    app.add_middleware(Guard, access=access)


class Guard:
    """The gate, as ASGI middleware."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        # There is nothing here for a websocket; it ends without an answer.

    async def _http(self, outer: Scope, receive: Receive, send: Send) -> None:
        scope = _with_state(outer, self._access)
        answer = _Answer(send, scope["path"], self._access.settings.has_tls)
        request = Request(scope, receive)
        try:
            await self._admit(request)
            await self._app(scope, receive, answer)
        except Exception as error:
            if answer.has_begun:  # too late for an answer: the connection is cut
                log.warning("an answer was cut off by %s", type(error).__name__)
                raise _Cut from None
            response = for_browser(request, self._refusal(request, error))
            await response(scope, receive, answer)

    def _refusal(self, request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, Refused):
            if error.status in (401, 403, 429) and not getattr(request.state, "told", False):
                _record_refused(self._access, request, error)
            return _response(error)
        response = told(error)
        if not isinstance(error, Refused):
            note_failed(request, response.status_code, type_of(response))
        return response

    async def _admit(self, request: Request) -> None:
        """Leave the caller in the request's state, or raise Refused."""
        access, path = self._access, request.url.path
        check_host(request, access.settings)
        check_peer(request, access)
        if wait_seconds := access.per_address.take(network_of(request.state.address)):
            raise _too_many(wait_seconds)
        is_api = path.startswith(API)
        if path in OPEN or not (is_api or path == "/logout"):
            return
        caller = await self._caller(request)
        if caller is None and is_api:
            raise unauthenticated()
        if caller is not None and (wait_seconds := access.per_caller.take(caller.id)):
            raise _too_many(wait_seconds)
        request.state.caller = caller

    async def _caller(self, request: Request) -> Caller | None:
        """Who the credentials say; None where there are none. Raises Refused for wrong ones: an
        Authorization that does not hold is never made up for by a cookie."""
        access, given = self._access, request.headers.get("authorization")
        if given is not None:
            access.refuse_guessing(request.state.address)
            return await _bearer(access, request, given)
        session = await session_of(access, request)
        if session is None:
            return None
        request.state.session = session
        if request.method not in SAFE_METHODS:
            check_csrf(request, session, access.settings)
        return session.caller


class _Cut(Exception):
    """An answer ended before its end; there is nothing to tell."""


async def still_holds(request: Request) -> bool:
    """Whether the credentials of a request that takes long (as a tail) still hold. False as well
    where that cannot be found out."""
    access: Access = request.app.state.access
    try:
        given = request.headers.get("authorization")
        if given is not None:
            caller: Caller | None = await _holder(access, given)
        else:
            session = await session_of(access, request)
            caller = session.caller if session is not None else None
        return caller is not None and bool(caller == request.state.caller)
    except (TokenRefused, TokenUncheckable, StateAway):
        return False


async def _bearer(access: Access, request: Request, given: str) -> Caller:
    way = "api_token" if given.partition(" ")[2].startswith(TOKEN_PREFIX) else "bearer"
    try:
        return await _holder(access, given)
    except TokenRefused as refused:
        access.failed(_facts(request), way, refused.reason)
        request.state.told = True
        raise Refused(
            401, "invalid_token", "this token does not hold", "get a new one from an administrator"
        ) from None
    except TokenUncheckable as missing:
        raise Refused(
            503,
            "provider_unavailable",
            f"the token cannot be checked now ({missing.reason})",
            "try again in a few seconds",
            retry_after_seconds=5,
        ) from None


async def _holder(access: Access, given: str) -> Caller:
    """Who holds this Authorization. Raises TokenRefused, TokenUncheckable, StateAway."""
    scheme, _, token = given.partition(" ")
    if scheme.lower() != "bearer" or not token or len(given) > MAX_AUTHORIZATION_CHARS:
        raise TokenRefused("malformed")
    if token.startswith(TOKEN_PREFIX):
        caller = await access.tokens.caller_of(token)
        if caller is None:
            raise TokenRefused("unknown_expired_or_revoked")
        return caller
    if access.bearer is None:
        raise TokenRefused("not_accepted")
    claims = await access.bearer.verify(token)
    digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
    return caller_of_claims(claims, access.settings, digest[:16])


async def session_of(access: Access, request: Request) -> Session | None:
    """The session of a request's cookie, if it holds. Raises StateAway."""
    session = await access.sessions.find(request.cookies.get(access.cookie_name, ""))
    if session is None or session.caller.method != "api_token":
        return session
    # Begun with a token, it ends with it.
    return session if await access.tokens.holds(session.caller.credential_id) else None


def check_csrf(request: Request, session: Session, settings: AccessSettings) -> None:
    """Raises Refused (403) for a change that a page of ours did not send."""
    given = request.headers.get(CSRF_HEADER, "")
    if not hmac.compare_digest(given.encode(), session.csrf_token.encode()):
        request.state.caller = session.caller  # who was tricked is told by the event
        raise _forged()
    check_origin(request, settings)


def check_origin(request: Request, settings: AccessSettings) -> None:
    """Raises Refused (403) for a request that a page of another origin sent."""
    origin = request.headers.get("origin")
    ours = {settings.origin.lower(), _own_origin(request, settings)}
    site = request.headers.get("sec-fetch-site")
    # Our pages send no referrer, so Chromium says `null` for a form of theirs. No page can set or
    # forge Sec-Fetch-Site.
    unnamed = origin == "null" and site == "same-origin"
    same = origin is None or origin.lower() in ours or unnamed
    if not same or site in ("cross-site", "same-site"):
        raise _forged()


def _own_origin(request: Request, settings: AccessSettings) -> str:
    """By the Host that was checked: on loopback there are several names for the same service."""
    scheme = "https" if settings.has_tls else "http"
    return f"{scheme}://{request.headers.get('host', '')}".lower()


def check_host(request: Request, settings: AccessSettings) -> None:
    """Raises Refused (421) for a request meant for another host: a name that somebody let point
    here must not make this service theirs."""
    host = _hostname(request.headers.get("host", ""))
    known = {settings.host, _hostname(urlsplit(settings.origin).netloc)}
    if not (host in known or (settings.is_loopback and is_loopback(host))):
        raise Refused(421, "wrong_host", "this service does not answer under this name")


def check_peer(request: Request, access: Access) -> None:
    """Raises Refused (403) for who comes past the proxy that ends TLS: what it sends was not
    encrypted on its way."""
    settings, peer = access.settings, request.state.peer
    is_direct = bool(settings.trusted_proxies) and not settings.tls_certificate_file
    if is_direct and not (access.proxies.has(peer) or is_loopback(peer)):
        raise Refused(403, "direct", f"this service is at {settings.origin}", "go there")


def _hostname(netloc: str) -> str:
    try:
        return (urlsplit(f"//{netloc}").hostname or "").lower()
    except ValueError:
        return ""


def _forged() -> Refused:
    return Refused(
        403,
        "csrf",
        "this change was not sent by a page of this service",
        "reload the page; other programs use an API token",
    )


def _too_many(wait_seconds: int) -> Refused:
    return Refused(
        429,
        "rate_limited",
        "too many requests",
        f"wait {wait_seconds} seconds",
        retry_after_seconds=wait_seconds,
    )


def _with_state(scope: Scope, access: Access) -> Scope:
    """The scope with a state of this request's own."""
    peer = str((scope.get("client") or ("", 0))[0])
    forwarded = [v.decode("latin-1") for n, v in scope["headers"] if n == b"x-forwarded-for"]
    state = {
        **scope.get("state", {}),
        "caller": None,
        "peer": peer,
        "address": access.proxies.address_behind(peer, forwarded),
        "request_id": uuid.uuid4().hex,
    }
    return {**scope, "state": state}


class _Answer:
    """`send`, with our headers on whatever is answered."""

    def __init__(self, send: Send, path: str, has_tls: bool) -> None:
        self._send = send
        self._path = path
        self._has_tls = has_tls
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        """See ASGI."""
        if message["type"] == "http.response.start":
            self.has_begun = True
            given = list(message.get("headers", ()))
            headers = secured(given, self._path, message["status"], self._has_tls)
            message = {**message, "headers": headers}
        await self._send(message)


def _response(refused: Refused) -> JSONResponse:
    headers = {}
    if refused.retry_after_seconds:
        headers["retry-after"] = str(refused.retry_after_seconds)
    if refused.status == 401:
        headers["www-authenticate"] = 'Bearer realm="gatebook"'
    return JSONResponse(json.loads(json.dumps(refused.body())), refused.status, headers)


async def _answer_refused(request: Request, error: Exception) -> Response:
    """A route refused: record it, and say so."""
    assert isinstance(error, Refused)
    if error.status in (401, 403):
        _record_refused(request.app.state.access, request, error)
    else:
        note_failed(request, error.status, error.kind)
    return for_browser(request, _response(error))


def _record_refused(access: Access, request: Request, error: Refused) -> None:
    caller = getattr(request.state, "caller", None)
    act = act_of_request(request)
    tried = {**({ACT: act} if act else {}), **getattr(request.state, "tried", {})}
    details = {**tried, "refused": error.kind, "status": str(error.status)}
    if error.field:
        details["field"] = error.field
    access.note_refusal(caller, "access.refused", details, _facts(request))


def _facts(request: Request) -> HttpFacts:
    """As http_facts; before routing with the route that would answer, and where there is none the
    beginning of the path."""
    facts = http_facts(request)
    if facts.route:
        return facts
    beginning = "/".join(request.url.path.split("/")[:4])[:80]
    template = str(getattr(route_of(request), "path", ""))
    shown = template or (beginning if beginning.isprintable() else "")
    return HttpFacts(facts.method, shown, facts.address, facts.user_agent, facts.request_id)


def routes_without_permission(app: Any) -> list[str]:
    """Routes below /api/ that ask for no permission and are not open: there must be none."""
    from gatebook.processors.serve.access.caller import permission_of_route

    return [
        f"{','.join(sorted(route.methods or ()))} {route.path}"
        for route in app.routes
        if getattr(route, "path", "").startswith(API)
        and route.path not in OPEN
        and permission_of_route(route) is None
    ]
