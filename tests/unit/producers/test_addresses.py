"""The caller's address behind proxies."""

from __future__ import annotations

import ipaddress

import pytest

from gatebook.producers.addresses import source_address

TRUSTED = tuple(ipaddress.ip_network(n) for n in ("10.0.0.0/8", "fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "source"),
    [
        ("203.0.113.1", "", "203.0.113.1"),
        ("203.0.113.1", "1.1.1.1", "203.0.113.1"),
        ("10.0.0.1", "198.51.100.2", "198.51.100.2"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.2", "198.51.100.2"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.2, 10.0.0.9", "198.51.100.2"),
        ("10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.2"),
        ("10.0.0.1", "junk", "10.0.0.1"),
        ("10.0.0.1", "1.1.1.1, junk, 10.0.0.9", "10.0.0.9"),
        ("10.0.0.1", "198.51.100.2:4711", "198.51.100.2"),
        ("fd00::1", "[2001:db8::7]:443", "2001:db8::7"),
        ("::ffff:10.0.0.1", "198.51.100.2", "198.51.100.2"),
        ("", "1.1.1.1", ""),
        ("unix:", "1.1.1.1", ""),
    ],
)
def test_only_what_trusted_proxies_appended_is_believed(
    peer: str, forwarded: str, source: str
) -> None:
    """The nearest hop that is not a trusted proxy is the caller."""
    assert source_address(peer, forwarded, TRUSTED) == source
