"""Where a key was used."""

from __future__ import annotations

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.kinds.distinct import DistinctParameters
from gatebook.processors.detect.new_address.logic import network_of


def item(access: Access, parameters: DistinctParameters) -> str:
    """The network it came from."""
    return network_of(access.source_ip)
