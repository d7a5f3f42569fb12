"""Opens the envelopes producers seal content in. The only place that has the private keys.

No clock and no network of its own: keys come from a source that it is given, read again when that
says it changed, or when an envelope names a key that is not known yet. So a rotation needs no
restart, and a key that was destroyed is forgotten with the data keys it gave.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from gatebook.schemas.errors import Fatal
from gatebook.schemas.keys import Bundle, KeySource, KeysUnavailable, parse
from gatebook.schemas.sealing import (
    FORGED,
    KEY_DESTROYED,
    KEY_LOST,
    SealedFailed,
    associated_data,
    head_of,
    key_id_in,
    name_of,
    open_body,
    unwrap,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

log = logging.getLogger(__name__)

# Data keys that are remembered. A producer process has one at a time, for minutes.
MAX_DATA_KEYS = 4096
# Encrypted data keys that did not open: a hostile one costs its X25519 once, not once an event.
MAX_REFUSED = 1024


class ContentOpener:
    """Opens content with the private keys of `source`; without one, no envelope opens."""

    def __init__(self, source: KeySource | None = None, max_data_keys: int = MAX_DATA_KEYS) -> None:
        self._source = source
        self._max_data_keys = max_data_keys
        self._seen: Hashable = None
        self._said = ""
        self._bundle = Bundle()
        self._private: dict[bytes, X25519PrivateKey] = {}
        self._data_keys: OrderedDict[bytes, AESGCM] = OrderedDict()
        self._refused: OrderedDict[bytes, None] = OrderedDict()

    def start(self, *, must_exist: bool) -> None:
        """Read the keys. Raises Fatal where they are there and no keys, or `must_exist` and cannot
        be read: a worker that runs would lose the content of what it reads meanwhile."""
        if self._source is None:
            return
        version = self._source.version()
        if version is None and not must_exist:
            log.warning("no keys at %s: sealed content cannot be opened", self._source)
            return
        try:
            self._take(parse(self._source.read()), version)
        except KeysUnavailable as error:
            raise Fatal(
                f"the private keys {self._source} cannot be read: {error}",
                "set GATEBOOK_SEALING_KEYS, or make keys: gatebook keys new",
            ) from None

    def refresh(self) -> None:
        """Read the keys again if they changed. What cannot be read changes nothing: the keys of
        before stay, which is said once."""
        try:
            self._read_changes()
        except KeysUnavailable as error:
            self._say(f"the private keys cannot be read, those of before stay: {error}")
        else:
            self._say("")

    def _read_changes(self) -> None:
        if self._source is None:
            return
        version = self._source.version()
        if version is not None and version != self._seen:
            self._take(parse(self._source.read()), version)

    def _say(self, problem: str) -> None:
        if problem and problem != self._said:
            log.error("%s", problem)
        self._said = problem

    def _take(self, bundle: Bundle, version: Hashable) -> None:
        self._seen = version
        if bundle == self._bundle:
            return
        live = [key for key in bundle.keys if key.private and not key.destroyed]
        self._bundle = bundle
        self._private = {
            bytes.fromhex(key.id): X25519PrivateKey.from_private_bytes(key.private_bytes)
            for key in live
        }
        self._data_keys.clear()  # some may be of a key that was destroyed
        self._refused.clear()
        if live:
            log.info("content opens with the keys %s", ", ".join(key.id for key in live))
        else:
            log.warning("no live private key in %s: sealed content cannot be opened", self._source)

    def open(self, envelope: bytes, event: Mapping[str, Any], producer_id: str) -> bytes:
        """The content of a decoded event. Raises SealedFailed with a reason, or KeysUnavailable
        where that cannot be told before the keys can be read: try the same again later. Says
        nothing about whether what is inside is any good."""
        head = head_of(envelope)
        data_key = self._data_keys.get(head)
        if data_key is None:
            data_key = self._unwrapped(head)
        else:
            self._data_keys.move_to_end(head)
        associated = associated_data(
            event["event"]["id"],
            producer_id,
            event["organization"]["id"],
            event["gatebook"]["capture"]["level"],
        )
        return open_body(envelope, data_key, associated)

    def _unwrapped(self, head: bytes) -> AESGCM:
        private = self._private_key(key_id_in(head))
        if head in self._refused:
            raise SealedFailed(FORGED, name_of(key_id_in(head)))
        try:
            data_key = unwrap(head, private)
        except SealedFailed:
            _remember(self._refused, head, None, MAX_REFUSED)
            raise
        _remember(self._data_keys, head, data_key, self._max_data_keys)
        return data_key

    def _private_key(self, key_id: bytes) -> X25519PrivateKey:
        if key_id not in self._private:
            self._read_changes()  # a producer may know of a new key before we do
        found = self._private.get(key_id)
        if found is None:
            name = name_of(key_id)
            known = self._bundle.get(name)
            destroyed = known is not None and known.destroyed
            raise SealedFailed(KEY_DESTROYED if destroyed else KEY_LOST, name)
        return found


def _remember(kept: OrderedDict[bytes, Any], key: bytes, value: Any, limit: int) -> None:
    kept[key] = value
    if len(kept) > limit:
        kept.popitem(last=False)
