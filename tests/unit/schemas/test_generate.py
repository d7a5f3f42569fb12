"""What is generated from the .avsc files is committed, complete and kept in step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gatebook.schemas import generate
from gatebook.schemas.generate import GENERATED, KINDS, Kind, Leaf
from gatebook.schemas.storage import STORAGE, Storage


def test_regenerating_changes_nothing() -> None:
    """The committed files are what the schemas say, so a reviewer reads what will be installed."""
    assert list(generate.differences(GENERATED)) == []


@pytest.mark.parametrize("name", sorted(generate.outputs()))
def test_a_file_edited_by_hand_is_reported(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check goes red for each generated file and says which line differs."""
    assert generate.main([], tmp_path) == 0
    assert generate.main(["--check"], tmp_path) == 0
    (tmp_path / name).write_text((tmp_path / name).read_text() + "planted\n")
    assert generate.main(["--check"], tmp_path) == 1
    shown = capsys.readouterr().out
    assert f"--- {name} (found)" in shown
    assert "-planted" in shown


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    """Forgetting to commit a generated file is a difference too."""
    assert generate.main(["--check"], tmp_path) == 1


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_template_is_strict_and_bound_to_its_namespace(kind: Kind) -> None:
    """An unknown field is refused, and nothing outside the namespace takes the template."""
    template = json.loads((GENERATED / f"{kind.name}.template.json").read_text())
    assert template["index_patterns"] == [f"{{namespace}}-{kind.name}-*"]
    assert list(template["template"]["aliases"]) == [f"{{namespace}}-{kind.name}"]
    mappings = template["template"]["mappings"]
    assert mappings["dynamic"] == "strict"
    fields = mappings["properties"]
    assert fields["@timestamp"] == {"type": "date_nanos"}
    assert fields["event"]["properties"]["ingested"] == {"type": "date_nanos"}
    assert fields["event"]["properties"]["hash"]["type"] == "keyword"


def test_content_on_the_wire_has_no_place_in_the_index() -> None:
    """Captured content is not mapped, so a strict index refuses a document that carries it."""
    paths = {leaf.path for kind in KINDS for leaf in generate.leaves(kind)}
    assert not paths & {"content", "content_encoding"}
    assert "gatebook.attributes" in paths


def test_no_keyword_can_pass_lucenes_limit() -> None:
    """A long value is left out of the index instead of failing its document (32,766 bytes)."""
    mapped = [generate.mapping_of(leaf.field) for kind in KINDS for leaf in generate.leaves(kind)]
    bounded = [m for m in mapped if m["type"] in ("keyword", "flattened")]
    assert bounded
    assert all(m["ignore_above"] * 4 < 32_766 for m in bounded)


def test_the_table_of_fields_names_every_field() -> None:
    """FIELDS.md leaves no indexed field out."""
    table = (GENERATED / "FIELDS.md").read_text()
    assert all(f"| `{leaf.path}` |" in table for kind in KINDS for leaf in generate.leaves(kind))


@pytest.mark.parametrize("paths", [("a.b", "a.b"), ("a", "a.b"), ("a.b", "a")])
def test_two_fields_cannot_claim_one_place(paths: tuple[str, str]) -> None:
    """A schema whose fields collide in the document does not generate."""
    fields = [Leaf(path, {"type": "string"}, "test") for path in paths]
    with pytest.raises(ValueError, match="two fields map to"):
        generate.properties(fields)


def test_the_template_stores_fields_as_chosen() -> None:
    """Each choice reaches template and table of fields; what is not chosen is at its default."""
    for kind in KINDS:
        template = json.loads((GENERATED / f"{kind.name}.template.json").read_text())
        for leaf in generate.leaves(kind):
            found = template["template"]["mappings"]
            for part in leaf.path.split("."):
                found = found["properties"][part]
            storage = STORAGE[kind.name].get(leaf.path)
            wanted = (True, True) if storage is None else (storage.index, storage.doc_values)
            assert (found.get("index", True), found.get("doc_values", True)) == wanted, leaf.path
    assert "| `trace.id` | string | keyword; no sorting or counting |" in generate.fields_table()


def test_storage_of_a_field_that_is_not_there_is_refused() -> None:
    """A slip in the table, or a field renamed: the generator says which."""
    chosen = {"event.hesh": Storage(False, False, "a slip")}
    with pytest.raises(ValueError, match=r"event\.hesh"):
        generate.properties([Leaf("event.hash", {"type": "string"}, "test")], chosen)


def test_a_field_may_be_called_type() -> None:
    """`event.type` is a field of its own, not the type of `event`."""
    fields = [Leaf("event.type", {"type": "string"}, "t"), Leaf("event.id", {"type": "long"}, "t")]
    assert generate.properties(fields)["event"]["properties"]["type"]["type"] == "keyword"
