"""The routes of the API, one file a room. Each asks for exactly one permission."""

from __future__ import annotations

from gatebook.processors.serve.routes import (
    counts,
    events,
    exports,
    fields,
    findings,
    health,
    overview,
    retention,
    saved,
    search,
    session,
    tail,
)

ROOMS = tuple(
    module.room
    for module in (
        session,
        fields,
        search,
        counts,
        events,
        tail,
        exports,
        findings,
        overview,
        saved,
        retention,
        health,
    )
)
