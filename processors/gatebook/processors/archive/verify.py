"""Whether an archive is what was written. Needs the archive alone: no index, no network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from gatebook.processors.archive.container import read_avro
from gatebook.processors.archive.errors import Differs
from gatebook.processors.archive.manifest import (
    FORMATS,
    MANIFEST,
    FileEntry,
    Manifest,
    read_manifest,
)
from gatebook.processors.archive.merkle import Tree, leaf
from gatebook.processors.archive.parquet import read_parquet
from gatebook.processors.archive.records import Record, checked
from gatebook.processors.archive.store import Store

READ_BYTES = 1024 * 1024


@dataclass
class Verified:
    """What was found of an archive that holds.

    unchecked: documents whose event.hash covers fields that were left out, so that it cannot be
    checked; the files' digests and the signature cover them all the same. extra: files that the
    manifest does not name, and folders. is_pinned: the signature is of the key that was given;
    else it shows only that nothing was changed since somebody signed it.
    """

    manifest: Manifest
    is_pinned: bool
    documents: int = 0
    unchecked: int = 0
    extra: list[str] = field(default_factory=list)

    @property
    def is_beyond_doubt(self) -> bool:
        """Signed by the key that was given, and nothing else lies in the folder."""
        return self.is_pinned and not self.extra

    @property
    def guarantee(self) -> str:
        """What holds, in words."""
        by = "by the key given" if self.is_pinned else "by a key NOT vouched for"
        beside = f"; beside it {len(self.extra)} files that are NOT of it" if self.extra else ""
        return f"whole and unchanged; signed {by}{beside}"


def verify(store: Store, public_key: str = "") -> Verified:
    """Check signature, files, records, digests, order and tree. Raises Differs with the first
    file and record that is not right, WrongArchive where there is no archive."""
    manifest = read_manifest(store, public_key)
    named = {file.name for file in manifest.files}
    folders = (f"{name}/" for name in store.folders())
    extra = sorted({*store.names(), *folders} - named - {MANIFEST})
    found = Verified(manifest, bool(public_key), extra=extra)
    tree, before = Tree(), (-(1 << 63), b"")
    for entry in manifest.files:
        before = _file(store, manifest, entry, tree, before, found)
    if found.documents != manifest.documents:
        raise Differs(f"its files hold {found.documents} documents", MANIFEST)
    if tree.root != manifest.root:
        raise Differs("the tree over all documents has another root", MANIFEST)
    return found


Spot = tuple[int, bytes]


def _file(
    store: Store, manifest: Manifest, entry: FileEntry, tree: Tree, before: Spot, found: Verified
) -> Spot:
    """Check one file; the place of its last record."""
    with _opened(store, entry.name) as file:
        is_same = _is_same(file, entry)
        if not is_same and manifest.encoding.get("format") == "parquet":
            raise Differs("its bytes are not those that were written", entry.name)
        file.seek(0)
        own, first = Tree(), None
        for number, record in enumerate(records_of(file, manifest, entry.name), 1):
            _record(record, manifest.kind, before, entry.name, number, found)
            hashed = leaf(record.id, record.hash)
            own.add(hashed)
            tree.add(hashed)
            first, before = first or record.place, record.place
    _ends(entry, own, first, before)
    if not is_same:  # what changed is in no record's reach: the header, or between blocks
        raise Differs("its bytes are not those that were written", entry.name)
    return before


def _opened(store: Store, name: str) -> IO[bytes]:
    try:
        return store.open(name)
    except FileNotFoundError:
        raise Differs("the file is missing", name) from None


def _is_same(file: IO[bytes], entry: FileEntry) -> bool:
    sha256, size = hashlib.sha256(), 0
    while data := file.read(READ_BYTES):
        sha256.update(data)
        size += len(data)
    return size == entry.bytes and sha256.hexdigest() == entry.sha256


def records_of(file: IO[bytes], manifest: Manifest, name: str) -> Iterator[Record]:
    """The records of one file of an archive. Raises Differs."""
    format_ = manifest.encoding.get("format")
    if format_ not in FORMATS:
        raise Differs("its format is not known", MANIFEST)
    return read_parquet(file, name) if format_ == "parquet" else read_avro(file, name)


def _record(
    record: Record, kind: str, before: Spot, name: str, number: int, found: Verified
) -> None:
    if record.place <= before:
        raise Differs("the records are not in order, or one is there twice", name, number)
    try:
        found.unchecked += not checked(record, kind)
    except Differs as error:
        raise Differs(error.what, name, number) from None
    found.documents += 1


def _ends(entry: FileEntry, own: Tree, first: Spot | None, last: Spot) -> None:
    if own.size != entry.documents:
        raise Differs(f"it holds {own.size} documents, not {entry.documents}", entry.name)
    ends = [(place.timestamp_ns, place.id.encode()) for place in (entry.first, entry.last)]
    if [first, last] != ends or own.root != entry.root:
        raise Differs("its documents are not those that were written", entry.name)
