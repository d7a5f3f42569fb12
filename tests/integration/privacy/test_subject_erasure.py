"""Erasure on real engines: unreadable in Kafka, index and snapshots, and certified."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.conftest import RunningEngines
from tests.integration.privacy.subject_tools import (
    TENANT,
    WORD,
    Desk,
    Snapshot,
    holds_anywhere,
    said,
)
from tests.pipeline import Pipeline
from tests.waiting import wait_until

from gatebook.processors.config import WorkerSettings
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.sinks.settings import ElasticsearchSettings
from gatebook.processors.subjects.elastic import ElasticStore
from gatebook.processors.subjects.keyring import KeyRing
from gatebook.processors.subjects.reveal import opened
from gatebook.processors.subjects.settings import subject_settings
from gatebook.processors.subjects.verify import verify_document

HIDDEN = {"capture": {"searchable": False}}


@pytest.fixture
def desk(pipeline: Pipeline) -> Desk:
    """Workers, and an operator."""
    return Desk(pipeline)


def keys_left(pipeline: Pipeline, ids: set[str]) -> dict[str, Any]:
    """Keys of these ids that can still be had, with everything an operator has."""

    async def look() -> dict[str, Any]:
        worker = WorkerSettings(home=str(pipeline.home), namespace=pipeline.namespace)
        own = subject_settings({})
        connection = Connection(ElasticsearchSettings(url=pipeline.engines.elasticsearch_url))
        store = ElasticStore(connection, pipeline.namespace)
        ring = KeyRing(store, own.wrapping(worker), own.tags(worker), own.lease_seconds)
        try:
            return dict(await ring.keys(ids))
        finally:
            await connection.close()

    return asyncio.run(look())


def in_kafka(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Every document of the event topic."""
    frames = pipeline.read_topic("event.v1", "document_frame.v1")
    return [orjson.loads(d["body"]) for frame in frames for d in frame["documents"]]


def put_untagged(pipeline: Pipeline, user: str) -> None:
    """A document as version 1 stored it: text in the open, no tag, no commitment."""
    at = pipeline.documents()[0]["@timestamp"]
    document = {
        "@timestamp": at,
        "event": {"id": "old-1"},
        "user": {"id": user},
        "organization": {"id": TENANT},
        "gatebook": {"capture": {"level": "redacted"}},
        "gen_ai": {"input": {"messages": f"an old {WORD}"}},
    }
    index = f"{pipeline.namespace}-access-{at[:10].replace('-', '.')}"
    answer = pipeline.http.put(f"/{index}/_doc/old-1", json=document)
    assert answer.status_code == 201


def test_what_a_person_wrote_is_unreadable_everywhere(
    desk: Desk, pipeline: Pipeline, engines: RunningEngines, engines_home: Path
) -> None:
    """After an erasure no copy opens: not the index, not one message of event.v1, not a snapshot
    of before; the key is off the disk. Every digest still holds, and others keep their content."""
    ada = [said("ada", level, days_ago=n % 3) for n in range(6) for level in ("full", "metadata")]
    ada += [said("ada", "redacted", days_ago=n, **HIDDEN) for n in range(3)]
    bob = [said("bob", "full") for _ in range(4)]
    pipeline.publish(ada + bob)
    pipeline.wait_indexed(len(ada) + len(bob))
    snapshot = Snapshot(pipeline)
    try:
        (key,) = {
            d["gatebook"]["sealed"]["key_id"] for d in desk.of("ada") if "sealed" in d["gatebook"]
        }
        wrapped = pipeline.http.get(f"/{pipeline.namespace}-subject-keys/_doc/{key}").json()
        needle = wrapped["_source"]["wrapped"].encode()
        pipeline.http.post(f"/{pipeline.namespace}-subject-keys/_flush", params={"force": "true"})
        embedded = engines.engine == "embedded"  # others keep their files where we cannot look
        assert not embedded or holds_anywhere(engines_home, needle)
        original = json.loads(ada[0]["content"])
        state = opened(
            next(d for d in desk.of("ada") if d["event"]["id"] == ada[0]["event"]["id"]),
            keys_left(pipeline, {key})[key],
        )
        assert state["full"]["content"] == original

        certificate = desk.erase("ada")

        assert certificate["complete"] is False
        (raw,) = (left for left in certificate["remains"] if "access.v1" in left["where"])
        assert raw["readable"] == "with intake's private key"
        assert raw["until"] > certificate["completed_at"]
        assert certificate["complete_when"] == [raw["until"]]
        assert certificate["keys_destroyed"] == [key]
        assert certificate["documents"] == len(ada)
        assert certificate["documents_with_content"] == 9
        assert len(certificate["indices"]) == 3
        assert not embedded or not holds_anywhere(engines_home, needle)
        assert keys_left(pipeline, {key}) == {}
        for where, found in (
            ("index", desk.of("ada")),
            (
                "kafka",
                [d for d in in_kafka(pipeline) if d["gatebook"]["subject"] == desk.tag("ada")],
            ),
            ("snapshot", [d for d in snapshot.restored() if d["user"]["id"] == "ada"]),
        ):
            assert len(found) == len(ada), where
            for document in found:
                states = {s["state"] for s in opened(document, None).values()}
                assert states <= {"absent", "erased"}, where
                assert WORD not in json.dumps(document), where
                assert verify_document(document).holds, where
        assert not any("redacted" in d["gatebook"].get("sealed", {}) for d in desk.of("ada"))
        shown = desk.json("show", bob[0]["event"]["id"], "--reveal", "full", "--reason", "test")
        assert shown["content"]["full"]["content"] == json.loads(bob[0]["content"])
    finally:
        snapshot.close()


def test_text_that_could_be_searched_stays_in_old_snapshots_and_is_said(
    desk: Desk, pipeline: Pipeline
) -> None:
    """Kafka never holds searched text; the index loses it; a snapshot of before keeps it, which
    the certificate says, and the exit code too."""
    pipeline.publish([said("ada", "redacted") for _ in range(3)])
    pipeline.wait_indexed(3)
    assert all(WORD in d["gen_ai"]["input"]["messages"] for d in desk.of("ada"))
    assert WORD not in json.dumps(in_kafka(pipeline))  # the search itself will stand there
    found = desk.json("search", f"{WORD}*")
    assert found["total"] == 3
    snapshot = Snapshot(pipeline)
    try:
        certificate = desk.erase("ada", expect=1)
        assert certificate["complete"] is False
        (left,) = (r for r in certificate["remains"] if r["readable"] == "by whoever has it")
        assert left["where"] == f"snapshot {pipeline.namespace}/before"
        assert WORD not in json.dumps(desk.of("ada"))
        desk.json("search", f"{WORD}*", expect=1)
    finally:
        snapshot.close()


def test_names_and_digests_that_stay_are_said(desk: Desk, pipeline: Pipeline) -> None:
    """With --names, they stay readable in both topics and in a snapshot of before; digests of
    content stay on the events, for guesses to be tested: the certificate says where and to whom."""
    digests = {"content_digest": {"input": "ab" * 16}}
    pipeline.publish([said("ada", "metadata", gatebook=digests)])
    pipeline.wait_indexed(1)
    assert "content_digest" in desk.of("ada")[0]["gatebook"]
    snapshot = Snapshot(pipeline)
    try:
        plan = desk.subject("erase", "ada", "--names", "--dry-run")
        certificate = desk.erase("ada", "--names", expect=1)
    finally:
        snapshot.close()
    in_open = [
        left for left in certificate["remains"] if left["what"] == "user.name and user.email"
    ]
    assert {(left["where"], left["readable"]) for left in in_open} == {
        ("the topic access.v1, and spools of producers", "by whoever reads this topic"),
        ("the topic event.v1", "by whoever reads this topic"),
        (f"snapshot {pipeline.namespace}/before", "by whoever has it"),
    }
    assert any(d["user"]["name"] == "Ada" for d in in_kafka(pipeline) if "user" in d)
    (digested,) = (r for r in certificate["remains"] if "content_digest" in r["what"])
    assert "producers' digest key" in digested["readable"]
    assert certificate["complete"] is False
    assert set(certificate["complete_when"]) == {
        *(left["until"] for left in in_open),
        *(left["until"] for left in certificate["remains"] if "intake" in left["readable"]),
    }
    assert [left["what"] for left in plan["remains"]] == [
        left["what"] for left in certificate["remains"]
    ]


def test_a_dry_run_changes_nothing_and_a_certificate_verifies(
    desk: Desk, pipeline: Pipeline, tmp_path: Path
) -> None:
    """--dry-run tells what would go, documents of before there were tags included; nobody is
    erased by a wrong name; the certificate in a file verifies until it is changed; what was asked
    and done are events."""
    pipeline.publish([said("ada") for _ in range(2)])
    pipeline.wait_indexed(2)
    put_untagged(pipeline, "ada")
    before = desk.of("ada")
    plan = desk.subject("erase", "ada", "--dry-run")
    assert (plan["documents"], plan["documents_with_content"]) == (3, 3)
    assert plan["documents_of_version_1"] == 1
    assert desk.of("ada") == before
    desk.subject("erase", "adda", "--yes", expect=1)
    file = tmp_path / "certificate.json"
    desk.run(
        "subject", "erase", "ada", "--tenant", TENANT, "--reason", "art. 17", "--names", "--yes",
        "--output", str(file),
    )  # fmt: skip
    assert WORD not in json.dumps(pipeline.documents())
    assert {d["user"]["name"] for d in desk.of("ada")} == {f"[ERASED_{desk.tag('ada')[:16]}]"}
    assert all(verify_document(d).holds for d in desk.of("ada"))
    public = pipeline.home / "keys" / "certificates.pub"
    desk.run("subject", "verify-certificate", str(file), "--public-key", str(public))
    file.write_text(file.read_text().replace("art. 17", "art. 18"))
    desk.run("subject", "verify-certificate", str(file), expect=1)
    actions = ("subject.plan_erase", "subject.erase", "subject.erased")
    wait_until(
        "events of the acts",
        lambda: set(actions) <= {d["event"].get("action") for d in pipeline.documents()},
    )


def test_what_comes_again_is_not_kept_and_what_comes_anew_is(
    desk: Desk, pipeline: Pipeline
) -> None:
    """Raw frames of before the erasure, read again or late, bring no content back and conflict
    with nothing; what the person writes afterwards is kept under a new key."""
    old, late = said("ada"), said("ada")
    frame = pipeline.frame([old])
    pipeline.send(frame, "p1", {"gatebook-count": "1"})
    pipeline.wait_indexed(1)
    desk.erase("ada")
    new = said("ada")
    pipeline.send(frame, "p1", {"gatebook-count": "1"})
    pipeline.publish([late])
    pipeline.publish([new])
    ids = {e["event"]["id"] for e in (old, late, new)}
    wait_until("all three", lambda: ids <= {d["event"]["id"] for d in desk.of("ada")})
    found = {d["event"]["id"]: d["gatebook"]["sealed"] for d in desk.of("ada")}
    assert set(found[old["event"]["id"]]) == {"key_id"}
    assert found[late["event"]["id"]] == {"failed": "subject_erased"}
    assert found[new["event"]["id"]]["key_id"] == f"{desk.tag('ada')}.1"
    shown = desk.json("show", new["event"]["id"], "--reveal", "full", "--reason", "test")
    assert shown["content"]["full"]["content"] == json.loads(new["content"])
    assert pipeline.indexed("deadletter") == 0


def test_a_legal_hold_stands_in_the_way(desk: Desk, pipeline: Pipeline) -> None:
    """Under a hold the erasure is refused with who holds, and nothing is touched; released, it
    goes through."""
    pipeline.publish([said("ada")])
    pipeline.wait_indexed(1)
    before = desk.of("ada")
    desk.subject("hold", "ada", "--hold-id", "case-4711")
    refused = desk.erase("ada", expect=4)
    assert "case-4711" in refused["error"]
    assert desk.of("ada") == before
    listed = desk.json("subject", "list-holds")
    assert [s["holds"][0]["id"] for s in listed["subjects"]] == ["case-4711"]
    desk.subject("release", "ada", "--hold-id", "case-4711")
    assert desk.erase("ada")["documents_with_content"] == 1


def test_holds_of_retentions_stand_in_the_way_too(desk: Desk, pipeline: Pipeline) -> None:
    """A hold by tenant or time bars everybody of it, one by query or trace whom it matches: the
    erasure names its id and nothing of what it is about, and touches nothing. Others are erased."""
    pipeline.publish([said("ada"), said("eve")])
    pipeline.wait_indexed(2)
    before = desk.of("ada")
    held = (
        ("case-1", ("--tenant", TENANT)),
        ("case-2", ("--query", "user.id:ada and @timestamp >= now-1d")),
        ("case-3", ("--since", "now-1d")),
    )
    for name, what in held:
        hold_by_retention(desk, name, *what)
        refused = desk.erase("ada", expect=4)
        assert f"under legal hold ({name} by " in refused["error"]
        assert "user.id" not in refused["error"]
        assert "secret case" not in refused["error"]
        assert desk.of("ada") == before
        if name == "case-1":  # also where the person is named by a tag, which names no tenant
            asked = ("subject", "erase", desk.tag("ada"), "--tag", "--reason", "test")
            plan = desk.json(*asked, "--dry-run", expect=4)
            assert [one["id"] for one in plan["holds"]] == [name]
        desk.run("retention", "release", name, "--reason", "test")
    hold_by_retention(desk, "elsewhere", "--tenant", "other")
    hold_by_retention(desk, "eve", "--query", "user.id:eve")
    hold_by_retention(desk, "long-ago", "--since", "90d", "--until", "60d")
    assert desk.erase("ada")["documents_with_content"] == 1
    assert "(eve by " in desk.erase("eve", expect=4)["error"]


def test_a_hold_by_tenant_covers_what_is_not_indexed_yet(desk: Desk, pipeline: Pipeline) -> None:
    """While index stands still, what somebody wrote is in Kafka alone, and is held all the same."""
    pipeline.kill(pipeline.workers[1])
    pipeline.publish([said("ada")])
    tags = pipeline.home / "keys" / "subject-tags.key"
    wait_until("intake has its keys", tags.exists, 60)
    key = f"/{pipeline.namespace}-subject-keys/_doc/{desk.tag('ada')}.0"
    wait_until("intake has sealed it", lambda: pipeline.http.get(key).status_code == 200, 60)
    hold_by_retention(desk, "case-1", "--tenant", TENANT)
    assert "case-1" in desk.erase("ada", expect=4)["error"]
    assert pipeline.http.get(key).status_code == 200


def hold_by_retention(desk: Desk, name: str, *what: str) -> None:
    """Put a hold of retention's."""
    desk.run("retention", "hold", "--hold-id", name, "--reason", "a secret case", *what)


def test_nobody_evades_an_erasure_by_naming_somebody_else(desk: Desk, pipeline: Pipeline) -> None:
    """Export, hold and erasure of a person who proved who they are reach what they wrote, also
    where their requests name a random user; end users behind an app's own key go by their names."""
    mine = [said("alice", gatebook=by("oidc", uuid.uuid4().hex)) for _ in range(3)]
    others = [said("app", gatebook=by("api_key", "carol")) for _ in range(2)]
    pipeline.publish(mine + others)
    pipeline.wait_indexed(5)
    folder = pipeline.home / "alice"
    exported = desk.subject("export", "alice", "--reveal", "full", "--output", str(folder))
    assert exported["documents"] == 3
    assert all(e["event"]["id"] in (folder / "events.ndjson").read_text() for e in mine)
    desk.subject("hold", "alice", "--hold-id", "case-1")
    desk.erase("alice", expect=4)
    desk.subject("release", "alice", "--hold-id", "case-1")
    assert desk.erase("alice")["documents_with_content"] == 3
    for event in mine:
        shown = desk.json("show", event["event"]["id"], "--reveal", "full", "--reason", "test")
        assert {layer["state"] for layer in shown["content"].values()} == {"erased"}
    assert len(desk.of("carol")) == 2
    assert desk.erase("carol")["documents_with_content"] == 2


def by(method: str, named: str) -> dict[str, Any]:
    """A verified caller who names an end user."""
    return {"identity": {"method": method, "assurance": "verified", "on_behalf_of": named}}
