"""Files of archives: what is written is read again, and hostile bytes do no harm."""

from __future__ import annotations

import builtins
import hashlib
import io
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.processors.archive import container, parquet
from gatebook.processors.archive.container import CODECS, AvroWriter, read_avro
from gatebook.processors.archive.errors import Differs, WrongArchive
from gatebook.processors.archive.merkle import Tree, leaf
from gatebook.processors.archive.reading import MAX_PAGE_DOCUMENTS, PAGE_BYTES, next_size
from gatebook.processors.archive.records import Kept, Record, nanoseconds, record_of
from gatebook.processors.archive.store import Digested, FolderStore, store_of
from gatebook.schemas.documents import timestamp_text
from gatebook.schemas.errors import Fatal

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
RECORDS = st.lists(
    st.builds(
        Record,
        id=TEXT,
        timestamp_ns=st.integers(-(2**63), 2**63 - 1),
        hash=TEXT,
        left_out=st.lists(TEXT, max_size=3).map(tuple),
        document=TEXT,
    ),
    max_size=20,
)


class Memory:
    """A draft in memory."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)

    def commit(self) -> None:
        """There is nothing to move."""

    def abort(self) -> None:
        """There is nothing to drop."""


def written(records: list[Record], codec: str, block_bytes: int = 200) -> bytes:
    draft = Memory()
    out = Digested(draft)
    writer = AvroWriter(out, codec, "a name", block_bytes)
    for record in records:
        writer.add(record)
    writer.close()
    assert (out.bytes, out.sha256) == (len(draft.data), hashlib.sha256(draft.data).hexdigest())
    return draft.data


@given(records=RECORDS, codec=st.sampled_from(sorted(CODECS)))
def test_records_are_read_as_they_were_written(records: list[Record], codec: str) -> None:
    """Any text, any block size, either codec; and twice the same bytes."""
    data = written(records, codec)
    assert list(read_avro(io.BytesIO(data), "f")) == records
    assert written(records, codec) == data


@given(records=RECORDS)
def test_other_avro_readers_read_our_files(records: list[Record]) -> None:
    """With deflate, which every implementation knows."""
    found: Any = list(fastavro.reader(io.BytesIO(written(records, "deflate"))))
    assert [one["document"] for one in found] == [record.document for record in records]


@given(records=RECORDS.filter(bool), codec=st.sampled_from(sorted(CODECS)), data=st.data())
def test_damaged_files_end_in_an_error_of_ours(
    records: list[Record], codec: str, data: st.DataObject
) -> None:
    """Wherever a byte is another one, or the file ends: records, or Differs, nothing else."""
    good = written(records, codec)
    at = data.draw(st.integers(0, len(good) - 1))
    other = bytes([data.draw(st.integers(0, 255))])
    cut = data.draw(st.booleans())
    bad = good[:at] if cut else good[:at] + other + good[at + 1 :]
    with suppress(Differs):
        found = list(read_avro(io.BytesIO(bad), "f"))
        # A changed byte within a text is a matter of digests; the number of records is not.
        assert len(found) <= len(records)


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_a_block_that_unpacks_to_too_much_is_refused(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small block may unpack to anything; what we hold of it is bounded."""
    monkeypatch.setattr(container, "MAX_BLOCK_BYTES", 1024 * 1024)
    bomb = Record("id", 1, "h", (), "x" * 64 * 1024 * 1024)
    data = written([bomb], codec)
    assert len(data) < 1024 * 1024
    tracemalloc.start()
    with pytest.raises(Differs, match="cannot be unpacked"):
        list(read_avro(io.BytesIO(data), "f"))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 8 * 1024 * 1024


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, as it is written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    left, right = naive_root(leaves[:split]), naive_root(leaves[split:])
    return hashlib.sha256(b"\1" + left + right).digest()


@given(count=st.integers(0, 70), stop=st.integers(0, 70))
def test_the_tree_is_that_of_rfc_6962_also_when_resumed(count: int, stop: int) -> None:
    """Stored after any number of documents and gone on with, it has the same root."""
    leaves = [leaf(f"id-{n}", "hash") for n in range(count)]
    tree = Tree()
    for number, hashed in enumerate(leaves):
        if number == stop:
            tree = Tree.restored(tree.size, tree.state())
        tree.add(hashed)
    assert tree.root == naive_root(leaves).hex()


@given(st.integers(0, 4_000_000_000 * 10**9))
def test_times_keep_their_nanoseconds(moment_ns: int) -> None:
    """What a document holds as text comes back as the same number."""
    assert nanoseconds(timestamp_text(moment_ns)) == moment_ns


def test_only_fields_that_are_there_are_told_as_left_out() -> None:
    """A record names what was taken from it, and nothing else."""
    source = {
        "@timestamp": timestamp_text(5),
        "event": {"hash": "h"},
        "user": {"id": "a", "name": "Ada"},
    }
    shy = record_of("1", source, Kept())
    assert shy.left_out == ("user.name",)
    assert "Ada" not in shy.document
    assert record_of("1", source, Kept(names=True)).left_out == ()


def test_pages_get_smaller_where_documents_are_large() -> None:
    """A page weighs about the same whatever is in it, so memory is bounded."""
    assert next_size(100, 100 * 500) == 400
    assert next_size(1000, 1000 * 500) == MAX_PAGE_DOCUMENTS
    assert next_size(100, 100 * PAGE_BYTES) == 1


def test_a_draft_is_not_there_before_it_is_committed(tmp_path: Path) -> None:
    """A reader of a store sees whole files only, and a dropped draft leaves nothing."""
    store = FolderStore(tmp_path / "made")
    draft = store.draft("a.avro")
    draft.write(b"half")
    assert store.names() == []
    draft.abort()
    assert [path.name for path in (tmp_path / "made").iterdir()] == []
    store.put("a.avro", b"whole")
    with store.open("a.avro") as file:
        assert (store.names(), file.read()) == (["a.avro"], b"whole")


def test_two_processes_do_not_write_one_archive(tmp_path: Path) -> None:
    """The second is refused, and told to wait."""
    store = FolderStore(tmp_path)
    with store.alone(), pytest.raises(WrongArchive, match="another process"), store.alone():
        pass
    with store.alone():
        store.put("a", b"")


def test_a_store_is_found_by_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path, file:PATH, file:///PATH, and a plug-in by its scheme; what a plug-in raises is not
    repeated, it may hold credentials."""
    for address in (str(tmp_path), f"file:{tmp_path}", f"file://{tmp_path}"):
        store_of(address).put("here", b"")
        assert (tmp_path / "here").exists()
        (tmp_path / "here").unlink()
    (tmp_path / "toy.py").write_text(
        "from pathlib import Path\n"
        "from gatebook.processors.archive.store import FolderStore\n"
        "def make(rest):\n"
        "    if rest == 'bad':\n"
        "        raise ValueError('the password is walrus')\n"
        f"    return FolderStore(Path({str(tmp_path)!r}) / rest)\n"
    )
    info = tmp_path / "toy-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: toy\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[gatebook.archive_stores]\ntoy = toy:make\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    store_of("toy:bucket").put("there", b"")
    assert (tmp_path / "bucket" / "there").exists()
    with pytest.raises(Fatal) as failed:
        store_of("toy:bad")
    assert "walrus" not in str(failed.value)


def test_parquet_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyarrow, the error names the extra and the other format."""
    real = builtins.__import__

    def without_pyarrow(name: str, *more: Any, **given: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *more, **given)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(Fatal, match="pyarrow") as failed:
        parquet.arrow()
    assert "gatebook[parquet]" in failed.value.next_step
