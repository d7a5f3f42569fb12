"""Where a call came from: the peer, or what trusted proxies say about it.

Only one header is read, the one the proxies are known to write (`forwarded_header`): a proxy that
writes X-Forwarded-For passes a caller's own Forwarded on, and the other way round.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

X_FORWARDED_FOR = "x-forwarded-for"
FORWARDED = "forwarded"
_MAX_ADDRESS_CHARS = 128
_BRACKETED = re.compile(r"\[([^\]]*)\](?::\d{1,5})?")


def parse_address(value: str) -> Address | None:
    """An address as it stands in X-Forwarded-For: plain, in brackets, or with a port. Its zone is
    left out: it means nothing on another host, and no index takes it as an address."""
    value = value.strip()
    return _parsed(value) if len(value) <= _MAX_ADDRESS_CHARS else None


@lru_cache(maxsize=1024)
def _parsed(value: str) -> Address | None:
    if value.startswith("["):
        bracketed = _BRACKETED.fullmatch(value)
        value = bracketed.group(1) if bracketed else ""
    elif value.count(":") == 1:
        value = value.partition(":")[0]
    try:
        found = ipaddress.ip_address(value.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        return found.ipv4_mapped
    return found


def source_address(
    peer: str, forwarded: str, trusted: Sequence[Network], header: str = X_FORWARDED_FOR
) -> str:
    """The caller's address: the nearest hop that is not a trusted proxy.

    Read from the right, since only the entries that trusted proxies appended can be believed; what
    stands further left is whatever the caller wrote. Empty where the peer has no address.
    """
    current = parse_address(peer)
    hops = _hops(forwarded, header) if forwarded else iter(())
    while current is not None and _is_trusted(current, trusted):
        following = parse_address(next(hops, ""))
        if following is None:
            break
        current = following
    return str(current) if current is not None else ""


def source_of(
    client: Any, headers: Mapping[str, str], trusted: Sequence[Network], header: str
) -> str:
    """`source_address` of an ASGI scope's `client` (host, port) and its lower-case headers."""
    host = str(client[0]) if client else ""
    believed = headers.get(header, "") if _may_be_proxy(client) else ""
    return source_address(host, believed, trusted, header)


def is_trusted_peer(client: Any, trusted: Sequence[Network]) -> bool:
    """Whether the other end of the connection, ASGI's `client`, is a trusted proxy."""
    if not trusted or not _may_be_proxy(client):
        return False
    peer = parse_address(str(client[0]))
    return peer is not None and _is_trusted(peer, trusted)


def _may_be_proxy(client: Any) -> bool:
    """No connection comes from port 0: uvicorn writes it where it took the address from a header
    (`--proxy-headers`), and that address may be a caller's own words."""
    return bool(client) and client[1] != 0


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def _hops(forwarded: str, header: str) -> Iterator[str]:
    """Addresses as proxies wrote them, nearest first. Empty for one that cannot be read."""
    if header == FORWARDED:
        yield from (_for_of(element) for element in from_right(forwarded, ",") if element)
    else:
        yield from (hop for hop in reversed(forwarded.split(",")) if hop.strip())


def from_right(value: str, separator: str) -> Iterator[str]:
    """The parts of a header's value from its end, split at separators outside of quotes.

    From the end, so that an unbalanced quote in what a caller wrote cannot swallow what a proxy
    appended to it.
    """
    end, quoted = len(value), False
    for index in range(len(value) - 1, -1, -1):
        if value[index] == '"' and not _is_escaped(value, index):
            quoted = not quoted
        elif value[index] == separator and not quoted:
            yield value[index + 1 : end].strip()
            end = index
    yield value[:end].strip()


def _is_escaped(value: str, index: int) -> bool:
    before = index
    while before and value[before - 1] == "\\":
        before -= 1
    return (index - before) % 2 == 1


def _for_of(element: str) -> str:
    """The `for` of one element of Forwarded (RFC 7239); empty unless there is exactly one."""
    pairs = (pair.partition("=") for pair in from_right(element, ";"))
    found = [value.strip() for name, _, value in pairs if name.strip().lower() == "for"]
    return found[0].strip('"') if len(found) == 1 else ""
