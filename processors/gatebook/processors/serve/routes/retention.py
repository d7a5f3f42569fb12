"""Retention as it is set, and what its last run did."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from gatebook.processors.serve import lasting
from gatebook.processors.serve.access.caller import Permission, requires
from gatebook.processors.serve.audit import Acts
from gatebook.processors.serve.base import API
from gatebook.processors.serve.deps import deps_of
from gatebook.processors.serve.errors import answers
from gatebook.processors.serve.models import RetentionAnswer

room = APIRouter(prefix=API, tags=["retention"])
MayRead = Annotated[Acts, Depends(requires(Permission.RETENTION_READ, "retention.view"))]


@room.get("/retention", summary="Retention", responses=answers())
async def retention(request: Request, acts: MayRead) -> RetentionAnswer:
    """The last run, the policy it had, the days of which details are gone or thinned out, and, for
    whoever may put holds or set retention up, the holds that stand."""
    await acts.look("retention.view")
    deps = deps_of(request)
    return await lasting.retention(deps.connection, deps.namespace, acts.caller)
