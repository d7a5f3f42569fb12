"""Settings of alert targets refuse what is dangerous, and never repeat a secret."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from gatebook.processors.alerts.addresses import (
    AddressPolicy,
    AddressRefused,
    GuardedResolver,
    parse_networks,
)
from gatebook.processors.alerts.plan import load_plan
from gatebook.processors.alerts.secrets import read_secret
from gatebook.processors.alerts.settings import load_alert_settings
from gatebook.schemas.errors import Fatal

PUBLIC = "https://alerts.example.org"
URL = "GATEBOOK_ALERTMANAGER_URL"
BEARER = "GATEBOOK_ALERTMANAGER_BEARER_TOKEN"
USER = "GATEBOOK_ALERTMANAGER_BASIC_USER"
PASSWORD = "GATEBOOK_ALERTMANAGER_BASIC_PASSWORD"
SECRET = "hunter2hunter2"


def targets_of(environment: dict[str, str]) -> list[str]:
    """Names of the targets that these variables give."""
    return list(load_plan(load_alert_settings(environment)).targets)


def test_without_a_url_there_is_no_target() -> None:
    """Nothing set means no alerts, not an error."""
    assert targets_of({}) == []


@pytest.mark.parametrize(
    "url",
    [
        "ftp://alerts.example.org",
        "file:///etc/passwd",
        "alerts.example.org:9093",
        "https://",
        f"https://me:{SECRET}@alerts.example.org",
        f"https://{SECRET}@alerts.example.org",
        f"https://alerts.example.org/?token={SECRET}",
        f"https://alerts.example.org/#{SECRET}",
        "https://alerts.example.org:99999",
        "https://alerts.example.org/ x",
        "https://alerts.example.org/\r\nX: y",
        "http://127.0.0.1:9093",
        "http://[::1]:9093",
        "http://[::ffff:127.0.0.1]:9093",
        "http://10.0.0.5:9093",
        "http://192.168.1.1",
        "http://[fc00::1]",
        "http://0.0.0.0:9093",
        "http://169.254.169.254/latest",
        "http://[fe80::1%25eth0]:9093",
        "http://[fd00:ec2::254]/",
        "http://100.100.100.200/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:7f00:1::]/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
    ],
)
def test_a_dangerous_url_is_refused(url: str) -> None:
    """Other schemes, users, queries, and addresses that are not public stop the start; the
    message does not repeat the URL."""
    with pytest.raises(Fatal) as error:
        targets_of({URL: url})
    assert SECRET not in str(error.value) + error.value.next_step
    assert error.value.next_step


@pytest.mark.parametrize(
    "url",
    ["https://alerts.example.org/alertmanager/", "http://alerts:9093", "http://8.8.8.8:9093"],
)
def test_a_public_url_passes(url: str) -> None:
    """Names and public addresses need no permission."""
    assert targets_of({URL: url}) == ["alertmanager"]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9093", "http://[::1]:9093", "http://10.1.2.3", "http://[fd12::1]"]
)
def test_private_addresses_pass_where_allowed(url: str) -> None:
    """On premises, one setting lets loopback and private addresses pass."""
    assert targets_of({URL: url, "GATEBOOK_ALERT_ALLOW_PRIVATE": "true"})


@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "::"])
def test_metadata_needs_its_network_named(address: str) -> None:
    """Metadata addresses pass only where their network is named, not as private ones."""
    there = ip_address(address)
    assert AddressPolicy(allow_private=True).refuses(there)
    assert not AddressPolicy(networks=parse_networks(f"10.0.0.0/8, {address}")).refuses(there)


class FixedResolver(AbstractResolver):
    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=a, port=port, family=2, proto=0, flags=0)
            for a in self._addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("8.8.8.8", "169.254.169.254")])
async def test_a_name_that_leads_inside_is_refused(addresses: tuple[str, ...]) -> None:
    """A good name may be turned to a bad address later; one bad address among good ones is
    enough to refuse it."""
    resolver = GuardedResolver(AddressPolicy(), FixedResolver(*addresses))
    with pytest.raises(AddressRefused):
        await resolver.resolve("alerts.example.org", 443)


async def test_a_name_that_leads_outside_resolves() -> None:
    """A name with public addresses gives them."""
    resolver = GuardedResolver(AddressPolicy(), FixedResolver("8.8.8.8"))
    found = await resolver.resolve("alerts.example.org", 443)
    assert [row["host"] for row in found] == ["8.8.8.8"]


@pytest.mark.parametrize(
    "environment",
    [
        {BEARER: SECRET},
        {BEARER: f"plain:{SECRET}"},
        {BEARER: "env:"},
        {USER: "me"},
        {PASSWORD: "env:PASS"},
        {USER: "me", PASSWORD: SECRET},
        {USER: "me", PASSWORD: "env:PASS", BEARER: "env:TOKEN"},
        {"GATEBOOK_ALERT_DEADLINE_SECONDS": "-1"},
        {"GATEBOOK_ALERT_DEADLINE_SECONDS": SECRET},
        {"GATEBOOK_ALERT_ALLOWED_NETWORKS": "everything"},
        {"GATEBOOK_ALERT_RESEND_SECONDS": "100", "GATEBOOK_ALERT_ACTIVE_SECONDS": "120"},
        {"GATEBOOK_ALERTS_FILE": "none.toml"},
        {"GATEBOOK_SEARCH_BASE_URL": "javascript:alert(1)"},
        {"GATEBOOK_RUNBOOK_URL": f"https://me:{SECRET}@wiki"},
    ],
)
def test_a_wrong_setting_stops_the_start(environment: dict[str, str]) -> None:
    """Inline secrets, half a login and figures out of range are told without their value."""
    with pytest.raises(Fatal) as error:
        targets_of({URL: PUBLIC, **environment})
    assert SECRET not in str(error.value) + error.value.next_step


def test_credentials_do_not_go_over_plain_http() -> None:
    """A token over http needs a setting that says so."""
    environment = {URL: "http://alerts.example.org", BEARER: "env:TOKEN"}
    with pytest.raises(Fatal, match="plain http"):
        targets_of(environment)
    allowed = {**environment, "GATEBOOK_ALERTMANAGER_PLAINTEXT_AUTH": "allow"}
    assert targets_of(allowed)


def test_a_secret_is_read_from_its_place(tmp_path: Path) -> None:
    """From a variable or a file, without the line's end."""
    file = tmp_path / "token"
    file.write_text(SECRET + "\n")
    assert read_secret("env:TOKEN", {"TOKEN": SECRET}) == SECRET
    assert read_secret(f"file:{file}") == SECRET


@pytest.mark.parametrize("content", [b"", b"\n", b"a\r\nX-Evil: 1", b"\xff\xfe", b"x" * 100_000])
def test_a_secret_that_cannot_be_a_header_is_refused(content: bytes, tmp_path: Path) -> None:
    """Missing, empty, too long or of several lines: an error that names the reference, without
    what was read."""
    file = tmp_path / "token"
    file.write_bytes(content)
    for reference in (f"file:{file}", f"file:{tmp_path / 'none'}", "env:NONE"):
        with pytest.raises(ValueError, match=r"is missing|is malformed") as error:
            read_secret(reference, {})
        assert "Evil" not in str(error.value)


def test_a_refused_target_is_named(tmp_path: Path) -> None:
    """Of many in a file, the one that is wrong."""
    file = tmp_path / "alerts.toml"
    file.write_text(
        '[targets.good]\ntype = "alertmanager"\nurl = "https://alerts.example.org"\n'
        '[targets.inner]\ntype = "alertmanager"\nurl = "http://127.0.0.1:9093"\n'
    )
    with pytest.raises(Fatal, match=r"alert target inner: .* loopback"):
        targets_of({"GATEBOOK_ALERTS_FILE": str(file)})
