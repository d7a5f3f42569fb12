"""`gatebook subject erase` and summaries, as an operator sees them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.integration.privacy.subject_tools import Desk, said
from tests.pipeline import Pipeline

from gatebook.processors.sinks.connection import Connection
from gatebook.processors.sinks.settings import ElasticsearchSettings

# The operator's own acts of today are accesses, too.
WHAT = ("--until", "1d", "--by", "user", "--by", "principal")


def stored(url: str, namespace: str) -> str:
    """Every row of summaries, and the state they keep, as text."""

    async def look() -> str:
        connection = Connection(ElasticsearchSettings(url=url))
        try:
            every = f"/{namespace}-summary,{namespace}-rollup-state"
            await connection.request("POST", f"{every}/_refresh")
            answer = await connection.request("POST", f"{every}/_search", json={"size": 1_000})
            assert answer.status == 200
            return json.dumps(answer.body["hits"]["hits"])
        finally:
            await connection.close()

    return asyncio.run(look())


def test_an_erasure_takes_the_person_out_of_summaries(pipeline: Pipeline, engines: Any) -> None:
    """The command reaches rows of hours and of days and says how many; all counts are as before,
    for the others by name and for the person under a mark that stands for nobody."""
    desk = Desk(pipeline)
    pipeline.publish([said(who, days_ago=2) for who in ("ada", "ada", "bob")])
    pipeline.wait_indexed(3)
    desk.run("summary", "run")
    before = desk.json("summary", "show", *WHAT)["groups"]
    assert sorted((one["user"], one["events"]) for one in map(named, before)) == [
        ("ada", 2),
        ("bob", 1),
    ]
    assert '"ada"' in stored(engines.elasticsearch_url, pipeline.namespace)

    certificate = desk.erase("ada")
    assert certificate["summary_rows"] > 0
    assert '"ada"' not in stored(engines.elasticsearch_url, pipeline.namespace)
    after = desk.json("summary", "show", *WHAT)["groups"]
    assert sorted((one["user"], one["events"]) for one in map(named, after)) == [
        ("", 2),
        ("bob", 1),
    ]
    (hidden,) = (one for one in map(named, after) if not one["user"])
    assert hidden["principal"].startswith("[ERASED_")
    assert sum(one["principals"] for one in after) == sum(one["principals"] for one in before)
    desk.run("summary", "check", *WHAT[:2])


def named(group: dict[str, Any]) -> dict[str, Any]:
    """A group with short names for who it is about."""
    return {**group, "user": group["user.id"], "principal": group["gatebook.principal"]}
