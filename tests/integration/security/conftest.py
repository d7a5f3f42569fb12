"""A broker that asks who you are, one for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.security.secured_broker import SecuredBroker


@pytest.fixture(scope="session")
def secured(engines_home: Path) -> Iterator[SecuredBroker]:
    """Its own data, ports and certificates; gone after the run."""
    broker = SecuredBroker(engines_home / "secured")
    try:
        yield broker
    finally:
        broker.close()
