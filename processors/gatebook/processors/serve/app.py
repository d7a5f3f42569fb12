"""The search service as an ASGI application: routes, errors, limits, and its description."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse

from gatebook.processors.serve import errors
from gatebook.processors.serve.access.caller import act_of_route, permission_of_route
from gatebook.processors.serve.base import API
from gatebook.processors.serve.deps import Deps
from gatebook.processors.serve.limits import Bounded
from gatebook.processors.serve.reader import Registry
from gatebook.processors.serve.routes import ROOMS, console

DESCRIPTION = """\
Search in the access log of model services.

What is looked at or shown of the log, or of what others saved, what is changed, and every request
that failed, is itself an event of the log; `x-act` of an operation is its event.action there. What
shows nothing of these is recorded where it fails alone: who calls, which fields there are, whether
a query can be understood, how far an export of one's own is, one's own saved searches.

Times are UTC. Requests take a range as `since` and `until`; answers tell it in absolute times as
`from` and `to`: send `from` as `since` (`all` where it is null) and `to` as `until` to get the same
again.

Errors are all `{"error": {type, message, position?, next_step?}}`. A body that is no JSON, or whose
content type says so, is answered with 400; one that is JSON, but not as described, with 422. Fields
that the caller's roles mask can be neither seen nor queried, sorted or counted (403).
"""


def create_app(deps: Deps) -> FastAPI:
    """The service. Its connection belongs to the loop that runs it; whoever made it closes it."""
    app = FastAPI(
        title="Gatebook search service",
        version=version("gatebook"),
        description=DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.deps = deps
    app.state.audit = deps.audit
    app.state.registry = Registry(deps)
    errors.install(app)
    for room in ROOMS:
        # Not include_router: that hides routes from whoever looks at `app.routes` for one that
        # forgot to ask for a permission.
        app.router.routes.extend(room.routes)
    app.add_api_route(
        f"{API}/openapi.json", lambda: JSONResponse(describe(app)), include_in_schema=False
    )
    app.router.routes.extend(console.room.routes)
    app.add_middleware(Bounded, max_body_bytes=deps.settings.max_body_bytes)
    deps.install(app)  # last: what lets callers in sees a request first
    return app


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description, with how a caller is known and what each route asks for."""
    found = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = found.setdefault("components", {})
    schemas["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "An API token, gb_..."},
        "session": {"type": "apiKey", "in": "cookie", "name": "gatebook_session"},
    }
    for route in app.routes:
        permission = permission_of_route(route)
        for method in getattr(route, "methods", None) or ():
            operation = found["paths"].get(getattr(route, "path", ""), {}).get(method.lower())
            if operation is not None and permission is not None:
                operation["security"] = [{"token": []}, {"session": []}]
                operation["x-permission"] = str(permission)
                operation["x-act"] = act_of_route(route)
    return found
