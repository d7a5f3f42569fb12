"""`gatebook policy`: a person checks a policy, asks why, and raises a level with two others."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gatebook.cli import policy_break_glass
from gatebook.cli.main import cli, main
from gatebook.producers.policy.asking import Refused
from gatebook.producers.policy.document import PolicyInvalid
from gatebook.producers.policy.grants import folder_of, read_grants
from gatebook.producers.policy.match import Policy

EXAMPLE = Path("infra/examples/capture-policy.toml")
README = Path("producers/gatebook/producers/policy/README.md")
POLICY = """
version = 1
name = "acme"
[[rule]]
name = "lab"
match = { tenant = "lab", model = "slm-*" }
level = "redacted"
[break_glass]
max_seconds = 3600
[break_glass.approvers]
"""
BROKEN = 'version = 1\nname = "x"\n[[rule]]\nname = "a"\nlevl = "none"\n'


def run(*arguments: str, said: str = "") -> Result:
    return CliRunner().invoke(cli, ["policy", *arguments], input=said)


def blocks(language: str) -> list[str]:
    parts = README.read_text().split(f"```{language}\n")[1:]
    return [part.partition("```")[0] for part in parts]


def test_the_example_is_a_policy_and_every_rule_of_it_decides() -> None:
    """What stands in the repository can be copied."""
    assert run("check", str(EXAMPLE)).exit_code == 0
    explained = {
        "health": ["--tenant", "clinic-7"],
        "staff": ["--service", "hr-assistant"],
        "support-desk": ["--tenant", "acme", "--service", "support-desk", "--operation", "chat"],
        "red-team": ["--tenant", "acme-red-team", "--model", "slm-1"],
        "default": [],
    }
    for rule, given in explained.items():
        done = run("explain", "--policy", str(EXAMPLE), "--json", *given)
        assert json.loads(done.output)["decision"]["rule"] == rule
    assert {rule.name for rule, _ in Policy.read(EXAMPLE.read_bytes()).rules} == {*explained} - {
        "default"
    }


def test_the_policy_in_the_readme_is_one() -> None:
    """The first block is a whole file, the other a part of one."""
    whole, part = blocks("toml")
    assert Policy.read(whole.encode()).highest_level == "redacted"
    with pytest.raises(PolicyInvalid, match="not a public key"):
        Policy.read(('version = 1\nname = "x"\n' + part).encode())


@pytest.mark.parametrize("text", [BROKEN, None])
def test_a_wrong_file_ends_with_2_and_says_where(
    tmp_path: Path, text: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the field, the line and what to do."""
    path = tmp_path / "capture.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["policy", "check", str(path)])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert str(path) in told
    assert "what to do" in told
    assert text is None or "line 5, rule[1].levl: unknown field levl" in told


def test_a_rule_that_is_never_reached_is_told(tmp_path: Path) -> None:
    """As a warning: the file is a policy."""
    path = tmp_path / "capture.toml"
    one = '[[rule]]\nname = "{0}"\nlevel = "none"\n'
    path.write_text('version = 1\nname = "x"\n' + one.format("a") + one.format("b"))
    done = run("check", str(path))
    assert done.exit_code == 0
    assert "never reached: b" in done.output


def test_explain_says_why_rules_did_not_match(tmp_path: Path) -> None:
    """And when a claim was held back."""
    path = tmp_path / "capture.toml"
    path.write_text(POLICY.partition("[break_glass]")[0])
    file = ["explain", "--policy", str(path)]
    assert "lab: no, tenant is other, it wants lab" in run(*file, "--tenant", "other").output
    sure = run(*file, "--tenant", "lab", "--model", "slm-1").output
    assert "-> redacted, by rule lab" in sure
    claimed = run(*file, "--tenant", "lab", "--model", "slm-1", "--claimed").output
    assert "-> metadata" in claimed
    assert "held back" in claimed


def test_explain_takes_its_file_as_check_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an argument, by --policy, or from the variable; without any it says what is missing."""
    wanted = "-> metadata, by rule default"
    for given in ([str(EXAMPLE)], ["--policy", str(EXAMPLE)]):
        done = run("explain", *given)
        assert (done.exit_code, wanted in done.output) == (0, True)
    assert run("explain", str(EXAMPLE), "--policy", str(EXAMPLE)).exit_code == 2
    monkeypatch.delenv("GATEBOOK_CAPTURE_POLICY", raising=False)
    done = run("explain", "--tenant", "acme")
    assert (done.exit_code, "which policy?" in done.output) == (2, True)
    monkeypatch.setenv("GATEBOOK_CAPTURE_POLICY", str(EXAMPLE))
    assert wanted in run("explain").output


class Office:
    """A policy with three people, their keys, and commands in their name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.policy = folder / "capture.toml"
        keys = [f'{n} = "{run("break-glass", "key", str(self.key(n))).output.strip()}"'
                for n in ("ada", "bob", "cyd")]  # fmt: skip
        self.policy.write_text(POLICY + "\n".join(keys) + "\n")

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def run(self, step: str, *more: str, by: str, key: str = "", said: str = "") -> Result:
        signed = ["--policy", str(self.policy), "--by", by, "--key", str(self.key(key or by))]
        return run("break-glass", step, *more, *signed, said=said)

    def ask(self, *more: str, by: str = "ada") -> str:
        wanted = ["--tenant", "lab", "--reason", "incident 7", *more]
        done = self.run("request", *wanted, by=by)
        assert done.exit_code == 0, done.output
        return done.stdout.split()[0]

    def state(self) -> Any:
        done = run("break-glass", "status", "--policy", str(self.policy), "--json")
        return json.loads(done.output)

    def recorded(self) -> bytes:
        return b"".join(p.read_bytes() for p in (self.folder / "spool").rglob("*") if p.is_file())


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    """Without a broker: what is recorded waits in the spool."""
    monkeypatch.setenv("GATEBOOK_HOME", str(tmp_path))
    monkeypatch.setenv("GATEBOOK_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.delenv("GATEBOOK_CAPTURE_POLICY", raising=False)
    monkeypatch.setattr(policy_break_glass, "FLUSH_SECONDS", 0.1)
    return Office(tmp_path)


def test_two_approve_what_a_third_asked_for_and_each_step_is_recorded(office: Office) -> None:
    """Until somebody ends it."""
    request = office.ask("--for", "30m")
    assert office.run("approve", request, "--yes", by="bob").exit_code == 0
    assert [one["state"] for one in office.state()] == ["pending"]
    asked = office.run("approve", request, by="cyd", said="y\n")
    assert "redacted until" in asked.output, "one sees what one approves"
    assert [one["state"] for one in office.state()] == ["active"]
    (grant,) = read_grants(folder_of(office.policy), Policy.read(office.policy.read_bytes()))
    assert grant.approved_by == ("bob", "cyd")
    assert office.run("revoke", request, by="ada").exit_code == 0
    assert [one["state"] for one in office.state()] == ["revoked"]
    recorded = office.recorded()
    for action in (b"requested", b"approved", b"revoked"):
        assert b"break_glass_" + action in recorded
    assert b"incident 7" in recorded


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--level", "full"], "at most redacted"),
        (["--for", "2h"], "at most 3600 s"),
    ],
)
def test_what_the_policy_does_not_allow_is_not_asked_for(
    office: Office, more: list[str], told: str
) -> None:
    """Nothing is recorded and no file is written."""
    done = office.run("request", "--tenant", "lab", "--reason", "x", *more, by="ada")
    assert isinstance(done.exception, Refused)
    assert told in str(done.exception)
    assert not folder_of(office.policy).exists()
    assert office.recorded() == b""


def test_a_raise_of_everything_and_strangers_are_refused(office: Office) -> None:
    """Something has to be named; a name needs its own key."""
    everything = office.run("request", "--reason", "x", by="ada")
    assert "raise of everything" in str(everything.exception)
    stranger = office.run("request", "--tenant", "lab", "--reason", "x", by="eve", key="ada")
    assert "nobody named eve" in str(stranger.exception)
    another = office.run("request", "--tenant", "lab", "--reason", "x", by="bob", key="ada")
    assert "not the key of bob" in str(another.exception)


def test_nobody_approves_what_they_asked_for(office: Office) -> None:
    """Nor what is over."""
    request = office.ask()
    own = office.run("approve", request, "--yes", by="ada")
    assert "nobody approves" in str(own.exception)
    office.run("revoke", request, by="bob")
    late = office.run("approve", request, "--yes", by="cyd")
    assert "is revoked" in str(late.exception)
    gone = office.run("approve", "bg-" + "0" * 16, "--yes", by="cyd")
    assert "there is no request" in str(gone.exception)


def test_approving_twice_is_one_approval_and_one_event(office: Office) -> None:
    """Said, not recorded again."""
    request = office.ask()
    assert office.run("approve", request, "--yes", by="bob").exit_code == 0
    before = office.recorded()
    again = office.run("approve", request, "--yes", by="bob")
    assert again.exit_code == 0
    assert "already approved" in again.output
    assert office.recorded() == before
    assert [one["approved_by"] for one in office.state()] == [["bob"]]


def test_a_request_prints_the_whole_command_to_approve_it(office: Office) -> None:
    """With the policy, which the others' environment need not name."""
    done = office.run("request", "--tenant", "lab", "--reason", "incident 7", by="ada")
    (line,) = [one.strip() for one in done.output.splitlines() if "break-glass approve" in one]
    words = shlex.split(line)[3:-4]
    assert office.run(*words[:2], "--yes", by="bob").exit_code == 0
    assert words[2:] == ["--policy", str(office.policy)]


def test_a_request_without_a_reason_is_refused_in_plain_words(office: Office) -> None:
    """Nothing is recorded."""
    done = office.run("request", "--tenant", "lab", "--reason", " ", by="ada")
    assert done.exit_code == 2
    assert "it is empty" in done.output
    assert "$" not in done.output
    assert office.recorded() == b""


def test_a_forged_approval_shows_in_the_status(office: Office) -> None:
    """And ends it with 1."""
    request = office.ask()
    office.run("approve", request, "--yes", by="bob")
    folder = folder_of(office.policy)
    forged = (folder / f"{request}.approval.bob.json").read_text().replace("bob", "cyd")
    (folder / f"{request}.approval.cyd.json").write_text(forged)
    done = run("break-glass", "status", "--policy", str(office.policy))
    assert done.exit_code == 1
    assert "does not count: forged" in done.output
    assert "pending" in done.output


def test_a_step_that_cannot_be_recorded_is_not_done(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the log, then the file."""
    monkeypatch.setattr("gatebook.producers.recorder.Recorder.emit_durable", _refuse)
    done = office.run("request", "--tenant", "lab", "--reason", "x", by="ada")
    assert "could not be recorded" in str(done.exception)
    assert not folder_of(office.policy).exists()


def _refuse(self: Any, event: Any) -> str:
    from gatebook.producers.accounts import NotDurable

    raise NotDurable("spool_unavailable")


def test_a_private_key_is_its_owners_and_never_replaced(tmp_path: Path) -> None:
    """Mode 0600; a file that is there stays."""
    path = tmp_path / "ada.pem"
    first = run("break-glass", "key", str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    again = run("break-glass", "key", str(path))
    assert isinstance(again.exception, Refused)
    assert len(first.output.strip()) == 44
