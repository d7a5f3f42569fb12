"""`gatebook settings`: everything that can be set is on one page, said once, and meant once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import pytest
from click.testing import CliRunner
from msgspec import Meta, Struct

from gatebook.cli import settings_commands
from gatebook.cli.main import cli
from gatebook.cli.settings_page import (
    KAFKA_PASSTHROUGH,
    SOURCES,
    Setting,
    Source,
    contradictions,
    gather,
    kind_of,
    settings_of,
    unknown,
)
from gatebook.engines.settings import EngineSettings, default_home
from gatebook.engines.settings import passed_through as engines_passed_through
from gatebook.processors.config import from_env as worker_settings
from gatebook.processors.config import kafka_properties as worker_kafka_properties
from gatebook.producers.config import ProducerSettings

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "infra" / "SETTINGS.md"
NAME = re.compile(r"\b(?:GATEBOOK|SCHEMA_REGISTRY|OTEL|XDG)_[A-Z0-9_]*[A-Z0-9]\b(?!_?[*<{])")
PASSED = KAFKA_PASSTHROUGH.partition("<")[0]


def names_used(root: Path) -> Iterator[tuple[str, str]]:
    """File and name of every variable that the product's files speak of."""
    folders = ("schemas", "producers", "processors", "infra")
    files = [p for f in folders for p in (root / f).rglob("*") if p.suffix in (".py", ".yaml")]
    for path in [*files, *root.glob("Makefile"), *root.glob("*.md")]:
        for name in NAME.findall(path.read_text(encoding="utf-8")):
            yield str(path.relative_to(root)), name


def unlisted(root: Path) -> list[tuple[str, str]]:
    """What is spoken of and not on the page."""
    listed = {one.variable for one in gather().settings}
    return [
        (file, name)
        for file, name in names_used(root)
        if name not in listed and not name.startswith(PASSED)
    ]


def undocumented(settings: list[Setting]) -> list[str]:
    return [one.variable for one in settings if not one.meaning]


def test_every_setting_is_documented() -> None:
    """Each field says what it is for, by a description or by the text below it."""
    found = gather()
    assert not found.missing
    assert undocumented(found.settings) == []


def test_a_field_without_a_text_is_found() -> None:
    """The check above can go red."""
    source = Source("planted", __name__, "Planted")
    assert undocumented(settings_of(Planted, source)) == ["GATEBOOK_SILENT"]


class Planted(Struct):
    """Settings of nothing."""

    spoken: Annotated[int, Meta(ge=1, le=9, description="Says something.")] = 3
    silent: str = ""
    below: Literal["b", "a"] = "b"
    """GATEBOOK_BELOW: Says something
    on two lines."""


def test_a_setting_is_told_with_type_range_and_default() -> None:
    """As one would write it in the environment."""
    spoken, _, below = settings_of(Planted, Source("planted", __name__, "Planted"))
    assert (spoken.default, spoken.kind, spoken.meaning) == (
        "3",
        "integer, 1 to 9",
        "Says something",
    )
    assert (below.kind, below.meaning) == ("b | a", "Says something on two lines")


def test_every_name_in_the_code_is_on_the_page() -> None:
    """Nothing is read, or advised, that the page does not explain."""
    assert unlisted(ROOT) == []


def test_a_name_that_is_on_no_page_is_found(tmp_path: Path) -> None:
    """The check above can go red, and knows prefixes and passed-through names from settings."""
    (tmp_path / "producers").mkdir()
    text = 'os.environ["GATEBOOK_PLANTED"]; "GATEBOOK_SINK_"; "GATEBOOK_KAFKA_SASL_USERNAME"'
    (tmp_path / "producers" / "one.py").write_text(text)
    assert unlisted(tmp_path) == [("producers/one.py", "GATEBOOK_PLANTED")]


def test_parts_do_not_contradict_each_other() -> None:
    """A variable that several parts read has the same default in all of them."""
    assert contradictions() == []


def test_a_contradiction_is_found() -> None:
    """The check above can go red."""
    planted = Source("planted", __name__, "Contradicting")
    assert contradictions((*SOURCES, planted)) == ["GATEBOOK_NAMESPACE: ['gatebook', 'other']"]


class Contradicting(Struct):
    """Has another default than everybody else."""

    namespace: str = "other"
    """Who we are."""


@pytest.mark.parametrize(
    "environment",
    [
        {"GATEBOOK_HOME": "~/somewhere"},
        {"GATEBOOK_HOME": "relative/home"},
        {"XDG_DATA_HOME": "/tmp/data"},
        {"XDG_DATA_HOME": "~/data"},
        {},
    ],
)
def test_home_is_the_same_folder_for_all_parts(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys, spools and engines meet there, however it is written."""
    for name in ("GATEBOOK_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    home = default_home()
    assert home.is_absolute()
    assert EngineSettings.from_environment().home == home
    assert ProducerSettings.from_env().home_path == home
    assert worker_settings().home_path == home


def test_all_parts_pass_the_same_variables_to_librdkafka() -> None:
    """None takes a setting of Gatebook for one of Kafka's."""
    fields = [f"GATEBOOK_{name.upper()}" for name in EngineSettings.__struct_fields__]
    own = {name: "19" for name in fields if name.startswith(PASSED)}
    own.pop("GATEBOOK_KAFKA_PROPERTIES")
    environment = {"GATEBOOK_KAFKA_SECURITY_PROTOCOL": "SSL"}
    expected = {"security.protocol": "SSL"}
    assert engines_passed_through(own | environment) == expected
    assert ProducerSettings.from_env(own | environment).kafka_properties == expected
    assert worker_kafka_properties("h:1", own | environment) == {
        "bootstrap.servers": "h:1",
        "log_level": 0,
        **expected,
    }


def test_the_page_is_current() -> None:
    """Run `gatebook settings --markdown > infra/SETTINGS.md` after a change."""
    done = CliRunner().invoke(cli, ["settings", "--check", str(PAGE)])
    assert (done.exit_code, done.output) == (0, "")


def test_a_page_that_is_behind_is_refused(tmp_path: Path) -> None:
    """With the command that writes it, and exit 1."""
    old = tmp_path / "SETTINGS.md"
    old.write_text(PAGE.read_text().replace("GATEBOOK_HOME", "GATEBOOK_HOUSE"))
    done = CliRunner().invoke(cli, ["settings", "--check", str(old)])
    assert done.exit_code == 1
    assert "gatebook settings --markdown" in done.output


def test_what_is_set_is_marked_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person sees what differs from the defaults, and typing errors, but no secret."""
    monkeypatch.setenv("GATEBOOK_ELASTICSEARCH_PASSWORD", "hunter2-planted")
    monkeypatch.setenv("GATEBOOK_CAPTUR_LEVEL", "redacted-planted")
    done = CliRunner().invoke(cli, ["settings"])
    assert " * GATEBOOK_ELASTICSEARCH_PASSWORD" in done.output
    assert "   GATEBOOK_ELASTICSEARCH_USERNAME" in done.output
    assert "read by no part: GATEBOOK_CAPTUR_LEVEL" in done.output
    assert "planted" not in done.output


def test_json_names_every_setting() -> None:
    """One document with the fields of the page."""
    found = json.loads(CliRunner().invoke(cli, ["settings", "--json"]).output)
    names = {one["variable"] for one in found["settings"]}
    assert {"GATEBOOK_CAPTURE_LEVEL", "GATEBOOK_SINK_MAX_ROW_BYTES", "SCHEMA_REGISTRY_URL"} <= names
    assert found["not_installed"] == {}


def test_a_part_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a list says that it is one, and half a page is not written."""
    from gatebook.cli import settings_page

    gone = Source("gone", "gatebook.gone", "GoneSettings")
    assert gather((gone,)).missing == {"gatebook.gone": "gatebook.gone"}
    whole = gather()
    monkeypatch.setattr(
        settings_page, "gather", lambda: settings_page.Gathered(whole.settings, {"a.b": "faust"})
    )
    listed = CliRunner().invoke(cli, ["settings"])
    assert "not listed: a.b (faust is not installed)" in listed.output
    with pytest.raises(Exception, match="needs faust"):
        settings_commands.page()


def test_passed_through_names_are_no_typing_errors() -> None:
    """Whatever librdkafka knows may follow GATEBOOK_KAFKA_."""
    environment = {"GATEBOOK_KAFKA_SASL_USERNAME": "u", "GATEBOOK_HOME": "/h", "GATEBOOK_X": "1"}
    assert unknown(environment, gather().settings) == ["GATEBOOK_X"]


def test_kinds_have_words() -> None:
    """Bounds are told as they are meant."""
    from msgspec import inspect

    bounds = Annotated[float, Meta(gt=0, le=3600)]
    assert kind_of(inspect.type_info(bounds)) == "number, above 0 and at most 3600"
    assert kind_of(inspect.type_info(Annotated[int, Meta(ge=1)])) == "integer, at least 1"
    assert kind_of(inspect.type_info(tuple[str, ...])) == "list, separated by commas"
    assert kind_of(inspect.type_info(str | None)) == "text"
