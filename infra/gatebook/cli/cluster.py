"""Work for commands on the cluster of the settings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from gatebook.cli.privileged import Witness
    from gatebook.processors.config import WorkerSettings
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


def run_privileged(work: Callable[[WorkerSettings, Connection, Witness], Awaitable[T]]) -> T:
    """The same for acts that are recorded before they are done, with what records them; where the
    work fails, that is told of the act that was recorded last."""
    import asyncio

    from gatebook.cli.privileged import Witness
    from gatebook.processors.config import from_env
    from gatebook.processors.search.service import SearchFailed
    from gatebook.processors.sinks.connection import Connection, Unreachable
    from gatebook.processors.sinks.settings import elasticsearch_settings
    from gatebook.processors.subjects.store import StoreAway

    settings, witness = from_env(), Witness()
    connection = Connection(elasticsearch_settings(url=settings.elasticsearch_url))

    async def run() -> T:
        try:
            return await work(settings, connection, witness)
        except (StoreAway, Unreachable) as error:
            raise SearchFailed(
                f"Elasticsearch does not do it at {connection.address} ({error})",
                "see that it runs, then run the same command again",
            ) from None
        finally:
            await connection.close()

    try:
        return asyncio.run(run())
    except Exception as error:
        witness.failed(error)
        raise
    finally:
        witness.close()
