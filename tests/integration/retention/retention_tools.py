"""What the tests of retention share: days of documents in a real index, and a manager."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gatebook.processors import render
from gatebook.processors.retention.elastic import Cluster
from gatebook.processors.retention.holds import Hold
from gatebook.processors.retention.manager import Manager
from gatebook.processors.retention.state import State
from gatebook.processors.setup import setup_elasticsearch
from gatebook.processors.sinks.base import Row
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.sinks.elasticsearch import ElasticsearchSink
from gatebook.processors.sinks.settings import ElasticsearchSettings, SinkSettings
from gatebook.processors.subjects.certificate import Signer
from gatebook.processors.subjects.erasure import Privileged
from gatebook.processors.subjects.identity import SubjectTags
from gatebook.processors.subjects.layers import commitment_to_names

TAGS = SubjectTags(b"a key of tags, for tests")
POLICY = b"""
version = 1
name = "test"
summaries = false

[defaults]
metadata = "30d"
redacted = "10d"
full = "5d"

[classes]
long = "400d"

[kinds]
finding = "20d"
alert = "20d"
deadletter = "20d"

[[rule]]
name = "brief"
match = { tenant = "brief-*" }
metadata = "3d"

[[rule]]
name = "noise"
match = { tenant = "noise" }
sample_after = "2d"
keep_one_in = 4
"""


TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
"""Of the whole run, were it to go on past midnight: no age here is within a day of a limit."""


def day(days_ago: int) -> str:
    """The UTC day so long ago, as it stands in names of indices."""
    return (TODAY - timedelta(days=days_ago)).strftime("%Y.%m.%d")


def document(
    number: int, days_ago: int, tenant: str = "acme", level: str = "metadata", **more: Any
) -> dict[str, Any]:
    """An access event as it stands in the index, with content as its level says."""
    at = TODAY.replace(hour=number % 24)
    found: dict[str, Any] = {
        "@timestamp": (at - timedelta(days=days_ago)).strftime("%Y-%m-%dT%H:%M:%S.000000000Z"),
        "event": {
            "id": f"{tenant}-{days_ago}-{number:05d}",
            "action": "chat",
            "outcome": "success",
        },
        "user": {"id": f"user-{number % 7}"},
        "organization": {"id": tenant},
        "gen_ai": {"request": {"model": "slm"}},
        "trace": {"id": f"trace-{tenant}-{number}"},
        "gatebook": {
            "phase": "terminal",
            "principal": f"user:user-{number % 7}",
            "subject": f"tag-{number % 7}",
            "capture": {"level": level},
            **more.pop("gatebook", {}),
        },
        **more,
    }
    if level != "metadata":
        texts = {"input": {"messages": "the walrus"}, "output": {"messages": "sings"}}
        found["gen_ai"].update(texts)
        sealed = {"key_id": f"tag-{number % 7}.0", "redacted": "cmVkYWN0ZWQ="}
        found["gatebook"]["sealed"] = {
            **sealed,
            **({"full": "ZnVsbA=="} if level == "full" else {}),
        }
        names = {"user.id": b"x"}
        commitment = commitment_to_names(found["gatebook"]["subject"], names, TAGS)
        found["gatebook"]["content"] = {"commitment": commitment}
    return found


def row(source: dict[str, Any], kind: str = "access") -> Row:
    """The document as a sink takes it."""
    digest, body = render.render(source, time.time_ns())
    index_day = source["@timestamp"][:10].replace("-", ".")
    return Row(kind, index_day, source["event"]["id"], digest, body)


class Store:
    """A namespace on the real Elasticsearch: a sink, a manager, a look at what is there."""

    def __init__(self, url: str, namespace: str, home: Path) -> None:
        self.url = url
        self.namespace = namespace
        self.home = home
        self.connection = Connection(ElasticsearchSettings(url=url))
        self.cluster = Cluster(self.connection, namespace)
        self.state = State(self.cluster)
        self.acts: list[Privileged] = []
        self.held: dict[str, Any] = {}
        self.sink = self.new_sink()

    def new_sink(self) -> ElasticsearchSink:
        """A sink that knows nothing yet, as after a restart."""
        settings = SinkSettings(
            retry_base_seconds=0.01,
            retry_cap_seconds=0.1,
            max_age_days=5000,
            retry_limit_seconds=60,
        )
        return ElasticsearchSink(self.namespace, self.connection, settings, gate_lease_seconds=0.0)

    async def open(self) -> Store:
        await setup_elasticsearch(ElasticsearchSettings(url=self.url), self.namespace)
        return self

    def manager(self, policy: bytes = POLICY, **more: Any) -> Manager:
        async def record(act: Privileged) -> None:
            self.acts.append(act)

        async def subjects() -> Mapping[str, Any]:
            return self.held

        signer = Signer.from_file(self.home / "certificates.key")
        given = {"gate_lease_seconds": 0.0, **more}
        return Manager(self.cluster, self.state, policy, signer, record, subjects, **given)

    async def write(self, *sources: dict[str, Any], kind: str = "access") -> Any:
        """Through the sink, as a worker does."""
        return await self.sink.write([row(source, kind) for source in sources])

    async def hits(self, kind: str = "access") -> dict[str, dict[str, Any]]:
        """What a search over the alias finds, by id; an id that is found twice fails."""
        alias = f"/{self.namespace}-{kind}"
        await self.cluster.ask("POST", f"{alias}/_refresh", absent={})
        found = await self.cluster.ask(
            "POST", f"{alias}/_search", absent={"hits": {"hits": []}}, json={"size": 10_000}
        )
        hits = {hit["_id"]: hit for hit in found["hits"]["hits"]}
        assert len(hits) == len(found["hits"]["hits"])
        return hits

    async def indices(self, kind: str = "access") -> list[str]:
        """Names of the concrete indices of a kind, without the namespace."""
        prefix = f"{self.namespace}-"
        return [one.name.name.removeprefix(prefix) for one in await self.cluster.indices(kind)]

    def hold(self, name: str, **what: Any) -> Hold:
        """A hold of retention's own."""
        return Hold(id=name, reason="case 1", by="ada", at="2026-01-01T00:00:00Z", **what)

    async def close(self) -> None:
        every = {"expand_wildcards": "all"}
        answer = await self.connection.request(
            "GET", f"/{self.namespace}-*/_settings", params=every
        )
        names = [name for name in answer.body if name.startswith(self.namespace)]
        for name in names:
            await self.connection.request("DELETE", f"/{name}")
        await self.sink.close()
        await self.connection.close()


def run(work: Any) -> Any:
    """Run a coroutine to its end."""
    return asyncio.run(work)
