"""Work for commands that read the cluster of the settings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from gatebook.processors.sinks.connection import Connection

T = TypeVar("T")


def run_on_cluster(work: Callable[[Connection], Awaitable[T]]) -> T:
    """Run against the cluster of the settings; an outage becomes an error with a next step."""
    import asyncio

    from gatebook.processors.config import from_env
    from gatebook.processors.search.service import SearchFailed
    from gatebook.processors.sinks.connection import Connection, Unreachable
    from gatebook.processors.sinks.settings import elasticsearch_settings

    connection = Connection(elasticsearch_settings(url=from_env().elasticsearch_url))

    async def run() -> T:
        try:
            return await work(connection)
        except Unreachable as error:
            raise SearchFailed(
                f"Elasticsearch does not answer at {connection.address} ({error})",
                "start it (`gatebook up`), or set GATEBOOK_ELASTICSEARCH_URL",
            ) from None
        finally:
            await connection.close()

    return asyncio.run(run())
