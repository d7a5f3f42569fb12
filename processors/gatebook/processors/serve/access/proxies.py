"""Whose word is taken on where a request came from."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence


class Proxies:
    """The declared proxies. Without any, nobody's word is taken."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(one, strict=False) for one in networks]

    def has(self, address: str) -> bool:
        """Whether an address is one of theirs."""
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None)
        return any((mapped or found) in network for network in self._networks)

    def address_behind(self, peer: str, forwarded: Sequence[str]) -> str:
        """The address that the last of our proxies saw. What stands before that in
        X-Forwarded-For, the client may have written."""
        address = peer
        for seen in reversed([part.strip() for line in forwarded for part in line.split(",")]):
            if not self.has(address):
                break
            try:
                address = str(ipaddress.ip_address(seen))
            except ValueError:
                break
        return address
