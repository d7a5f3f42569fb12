"""A released schema never changes, and a new version reads what the one before it wrote."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import pytest

from gatebook.schemas import lock
from gatebook.schemas.compatibility import incompatibilities
from gatebook.schemas.errors import Fatal
from gatebook.schemas.examples import examples
from gatebook.schemas.registry import ALL_SCHEMAS, load

Change = Callable[[dict[str, Any]], object]


def successor(name: str, change: Change) -> dict[str, str]:
    """The packaged schemas, with a next version of `name` that `change` was done to."""
    texts = lock.packaged_texts()
    following = json.loads(texts[name].replace('.v2"', '.v3"'))
    change(following)
    return {**texts, name.replace(".v2", ".v3"): json.dumps(following)}


def field(schema: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(f for f in schema["fields"] if f["name"] == name)
    return found


def add_field(**definition: Any) -> Change:
    return lambda schema: schema["fields"].append(definition)


def remove_field(name: str) -> Change:
    return lambda schema: schema["fields"].remove(field(schema, name))


def retype(name: str, kind: Any) -> Change:
    """A field of another type, and without the default of the old one."""

    def change(schema: dict[str, Any]) -> None:
        del field(schema, name)["default"]
        field(schema, name)["type"] = kind

    return change


def rename_nested(schema: dict[str, Any]) -> None:
    field(schema, "event")["type"]["name"] = "Renamed"


def narrow_items(schema: dict[str, Any]) -> None:
    field(field(schema, "gatebook")["type"], "evidence")["type"]["items"] = "long"


BREAKING: list[tuple[str, Change, str]] = [
    ("alert.v2", add_field(name="new", type="string"), "new: is new and has no default"),
    ("alert.v2", retype("timestamp", "string"), "timestamp: was long, is string"),
    ("alert.v2", retype("timestamp", "int"), "timestamp: was long, is int"),
    ("alert.v2", retype("timestamp", ["null", "int"]), "timestamp: long is no longer one"),
    ("alert.v2", rename_nested, "event: record AlertEvent is called Renamed"),
    ("access_event.v2", retype("content", "bytes"), "content: was null, is bytes"),
    ("finding.v2", narrow_items, "gatebook.evidence[]: was string, is long"),
]
HARMLESS: list[tuple[str, Change]] = [
    ("alert.v2", add_field(name="new", type="string", default="")),
    ("alert.v2", remove_field("rule")),
    ("alert.v2", retype("timestamp", "double")),
    ("alert.v2", retype("timestamp", ["null", "long"])),
]


def test_the_packaged_schemas_are_released_and_unchanged() -> None:
    """What is shipped is what was released, so a fingerprint means one schema for ever."""
    assert list(lock.problems(lock.packaged_texts(), lock.read_lock())) == []
    assert lock.main(["--check"]) == 0
    assert set(lock.packaged_texts()) == set(ALL_SCHEMAS)


@pytest.mark.parametrize("name", ALL_SCHEMAS)
def test_the_lock_states_the_fingerprint_that_stands_on_the_wire(name: str) -> None:
    """An operator can look up a message's prefix in the lock."""
    assert lock.read_lock()[name].fingerprint == load(name).fingerprint.hex()


@pytest.mark.parametrize("name", ALL_SCHEMAS)
def test_any_change_to_a_released_schema_is_reported(name: str) -> None:
    """Even a comment: the released text is what reviewers and registries have seen."""
    texts = lock.packaged_texts()
    texts[name] = texts[name].replace('"doc": "', '"doc": "Planted. ', 1)
    wanted = f"{name}: is released and was changed; write the next version instead"
    assert wanted in list(lock.problems(texts, lock.read_lock()))


def test_a_change_to_the_event_changes_the_frame_too() -> None:
    """The frame holds the event, so its fingerprint covers the event's fields."""
    texts = lock.packaged_texts()
    texts["access_event.v2"] = texts["access_event.v2"].replace('"quantization"', '"planted"')
    changed = [line.partition(":")[0] for line in lock.problems(texts, lock.read_lock())]
    assert changed == ["access_event.v2", "frame.v2"]


def test_a_file_that_is_gone_or_not_released_is_reported() -> None:
    """Neither forgetting to release a schema nor deleting a released one goes unseen."""
    texts = lock.packaged_texts()
    texts["planted.v1"] = texts.pop("alert.v2")
    names = [line.partition(":")[0] for line in lock.problems(texts, lock.read_lock())]
    assert sorted(names) == ["alert.v2", "planted.v1"]


@pytest.mark.parametrize(("name", "change", "reason"), BREAKING)
def test_a_version_that_cannot_read_its_predecessor_is_refused(
    name: str, change: Change, reason: str
) -> None:
    """An incompatible next version is reported by field and cannot be released."""
    texts, newer = successor(name, change), name.replace(".v2", ".v3")
    assert any(f"cannot read {name}: {reason}" in p for p in lock.problems(texts, {}))
    with pytest.raises(Fatal, match="cannot read"):
        lock.add(newer, texts, lock.read_lock())


@pytest.mark.parametrize(("name", "change"), HARMLESS)
def test_a_version_that_reads_its_predecessor_is_released(name: str, change: Change) -> None:
    """Adding a field with a default, dropping one, or widening a type is allowed."""
    texts, newer = successor(name, change), name.replace(".v2", ".v3")
    locked = lock.add(newer, texts, lock.read_lock())
    assert locked[newer].version == 3
    assert list(lock.problems(texts, locked)) == []


@pytest.mark.parametrize(
    ("name", "change", "breaks"),
    [(name, change, True) for name, change, _ in BREAKING]
    + [(name, change, False) for name, change in HARMLESS],
)
def test_the_rule_agrees_with_what_an_avro_reader_does(
    name: str, change: Change, breaks: bool
) -> None:
    """Where we say a version breaks readers, reading old examples with it fails; else it works."""
    newer = json.loads(successor(name, change)[name.replace(".v2", ".v3")])
    reader = fastavro.parse_schema(newer)
    assert any(incompatibilities(newer, load(name).raw)) is breaks
    failures = 0
    for record in examples(name).values():
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, load(name).parsed, record)
        buffer.seek(0)
        try:
            fastavro.schemaless_reader(buffer, load(name).parsed, reader)
        except Exception:
            failures += 1
    assert bool(failures) is breaks


def test_a_released_name_is_not_released_again() -> None:
    """Releasing over a released schema is refused, whatever stands in the file."""
    with pytest.raises(Fatal, match="released already"):
        lock.add("alert.v2", lock.packaged_texts(), lock.read_lock())
    with pytest.raises(Fatal, match="no schema 'nothing'"):
        lock.add("nothing", lock.packaged_texts(), lock.read_lock())


def test_the_command_releases_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command writes the lock, and says what is wrong through its exit code."""
    path = tmp_path / "lock.json"
    assert lock.main([], path) == 1
    assert "alert.v1: is not released" in capsys.readouterr().out
    for name in sorted(ALL_SCHEMAS):
        assert lock.main(["--add", name], path) == 0
    assert lock.main(["--check"], path) == 0
    assert path.read_text() == lock.LOCK_FILE.read_text()
    assert lock.main(["--add", "alert.v2"], path) == 1
    assert "write the next version instead" in capsys.readouterr().err
