"""The caller of a request, and the dependencies by which routes ask for one.

    MaySearch = Annotated[Acts, Depends(requires(Permission.SEARCH, "search"))]

    @router.post("/search")
    async def search(acts: MaySearch, body: SearchRequest): ...

The middleware of `guard` finds out who calls and leaves it in `request.state.caller`. Where it did
not, there is no caller: a service that is put together wrongly refuses everybody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request
from starlette.routing import Match

from gatebook.processors.serve.access.roles import ROLES, Permission
from gatebook.processors.serve.access.who import Caller
from gatebook.processors.serve.audit import Acts, acts_of
from gatebook.schemas.errors import GatebookError

__all__ = [
    "ROLES",
    "Caller",
    "Permission",
    "Refused",
    "act_of_request",
    "act_of_route",
    "current_caller",
    "permission_of_route",
    "requires",
    "route_of",
    "scope_filter",
]


class Refused(GatebookError):
    """The request is not carried out. `kind` is a code, `status` the HTTP status."""

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        next_step: str = "",
        position: int | None = None,
        retry_after_seconds: int = 0,
        field: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.next_step = next_step
        self.position = position
        self.retry_after_seconds = retry_after_seconds
        self.field = field

    def body(self) -> dict[str, Any]:
        """As the API answers it."""
        told: dict[str, Any] = {"type": self.kind, "message": self.message}
        if self.position is not None:
            told["position"] = self.position
        if self.next_step:
            told["next_step"] = self.next_step
        return {"error": told}


def unauthenticated() -> Refused:
    """Nobody is known by what the request carries."""
    return Refused(401, "unauthenticated", "sign in first", "open /login, or send an API token")


def current_caller(request: Request) -> Caller:
    """The caller of this request. Raises Refused (401)."""
    caller = getattr(request.state, "caller", None)
    if not isinstance(caller, Caller):
        raise unauthenticated()
    return caller


def requires(permission: Permission, act: str) -> Callable[[Request], Awaitable[Acts]]:
    """A dependency that gives the request's Acts (its `.caller`, and `.record`) to callers who may
    do this. Others are refused with 401 or 403, and that is recorded. `act` names in the log what
    the route does: also a request that fails before the route is reached is recorded as it."""

    async def granted(request: Request) -> Acts:
        caller = current_caller(request)
        if not caller.may(permission):
            raise Refused(
                403,
                "forbidden",
                f"your roles do not allow this ({permission})",
                "ask an administrator for a role that does",
            )
        return acts_of(request, caller)

    granted.permission = permission  # type: ignore[attr-defined]  # read by permission_of_route
    granted.act = act  # type: ignore[attr-defined]  # read by act_of_route
    return granted


def _granting(route: Any) -> Any:
    """The dependency of a route that `requires` made; None where there is none."""
    waiting = [route.dependant] if getattr(route, "dependant", None) else []
    while waiting:
        dependant = waiting.pop()
        if isinstance(getattr(dependant.call, "permission", None), Permission):
            return dependant.call
        waiting += dependant.dependencies
    return None


def permission_of_route(route: Any) -> Permission | None:
    """The permission a route asks for; None where it asks for none."""
    found: Permission | None = getattr(_granting(route), "permission", None)
    return found


def act_of_route(route: Any) -> str:
    """What a route does, as the log names it; empty where it declares nothing."""
    return str(getattr(_granting(route), "act", ""))


def route_of(request: Request) -> Any:
    """The route that answers a request, also before routing is done; None where none would."""
    if (route := request.scope.get("route")) is not None:
        return route
    for route in request.app.routes:
        if route.matches(request.scope)[0] is Match.FULL:
            return route
    return None


def act_of_request(request: Request) -> str:
    """What a request asks for, as its route declares it; empty where no route would answer it."""
    return act_of_route(route_of(request))


def scope_filter(caller: Caller) -> dict[str, Any] | None:
    """What every query of this caller is narrowed by; None for a caller of all tenants. Documents
    without organization.id belong to no tenant, and are seen by those callers alone."""
    if caller.tenants is None:
        return None
    if not caller.tenants:
        return {"match_none": {}}
    return {"terms": {"organization.id": sorted(caller.tenants)}}
