"""`gatebook token revoke`: what it says, and what never stands in the log."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.privacy.subject_tools import Desk
from tests.pipeline import Pipeline
from tests.waiting import wait_until


def made(desk: Desk, name: str) -> dict[str, Any]:
    return desk.json("token", "new", name, "--role", "viewer", "--all-tenants")


def test_revoking_says_what_happened(pipeline: Pipeline) -> None:
    """A token that held, one that was revoked before, one that never was, and a token that somebody
    pasted in the place of its id: each has its own words; the pasted one is recorded nowhere."""
    desk = Desk(pipeline)
    one = made(desk, "nightly export")
    revoke = ("token", "revoke", one["id"])
    first = desk.run(*revoke).stdout
    assert first.startswith(f"revoked {one['id']} (nightly export); it signs nobody in")
    again = desk.run(*revoke).stdout
    assert "was revoked already, at 20" in again
    assert "nothing was changed" in again
    told = desk.json(*revoke)
    assert (told["state"], told["state_before"]) == ("revoked", "revoked")
    (listed,) = json.loads(desk.run("token", "list", "--all", "--json").stdout)["tokens"]
    assert listed["revoked_at"] == told["revoked_at"]

    nobody = desk.run("token", "revoke", "a" * 16, expect=1)
    assert "no token has the id aaaaaaaaaaaaaaaa, so none was revoked" in nobody.stderr
    assert "token list --all" in nobody.stderr
    other = made(desk, "pasted")
    pasted = desk.run("token", "revoke", other["token"], expect=2)
    assert f"its id is {other['id']}" in pasted.stderr
    assert other["token"] not in pasted.stderr
    assert "16 letters or digits" in desk.run("token", "revoke", "../x", expect=2).stderr

    desk.run("token", "revoke", other["id"])
    acts = wait_until("the acts", lambda: recorded(pipeline, other["id"]))
    assert [act["event"]["action"] for act in acts] == ["token.revoke"]
    assert other["token"] not in str(pipeline.documents())


def recorded(pipeline: Pipeline, token_id: str) -> list[dict[str, Any]]:
    """The acts on a token, by its id."""
    return [
        found
        for found in pipeline.documents()
        if found["gatebook"].get("attributes", {}).get("token") == token_id
    ]
