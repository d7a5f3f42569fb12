"""A search service in the test's own process, with the real gate and a few routes of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI

from gatebook.processors.serve import errors
from gatebook.processors.serve.access.caller import Caller, Permission, requires
from gatebook.processors.serve.access.guard import Access, install, make_access
from gatebook.processors.serve.access.settings import AccessSettings
from gatebook.processors.serve.access.tokens import NewToken, TokenFacts
from gatebook.processors.serve.audit import Act, Acts, Unrecorded
from gatebook.processors.serve.deps import Deps
from gatebook.processors.serve.routes import session
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.sinks.settings import elasticsearch_settings

ORIGIN = "http://127.0.0.1:8321"


@dataclass
class KeptAudit:
    """Keeps acts in a list, in order; refuses those that must be durable when told so."""

    acts: list[tuple[str, str, dict[str, str], Caller | None]] = field(default_factory=list)
    broken: bool = False

    def note(self, act: Act) -> None:
        """See Audit."""
        told = {**act.details, "route": act.http.route}
        self.acts.append((act.action, act.outcome, told, act.caller))

    async def look(self, act: Act) -> None:
        """See Audit."""
        if self.broken:
            raise Unrecorded("the spool is full")
        self.note(act)

    record = look

    def of(self, action: str) -> list[dict[str, str]]:
        """The details of the acts with this name."""
        return [details for name, _, details, _ in self.acts if name == action]


@dataclass
class Service:
    """One service, and how to call it."""

    app: FastAPI
    access: Access
    audit: KeptAudit
    connection: Connection

    def client(self, **more: Any) -> httpx.AsyncClient:
        """A client without credentials, with a cookie jar of its own."""
        transport = httpx.ASGITransport(self.app, client=(more.pop("address", "127.0.0.1"), 5000))
        return httpx.AsyncClient(transport=transport, base_url=ORIGIN, **more)

    async def token(
        self, *roles: str, tenants: tuple[str, ...] | None = None, days: int = 1
    ) -> tuple[str, TokenFacts]:
        """A new token."""
        return await self.access.tokens.create(NewToken("a test", roles, tenants, days), "tester")

    async def by_token(self, *roles: str, tenants: tuple[str, ...] | None = None) -> Any:
        """A client with a new token of these roles."""
        token, _ = await self.token(*roles, tenants=tenants)
        return self.client(headers={"authorization": f"Bearer {token}"})

    async def signed_in(self, *roles: str, tenants: tuple[str, ...] | None = None) -> Any:
        """A client with a session of a new caller, without its CSRF token."""
        caller = Caller("ada", "Ada", "oidc", frozenset(roles), _tenants(tenants))
        value = await self.access.sessions.begin(caller)
        return self.client(cookies={self.access.cookie_name: value})


def _tenants(given: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if given is None else frozenset(given)


def small_app(deps: Deps) -> FastAPI:
    """An app of two routes: one that looks, one that changes."""
    app = FastAPI(openapi_url=None)
    app.state.deps = deps
    errors.install(app)
    app.router.routes.extend(session.room.routes)

    @app.get("/api/v1/look")
    async def look(
        acts: Annotated[Acts, Depends(requires(Permission.SEARCH, "search"))],
    ) -> dict[str, str]:
        acts.note("search", query="user.id:alice")
        return {"caller": acts.caller.id}

    @app.post("/api/v1/change")
    async def change(
        acts: Annotated[Acts, Depends(requires(Permission.VERDICT, "verdict"))],
    ) -> dict[str, str]:
        await acts.record("verdict", note="seen")
        return {"caller": acts.caller.id}

    @app.get("/api/v1/forgotten")
    async def forgotten() -> dict[str, str]:
        """A route that asks for nothing."""
        return {"open": "yes"}

    @app.get("/api/v1/fails")
    async def fails(acts: Annotated[Acts, Depends(requires(Permission.SEARCH, "search"))]) -> None:
        raise RuntimeError("a secret of hunter2")

    return app


@asynccontextmanager
async def running_service(
    elasticsearch_url: str,
    namespace: str,
    settings: AccessSettings | None = None,
    make: Any = small_app,
    **given: Any,
) -> AsyncIterator[Service]:
    """A service, closed in the end. `make` gives the app of Deps."""
    connection = Connection(elasticsearch_settings(url=elasticsearch_url))
    audit = given.pop("audit", None) or KeptAudit()
    parts = {name: given.pop(name) for name in ("waiting",) if name in given}
    access = make_access(settings or AccessSettings(), connection, namespace, audit, **given)
    deps = Deps(connection, namespace, audit, install=lambda app: install(app, access), **parts)
    app = make(deps)
    if make is small_app:
        deps.install(app)
    try:
        yield Service(app, access, audit, connection)
    finally:
        await connection.close()
