"""A privileged act that fails is in the log as one that failed, whatever was recorded before it."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from tests.integration.privacy.subject_tools import TENANT, Desk, said
from tests.pipeline import Pipeline
from tests.waiting import wait_until


def acts(pipeline: Pipeline, action: str) -> list[dict[str, Any]]:
    """The operator's acts of this name, oldest first."""
    found = [
        document
        for document in pipeline.documents()
        if document["service"]["name"] == "gatebook-operator"
        and document["event"]["action"] == action
    ]
    return sorted(found, key=lambda one: str(one["@timestamp"]))


def outcomes(pipeline: Pipeline, action: str) -> list[tuple[str, str]]:
    return [
        (one["event"]["outcome"], one["event"].get("reason", "")) for one in acts(pipeline, action)
    ]


NOT_FOUND = [("success", ""), ("failure", "not_found")]


def test_what_is_not_there_is_a_failure_that_names_the_act(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """Of a person nobody knows, a hold that never was or was ended before, a token and an event
    that are not there: the act stands in the log from before, and its failure beside it."""
    desk = Desk(pipeline)
    pipeline.publish([said("ada")])
    pipeline.wait_indexed(1)
    why, nobody = ("--reason", "r1"), ("nobodyx", "--tenant", TENANT)
    ada = ("ada", "--tenant", TENANT)
    run = desk.run
    run("subject", "export", *nobody, *why, "--output", str(tmp_path / "out"), expect=1)
    run("subject", "hold", *nobody, *why, expect=1)
    run("subject", "erase", *nobody, *why, "--yes", expect=1)
    run("subject", "hold", *ada, *why, "--hold-id", "case-1")
    held = run("subject", "erase", *ada, *why, "--yes", expect=4)
    assert "legal hold" in held.stderr
    run("subject", "release", *ada, *why, "--hold-id", "case-1")
    run("subject", "release", *ada, *why, "--hold-id", "case-1", expect=1)
    run("retention", "release", "nope", *why, expect=1)
    run("token", "revoke", "a" * 16, expect=1)
    run("show", str(uuid.uuid4()), "--reveal", "full", *why, expect=1)

    wait_until("the acts", lambda: len(acts(pipeline, "event.reveal")) == 1, 60)
    wait_until("the ends of acts", lambda: len(acts(pipeline, "token.revoke")) == 2, 60)
    assert outcomes(pipeline, "subject.export") == NOT_FOUND
    assert outcomes(pipeline, "subject.hold") == [*NOT_FOUND, ("success", "")]
    forbidden = [("success", ""), ("failure", "forbidden")]
    assert outcomes(pipeline, "subject.plan_erase") == [*NOT_FOUND, *forbidden]
    assert outcomes(pipeline, "subject.release") == [("success", ""), *NOT_FOUND]
    assert outcomes(pipeline, "retention.release") == NOT_FOUND
    assert outcomes(pipeline, "token.revoke") == NOT_FOUND
    assert outcomes(pipeline, "event.reveal") == [("failure", "not_found")]
    first, failure = acts(pipeline, "subject.export")
    assert failure["gatebook"]["attributes"] == {
        **first["gatebook"]["attributes"],
        "recorded_as": first["event"]["id"],
    }
    # What was not done pages nobody for a privileged act.
    assert (first["event"]["category"], failure["event"]["category"]) == ("iam", "database")
