"""The caller's address: X-Forwarded-For and Forwarded, IPv6, ports, garbage."""

from __future__ import annotations

import ipaddress

import pytest

from gatebook.producers.addresses import FORWARDED, parse_address, source_address, source_of

TRUSTED = tuple(ipaddress.ip_network(n) for n in ("10.0.0.0/8", "fd00::/8"))
CALLER = "198.51.100.2"


@pytest.mark.parametrize(
    ("forwarded", "source"),
    [
        (f"for={CALLER}", CALLER),
        (f"for=1.1.1.1, for={CALLER};proto=https;by=10.0.0.1", CALLER),
        (f'For="{CALLER}:4711"', CALLER),
        ('for="[2001:db8::7]:443"', "2001:db8::7"),
        (f"for={CALLER}, for=10.0.0.9", CALLER),
        (f'for=", for={CALLER}', CALLER),
        (f'for="\\", for={CALLER}', CALLER),
        (f'for={CALLER};host="evil;for=1.2.3.4,for=1.2.3.4"', CALLER),
        ("for=1.1.1.1, for=unknown", "10.0.0.1"),
        ("for=1.1.1.1, for=_hidden", "10.0.0.1"),
        ("for=1.1.1.1;for=2.2.2.2", "10.0.0.1"),
        ("for=1.1.1.1, proto=https", "10.0.0.1"),
        (f"for={CALLER},", CALLER),
        ("1.1.1.1", "10.0.0.1"),
        ("", "10.0.0.1"),
    ],
)
def test_forwarded_is_read_from_the_right(forwarded: str, source: str) -> None:
    """RFC 7239, and what a caller wrote before the proxy's element cannot hide that."""
    assert source_address("10.0.0.1", forwarded, TRUSTED, FORWARDED) == source


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25<script>]:80", "fe80::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:1", "192.0.2.1"),
        ("192.0.2.1:65535", "192.0.2.1"),
        ("[2001:db8::1", None),
        ("[2001:db8::1]x", None),
        ("192.0.2.01", None),
        ("\uff11.2.3.4", None),
        ("1.2.3", None),
        ("9" * 5000, None),
    ],
)
def test_an_address_is_one_that_every_index_takes(value: str, address: str | None) -> None:
    """A zone would make the event one that no index accepts."""
    found = parse_address(value)

    assert (str(found) if found else None) == address


def test_only_the_header_that_proxies_write_is_read() -> None:
    """A proxy that writes one of the two passes the caller's own other one on."""
    headers = {"x-forwarded-for": CALLER, "forwarded": "for=6.6.6.6"}

    assert source_of(("10.0.0.1", 9), headers, TRUSTED, "x-forwarded-for") == CALLER
    assert source_of(("10.0.0.1", 9), headers, TRUSTED, "forwarded") == "6.6.6.6"


@pytest.mark.parametrize("client", [None, ("", None), ("unix:/run/x", None)])
def test_a_peer_without_an_address_has_none_by_header_either(client: object) -> None:
    """Nobody knows who wrote the header."""
    assert source_of(client, {"x-forwarded-for": CALLER}, TRUSTED, "x-forwarded-for") == ""


def test_an_address_that_a_server_took_from_a_header_is_no_proxys() -> None:
    """uvicorn writes port 0 then; a caller may have named a proxy's address."""
    headers = {"x-forwarded-for": "6.6.6.6, 10.0.0.1"}

    assert source_of(("10.0.0.1", 0), headers, TRUSTED, "x-forwarded-for") == "10.0.0.1"
