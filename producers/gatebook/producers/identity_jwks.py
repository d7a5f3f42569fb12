"""The public keys of an identity provider, kept fresh by a thread of their own.

Requests only look at what is there. The keys are fetched anew every `refresh_seconds`, and at once
for a key id that is not known, but not more often than every `refetch_seconds`. While the provider
cannot be reached the last keys are used, up to `stale_seconds`. Keys that the provider withdrew
are gone with the next fetch.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gatebook.producers.identity_fetch import FetchFailed

log = logging.getLogger("gatebook.producers")

MAX_KEYS = 64
_MIN_RSA_BITS = 2048
_FIRST_RETRY_SECONDS = 1.0
# Only the public part: a provider that shows more by mistake does not make us hold it.
_PUBLIC_MEMBERS = frozenset({"kty", "kid", "alg", "crv", "x", "y", "n", "e"})
_BY_CURVE = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}

Keys = Mapping[tuple[str, str], tuple[Any, ...]]


class Missing(Exception):
    """There is no key to check with. `pending` says that there may be one soon, so that nothing is
    said against the token; `reason` is a code."""

    def __init__(self, reason: str, pending: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.pending = pending


class SigningKeys:
    """Keys by key id and algorithm. `fetch` blocks and gives the `keys` of a JWKS, or raises
    FetchFailed. The thread starts with `start` or with the first key asked for, in each process
    anew after a fork."""

    def __init__(
        self,
        fetch: Callable[[], Any],
        algorithms: Sequence[str],
        refresh_seconds: float,
        refetch_seconds: float,
        stale_seconds: float,
    ) -> None:
        self._fetch = fetch
        self._algorithms = tuple(algorithms)
        self._refresh_seconds = refresh_seconds
        self._refetch_seconds = refetch_seconds
        self._stale_seconds = stale_seconds
        self._keys: Keys = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._failures = 0
        self.generation = 0
        self._closed = False
        self.leave_after_fork()
        _all_keys.add(self)

    def leave_after_fork(self) -> None:
        """In a child process: the thread stayed behind, and so may its locks have."""
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._wanted = threading.Event()

    def start(self) -> None:
        """Begin to fetch, without waiting for it; also again after `close`."""
        self._closed = False
        self._ensure_thread()

    def _ensure_thread(self) -> None:
        if self._thread is not None or self._closed:
            return
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, args=(self._wanted,), name="gatebook-jwks", daemon=True
                )
                self._thread.start()

    def close(self) -> None:
        """Let the thread end. It may still be within a fetch when this returns. What is known is
        used until it is stale."""
        with self._starting:
            ended, self._wanted = self._wanted, threading.Event()
            self._thread, self._closed = None, True
        ended.set()

    def usable(self, now: float) -> bool:
        """Whether the keys are fresh enough; `now` is monotonic, in seconds."""
        return self._fetched_at is not None and now - self._fetched_at <= self._stale_seconds

    def find(self, key_id: str | None, algorithm: str, now: float) -> tuple[Any, ...]:
        """The keys that may have signed, at least one. Raises Missing. Never blocks."""
        self._ensure_thread()
        if not self.usable(now):
            raise Missing("keys_not_loaded" if self._fetched_at is None else "keys_stale", True)
        found = self._keys.get((key_id, algorithm)) if key_id is not None else self._only(algorithm)
        if found:
            return found
        raise Missing("unknown_key", self._ask_anew(now))

    def _only(self, algorithm: str) -> tuple[Any, ...] | None:
        """The keys for a token without a key id: they must be one."""
        found = [keys for (_, name), keys in self._keys.items() if name == algorithm]
        return found[0] if len(found) == 1 else None

    def _ask_anew(self, now: float) -> bool:
        """Ask for a fetch. False where the keys are so fresh that the unknown one is none."""
        assert self._fetched_at is not None
        if now - self._fetched_at < self._refetch_seconds:
            return False
        if self._tried_at is None or now - self._tried_at >= self._refetch_seconds:
            self._wanted.set()
        return True

    def _run(self, wanted: threading.Event) -> None:
        while wanted is self._wanted:  # another one: closed, or after a fork
            wanted.clear()
            self.refresh(time.monotonic())
            wanted.wait(self._pause_seconds())

    def _pause_seconds(self) -> float:
        if not self._failures:
            return self._refresh_seconds
        retry_seconds = _FIRST_RETRY_SECONDS * 2 ** min(self._failures - 1, 16)
        return float(min(retry_seconds, self._refetch_seconds, self._refresh_seconds))

    def refresh(self, now: float) -> None:
        """Fetch once. Blocks. What fails is logged, and the keys stay."""
        self._tried_at = now
        try:
            keys = read_keys(self._fetch(), self._algorithms)
        except FetchFailed as error:
            self._note_failure(error.reason)
        except Exception as error:  # whatever a provider sends must not end the thread
            self._note_failure(type(error).__name__)
        else:
            self._take(keys, now)

    def _note_failure(self, reason: str) -> None:
        log.warning("keys of the identity provider cannot be fetched: %s", reason)
        self._failures += 1

    def _take(self, keys: Keys, now: float) -> None:
        if not keys:
            self._note_failure("no_usable_key")
            return
        self._keys, self._fetched_at, self._failures = keys, now, 0
        # Last: whoever reads the generation before the keys never takes what old keys proved for
        # proved by the new ones.
        self.generation += 1


def read_keys(document: Any, algorithms: Sequence[str]) -> Keys:
    """Keys of a JWKS by key id and algorithm. What is not a usable public key is left out."""
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise FetchFailed("not_jwks")
    found: dict[tuple[str, str], tuple[Any, ...]] = {}
    for jwk in document["keys"][:MAX_KEYS]:
        for name in _algorithms_of(jwk, algorithms):
            key = _usable_key(jwk, name)
            if key is not None:
                place = (str(jwk.get("kid", "")), name)
                found[place] = (*found.get(place, ()), key)
    return found


def _algorithms_of(jwk: Any, allowed: Sequence[str]) -> list[str]:
    """The allowed algorithms that a key is for."""
    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig":
        return []
    kind = jwk.get("kty")
    fits = {
        "RSA": [name for name in allowed if name[:2] in ("RS", "PS")],
        "EC": [name for name in allowed if name == _BY_CURVE.get(str(jwk.get("crv")))],
        "OKP": [name for name in allowed if name == "EdDSA"],
    }.get(str(kind), [])
    return [name for name in fits if jwk.get("alg", name) == name]


def _usable_key(jwk: Mapping[str, Any], algorithm: str) -> Any:
    from jwt import PyJWK
    from jwt.exceptions import PyJWTError

    try:
        key = PyJWK({k: v for k, v in jwk.items() if k in _PUBLIC_MEMBERS}, algorithm)
    except (PyJWTError, ValueError, TypeError):
        return None
    return key if getattr(key.key, "key_size", _MIN_RSA_BITS) >= _smallest(jwk) else None


def _smallest(jwk: Mapping[str, Any]) -> int:
    return _MIN_RSA_BITS if jwk.get("kty") == "RSA" else 0


_all_keys: weakref.WeakSet[SigningKeys] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for keys in list(_all_keys):
        keys.leave_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
