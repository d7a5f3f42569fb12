"""What `gatebook search` and `gatebook export` refuse before they ask anybody, and what they say
where nothing matched."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from gatebook.cli.export_commands import export
from gatebook.cli.search_commands import _say_no_match, search


def test_two_forms_of_output_are_refused() -> None:
    """Neither is taken silently for the other."""
    done = CliRunner().invoke(search, ["--json", "--ndjson"])
    assert done.exit_code == 2
    assert "--json and --ndjson are two forms" in done.output


@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_an_export_into_a_folder_that_is_not_there_is_refused(
    tmp_path: Path, more: list[str]
) -> None:
    """Before anything is searched, and the folder is named."""
    done = CliRunner().invoke(export, ["", "-o", str(tmp_path / "nope" / "x.ndjson"), *more])
    assert done.exit_code == 2
    assert f"the folder {tmp_path / 'nope'} does not exist" in " ".join(done.output.split())


@pytest.mark.parametrize(("since", "is_advised"), [("24h", True), ("30d", True), ("all", False)])
def test_looking_further_back_is_advised_where_there_is_something(
    capsys: pytest.CaptureFixture[str], since: str, is_advised: bool
) -> None:
    """Nothing is before all."""
    _say_no_match(since, "access", "")
    said = capsys.readouterr().err
    assert said.startswith("no match")
    assert ("further back" in said) == is_advised
