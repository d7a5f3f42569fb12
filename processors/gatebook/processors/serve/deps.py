"""What the service is put together from: whoever starts it gives it these."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastapi import Request

from gatebook.processors.serve.settings import ServeSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from gatebook.processors.serve.audit import Audit
    from gatebook.processors.serve.models import RoleState
    from gatebook.processors.sinks.connection import Connection

Reveal = Callable[[Mapping[str, Any], Sequence[str]], Awaitable[dict[str, Any]]]
Say = Callable[[dict[str, Any]], Awaitable[None]]
Waiting = Callable[[], Awaitable["list[RoleState] | None"]]


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _nothing(_app: FastAPI) -> None:
    """No access control: the routes find no caller, and refuse everybody."""


async def _not_known() -> list[RoleState] | None:
    return None


async def _cannot_say(_record: dict[str, Any]) -> None:
    from gatebook.schemas.errors import Fatal

    raise Fatal("this service cannot write verdicts", "give it Kafka brokers")


async def _cannot_open(_document: Mapping[str, Any], _layers: Sequence[str]) -> dict[str, Any]:
    from gatebook.schemas.errors import Fatal

    raise Fatal("this service has no keys of sealed content", "see `gatebook keys`")


@dataclass(frozen=True, slots=True)
class Deps:
    """The parts of the service.

    install: adds what lets callers in: its middleware (which leaves the caller in
    `request.state.caller`) and its own routes (session, login, tokens, reveal). Without it
    everybody is refused.
    say: writes a record of schema finding.v2, a person's word on a finding, to the finding topic;
    returns when the brokers have it.
    reveal: opens layers of a document's sealed content; called after the act was recorded.
    waiting: what waits in Kafka for each role of the worker; None where that cannot be told.
    signing_key: signs cursors and export ids; the same in all processes behind one address.
    """

    connection: Connection
    namespace: str
    audit: Audit
    settings: ServeSettings = field(default_factory=ServeSettings)
    install: Callable[[FastAPI], None] = _nothing
    say: Say = _cannot_say
    reveal: Reveal = _cannot_open
    waiting: Waiting = _not_known
    signing_key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    clock: Callable[[], datetime] = _utc_now


def deps_of(request: Request) -> Deps:
    """The parts of the service that answers a request."""
    found: Deps = request.app.state.deps
    return found
