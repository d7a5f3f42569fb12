"""Archives end to end: the real pipeline's documents into files, checked, and back again."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import orjson
import pyarrow.parquet
import pytest
from tests.integration.archive.archive_tools import (
    QUERY,
    REASON,
    export,
    fill,
    searched,
    verify,
)
from tests.integration.privacy.subject_tools import WORD, Desk
from tests.pipeline import Pipeline
from tests.waiting import wait_until

from gatebook.processors.archive.container import AvroWriter
from gatebook.processors.archive.manifest import Manifest, write_manifest
from gatebook.processors.archive.parquet import columns
from gatebook.processors.archive.records import Record
from gatebook.processors.archive.store import Digested, FolderStore
from gatebook.processors.subjects.certificate import Signer

SMALL = ("--file-mib", "0.003")


@pytest.fixture(scope="module")
def desk(engines: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One book for tests that only read the live index."""
    pipeline = Pipeline(engines, f"t{uuid.uuid4().hex[:7]}", tmp_path_factory.mktemp("home"))
    try:
        yield fill(pipeline)
    finally:
        pipeline.close()


def folder_of(root: Path, manifest: dict[str, Any]) -> Path:
    return root / str(manifest["name"])


@pytest.mark.parametrize(
    "how", [("--codec", "deflate"), ("--codec", "zstd"), ("--format", "parquet")], ids=str
)
def test_what_was_archived_comes_back_the_same(
    desk: Desk, tmp_path: Path, how: tuple[str, ...]
) -> None:
    """Export, verify, restore: document by document the same bytes of canonical JSON, in an index
    of its own that the live alias does not count; doing it again changes nothing."""
    live = searched(desk)
    manifest = export(desk, tmp_path / "store", *how, *SMALL)
    folder = folder_of(tmp_path / "store", manifest)
    assert manifest["documents"] == len(live) == sum(f["documents"] for f in manifest["files"])
    key = desk.pipeline.home / "keys" / "certificates.pub"
    good = verify(folder, "--public-key", str(key))
    assert good.returncode == 0, good.stderr

    command = ("archive", "restore", str(folder), "--reason", "a test")
    desk.run("archive", "drop", "--restored", "--yes", "--reason", "begin anew")
    first, again = desk.json(*command), desk.json(*command)
    assert (first["indexed"], first["already"], first["rejected"]) == (len(live), 0, 0)
    assert (again["indexed"], again["already"], again["rejected"]) == (0, len(live), 0)
    assert searched(desk, "--restored") == without_names(live)
    assert searched(desk) == live


def without_names(live: dict[str, bytes]) -> dict[str, bytes]:
    """What is restored by default: names stay out, text is opened again from what is sealed."""
    documents = {event_id: orjson.loads(body) for event_id, body in live.items()}
    for document in documents.values():
        del document["user"]["name"]
    return {i: orjson.dumps(d, option=orjson.OPT_SORT_KEYS) for i, d in documents.items()}


def test_an_archive_holds_no_text_and_no_name_unless_asked(desk: Desk, tmp_path: Path) -> None:
    """By default neither what was written nor who wrote it stands in a file; the manifest says so.
    With --with-text and --with-names all of it comes back as it was."""
    live = searched(desk)
    shy = export(desk, tmp_path / "shy")
    assert set(shy["fields_left_out"]) >= {"user.name", "user.email", "gen_ai.input.messages"}
    assert shy["left_out"] == {"without_text": 20, "without_names": 40, "unchecked": 0}
    text = b"".join(record["document"].encode() for record in avro_records(tmp_path / "shy", shy))
    assert WORD.encode() not in text
    assert b"User-1" not in text

    bold = export(desk, tmp_path / "bold", "--with-text", "--with-names")
    assert bold["fields_left_out"] == []
    found = {r["id"]: r["document"].encode() for r in avro_records(tmp_path / "bold", bold)}
    assert found == live

    desk.run("archive", "drop", "--restored", "--yes", "--reason", "begin anew")
    folder = folder_of(tmp_path / "bold", bold)
    for how in (("--no-text",), ()):
        done = desk.json("archive", "restore", str(folder), "--reason", "a test", *how)
        assert (done["documents"], done["rejected"], done["erased"]) == (len(live), 0, 0)
        assert searched(desk, "--restored") == live, how
        desk.run("archive", "drop", "--restored", "--yes", "--reason", "begin anew")


def avro_records(root: Path, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """As any Avro library reads them."""
    found: list[dict[str, Any]] = []
    for entry in manifest["files"]:
        with (folder_of(root, manifest) / entry["name"]).open("rb") as file:
            found += fastavro.reader(file)  # type: ignore[arg-type]  # records are dicts
    return found


def test_parquet_has_a_column_for_each_field(desk: Desk, tmp_path: Path) -> None:
    """Analysts read the fields of the index as typed columns, without opening any JSON."""
    manifest = export(desk, tmp_path, "--format", "parquet")
    table = pyarrow.parquet.read_table(folder_of(tmp_path, manifest) / "access-00001.parquet")
    assert set(columns("access")) < set(table.column_names)
    first = table.select(["user.id", "user.roles", "gen_ai.usage.input_tokens"]).to_pylist()[0]
    assert first["user.id"].startswith("user-")
    assert first["user.roles"] is None
    assert first["gen_ai.usage.input_tokens"] == 3
    assert table["@timestamp"][0].value == table["timestamp_ns"][0].as_py()


def test_an_end_in_the_future_means_now(desk: Desk, tmp_path: Path) -> None:
    """It is said, and signed as such: given again the same day, the command makes another archive,
    up to a later time, and does not take the first one for whole."""
    later = (datetime.now(UTC) + timedelta(days=2)).strftime("%Y-%m-%d")
    asked = ("archive", "export", str(tmp_path), QUERY, "--since", "all", "--until", later)
    first = desk.run(*asked, *REASON)
    assert f"--until {later} lies in the future" in first.stderr
    (folder,) = tmp_path.iterdir()
    before = json.loads((folder / "manifest.json").read_text())
    assert before["until"] < later
    end = datetime.fromisoformat(before["until"])
    wait_until("the next second", lambda: datetime.now(UTC) > end + timedelta(seconds=2))
    again = desk.run(*asked, *REASON)
    assert "already" not in again.stderr
    (other,) = set(tmp_path.iterdir()) - {folder}
    after = json.loads((other / "manifest.json").read_text())
    assert before["until"] < after["until"] < later


def test_relative_times_are_told_as_what_they_stood_for(desk: Desk, tmp_path: Path) -> None:
    """Run again with relative times, the command makes another archive, and has said so; with the
    absolute ones it printed, nothing is done again."""
    asked = ("archive", "export", str(tmp_path), QUERY, "--since", "30d", *REASON)
    first = desk.run(*asked)
    assert "relative" in first.stderr
    told = re.search(r"--since (\S+) --until (\S+)", first.stderr)
    assert told is not None
    (name,) = [path.name for path in tmp_path.iterdir()]
    assert f"archive {name}: from {told[1]} up to {told[2]}" in first.stderr
    again = desk.run("archive", "export", str(tmp_path), QUERY, *REASON,
                     "--since", told[1], "--until", told[2])  # fmt: skip
    assert "relative" not in again.stderr
    assert again.stdout == first.stdout
    assert ("is there already, made at" in again.stderr, "already" in first.stderr) == (True, False)
    assert len(list(tmp_path.iterdir())) == 1
    taken = desk.run(*asked, "--name", name, expect=2)
    assert "another range each time" in taken.stderr
    desk.run(*asked)
    assert len(list(tmp_path.iterdir())) == 2


def test_verify_says_what_it_vouches_for(desk: Desk, tmp_path: Path) -> None:
    """Without the operator's key, or with files that are not of the archive, it says so in its
    first line; with --strict either of them is a failure."""
    folder = folder_of(tmp_path, export(desk, tmp_path))
    key = ("--public-key", str(desk.pipeline.home / "keys" / "certificates.pub"))
    vouched = verify(folder, *key, "--strict")
    assert (vouched.returncode, vouched.stderr) == (0, "")
    assert vouched.stdout.startswith("whole and unchanged; signed by the key given\n")

    unknown = verify(folder)
    assert (unknown.returncode, unknown.stdout.splitlines()[0]) == (
        0, "whole and unchanged; signed by a key NOT vouched for"
    )  # fmt: skip
    assert verify(folder, "--strict").returncode == 1

    (folder / "access-00099.avro").write_bytes(b"smuggled")
    (folder / "more").mkdir()
    foreign = verify(folder, *key)
    assert foreign.returncode == 0
    assert foreign.stdout.splitlines()[0].endswith("2 files that are NOT of it")
    assert "'access-00099.avro'" in foreign.stderr
    assert "'more/'" in foreign.stderr
    strict = verify(folder, *key, "--strict", "--json")
    told = json.loads(strict.stdout)
    assert (strict.returncode, told["good"], told["pinned"], told["beyond_doubt"]) == (
        1, True, True, False
    )  # fmt: skip
    assert told["extra"] == ["access-00099.avro", "more/"]


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def swapped_files(folder: Path) -> None:
    first, second = (folder / f"access-0000{n}.avro" for n in (1, 2))
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


def other_count(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["documents"] -= 1
    (folder / "manifest.json").write_text(json.dumps(manifest))


def at(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """A change of one file's bytes."""

    def tamper(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return tamper


TAMPERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a bit in a file": (at("access-00002.avro", lambda d: flip(d, len(d) // 2)), "00002.avro"),
    "a bit at its end": (at("access-00002.avro", lambda d: flip(d, len(d) - 1)), "00002.avro"),
    "a cut file": (at("access-00002.avro", lambda d: d[:-9]), "00002.avro"),
    "more at its end": (at("access-00002.avro", lambda d: d + b"\0"), "00002.avro"),
    "a missing file": (lambda f: (f / "access-00002.avro").unlink(), "00002.avro"),
    "swapped files": (swapped_files, "access-00001.avro"),
    "another schema": (
        at("access-00001.avro", lambda d: d.replace(b"ArchivedDocument", b"ArchivedDocumend")),
        "its schema is not that of an archive",
    ),
    "no Avro at all": (at("access-00001.avro", lambda _: b"hello"), "access-00001.avro"),
    "a count in the manifest": (other_count, "manifest.json: the signature does not hold"),
    "no JSON": (at("manifest.json", lambda _: b"{"), "manifest.json"),
}


def test_whatever_is_changed_is_found_and_named(desk: Desk, tmp_path: Path) -> None:
    """Each way of changing an archive ends with exit code 1 and names the file; nothing of a
    document's content is in the message."""
    manifest = export(desk, tmp_path / "good", "--file-mib", "0.003")
    good = folder_of(tmp_path / "good", manifest)
    assert verify(good).returncode == 0
    for what, (tamper, told) in TAMPERED.items():
        bad = tmp_path / "bad"
        shutil.copytree(good, bad)
        tamper(bad)
        done = verify(bad)
        assert done.returncode == 1, f"{what}: {done.stdout}{done.stderr}"
        assert told in done.stderr, f"{what}: {done.stderr}"
        assert "user-" not in done.stderr, what
        shutil.rmtree(bad)


def test_a_forger_with_a_key_of_their_own_is_found(desk: Desk, tmp_path: Path) -> None:
    """Somebody may change records and sign anew: the digests of the documents do not hold, and
    with the operator's key at hand neither does the signature. Restore knows that key."""
    manifest = export(desk, tmp_path, "--file-mib", "1")
    folder = folder_of(tmp_path, manifest)
    forger = Signer.from_file(tmp_path / "forger.key")
    (old,) = manifest["files"]
    records = avro_records(tmp_path, manifest)
    records[3]["document"] = records[3]["document"].replace("success", "failure")
    write_forged(folder / old["name"], records)
    entry = {**old, "sha256": sha256_of(folder / old["name"])}
    entry["bytes"] = (folder / old["name"]).stat().st_size
    forged = msgspec.convert({**manifest, "files": [entry]}, Manifest)
    write_manifest(FolderStore(folder), forged, forger)

    done = verify(folder)
    assert (done.returncode, "record 4: event.hash" in done.stderr) == (1, True), done.stderr
    key = desk.pipeline.home / "keys" / "certificates.pub"
    pinned = verify(folder, "--public-key", str(key))
    assert (pinned.returncode, "another key signed" in pinned.stderr) == (1, True)
    refused = desk.run("archive", "restore", str(folder), "--reason", "a test", expect=1)
    assert "another key signed" in refused.stderr


def write_forged(path: Path, records: list[dict[str, Any]]) -> None:
    store = FolderStore(path.parent)
    draft = store.draft(path.name)
    writer = AvroWriter(Digested(draft), "deflate", path.name)
    for one in records:
        writer.add(Record(**{**one, "left_out": tuple(one["left_out"])}))
    writer.close()
    draft.commit()


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("export", "{store}", "nosuchfield:1", "--since", "1h"), "nosuchfield"),
        (("export", "{store}", "--since", "2026-01-02", "--until", "2026-01-01"), "empty"),
        (("export", "{store}", "--since", "1h", "--codec", "lzma"), "codec"),
        (("export", "{store}", "--since", "1h", "--name", "../out"), "no name of an archive"),
        (("export", "s3:bucket", "--since", "1h"), "no store is called"),
        (("restore", "{store}"), "manifest.json is missing"),
        (("export", "{store}"), "--since"),
        (("export", "{store}", "--name", "nothing"), "there is no unfinished archive 'nothing'"),
        (("drop", "--yes"), "name an archive"),
    ],
)
def test_wrong_usage_ends_with_2(
    desk: Desk, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    """What cannot be done as it was asked for is refused before anything is written."""
    given = [part.format(store=tmp_path / "store") for part in arguments]
    done = desk.run("archive", *given, "--reason", "a test", expect=2)
    assert told in done.stderr
    assert not (tmp_path / "store").exists()


def test_an_archive_is_listed_recorded_and_dropped(desk: Desk, tmp_path: Path) -> None:
    """Export, restore and drop are events with reason and query; a list shows what there is."""
    manifest = export(desk, tmp_path, "--name", "first")
    (listed,) = json.loads(desk.run("archive", "list", str(tmp_path), "--json").stdout)
    assert (listed["name"], listed["state"]) == ("first", "whole")
    heading, row = desk.run("archive", "list", str(tmp_path)).stdout.splitlines()
    assert heading.split() == ["name", "state", "documents", "bytes", "since", "until"]
    assert row.split()[:3] == ["first", "whole", "40"]
    assert row.index("whole") == heading.index("state")
    desk.run("archive", "drop", str(tmp_path / "first"), "--yes", "--reason", "case closed")
    assert json.loads(desk.run("archive", "list", str(tmp_path), "--json").stdout) == []
    acts = wait_until("the acts in the index", lambda: operator_acts(desk, "first"))
    assert set(acts) == {"archive.export", "archive.drop"}
    assert acts["archive.export"]["query"] == QUERY
    assert acts["archive.drop"]["reason"] == "case closed"
    assert manifest["documents"] == 40


def operator_acts(desk: Desk, name: str) -> dict[str, dict[str, str]]:
    """Attributes by action of the acts on an archive, once both are there."""
    found = {
        d["event"]["action"]: d["gatebook"]["attributes"]
        for d in desk.pipeline.documents()
        if d["gatebook"].get("attributes", {}).get("archive") == name
    }
    return found if len(found) == 2 else {}
