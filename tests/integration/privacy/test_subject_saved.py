"""An erasure tells which saved searches hold the id of whom it is about."""

from __future__ import annotations

from typing import Any

from tests.access_service import running_service
from tests.integration.privacy.subject_tools import TENANT, Desk, said
from tests.pipeline import Pipeline

from gatebook.processors.serve.app import create_app


async def test_an_erasure_names_the_saved_searches_that_stay(pipeline: Pipeline) -> None:
    """By id, masked id or tag, in query or name; others are not told of, and none is changed."""
    desk = Desk(pipeline)
    pipeline.publish([said("ada"), said("gus")])
    pipeline.wait_indexed(2)
    url, namespace = pipeline.engines.elasticsearch_url, pipeline.namespace
    async with (
        running_service(url, namespace, make=create_app) as service,
        await service.by_token("analyst") as client,
    ):
        for name, query in (
            ("by id", "user.id:ada and event.outcome:failure"),
            ("by tag", f"gatebook.subject:{desk.tag('ada')}"),
            ("of another", "user.id:gus"),
        ):
            body: dict[str, Any] = {"name": name, "query": query}
            made = await client.post("/api/v1/saved-searches", json=body)
            assert made.status_code == 201, made.text
        plan = desk.subject("erase", "ada", "--dry-run")
        assert {one["name"] for one in plan["saved_searches"]} == {"by id", "by tag"}
        assert all(one["owner"].startswith("api-token/") for one in plan["saved_searches"])
        who = ("subject", "erase", "ada", "--tenant", TENANT, "--reason", "test", "--yes")
        told = desk.run(*who).stderr
        assert told.count("stays: the saved search") == 2
        assert "'by id' of api-token/" in told
        left = (await client.get("/api/v1/saved-searches")).json()["saved_searches"]
        assert len(left) == 3
