"""The sink that writes files, one per index: for development and for export.

A file holds bulk lines (action, then document), so that `POST /_bulk` takes it as it is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from gatebook.processors.sinks import bulk
from gatebook.processors.sinks.base import BulkOutcome, Rejected, Row
from gatebook.processors.sinks.settings import SinkSettings

Stored = dict[str, bytes]  # document id to digest


class NdjsonSink:
    """A Sink that appends to `<directory>/<namespace>-<kind>-<day>.ndjson`.

    Knows every id it stored, in memory (about 150 bytes each): not for production volumes. One
    process per directory.
    """

    def __init__(
        self, namespace: str, directory: Path, settings: SinkSettings | None = None
    ) -> None:
        self._namespace = namespace
        self._directory = directory
        self._settings = settings or SinkSettings()
        self._stored: dict[str, Stored] = {}
        directory.mkdir(parents=True, exist_ok=True)

    async def write(self, rows: Sequence[Row]) -> BulkOutcome:
        """See Sink.write: rows that count as indexed are synced to disk when it returns."""
        outcome = BulkOutcome()
        lines: dict[str, list[bytes]] = {}
        for row in rows:
            outcome += self._decide(row, lines)
        for name, fresh in lines.items():
            self._append(name, b"".join(fresh))
        return outcome

    async def close(self) -> None:
        """Nothing stays open between calls."""

    def path(self, index: str) -> Path:
        """The file of an index."""
        return self._directory / f"{index}.ndjson"

    def _decide(self, row: Row, lines: dict[str, list[bytes]]) -> BulkOutcome:
        fault = bulk.fault_of(row, self._settings.max_row_bytes)
        digest = None if fault else _digest(row.body)
        if fault or digest is None:
            reason, detail = fault or ("index_rejected", "the body is not JSON")
            return BulkOutcome(rejected=[Rejected(row, reason, detail)])
        name = bulk.index_name(self._namespace, row)
        stored = self._known(name)
        if row.id not in stored:
            stored[row.id] = digest
            lines.setdefault(name, []).append(bulk.lines(self._namespace, row))
            return BulkOutcome(indexed=1)
        if stored[row.id] == digest:
            return BulkOutcome(duplicates=1)
        return BulkOutcome(rejected=[Rejected(row, bulk.CONFLICT.reason, bulk.CONFLICT.detail)])

    def _known(self, name: str) -> Stored:
        if name not in self._stored:
            self._stored[name] = _load(self.path(name))
        return self._stored[name]

    def _append(self, name: str, data: bytes) -> None:
        try:
            with self.path(name).open("ab") as file:
                # If we die here, the file may end in half a document: _load cuts it off.
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self._stored.pop(name)  # what the file holds now is read again before the next row
            raise


def _digest(body: bytes) -> bytes | None:
    """What stands for a document's identity: its content. None where the body is not a JSON
    object."""
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict):
        return None
    content = orjson.dumps(bulk.content_of(document), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).digest()


def _load(path: Path) -> Stored:
    """Ids and digests of a file; what a crash left half-written at its end is cut off."""
    stored: Stored = {}
    if not path.exists():
        return stored
    whole = 0
    with path.open("rb+") as file:
        while (action := file.readline()).endswith(b"\n"):
            body = file.readline()
            digest = _digest(body) if body.endswith(b"\n") else None
            if digest is None:
                break
            stored[orjson.loads(action)["create"]["_id"]] = digest
            whole = file.tell()
        file.truncate(whole)
    return stored
