"""Where a call came from: the peer, or what trusted proxies say about it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_address(value: str) -> Address | None:
    """An address as it stands in X-Forwarded-For: plain, in brackets, or with a port."""
    value = value.strip()
    if value.startswith("["):
        value = value[1:].partition("]")[0]
    elif value.count(":") == 1:
        value = value.partition(":")[0]
    try:
        found = ipaddress.ip_address(value)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        return found.ipv4_mapped
    return found


def source_address(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """The caller's address: the nearest hop that is not a trusted proxy.

    Read from the right, since only the entries that trusted proxies appended can be believed; what
    stands further left is whatever the caller wrote. Empty where the peer has no address.
    """
    current = parse_address(peer)
    hops = [hop for hop in forwarded_for.split(",") if hop.strip()]
    while current is not None and hops and _is_trusted(current, trusted):
        following = parse_address(hops.pop())
        if following is None:
            break
        current = following
    return str(current) if current is not None else ""


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)
