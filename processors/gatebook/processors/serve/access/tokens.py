"""API tokens: random, shown once, kept as a digest."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from gatebook.processors.serve.access.caller import Caller
from gatebook.processors.serve.access.roles import ROLES
from gatebook.processors.serve.access.state import ConsoleState, Kept
from gatebook.schemas.errors import GatebookError

PREFIX = "gb_"
KIND = "token"
MAX_NAME_CHARS = 80
MAX_TENANTS = 1_000
MAX_DAYS = 366
DAY_SECONDS = 86_400
TOUCH_SECONDS = 60.0
SHORT_ID_CHARS = 16
_ID = re.compile(r"[0-9a-p]{16}")
# Hexadecimal digits as letters: what looks like random digits is taken for a key or a telephone
# number, and masked, where an act of a token names it.
_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
_TOKEN = re.compile(r"gb_[A-Za-z0-9_-]{43}")


class TokenError(GatebookError):
    """What was asked of a token makes no sense, or there is no such token."""

    exit_code = 2

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.next_step = next_step


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """All that is known of a token; the token itself is not. Times in seconds since 1970, 0: not
    yet."""

    id: str
    name: str
    roles: tuple[str, ...]
    tenants: tuple[str, ...] | None
    created_at: float
    created_by: str
    expires_at: float
    last_used_at: float
    revoked_at: float
    revoked_by: str

    def state(self, now: float) -> str:
        """active, expired or revoked."""
        if self.revoked_at:
            return "revoked"
        return "active" if now < self.expires_at else "expired"


@dataclass(frozen=True, slots=True)
class NewToken:
    """What a new token is to be. Check it before anything is recorded of it."""

    name: str
    roles: tuple[str, ...]
    tenants: tuple[str, ...] | None
    days: int

    def check(self) -> NewToken:
        """Raises TokenError."""
        unknown = [role for role in self.roles if role not in ROLES]
        if unknown or not self.roles:
            what = f"no role {unknown[0][:40]!a}" if unknown else "a token needs a role"
            raise TokenError(what, f"name one or more of {', '.join(ROLES)}")
        if not self.name.strip() or len(self.name) > MAX_NAME_CHARS or not self.name.isprintable():
            raise TokenError(
                "a token needs a name", f"1 to {MAX_NAME_CHARS} characters that say what it is for"
            )
        if not 1 <= self.days <= MAX_DAYS:
            raise TokenError(f"a token cannot hold {self.days} days", f"1 to {MAX_DAYS}")
        if self.tenants is not None and not _are_tenants(self.tenants):
            raise TokenError("a token needs a tenant", "name at least one, or say all tenants")
        return self


def _are_tenants(tenants: tuple[str, ...]) -> bool:
    return 0 < len(tenants) <= MAX_TENANTS and all(0 < len(one) <= 256 for one in tenants)


def no_token() -> TokenError:
    """There is no such token, or none that one may know of."""
    return TokenError("no token has this id", "see `gatebook token list`")


def within(caller: Caller, tenants: tuple[str, ...] | None) -> bool:
    """Whether a caller sees all of these tenants: nobody makes or ends a token for others."""
    if caller.tenants is None:
        return True
    return tenants is not None and set(tenants) <= caller.tenants


class Tokens:
    """The tokens of one namespace."""

    def __init__(self, state: ConsoleState, clock: Callable[[], float] = time.time) -> None:
        self._state = state
        self._clock = clock

    async def create(self, new: NewToken, by: str) -> tuple[str, TokenFacts]:
        """A new token: itself, which stands nowhere else, and what is kept of it."""
        new.check()
        token = PREFIX + secrets.token_urlsafe(32)
        now = self._clock()
        source = {
            "type": KIND,
            "short_id": short_id(token),
            "digest": _digest(token),
            "name": new.name,
            "roles": list(new.roles),
            "tenants": None if new.tenants is None else list(new.tenants),
            "created_at": now,
            "created_by": by,
            "expires_at": now + new.days * DAY_SECONDS,
        }
        await self._state.create(_document_id(short_id(token)), source)
        return token, facts_of(source)

    async def caller_of(self, token: str) -> Caller | None:
        """The caller a token stands for; None where it does not hold. Raises StateAway."""
        if not _TOKEN.fullmatch(token):
            return None
        kept = await self._state.get(_document_id(short_id(token)))
        if kept is None:  # of a version that named tokens by the digits
            kept = await self._state.get(_document_id(_digest(token)[:SHORT_ID_CHARS]))
        if kept is None or not hmac.compare_digest(kept.source["digest"], _digest(token)):
            return None
        facts = facts_of(kept.source)
        if facts.state(self._clock()) != "active":
            return None
        await self._touch(kept)
        return Caller(
            id=caller_id(facts.id),
            name=facts.name,
            method="api_token",
            roles=frozenset(facts.roles),
            tenants=None if facts.tenants is None else frozenset(facts.tenants),
            credential_id=facts.id,
        )

    async def _touch(self, kept: Kept) -> None:
        """Note that it was used, once a minute. Whoever changed it meanwhile (as a revocation)
        wins."""
        now = self._clock()
        if now - kept.source.get("last_used_at", 0) >= TOUCH_SECONDS:
            await self._state.replace(kept, {**kept.source, "last_used_at": now}, refresh=False)

    async def holds(self, token_id: str) -> bool:
        """Whether a token, named by its id, still holds. Raises StateAway."""
        kept = await self._state.get(_document_id(token_id))
        return kept is not None and facts_of(kept.source).state(self._clock()) == "active"

    async def list(self) -> list[TokenFacts]:
        """All tokens ever made, newest first."""
        return [facts_of(kept.source) for kept in await self._state.find(KIND)]

    async def revoke(self, token_id: str, by: str) -> TokenFacts:
        """End a token; it holds for no request that comes after. Raises TokenError."""
        while True:
            kept = await self._one(token_id)
            if kept.source.get("revoked_at"):
                return facts_of(kept.source)
            source = {**kept.source, "revoked_at": self._clock(), "revoked_by": by}
            if await self._state.replace(kept, source):
                return facts_of(source)
            # it was used or revoked in between: look again

    async def find(self, token_id: str) -> TokenFacts:
        """What is known of one token, by its id. Raises TokenError."""
        return facts_of((await self._one(token_id)).source)

    async def _one(self, token_id: str) -> Kept:
        kept = await self._state.get(_document_id(token_id)) if is_id(token_id) else None
        if kept is None:
            raise no_token()
        return kept

    async def has_any(self) -> bool:
        """Whether there is a token that holds."""
        now = self._clock()
        return any(facts.state(now) == "active" for facts in await self.list())


def short_id(token: str) -> str:
    """By what a token is named: the beginning of its digest, in letters."""
    return _digest(token)[:SHORT_ID_CHARS].translate(_LETTERS)


def caller_id(token_id: str) -> str:
    """The user.id that stands in the log for what is done by a token. It must look like no secret:
    what does is masked, and found by nobody."""
    return f"api-token/{token_id}"


def is_token(text: str) -> bool:
    """Whether this has the form of a token itself."""
    return bool(_TOKEN.fullmatch(text))


def is_id(text: str) -> bool:
    """Whether this has the form of a token's id."""
    return bool(_ID.fullmatch(text))


def _document_id(token_id: str) -> str:
    return f"{KIND}-{token_id}"


def _digest(token: str) -> str:
    """Of 256 random bits, so there is nothing to guess and no salt is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def facts_of(source: dict[str, Any]) -> TokenFacts:
    """What a stored document says."""
    tenants: Iterable[str] | None = source.get("tenants", [])
    return TokenFacts(
        id=source["short_id"],
        name=source["name"],
        roles=tuple(source["roles"]),
        tenants=None if tenants is None else tuple(tenants),
        created_at=source["created_at"],
        created_by=source["created_by"],
        expires_at=source["expires_at"],
        last_used_at=source.get("last_used_at", 0.0),
        revoked_at=source.get("revoked_at", 0.0),
        revoked_by=source.get("revoked_by", ""),
    )
