"""The one-time link by which whoever started the service on this machine gets in."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable

from gatebook.processors.serve.access.caller import Caller
from gatebook.processors.serve.access.roles import ROLES


class LoginLink:
    """One token that holds once, and not for long. It stands in memory as a digest only."""

    def __init__(
        self,
        operator: str,
        lifetime_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._operator = operator
        self._clock = clock
        self._lock = threading.Lock()
        self._until = clock() + lifetime_seconds
        self.token = secrets.token_urlsafe(32)
        self._digest: bytes | None = _digest(self.token)

    def forget_token(self) -> None:
        """Once it is printed, only its digest is needed."""
        self.token = ""

    def redeem(self, token: str) -> Caller | None:
        """The operator, for whoever comes first with the token; None ever after."""
        with self._lock:
            if self._digest is None or self._clock() >= self._until:
                return None
            if not hmac.compare_digest(_digest(token), self._digest):
                return None
            self._digest = None
        return Caller(
            id=self._operator,
            name=self._operator,
            method="login_link",
            roles=frozenset(ROLES),
            tenants=None,
        )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
