"""What `gatebook doctor`, `status` and `up` say to somebody who was woken up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatebook.cli import doctor_checks, producer_check
from gatebook.cli.engine_commands import _exports, _print_rows
from gatebook.cli.main import cli
from gatebook.engines.check import Check
from gatebook.engines.settings import Endpoints, EngineSettings
from gatebook.producers.spool import FileSpool
from gatebook.schemas.keys import KeyFiles


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, and no other settings."""
    for name in [name for name in os.environ if name.startswith("GATEBOOK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GATEBOOK_HOME", str(tmp_path))
    monkeypatch.setenv("GATEBOOK_ENGINE", "embedded")
    return tmp_path


def rows() -> dict[str, Check]:
    return {row.name: row for row in doctor_checks.check_surroundings()}


def test_good_settings_are_ok_and_leave_nothing_behind(home: Path) -> None:
    """Looking makes no key, no folder."""
    assert {row.verdict for row in rows().values()} == {"ok"}
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "value", "row"),
    [
        ("GATEBOOK_DELIVERY_MODE", "sometimes", "settings producer"),
        ("GATEBOOK_BATCH_MESSAGES", "no-number", "settings worker"),
        ("GATEBOOK_SINK_CONCURRENT_REQUESTS", "99", "settings worker"),
        ("GATEBOOK_ALERT_DEADLINE_SECONDS", "-1", "settings alerts"),
    ],
)
def test_a_setting_that_a_part_would_refuse_is_told_before(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, row: str
) -> None:
    """A process that cannot start because of it is not found out at night."""
    monkeypatch.setenv(variable, value)
    found = rows()[row]
    assert found.verdict == "fail"
    assert found.next_step


def test_a_typing_error_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would change nothing, silently; its value is not shown."""
    monkeypatch.setenv("GATEBOOK_CAPTURE_LEVLE", "planted")
    found = rows()["variables"]
    assert found.verdict == "warn"
    assert "GATEBOOK_CAPTURE_LEVLE" in found.detail
    assert "planted" not in found.detail


def test_a_spool_that_does_not_move_warns(tmp_path: Path) -> None:
    """Fresh events are on their way; the same an hour later are stuck."""
    spool = FileSpool.create(tmp_path, "p1", 7, 1024 * 1024)
    spool.append(0, [b"one", b"two"])
    spool.acknowledge(1)
    acknowledged_at = (spool.directory / "state").stat().st_mtime
    assert doctor_checks.judge_spools(tmp_path, acknowledged_at + 1).verdict == "ok"
    stuck = doctor_checks.judge_spools(tmp_path, acknowledged_at + 3 * 3600)
    assert stuck.verdict == "warn"
    assert "1 unsent events" in stuck.detail
    assert "p1/7 has not moved for 3 hours" in stuck.detail
    down = doctor_checks.judge_spools(tmp_path, acknowledged_at + 1, kafka_answers=False)
    assert down.verdict == "warn"
    assert "wait for Kafka" in down.detail
    assert down.next_step
    spool.acknowledge(2)
    assert "nothing unsent" in doctor_checks.judge_spools(tmp_path, acknowledged_at).detail
    spool.close()


def test_a_spool_that_nobody_holds_warns(tmp_path: Path) -> None:
    """Nobody sends it, however fresh; asking leaves it free for who adopts it."""
    spool = FileSpool.create(tmp_path, "p1", 7, 1024 * 1024)
    spool.append(0, [b"one"])
    spool.acknowledge(0)
    now = (spool.directory / "state").stat().st_mtime
    spool.close()
    found = doctor_checks.judge_spools(tmp_path, now)
    assert found.verdict == "warn"
    assert "no process holds them" in found.detail
    assert "start a service" in found.next_step
    adopted = FileSpool.adopt(spool.directory, 1024 * 1024)
    assert adopted is not None
    assert doctor_checks.judge_spools(tmp_path, now).verdict == "ok"
    adopted.close()


def test_a_torn_or_foreign_spool_does_not_stop_the_doctor(tmp_path: Path) -> None:
    """Whatever stands there."""
    folder = tmp_path / "p1" / "3"
    folder.mkdir(parents=True)
    (folder / "state").write_bytes(b"\xff" * 11)
    (folder / "notes.seg").write_text("not ours")
    (folder / "00000001-00000000000000000000-00000007.seg").write_bytes(b"Gb torn")
    (tmp_path / "p2" / "4").mkdir(parents=True)
    assert doctor_checks.judge_spools(tmp_path, 0).verdict == "ok"


def test_the_summary_names_what_wants_something_done(capsys: pytest.CaptureFixture[str]) -> None:
    """Worst first, at the end, where one still sees it."""
    _print_rows(
        [
            Check(name="a", verdict="warn", detail="odd", next_step="look"),
            Check(name="b", verdict="fail", detail="dead", next_step="start it"),
            Check(name="c", verdict="ok", detail="fine"),
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines[-3:] if line] == ["Broken: b", "Worth a look: a"]
    _print_rows([Check(name="c", verdict="ok", detail="fine")])
    assert capsys.readouterr().out.endswith("All is well.\n")


def test_status_says_what_to_do_next() -> None:
    """Not only that it is stopped."""
    done = CliRunner().invoke(cli, ["status"])
    assert done.exit_code == 1
    assert "`gatebook up` starts" in done.output


def test_up_tells_how_other_commands_find_unusual_ports(tmp_path: Path) -> None:
    """They look at the usual ports by themselves, at others only when told."""
    settings = EngineSettings(home=tmp_path)
    usual = Endpoints(
        engine="embedded",
        kafka_bootstrap="127.0.0.1:19092",
        elasticsearch_url="http://127.0.0.1:19200",
    )
    assert _exports(usual, settings) == ""
    other = Endpoints(
        engine="embedded",
        kafka_bootstrap="127.0.0.1:29092",
        elasticsearch_url="http://127.0.0.1:19200",
    )
    assert _exports(other, settings) == (
        "export GATEBOOK_KAFKA_BOOTSTRAP=127.0.0.1:29092 "
        "GATEBOOK_ELASTICSEARCH_URL=http://127.0.0.1:19200"
    )


def test_content_that_would_be_dropped_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For want of a key to seal it for; once that is there, the row names it."""
    assert "sealing" not in rows(), "nothing is captured"
    monkeypatch.setenv("GATEBOOK_CAPTURE_LEVEL", "redacted")
    assert rows()["sealing"].verdict == "fail"
    assert "gatebook keys new" in rows()["sealing"].next_step
    files = KeyFiles.in_folder(home / "keys")
    key = files.create().keys[0]
    assert (rows()["sealing"].verdict, rows()["opening"].verdict) == ("ok", "ok")
    assert key.id in rows()["sealing"].detail
    files.destroy(key.id)
    assert "no live key" in rows()["sealing"].detail
    assert "gatebook keys rotate" in rows()["sealing"].next_step
    assert (rows()["sealing"].verdict, rows()["opening"].verdict) == ("fail", "fail")


def test_keys_that_are_all_destroyed_are_told_whoever_captures(home: Path) -> None:
    """The doctor's own environment captures nothing; a service beside it may."""
    files = KeyFiles.in_folder(home / "keys")
    key = files.create().keys[0]
    assert "sealing" not in rows()
    files.destroy(key.id)
    assert (rows()["sealing"].verdict, rows()["opening"].verdict) == ("warn", "warn")


@pytest.mark.parametrize(
    ("level", "verdict"), [("none", None), ("metadata", None), ("redacted", "fail")]
)
def test_the_policy_file_says_whether_keys_are_needed(
    home: Path, monkeypatch: pytest.MonkeyPatch, level: str, verdict: str | None
) -> None:
    """By the highest level any rule of it gives."""
    policy = home / "capture.toml"
    policy.write_text(f'version = 1\nname = "x"\n[[rule]]\nname = "a"\nlevel = "{level}"\n')
    monkeypatch.setenv("GATEBOOK_CAPTURE_POLICY", str(policy))
    found = rows().get("sealing")
    assert (found and found.verdict) == verdict


def test_keys_that_do_not_go_together_are_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Producers seal for a key that intake here does not have, or there are no private keys."""
    monkeypatch.setenv("GATEBOOK_CAPTURE_LEVEL", "redacted")
    files = KeyFiles.in_folder(home / "keys")
    files.create()
    other = KeyFiles.in_folder(home / "other")
    other.create()
    files.public.write_bytes(other.public.read_bytes())
    assert (rows()["sealing"].verdict, rows()["opening"].verdict) == ("ok", "fail")
    files.private.unlink()
    assert rows()["opening"].verdict == "warn", "intake may run elsewhere"
    monkeypatch.setenv("GATEBOOK_SEALING_KEYS", f"file:{files.private}")
    assert rows()["opening"].verdict == "fail", "it was said to be here"


def test_the_probe_does_not_hide_that_content_is_dropped(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe itself has no content and would come through."""
    monkeypatch.setenv("GATEBOOK_CAPTURE_LEVEL", "redacted")
    monkeypatch.setattr(producer_check._Probe, "run", lambda probe: iter(()))
    (hop,) = (one for one in producer_check.check_producer(0.1) if one.name == "sealing")
    assert hop.verdict == "fail"
    files = KeyFiles.in_folder(home / "keys")
    files.create()
    assert producer_check.check_producer(0.1) == []


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_private_key_that_others_may_read_is_told(home: Path, mode: int) -> None:
    """Each such file, with its mode and what to do; a public one may be read by everybody."""
    files = KeyFiles.in_folder(home / "keys")
    files.create()
    wrapping = home / "keys" / "subject-wrapping.key"
    wrapping.write_bytes(bytes(32))
    wrapping.chmod(0o600)
    assert rows()["key files"].verdict == "ok"
    for path in (files.private, wrapping):
        path.chmod(mode)
    found = [row for row in doctor_checks.check_surroundings() if row.name == "key files"]
    assert [row.verdict for row in found] == ["warn", "warn"]
    for row, path in zip(found, (files.private, wrapping), strict=True):
        assert f"{path} (mode {mode:04o})" in row.detail
        assert f"chmod 600 {path}" in row.next_step


def test_a_key_file_elsewhere_is_looked_at_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a setting names one, as a file or as a source of keys."""
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        path.write_bytes(bytes(32))
        path.chmod(0o644)
    monkeypatch.setenv("GATEBOOK_REDACTION_KEY_FILE", str(one))
    monkeypatch.setenv("GATEBOOK_SUBJECT_WRAPPING_KEYS", f"env:NONE, file:{two}")
    found = [row for row in doctor_checks.check_surroundings() if row.name == "key files"]
    assert [str(path) in row.detail for path, row in zip((one, two), found, strict=True)] == [
        True,
        True,
    ]
