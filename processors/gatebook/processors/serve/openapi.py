"""Writes the API's description: `python -m gatebook.processors.serve.openapi > openapi.json`."""

from __future__ import annotations

import json
import sys
from typing import Any

from gatebook.processors.serve.app import create_app, describe
from gatebook.processors.serve.deps import Deps
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.sinks.settings import ElasticsearchSettings


class _NoAudit:
    """Nothing is served here, so there is nothing to record."""

    def note(self, *_given: Any) -> None:
        """Nothing."""

    async def look(self, *_given: Any) -> None:
        """Nothing."""

    async def record(self, *_given: Any) -> None:
        """Nothing."""


def description() -> dict[str, Any]:
    """The OpenAPI description of the service; asks no server."""
    connection = Connection(ElasticsearchSettings(url="http://127.0.0.1:9"))
    return describe(create_app(Deps(connection, "gatebook", _NoAudit())))


if __name__ == "__main__":
    json.dump(description(), sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")
