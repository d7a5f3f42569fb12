"""Documents from the index into the files of an archive.

Files are written in order, each moved to its name when it is whole; then `progress.json` names
it. The manifest comes last. A run that is killed goes on after its last whole file.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from gatebook.processors.archive.container import BLOCK_BYTES, CODECS, SCHEMA, AvroWriter
from gatebook.processors.archive.errors import WrongArchive
from gatebook.processors.archive.manifest import (
    MANIFEST,
    PROGRESS,
    TREE,
    Counts,
    FileEntry,
    Manifest,
    Place,
    Progress,
    Wanted,
    read_manifest,
    read_progress,
    tool,
    write_manifest,
    write_progress,
)
from gatebook.processors.archive.merkle import Tree, leaf
from gatebook.processors.archive.parquet import ROW_GROUP_BYTES, ParquetWriter, arrow, described
from gatebook.processors.archive.reading import View, query_of, view_of
from gatebook.processors.archive.records import (
    REPEATABLE,
    TEXT_FIELDS,
    Kept,
    Record,
    record_of,
)
from gatebook.processors.archive.store import Digested, Draft, Store
from gatebook.processors.search.service import SearchFailed
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.subjects.certificate import Signer
from gatebook.schemas.documents import timestamp_text

_COMMITS = '"commitment":'
_TEXT = frozenset(".".join(path) for path in TEXT_FIELDS)


class FileWriter(Protocol):
    """Writes records into one file."""

    def add(self, record: Record) -> None:
        """Take one record; it may wait in memory."""

    def close(self) -> None:
        """Write what waits, and the file's end."""


def _nothing(documents: int, total: int) -> None:
    return None


@dataclass
class _Open:
    """The file that is being written. Its size runs behind by what waits in the writer."""

    name: str
    draft: Draft
    out: Digested
    writer: FileWriter
    first: Record
    last: Record
    tree: Tree = field(default_factory=Tree)

    def add(self, record: Record, hashed: bytes) -> None:
        self.writer.add(record)
        self.tree.add(hashed)
        self.last = record

    def finish(self) -> FileEntry:
        self.writer.close()
        self.draft.commit()
        return FileEntry(
            name=self.name,
            bytes=self.out.bytes,
            sha256=self.out.sha256,
            documents=self.tree.size,
            root=self.tree.root,
            first=_place(self.first),
            last=_place(self.last),
        )


def _place(record: Record) -> Place:
    return Place(timestamp_ns=record.timestamp_ns, id=record.id)


@dataclass
class Exporter:
    """Exports into one archive's folder. `told(documents, total)` is called after each file."""

    connection: Connection
    namespace: str
    store: Store
    name: str
    signer: Signer
    told: Callable[[int, int], None] = _nothing
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    async def run(self, wanted: Wanted) -> Manifest:
        """Returns when the archive is whole and durable. Where it was already, and the same was
        asked for, nothing is done. Raises WrongArchive where it is another, SearchFailed,
        Unreachable, ArchiveAway."""
        if wanted.format == "parquet":
            arrow()
        with self.store.alone():
            if MANIFEST in self.store.names():
                return self._existing(wanted)
            before = _resumed(read_progress(self.store), wanted, self.namespace)
            wanted = before.wanted if before else wanted
            alias = f"{self.namespace}-{wanted.kind}"
            async with view_of(self.connection, alias) as view:
                return await self._filled(wanted, view, before)

    def _existing(self, wanted: Wanted) -> Manifest:
        found = read_manifest(self.store, self.signer.public)
        asks = (found.kind, found.query, query_of(found))
        if asks != (wanted.kind, wanted.query, query_of(wanted)):
            what = f"{found.kind} from {found.since or 'the beginning'} up to {found.until}"
            raise WrongArchive(
                f"the archive {self.name} is whole, and another one ({what})",
                "choose another --name; relative times make another range each time",
            )
        self.store.delete(PROGRESS)  # of a run that died once it had written the manifest
        return found

    async def _filled(self, wanted: Wanted, view: View | None, before: Progress | None) -> Manifest:
        total = await view.count(query_of(wanted)) if view else 0
        progress = before or self._begun(wanted, total)
        if progress.total != total:
            # Documents came in late, or were erased or dropped, since the run that died: what its
            # files hold is not what the index holds now. So all of it is written anew.
            progress = self._begun(wanted, total)
        if progress is not before:
            self._clear()
            write_progress(self.store, progress)
        if view is not None:
            progress = await self._write(progress, view)
        if progress.documents != total:
            raise SearchFailed(
                f"{progress.documents} of {total} documents were read",
                "run the same command again",
            )
        manifest = write_manifest(self.store, self._manifest(progress), self.signer)
        # If we die here, the next run finds the manifest and is done.
        self.store.delete(PROGRESS)
        return manifest

    def _begun(self, wanted: Wanted, total: int) -> Progress:
        return Progress(
            namespace=self.namespace, wanted=wanted, started_at=self._now(), total=total
        )

    def _now(self) -> str:
        return self.clock().astimezone(UTC).isoformat(timespec="seconds")

    def _clear(self) -> None:
        for name in self.store.names():
            if name == PROGRESS or re.fullmatch(r"[a-z]+-\d{5}\.(avro|parquet)", name):
                self.store.delete(name)

    async def _write(self, progress: Progress, view: View) -> Progress:
        """Write what is left, file by file; the progress at the end."""
        tree = progress.of_tree()
        current: _Open | None = None
        counts = progress.counts
        try:
            async with aclosing(_records_after(view, progress)) as records:
                async for record in records:
                    hashed = leaf(record.id, record.hash)
                    tree.add(hashed)
                    counts = _counted(counts, record, progress.wanted.kind)
                    current = current or self._opened(progress, record)
                    current.add(record, hashed)
                    if current.out.bytes >= progress.wanted.file_bytes:
                        finished, current = current, None
                        progress = self._finished(progress, finished, counts, tree)
            if current is not None:
                finished, current = current, None
                progress = self._finished(progress, finished, counts, tree)
        finally:
            if current is not None:
                current.draft.abort()
        return progress

    def _opened(self, progress: Progress, record: Record) -> _Open:
        wanted = progress.wanted
        name = f"{wanted.kind}-{len(progress.files) + 1:05d}.{wanted.format}"
        draft = self.store.draft(name)
        out = Digested(draft)
        writer: FileWriter
        if wanted.format == "parquet":
            group = min(ROW_GROUP_BYTES, wanted.file_bytes)
            writer = ParquetWriter(out, wanted.codec, wanted.kind, group)
        else:  # small files are cut in time: what waits in a block is not in their size
            block = min(BLOCK_BYTES, wanted.file_bytes // 4)
            writer = AvroWriter(out, wanted.codec, f"{self.name}/{name}", block)
        return _Open(name, draft, out, writer, record, record)

    def _finished(self, progress: Progress, done: _Open, counts: Counts, tree: Tree) -> Progress:
        entry = done.finish()
        # If we die here, the file stands there without being named: the next run writes it anew.
        after = msgspec.structs.replace(
            progress, files=(*progress.files, entry), counts=counts, tree=tuple(tree.state())
        )
        write_progress(self.store, after)
        self.told(after.documents, after.total)
        return after

    def _manifest(self, progress: Progress) -> Manifest:
        wanted = progress.wanted
        kept = Kept(wanted.with_text, wanted.with_names)
        return Manifest(
            name=self.name,
            namespace=self.namespace,
            kind=wanted.kind,
            query=wanted.query,
            since=wanted.since,
            until=wanted.until,
            relative_to=wanted.relative_to,
            documents=progress.documents,
            root=progress.of_tree().root,
            tree=TREE,
            files=progress.files,
            encoding=_encoding(wanted),
            fields_left_out=tuple(".".join(path) for path in kept.paths_left_out()),
            left_out=progress.counts,
            started_at=progress.started_at,
            created_at=self._now(),
            tool=tool(),
        )


def _encoding(wanted: Wanted) -> dict[str, object]:
    schema = SCHEMA if wanted.format == "avro" else described(wanted.kind)
    return {"format": wanted.format, "codec": wanted.codec, "schema": schema}


def _resumed(found: Progress | None, wanted: Wanted, namespace: str) -> Progress | None:
    if found is None:
        return None
    if not found.wanted.same_as(wanted) or found.namespace != namespace:
        raise WrongArchive(
            "another export is under way under this name",
            "repeat its command, choose another --name, or delete the folder",
        )
    return found


async def _records_after(view: View, progress: Progress) -> AsyncGenerator[Record, None]:
    """Records that the finished files do not hold. The last time in them is read again, for
    several documents may have it."""
    wanted = progress.wanted
    kept = Kept(wanted.with_text, wanted.with_names)
    last = progress.files[-1].last if progress.files else None
    since = timestamp_text(last.timestamp_ns) if last else ""
    async with aclosing(view.documents(query_of(wanted, since))) as documents:
        async for found in documents:
            record = record_of(found.id, found.source, kept)
            if last is None or record.place > (last.timestamp_ns, last.id.encode()):
                yield record


def _counted(counts: Counts, record: Record, kind: str) -> Counts:
    """The counts with this record, told from it without parsing it again."""
    if not record.left_out:
        return counts
    text = not _TEXT.isdisjoint(record.left_out)
    names = any(name not in _TEXT for name in record.left_out)
    unchecked = kind not in REPEATABLE and _COMMITS not in record.document
    return Counts(
        without_text=counts.without_text + text,
        without_names=counts.without_names + names,
        unchecked=counts.unchecked + unchecked,
    )


def codec_of(given: str, format_: str) -> str:
    """The codec to use; deflate, which every Avro reader knows, where none is given, and zstd in
    Parquet. Raises WrongArchive."""
    found = given or ("zstd" if format_ == "parquet" else "deflate")
    if found not in CODECS:
        raise WrongArchive(f"no codec is called {found[:40]!a}", "use one of " + ", ".join(CODECS))
    return found
