"""Which fields there are, and whether a query can be understood."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from gatebook.processors.search.fields import fields_of
from gatebook.processors.search.query import QueryError
from gatebook.processors.search.question import is_countable, is_sortable, normalized
from gatebook.processors.serve.access.caller import Permission, Refused, requires
from gatebook.processors.serve.audit import Acts
from gatebook.processors.serve.base import API
from gatebook.processors.serve.errors import answers
from gatebook.processors.serve.models import (
    CheckAnswer,
    CheckRequest,
    FieldInfo,
    FieldsAnswer,
    Kind,
    QueryProblem,
)
from gatebook.processors.serve.reader import Reader

room = APIRouter(prefix=API, tags=["fields"])
MayList = Annotated[Acts, Depends(requires(Permission.SEARCH, "field.list"))]
MayCheck = Annotated[Acts, Depends(requires(Permission.SEARCH, "query.check"))]


@room.get("/fields", summary="Fields of a kind of document", responses=answers())
async def fields(
    request: Request,
    acts: MayList,
    kind: Annotated[Kind, Query(description="Of which documents.")] = "access",
) -> FieldsAnswer:
    """What a query may name, by kind; `masked` ones it may not."""
    reader = Reader(request, acts.caller)
    known = fields_of(kind)
    return FieldsAnswer(
        fields=[
            FieldInfo(
                name=name,
                type=type_,
                searchable=known.is_searchable(name),
                sortable=is_sortable(name, known),
                aggregatable=is_countable(name, known),
                masked=reader.is_masked(name, kind),
            )
            for name, type_ in sorted(known.types.items())
        ]
    )


@room.post("/query/check", summary="Check a query", responses=answers())
async def check(request: Request, acts: MayCheck, body: CheckRequest) -> CheckAnswer:
    """Whether a query can be understood, and where not; it is not run."""
    try:
        Reader(request, acts.caller).question(body.query, kind=body.kind)
    except QueryError as error:
        return _wrong(error.message, error.position, error.next_step)
    except Refused as error:
        return _wrong(error.message, error.position or 0, error.next_step)
    return CheckAnswer(ok=True, normalized=normalized(body.query))


def _wrong(message: str, position: int, next_step: str) -> CheckAnswer:
    problem = QueryProblem(message=message, position=position, next_step=next_step)
    return CheckAnswer(ok=False, error=problem)
