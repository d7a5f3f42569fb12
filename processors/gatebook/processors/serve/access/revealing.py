"""Opening an event's sealed content for somebody who may, once that is in the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gatebook.processors.config import WorkerSettings
from gatebook.processors.serve.access.caller import Caller, Permission, Refused
from gatebook.processors.serve.audit import Acts
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.subjects import reveal
from gatebook.processors.subjects.elastic import ElasticStore
from gatebook.processors.subjects.erasures import erasures_of, tag_of
from gatebook.processors.subjects.keyring import KeyRing
from gatebook.processors.subjects.settings import subject_settings

NEEDED = {"redacted": Permission.REVEAL_REDACTED, "full": Permission.REVEAL_FULL}
LAYERS = {"redacted": ("redacted",), "full": ("redacted", "full")}


def refuse_layer(caller: Caller, layer: str) -> None:
    """Raises Refused (403) where the caller may not have this layer opened."""
    needed = NEEDED[layer]
    if not caller.may(needed):
        raise Refused(
            403,
            "forbidden",
            f"your roles do not allow this ({needed})",
            "ask an administrator for a role that does",
        )


@dataclass(frozen=True, slots=True)
class Revealer:
    """Opens content with the keys of a deployment: the settings say where those are."""

    connection: Connection
    worker: WorkerSettings

    async def reveal(
        self, acts: Acts, event_id: str, document: Mapping[str, Any], layer: str, reason: str
    ) -> dict[str, Any]:
        """The layers of the content of an event, which the caller may see. Raises Unrecorded, and
        nothing is opened then."""
        # If we die after this, the log says that content was shown which was not: rather so.
        await acts.record("event.reveal", reason=reason, event=event_id, reveal=layer)
        return await self._opened(document, layer)

    async def _opened(self, document: Mapping[str, Any], layer: str) -> dict[str, Any]:
        """With a ring of its own each time: a key that was destroyed is in no memory here."""
        own = subject_settings()
        store = ElasticStore(self.connection, self.worker.namespace)
        ring = KeyRing(store, own.wrapping(self.worker), own.tags(self.worker), own.lease_seconds)
        key = await reveal.key_of(ring, document)
        erasures = await erasures_of(store, tag_of(document))
        return reveal.opened(document, key, LAYERS[layer], erasures)
