"""What `gatebook search` and `gatebook export` refuse before they ask anybody, and what they say
where nothing matched."""

from __future__ import annotations

from pathlib import Path

import pytest
from click import UsageError
from click.testing import CliRunner

from gatebook.cli.export_commands import Job, export
from gatebook.cli.search_commands import VALUES, _print_table, _say_no_match, search
from gatebook.processors.alerts.base import SEVERITIES
from gatebook.processors.alerts.verdicts import VERDICTS
from gatebook.processors.search.asking import Hit
from gatebook.processors.search.export import COLUMNS
from gatebook.processors.search.fields import fields_of
from gatebook.producers.policy.document import LEVELS


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


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ('user.id:"key:key_1"', 'gatebook.principal:"key:key_1"'),
        ("event.action:chat and user.id:ip:10.0.0.1", 'gatebook.principal:"ip:10.0.0.1"'),
        ('user.id:"acme/key:key_1"', 'gatebook.principal:"acme/key:key_1"'),
        ("event.outcome:failed", "one of success, failure, unknown"),
        ('event.outcome : "ok"', "one of success, failure, unknown"),
        ("gatebook.severity:high", "one of info, warning, error, critical"),
    ],
)
def test_what_was_meant_is_said_where_nothing_matched(
    capsys: pytest.CaptureFixture[str], query: str, hint: str
) -> None:
    """Who has no user id stands in another field; some fields have few values."""
    _say_no_match("24h", "access", query)
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize(
    "query",
    ["user.id:keys", "event.outcome:failure", "event.outcome:fail*", "my.event.outcome:x", "a:b"],
)
def test_a_query_that_may_well_match_gets_no_hint(
    capsys: pytest.CaptureFixture[str], query: str
) -> None:
    """Only where nothing could have been found."""
    _say_no_match("24h", "access", query)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_values_that_are_named_are_all_there_are() -> None:
    """As those who write them have them."""
    assert VALUES["gatebook.severity"] == SEVERITIES
    assert VALUES["gatebook.verdict"] == VERDICTS
    assert VALUES["gatebook.capture.level"] == LEVELS
    assert all(fields_of(kind).type_of("event.outcome") for kind in ("access", "alert"))


def test_the_event_asked_for_stands_out_among_its_neighbours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also where colours do not reach, and where the columns are chosen."""
    hits = [Hit("i", f"e{n}", {"event": {"id": f"e{n}"}, "user": {"id": "a\nb"}}) for n in range(3)]
    _print_table(hits, ["event.id", "user.id"], keep_all=True, marked=hits[1])
    heading, *lines = capsys.readouterr().out.splitlines()
    assert [line.startswith(">") for line in (heading, *lines)] == [False, False, True, False]
    assert "e1" in lines[1]
    _print_table(hits, ["event.id"], keep_all=True)
    assert ">" not in capsys.readouterr().out


def test_a_csv_says_who_it_was_also_without_a_user() -> None:
    """By default, beside the user's id: callers known by key or address alone have none."""
    assert COLUMNS["access"][:2] == ("user.id", "gatebook.principal")
    assert "gatebook.principal" in fields_of("access").types
