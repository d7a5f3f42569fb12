"""Opening what is sealed: for operators, with a reason, and never without a record."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tests.integration.privacy.subject_tools import TENANT, WORD, Desk, said
from tests.pipeline import Pipeline
from tests.waiting import wait_until

MAIL = "jo.doe@example.org"


def acts(desk: Desk) -> dict[str, dict[str, str]]:
    """The recorded acts of operators: action to attributes."""
    return {
        d["event"]["action"]: d["gatebook"].get("attributes", {})
        for d in desk.pipeline.documents()
        if d["service"]["name"] == "gatebook-operator"
    }


def test_an_export_holds_all_of_a_person_and_says_what_it_opened(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """All of the person's events in order, content opened as far as was asked, in files that only
    the operator reads, with a manifest whose digest fits."""
    desk = Desk(pipeline)
    levels = ("metadata", "redacted", "full", "full")
    pipeline.publish([said("ada", level, days_ago=n) for n, level in enumerate(levels)])
    pipeline.publish([said("bob")])
    pipeline.wait_indexed(5)
    for reveal, opened in (
        ("none", {}),
        ("redacted", {"redacted": 3}),
        ("full", {"full": 2, "redacted": 3}),
    ):
        folder = tmp_path / reveal
        manifest = desk.subject("export", "ada", "--output", str(folder), "--reveal", reveal)
        data = (folder / "events.ndjson").read_bytes()
        rows = [json.loads(line) for line in data.splitlines()]
        assert manifest["documents"] == len(rows) == manifest["digests_hold"] == 4
        assert manifest["layers_opened"] == opened
        assert manifest["sha256"] == hashlib.sha256(data).hexdigest()
        assert {row["document"]["user"]["id"] for row in rows} == {"ada"}
        times = [row["document"]["@timestamp"] for row in rows]
        assert times == sorted(times)
        assert (folder / "events.ndjson").stat().st_mode & 0o777 == 0o600
        originals = [row["content"]["full"] for row in rows if "full" in row["content"]]
        assert len(originals) == (4 if reveal == "full" else 0)
        assert all(WORD in json.dumps(o["content"]) for o in originals if o["state"] == "opened")
    desk.subject("export", "nobody", "--output", str(tmp_path / "no"), expect=1)
    assert not (tmp_path / "no").exists(), "nothing is stored: no folder that says so"
    asked = ("subject", "export", "ada", "--reason", "test", "--output")
    elsewhere = desk.run(*asked, str(tmp_path / "no"), expect=1).stderr
    assert f"--tenant '{TENANT}'" in elsewhere
    hers = ("subject", "export", "ada", "--tenant", TENANT, "--reason", "test", "--output")
    assert "is not empty" in desk.run(*hers, str(tmp_path / "full"), expect=2).stderr
    desk.run(*hers, str(tmp_path / "full"), "--overwrite")
    assert "/proc/nope cannot be written" in desk.run(*hers, "/proc/nope", expect=2).stderr

    changed = desk.of("ada")[0]["event"]["id"]
    shown = desk.json("show", changed)["documents"][0]
    assert shown["digest_holds"] is True
    body = {"doc": {"event": {"outcome": "failure"}}}
    pipeline.http.post(f"/{shown['index']}/_update/{changed}", json=body).raise_for_status()
    pipeline.wait_indexed(5)
    assert desk.json("show", changed)["documents"][0]["digest_holds"] is False
    late = desk.subject("export", "ada", "--output", str(tmp_path / "late"), expect=1)
    assert late["digests_fail"] == [changed]


def test_nothing_is_revealed_that_cannot_be_recorded(pipeline: Pipeline, tmp_path: Path) -> None:
    """Where the event of an act cannot be made durable, the act is refused: nothing is printed,
    nothing changes. Where it can, it says who, what and why."""
    desk = Desk(pipeline)
    event = said("ada")
    pipeline.publish([event])
    pipeline.wait_indexed(1)
    before = desk.of("ada")
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the spool's folder should be")
    spool = {"GATEBOOK_SPOOL_DIR": str(blocked)}
    who = ("--tenant", TENANT, "--reason", "curiosity")
    for command in (
        ("show", event["event"]["id"], "--reveal", "full", "--reason", "curiosity"),
        ("subject", "export", "ada", *who, "--output", str(tmp_path / "out")),
        ("subject", "erase", "ada", *who, "--yes"),
        ("subject", "hold", "ada", *who),
        ("subject", "reidentify", "EMAIL_e1_ABCDEFGHIJKLMNOP", *who),
        ("subject", "status", "ada", "--tenant", TENANT),
    ):
        done = desk.run(*command, expect=6, **spool)
        assert "cannot be recorded" in done.stderr
        assert not done.stdout
    assert desk.of("ada") == before
    assert not (tmp_path / "out").exists()
    assert desk.json("subject", "list-holds")["subjects"] == []

    desk.json("show", event["event"]["id"], "--reveal", "full", "--reason", f"{MAIL} asks")
    wait_until("the act's event", lambda: "event.reveal" in acts(desk))
    told = acts(desk)["event.reveal"]
    assert (told["event"], told["reveal"]) == (event["event"]["id"], "full")
    assert told["reason"].endswith(" asks")
    assert MAIL not in told["reason"]
    desk.run("show", event["event"]["id"], "--reveal", "full", expect=2)


def test_what_was_destroyed_is_not_told_as_never_kept(pipeline: Pipeline, tmp_path: Path) -> None:
    """After an erasure, show, export and its manifest say that content is erased, when and by
    which job; what was never kept is absent. A hold refuses the erasure before anything is asked;
    an erasure of nobody, a hold and a status of nobody say so."""
    desk = Desk(pipeline)
    event = said("ada", "redacted")
    pipeline.publish([event, said("ada", "metadata")])
    pipeline.wait_indexed(2)
    who = ("--tenant", TENANT, "--reason", "test")
    desk.subject("hold", "ada", "--hold-id", "case-1")
    for more in (("--dry-run",), ()):
        refused = desk.run("subject", "erase", "ada", *who, *more, expect=4)
        assert "case-1" in refused.stdout + refused.stderr
        assert "for good?" not in refused.stderr
    desk.subject("release", "ada", "--hold-id", "case-1")
    file = tmp_path / "certificate.json"
    desk.run("subject", "erase", "ada", *who, "--yes", "--output", str(file))
    certificate = json.loads(file.read_text())
    told = desk.run("subject", "verify-certificate", str(file)).stdout
    assert f"documents_with_content: {certificate['documents_with_content']}" in told
    ask = ("show", event["event"]["id"], "--reveal", "full", "--reason", "x")
    content = desk.json(*ask)["content"]
    erased = {"state": "erased", "job": certificate["job"]}
    assert content["redacted"] == {**erased, "erased_at": certificate["completed_at"]}
    assert content["full"] == {"state": "absent"}, "the original was never kept"
    assert f"content, redacted: erased ({certificate['completed_at']}" in desk.run(*ask).stdout

    manifest = desk.subject("export", "ada", "--output", str(tmp_path / "gone"))
    assert manifest["layers_erased"] == {"redacted": 1}
    assert [one["job"] for one in manifest["erasures"]] == [certificate["job"]]
    lines = (tmp_path / "gone" / "events.ndjson").read_bytes().splitlines()
    states = [json.loads(line)["content"]["redacted"]["state"] for line in lines]
    assert sorted(states) == ["absent", "erased"]
    status = desk.json("subject", "status", "ada", "--tenant", TENANT)
    assert (status["events"], status["erased"]) == (2, 1)

    for command in (("status", "ada"), ("hold", "ada", "--reason", "x")):
        nobody = desk.run("subject", *command, expect=1).stderr
        assert "no events of this subject" in nobody
        assert f"--tenant '{TENANT}'" in nobody
    assert desk.json("subject", "list-holds")["subjects"] == []
    desk.run("subject", "hold", "", "--reason", "x", expect=2)
    missed = desk.run("search", 'user.id:"dora@example.org"', expect=1).stderr
    assert "gatebook subject status" in missed


def test_a_pseudonym_is_resolved_for_operators_only(pipeline: Pipeline) -> None:
    """From a candidate, or from the sealed original of an event; never from the index, and not
    after an erasure."""
    desk = Desk(pipeline)
    pipeline.publish([said("ada", "full", text=f"write to {MAIL}")])
    pipeline.publish([said("bob", "redacted", text=f"write to {MAIL}")])
    pipeline.wait_indexed(2)
    (bob,) = desk.of("bob")
    shown = bob["gen_ai"]["input"]["messages"]
    assert MAIL not in json.dumps(pipeline.documents())
    mask = shown[shown.index("[EMAIL") : shown.index("]", shown.index("[EMAIL")) + 1]
    ask = ("subject", "reidentify", mask, "--tenant", TENANT, "--reason", "incident 9")
    found = desk.json(*ask)
    assert found == {"value": MAIL, "found_in": "events", "opened": 1}
    desk.erase("ada")
    assert desk.json(*ask, expect=1)["value"] is None
    missed = desk.run(*ask, expect=1).stderr
    assert "--candidate" in missed
    assert "--tenant" in missed
    tried = desk.json(*ask, "--stdin", stdin=f"someone@else.org\n{MAIL.upper()}\n")
    assert tried["found_in"] == "candidates"
    assert tried["value"].lower() == MAIL
    desk.run("subject", "reidentify", "nonsense", "--reason", "x", expect=2)
    wait_until("the act's event", lambda: "subject.reidentify" in acts(desk))
    assert acts(desk)["subject.reidentify"]["reason"] == "incident 9"
    assert acts(desk)["subject.erased"]["subject"] == desk.tag("ada")
    assert MAIL not in json.dumps(pipeline.documents())
