"""A namespace for each test of summaries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.integration.summaries.book import Book


@pytest.fixture
async def book(engines: Any, namespace: str) -> AsyncIterator[Book]:
    found = Book(engines.elasticsearch_url, namespace)
    await found.prepare()
    yield found
    await found.close()
