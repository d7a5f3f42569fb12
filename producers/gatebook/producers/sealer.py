"""Seals captured content on its way out of a producer, or drops it: plaintext never leaves.

Runs in the writer's thread, after the capture policy and before the event is encoded, so that
spool, broker and whatever reads them hold envelopes only. See gatebook.schemas.sealing.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from gatebook.producers.config import ProducerSettings
from gatebook.producers.shrink import without_content
from gatebook.schemas.keys import Key, KeySource, KeysUnavailable, parse
from gatebook.schemas.sealing import ENCODING, DataKey, associated_data, installed

log = logging.getLogger("gatebook.producers")

NO_KEY = "no_key"  # in gatebook.capture.degraded_reason: there is no public key to seal for
FAILED = "sealing_failed"  # the same: there is one, and sealing raised
LOOK_SECONDS = 1.0  # how old our view of the public keys may be


class Sealer:
    """One process's envelopes. Not thread-safe; a forked child makes a data key of its own.

    `sealed` counts events sealed, `unsealed` those that lost their content, by reason.
    """

    def __init__(
        self, settings: ProducerSettings, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._producer_id = settings.effective_producer_id
        self._period_seconds = settings.sealing_period_seconds
        self._keys = _PublicKeys(settings.public_key_source())
        self._monotonic = monotonic
        self._look_at = self._ends_at = 0.0
        self._data_key: DataKey | None = None
        self._process = 0
        self.sealed = 0
        self.unsealed: dict[str, int] = {}

    def seal(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The event with its content in an envelope, or without content where that cannot be;
        it says so then. Whatever encoding the content claims to have, it is sealed."""
        try:
            data_key = self._current()
            if data_key is None:
                return self._without(event, NO_KEY)
            envelope = data_key.seal(event["content"], self._associated(event))
        except Exception as error:  # fails closed; the error's text may quote the content
            log.error("content could not be sealed: %s", type(error).__name__)
            return self._without(event, FAILED)
        self.sealed += 1
        return {**event, "content": envelope, "content_encoding": ENCODING}

    def _without(self, event: Mapping[str, Any], reason: str) -> dict[str, Any]:
        self.unsealed[reason] = self.unsealed.get(reason, 0) + 1
        return without_content(event, reason)

    def _associated(self, event: Mapping[str, Any]) -> bytes:
        tenant = (event.get("organization") or {}).get("id") or ""
        capture = (event.get("gatebook") or {}).get("capture") or {}
        level = capture.get("level") or ""
        return associated_data(event["event"]["id"], self._producer_id, tenant, level)

    def _current(self) -> DataKey | None:
        """The data key to use now: a new one per process, period, share of events, public key."""
        now = self._monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            if self._keys.look():
                self._data_key = None
        found = self._data_key
        if found is None or now >= self._ends_at or found.is_spent or self._process != os.getpid():
            found = self._data_key = self._keys.new_data_key()
            self._ends_at = now + self._period_seconds
            self._process = os.getpid()
        return found


class _PublicKeys:
    """The newest public key, as far as it is known. What cannot be read changes nothing: the key
    of before goes on being used. Each change of that state is logged once."""

    def __init__(self, source: KeySource) -> None:
        self._source = source
        self._seen: Hashable = object()  # like no version
        self._key: Key | None = None
        self._said = ""

    def look(self) -> bool:
        """Read again if something changed; whether there is another key to seal for now."""
        if not installed():
            self._say("the package cryptography is not installed (pip install 'gatebook[sealing]')")
            return False
        version = self._source.version()
        if version == self._seen and version is not None:
            return False
        before = self._key
        try:
            self._key = self._read()
        except KeysUnavailable as error:
            self._say(str(error))
            return False
        self._seen = version
        self._say("" if self._key else f"{self._source} has no key to seal for")
        if self._key is not None and self._key != before:
            log.info("content is sealed for key %s", self._key.id)
        return self._key != before

    def _read(self) -> Key | None:
        bundle = parse(self._source.read())
        if bundle.is_private:
            raise KeysUnavailable(f"{self._source} holds private keys, which no producer may have")
        return bundle.newest

    def _say(self, problem: str) -> None:
        if problem == self._said:
            return
        self._said = problem
        if problem and self._key is None:
            log.error("no public key, captured content is dropped: %s", problem)
        elif problem:
            log.error("the public keys cannot be read, the last good one stays: %s", problem)

    def new_data_key(self) -> DataKey | None:
        """A data key for the newest public key, if there is one."""
        return DataKey(self._key.public_bytes) if self._key is not None else None
