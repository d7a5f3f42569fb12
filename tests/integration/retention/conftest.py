"""A namespace in Elasticsearch for a test of retention."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.retention.retention_tools import Store


@pytest.fixture
async def store(engines: Any, namespace: str, tmp_path: Path) -> AsyncIterator[Store]:
    """Templates are installed; nothing is indexed."""
    found = await Store(engines.elasticsearch_url, namespace, tmp_path).open()
    yield found
    await found.close()
