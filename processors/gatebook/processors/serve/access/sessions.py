"""Sessions of the console: a random value in a cookie, and all else at the server.

The cookie's value is new at each login, so that one planted before is worth nothing after. A
session ends when it was idle for too long, when it is too old however busy, and when it is
revoked; then its document is gone, and so is it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gatebook.processors.serve.access.caller import Caller
from gatebook.processors.serve.access.state import ConsoleState, Kept

KIND = "session"
_VALUE_CHARS = 43
_TOUCH_PART = 10  # last use is written when a tenth of the idle time is over


@dataclass(frozen=True, slots=True)
class Session:
    """A session that holds. `expires_at` is when it ends without further use."""

    caller: Caller
    expires_at: float
    csrf_token: str


class Sessions:
    """The sessions of one namespace."""

    def __init__(
        self,
        state: ConsoleState,
        idle_seconds: float,
        absolute_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._idle_seconds = idle_seconds
        self._absolute_seconds = absolute_seconds
        self._clock = clock

    async def begin(self, caller: Caller, replaces: str = "") -> str:
        """A new session's cookie value. The one it replaces is over."""
        await self.end(replaces)
        await self._sweep()
        value = secrets.token_urlsafe(32)
        now = self._clock()
        source = {
            "type": KIND,
            "owner": caller.id,
            "caller": _kept_of(caller),
            "created_at": now,
            "last_used_at": now,
            "expires_at": now + self._absolute_seconds,
        }
        await self._state.create(_document_id(value), source)
        return value

    async def find(self, value: str) -> Session | None:
        """The session of a cookie value; None where it does not hold. Raises StateAway."""
        if len(value) != _VALUE_CHARS:
            return None
        kept = await self._state.get(_document_id(value))
        if kept is None or kept.source.get("type") != KIND:
            return None
        now = self._clock()
        idle_until = kept.source["last_used_at"] + self._idle_seconds
        if now >= min(idle_until, kept.source["expires_at"]):
            return None
        await self._touch(kept, now)
        caller = _caller_of(kept.source["caller"], _digest(value)[:16])
        until = min(now + self._idle_seconds, kept.source["expires_at"])
        return Session(caller, until, csrf_token(value))

    async def _touch(self, kept: Kept, now: float) -> None:
        """Whoever ended it meanwhile wins: a document that is gone is not written again."""
        if now - kept.source["last_used_at"] >= self._idle_seconds / _TOUCH_PART:
            await self._state.replace(kept, {**kept.source, "last_used_at": now}, refresh=False)

    async def end(self, value: str) -> None:
        """Revoke a session, if there is one."""
        if len(value) == _VALUE_CHARS:
            await self._state.delete(_document_id(value))

    async def end_all_of(self, caller_id: str) -> int:
        """Revoke every session of a caller; how many."""
        found = await self._state.find(KIND, owner=caller_id)
        for kept in found:
            await self._state.delete(kept.id)
        return len(found)

    async def _sweep(self) -> None:
        for kept in await self._state.expired(KIND, self._clock()):
            await self._state.delete(kept.id)


def csrf_token(value: str) -> str:
    """What a page of ours sends along: it follows from the cookie, which no other page can read."""
    return hmac.new(value.encode(), b"gatebook csrf", hashlib.sha256).hexdigest()


def _document_id(value: str) -> str:
    return f"{KIND}-{_digest(value)}"


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def _kept_of(caller: Caller) -> dict[str, Any]:
    return {
        "id": caller.id,
        "name": caller.name,
        "method": caller.method,
        "credential_id": caller.credential_id,
        "roles": sorted(caller.roles),
        "tenants": None if caller.tenants is None else sorted(caller.tenants),
    }


def _caller_of(kept: dict[str, Any], credential_id: str) -> Caller:
    tenants = kept["tenants"]
    return Caller(
        id=kept["id"],
        name=kept["name"],
        method=kept["method"],
        roles=frozenset(kept["roles"]),
        tenants=None if tenants is None else frozenset(tenants),
        credential_id=kept["credential_id"] or credential_id,
    )
