"""Archives end to end: the real pipeline's documents into files, checked, and back again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastavro
import orjson
import pytest
from tests.integration.archive.archive_tools import export, fill, searched, verify
from tests.integration.privacy.subject_tools import WORD, Desk
from tests.pipeline import Pipeline

SMALL = ("--file-mib", "0.01")


@pytest.fixture
def desk(pipeline: Pipeline) -> Desk:
    return fill(pipeline)


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


def avro_records(root: Path, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """As any Avro library reads them."""
    found: list[dict[str, Any]] = []
    for entry in manifest["files"]:
        with (folder_of(root, manifest) / entry["name"]).open("rb") as file:
            found += fastavro.reader(file)  # type: ignore[arg-type]  # records are dicts
    return found
