"""The network of an access."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address, ip_network

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.kinds.first_seen import FirstSeenParameters


@lru_cache(maxsize=16_384)
def network_of(address: str) -> str:
    """The /24 or /48 an address is in; empty for what is no address."""
    try:
        prefix = 24 if ip_address(address).version == 4 else 48
        return str(ip_network(f"{address}/{prefix}", strict=False))
    except ValueError:
        return ""


def item(access: Access, parameters: FirstSeenParameters) -> str:
    """Where it came from."""
    return network_of(access.source_ip)
