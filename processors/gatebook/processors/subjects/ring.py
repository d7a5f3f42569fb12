"""The key ring of a worker, from its settings."""

from __future__ import annotations

from gatebook.processors.config import WorkerSettings
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.sinks.settings import elasticsearch_settings
from gatebook.processors.subjects.elastic import ElasticStore
from gatebook.processors.subjects.identity import SubjectTags
from gatebook.processors.subjects.keyring import KeyRing
from gatebook.processors.subjects.settings import subject_settings


class WorkerKeys:
    """What intake and index hold: tags, a ring, and its connection. Keys are read at once and
    connections opened late, so that a stage can be built where no engine runs."""

    def __init__(self, settings: WorkerSettings) -> None:
        own = subject_settings()
        self._connection = Connection(elasticsearch_settings(url=settings.elasticsearch_url))
        self.tags: SubjectTags = own.tags(settings)
        self.store = ElasticStore(self._connection, settings.namespace)
        self.ring = KeyRing(self.store, own.wrapping(settings), self.tags, own.lease_seconds)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()
