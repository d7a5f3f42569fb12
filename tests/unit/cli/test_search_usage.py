"""What `gatebook search` and `gatebook export` refuse before they ask anybody, and what they say
where nothing matched."""

from __future__ import annotations

from pathlib import Path

import pytest
from click import UsageError
from click.testing import CliRunner

from gatebook.cli.export_commands import Job, export
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


def test_two_exports_into_one_file_are_refused(tmp_path: Path) -> None:
    """The second is told; what the first has stays as it is, and both leave nothing behind."""
    output = tmp_path / "same.ndjson"
    with Job(output).alone() as job:
        with pytest.raises(UsageError, match="another process is writing"), Job(output).alone():
            pass
        assert job.part.stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.iterdir())
    with Job(output).alone() as job:
        job.file.write(b"{}")
        job.file.flush()
    assert job.part.read_bytes() == b"{}"


def test_an_export_that_cannot_write_there_says_so(tmp_path: Path) -> None:
    """With the part's name and the system's reason."""
    (tmp_path / "x.ndjson.part").mkdir()
    with pytest.raises(UsageError, match="cannot be written"), Job(tmp_path / "x.ndjson").alone():
        pass


@pytest.mark.parametrize(("since", "is_advised"), [("24h", True), ("30d", True), ("all", False)])
def test_looking_further_back_is_advised_where_there_is_something(
    capsys: pytest.CaptureFixture[str], since: str, is_advised: bool
) -> None:
    """Nothing is before all."""
    _say_no_match(since, "access", "")
    said = capsys.readouterr().err
    assert said.startswith("no match")
    assert ("further back" in said) == is_advised
