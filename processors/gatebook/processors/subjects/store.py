"""Where subjects' keys, states and erasure jobs are kept: a few documents by id.

Whoever creates a document first wins, and a document is replaced only where it is still the one
that was read: so several workers and operators need no other agreement.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gatebook.schemas.errors import GatebookError


class StoreAway(GatebookError):
    """The store gave no usable answer: try the same again. It may have been carried out."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A document as it was read. `version` tells whether it has changed since."""

    id: str
    source: dict[str, Any]
    version: tuple[int, int] = (0, 0)


class SubjectStore(Protocol):
    """The plug point for another store than Elasticsearch. Every call may raise StoreAway."""

    async def get(self, ids: Iterable[str]) -> dict[str, Stored]:
        """Those of the documents that are there, as of now."""

    async def create(self, documents: Mapping[str, Mapping[str, Any]]) -> set[str]:
        """Ids that were created by this call; the others were there already, and stay as they
        are. What is created survives a crash of the store."""

    async def replace(self, document: Stored, source: Mapping[str, Any]) -> bool:
        """False where the document is not any more what was read, or gone: nothing is changed."""

    async def rewrite(self, changed: Sequence[tuple[Stored, Mapping[str, Any]]]) -> set[str]:
        """`replace` of many; ids of those that were replaced."""

    async def delete(self, ids: Iterable[str]) -> None:
        """Delete what is there of these. Copies on disk may outlive this call: see purge."""

    async def purge(self) -> None:
        """Returns when what was deleted is off the store's own disks, as far as it can tell."""

    async def find(self, kind: str, **equal: Any) -> list[Stored]:
        """All documents of a kind with these values in their top fields."""

    def pages(self, kind: str) -> AsyncIterator[list[Stored]]:
        """All documents of a kind, however many, as of one moment."""

    async def close(self) -> None:
        """Close connections."""


@dataclass
class MemoryStore:
    """A store in memory, for tests and to show what a store has to do."""

    documents: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    writes: int = 0

    async def get(self, ids: Iterable[str]) -> dict[str, Stored]:
        return {i: self._stored(i) for i in ids if i in self.documents}

    def _stored(self, document_id: str) -> Stored:
        version, source = self.documents[document_id]
        return Stored(document_id, dict(source), (version, 1))

    def _write(self, document_id: str, source: Mapping[str, Any]) -> None:
        self.writes += 1
        self.documents[document_id] = (self.writes, dict(source))

    async def create(self, documents: Mapping[str, Mapping[str, Any]]) -> set[str]:
        fresh = {i for i in documents if i not in self.documents}
        for document_id in fresh:
            self._write(document_id, documents[document_id])
        return fresh

    async def replace(self, document: Stored, source: Mapping[str, Any]) -> bool:
        version, _ = self.documents.get(document.id, (-1, {}))
        if (version, 1) != document.version:
            return False
        self._write(document.id, source)
        return True

    async def rewrite(self, changed: Sequence[tuple[Stored, Mapping[str, Any]]]) -> set[str]:
        return {found.id for found, source in changed if await self.replace(found, source)}

    async def delete(self, ids: Iterable[str]) -> None:
        for document_id in ids:
            self.documents.pop(document_id, None)

    async def purge(self) -> None:
        """Nothing is left of what was deleted."""

    async def find(self, kind: str, **equal: Any) -> list[Stored]:
        wanted = {"type": kind, **equal}
        return [
            self._stored(i)
            for i, (_, source) in self.documents.items()
            if wanted.items() <= source.items()
        ]

    async def pages(self, kind: str) -> AsyncIterator[list[Stored]]:
        yield await self.find(kind)

    async def close(self) -> None:
        """Nothing to close."""
