"""Opening an event's sealed content. Whoever calls this has recorded it before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gatebook.processors.config import WorkerSettings
from gatebook.processors.serve.access.state import StateAway
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.subjects import reveal
from gatebook.processors.subjects.elastic import ElasticStore
from gatebook.processors.subjects.erasures import erasures_of, tag_of
from gatebook.processors.subjects.keyring import KeyRing
from gatebook.processors.subjects.settings import subject_settings
from gatebook.processors.subjects.store import StoreAway


@dataclass(frozen=True, slots=True)
class Revealer:
    """Opens content with the keys of a deployment: the settings say where those are."""

    connection: Connection
    worker: WorkerSettings

    async def opened(self, document: Mapping[str, Any], layers: Sequence[str]) -> dict[str, Any]:
        """These layers of a document: see reveal.opened. With a ring of its own each time, so
        that a key which was destroyed is in no memory here. Raises StateAway, Fatal."""
        try:
            return await self._opened(document, layers)
        except StoreAway as error:
            raise StateAway(f"the keys of content cannot be read ({error})") from None

    async def _opened(self, document: Mapping[str, Any], layers: Sequence[str]) -> dict[str, Any]:
        own = subject_settings()
        store = ElasticStore(self.connection, self.worker.namespace)
        ring = KeyRing(store, own.wrapping(self.worker), own.tags(self.worker), own.lease_seconds)
        key = await reveal.key_of(ring, document)
        erasures = await erasures_of(store, tag_of(document))
        return reveal.opened(document, key, layers, erasures)
