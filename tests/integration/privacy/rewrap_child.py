"""A rewrap that is killed once some of the keys are under the new wrapping key."""

from __future__ import annotations

import os
import signal
from typing import Any

from gatebook.cli import main
from gatebook.processors.subjects import elastic
from gatebook.processors.subjects.elastic import ElasticStore

_rewrite = ElasticStore.rewrite


async def _rewrite_and_die(self: ElasticStore, changed: Any) -> set[str]:
    await _rewrite(self, changed)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("alive")


if __name__ == "__main__":
    elastic.PAGE_DOCUMENTS = 2
    ElasticStore.rewrite = _rewrite_and_die  # type: ignore[method-assign]
    main.main(["subject", "rewrap", "--reason", "test", "--new-key", "--json"])
