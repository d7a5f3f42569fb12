"""Real Kafka and Elasticsearch for a laptop or a test run.

    from gatebook.engines import EngineSettings, start, stop
    endpoints = start(EngineSettings.from_environment())

One room per file: `selection` chooses between `external`, `containers` and `embedded`;
`embedded` starts `kafka` and `elasticsearch` from `jars` on the packaged `java`; `processes`
and `state` find them again; `preflight` and `doctor` look at the surroundings.
"""

from gatebook.engines.errors import EngineError
from gatebook.engines.selection import start, status, stop
from gatebook.engines.settings import Endpoints, EngineSettings, EngineStatus, Status

__all__ = [
    "Endpoints",
    "EngineError",
    "EngineSettings",
    "EngineStatus",
    "Status",
    "start",
    "status",
    "stop",
]
