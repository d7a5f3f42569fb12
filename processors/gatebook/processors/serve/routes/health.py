"""Whether the service works; open to everybody, so without any detail."""

from __future__ import annotations

from fastapi import APIRouter, Request

from gatebook.processors.serve.base import API
from gatebook.processors.serve.deps import deps_of
from gatebook.processors.serve.models import Health
from gatebook.processors.sinks.connection import Unreachable

room = APIRouter(prefix=API, tags=["health"])


@room.get("/health", summary="Health")
async def health(request: Request) -> Health:
    """ok where Elasticsearch answers, else degraded. Nobody has to sign in for this."""
    try:
        found = await deps_of(request).connection.request("GET", "/_cluster/health")
    except Unreachable:
        return Health(status="degraded")
    is_good = found.status == 200 and found.body.get("status") in ("green", "yellow")
    return Health(status="ok" if is_good else "degraded")
