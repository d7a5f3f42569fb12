"""Whether a cluster can keep its indices with the codec best_compression.

Where the codec's native library is missing, an index takes the setting and the documents, and then
its first commit fails and the shard is lost. Only trying tells: with an index of one document.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from gatebook.processors.sinks.connection import Answer, Connection

CODEC = "index.codec"
BEST = "best_compression"
DEFAULT = "default"
WAITS_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6)
# What this process found out, by the cluster's own id: a cluster does not change its mind.
_KNOWN: dict[str, bool] = {}


async def has_best_compression(connection: Connection, namespace: str) -> bool:
    """Whether an index of this cluster can be committed with best_compression; False also where it
    could not be found out (no right to create an index, too many shards, too busy).

    One data node is asked: those of a cluster are taken to be alike. Raises Unreachable, Fatal.
    """
    cluster = await _id_of(connection)
    if cluster in _KNOWN:
        return _KNOWN[cluster]
    # If we die below, a hidden index of one document stays behind; nothing reads it. A name of its
    # own for each trial, so that two at once do not take each other's index away.
    index = f"{namespace}-codec-trial-{secrets.token_hex(4)}"
    try:
        found = await _tried(connection, index)
    finally:
        await connection.request("DELETE", f"/{index}")
    if found is not None and cluster:
        _KNOWN[cluster] = found
    return bool(found)


async def _id_of(connection: Connection) -> str:
    answer = await connection.request("GET", "/")
    found = answer.body.get("cluster_uuid") if isinstance(answer.body, dict) else None
    return found if isinstance(found, str) and found != "_na_" else ""


async def _tried(connection: Connection, index: str) -> bool | None:
    """Whether a commit succeeds; None where it did not come to one."""
    settings = {
        CODEC: BEST,
        "index.number_of_shards": 1,
        "index.number_of_replicas": 0,
        "index.hidden": True,
    }
    made = await _patiently(connection, "PUT", f"/{index}", {"settings": settings})
    if made.status != 200:
        return None
    written = await _patiently(connection, "PUT", f"/{index}/_doc/1", {"trial": "a" * 1_000})
    if written.status not in (200, 201):
        return None
    return committed(await connection.request("POST", f"/{index}/_flush", params={"force": "true"}))


def committed(answer: Answer) -> bool:
    """Whether the answer to a flush of an index of one shard says that it was done."""
    shards = answer.body.get("_shards") if isinstance(answer.body, dict) else None
    done = shards if answer.status == 200 and isinstance(shards, dict) else {}
    return bool(done.get("successful") == 1 and not done.get("failed"))


async def _patiently(connection: Connection, method: str, path: str, body: Any) -> Answer:
    """An answer that does not say `later`, or the last of some."""
    for wait_seconds in WAITS_SECONDS:
        answer = await connection.request(method, path, json=body)
        if not answer.is_transient:
            return answer
        await asyncio.sleep(wait_seconds)
    return await connection.request(method, path, json=body)
