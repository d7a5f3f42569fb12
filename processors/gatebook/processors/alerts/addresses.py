"""Where an alert may be sent: a guard against requests to addresses nobody meant.

Only public addresses pass by default. An on-call tool on premises is often private or on the same
host: one setting lets loopback and private addresses pass. Link-local and cloud metadata addresses,
and those that cannot be a server, pass only where a setting names their network. Names are judged
by what they resolve to, at every connection.
"""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import NamedTuple
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from gatebook.schemas.errors import Fatal

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NAT64 = IPv6Network("64:ff9b::/96")
_METADATA: tuple[Network, ...] = (
    IPv4Network("100.100.100.200/32"),
    IPv4Network("192.0.0.192/32"),
    IPv4Network("168.63.129.16/32"),
    IPv6Network("fd00:ec2::/32"),
    IPv6Network("fd20:ce::254/128"),
)
_PRIVATE: tuple[Network, ...] = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("100.64.0.0/10"),
    IPv6Network("fc00::/7"),
)


def parse_networks(text: str) -> tuple[Network, ...]:
    """Comma-separated networks, for example `127.0.0.0/8, ::1/128`. Fatal for anything else."""
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError:
        raise Fatal(
            "GATEBOOK_ALERT_ALLOWED_NETWORKS is not a list of networks",
            "write it like 127.0.0.0/8,::1/128",
        ) from None


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 address leads to, where it does."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        return inner or address
    return address


class AddressPolicy(NamedTuple):
    """Which addresses pass besides public ones."""

    allow_private: bool = False
    """Loopback, private and shared addresses."""
    networks: tuple[Network, ...] = ()
    """Whatever lies in these."""

    def refuses(self, address: Address) -> bool:
        """Whether no alert may go to this address."""
        real = _embedded(address)
        if any(address in network or real in network for network in self.networks):
            return False
        never = real.is_link_local or real.is_multicast or real.is_unspecified
        if never or any(real in network for network in _METADATA):
            return True
        if self.allow_private and _is_private(real):
            return False
        return not real.is_global


def _is_private(address: Address) -> bool:
    return address.is_loopback or any(address in network for network in _PRIVATE)


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _odd_number(host: str) -> bool:
    """A short, octal or hexadecimal way to write an address, such as 127.1: some resolvers read
    it and some do not, so that it cannot be judged."""
    last = host.rstrip(".").rpartition(".")[2].lower()
    return _literal(host) is None and (last.isdigit() or last.startswith("0x"))


def check_target_url(url: str, policy: AddressPolicy, allow_query: bool = False) -> None:
    """Refuse, as Fatal, a URL that must not be a target. The URL itself is not repeated: it may
    hold a secret. A host name is judged when it is resolved, by `GuardedResolver`.

    `allow_query`: for a URL that is kept as a secret and may hold a token in its query."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise Fatal("the alert target's URL cannot be read", "write https://host:port") from None
    if parts.scheme not in ("http", "https") or not host:
        raise Fatal("the alert target's URL is not http or https", "write https://host:port")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise Fatal(
            "the alert target's URL holds a user or password",
            "take them out and set the target's user and password by reference",
        )
    if parts.query and not allow_query:
        raise Fatal(
            "the alert target's URL has a query", "give the URL by reference: env:NAME, file:/path"
        )
    if parts.fragment or not url.isprintable() or " " in url:
        raise Fatal("the alert target's URL has a fragment or blank", "give the base URL")
    address = _literal(host)
    if _odd_number(host) or (address is not None and policy.refuses(address)):
        raise Fatal(
            "the alert target is a loopback, private, link-local or metadata address",
            "if that is meant: GATEBOOK_ALERT_ALLOW_PRIVATE=true for loopback and private ones, "
            "else name its network in GATEBOOK_ALERT_ALLOWED_NETWORKS",
        )


class AddressRefused(OSError):
    """A name led to an address that no alert may go to."""


class GuardedResolver(AbstractResolver):
    """Resolves names, and refuses those that lead to a refused address, each time anew: a name
    that was good at start may be turned to a metadata address later."""

    def __init__(self, policy: AddressPolicy, resolver: AbstractResolver | None = None) -> None:
        self._policy = policy
        self._resolver = resolver or ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        """Addresses of a host; AddressRefused where any of them is refused."""
        from socket import AddressFamily

        found = await self._resolver.resolve(host, port, AddressFamily(family))
        for row in found:
            address = _literal(row["host"])
            if address is None or self._policy.refuses(address):
                raise AddressRefused("the name leads to a refused address")
        return found

    async def close(self) -> None:
        """Release the inner resolver."""
        await self._resolver.close()
