"""Client certificates: of the connection, and as trusted proxies tell of them."""

from __future__ import annotations

import datetime
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gatebook.producers.config import ProducerSettings
from gatebook.producers.identity_mtls import MtlsResolver, common_name, read_xfcc

PROXY, CLIENT = ("10.0.0.1", 4000), ("203.0.113.1", 4000)
TRUSTED = ProducerSettings(trusted_proxies=("10.0.0.0/8",)).trusted_networks()
XFCC, SUBJECT, VERIFY = "x-forwarded-client-cert", "x-ssl-client-s-dn", "x-ssl-client-verify"


@cache
def certificate(spiffe: bool = True) -> str:
    """A client certificate in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    pair = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme, Inc.")]
    subject = x509.Name([*pair, x509.NameAttribute(NameOID.COMMON_NAME, "batch-job")])
    names: list[x509.GeneralName] = [x509.DNSName("batch.example.test")]
    if spiffe:
        names.append(x509.UniformResourceIdentifier("spiffe://example.test/batch"))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    made = builder.sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def resolver(name: str = "subject", verify: str = VERIFY) -> MtlsResolver:
    return MtlsResolver(name, TRUSTED, XFCC, SUBJECT, verify)


def connection(**tls: Any) -> dict[str, Any]:
    return {"client": CLIENT, "extensions": {"tls": {"tls_version": 772, **tls}}}


@pytest.mark.parametrize(
    ("kind", "user_id"),
    [
        ("subject", "CN=batch-job,O=Acme\\, Inc."),
        ("common_name", "batch-job"),
        ("san", "spiffe://example.test/batch"),
    ],
)
def test_the_certificate_of_the_connection_names_the_caller(kind: str, user_id: str) -> None:
    """By what is set: the whole subject, its common name, or the alternative name."""
    found = resolver(kind).resolve(connection(client_cert_chain=[certificate()]), {})

    assert found is not None
    assert (found.method, found.assurance) == ("mtls", "verified")
    assert (found.user_id, found.issuer) == (user_id, "CN=Test CA")


def test_the_name_that_the_server_read_is_enough() -> None:
    """A server may tell the name without the certificate."""
    found = resolver().resolve(connection(client_cert_name="CN=svc"), {})

    assert found is not None
    assert found.user_id == "CN=svc"


def test_without_an_uri_the_dns_name_is_the_alternative_name() -> None:
    """The kinds have an order."""
    found = resolver("san").resolve(connection(client_cert_chain=[certificate(False)]), {})

    assert found is not None
    assert found.user_id == "batch.example.test"


def test_a_certificate_that_did_not_verify_is_failed_and_names_nobody() -> None:
    """The server's own error counts before what the certificate says."""
    scope = connection(client_cert_chain=[certificate()], client_cert_error="expired")

    found = resolver().resolve(scope, {})

    assert found is not None
    assert (found.assurance, found.user_id) == ("failed", "")
    assert found.reason == "certificate_not_verified"


@pytest.mark.parametrize("chain", [["junk"], ["-----BEGIN CERTIFICATE-----\nAA\n"], ["x" * 99_999]])
def test_a_certificate_that_cannot_be_read_names_nobody(chain: list[str]) -> None:
    """It is failed, not an error."""
    found = resolver().resolve(connection(client_cert_chain=chain), {})

    assert found is not None
    assert (found.assurance, found.reason) == ("failed", "no_name")


@pytest.mark.parametrize("scope", [{}, connection(), {"extensions": {"tls": None}, "client": None}])
def test_a_connection_without_a_certificate_says_nothing(scope: dict[str, Any]) -> None:
    """The next resolver is asked."""
    assert resolver().resolve(scope, {}) is None


ENVOY = (
    'By=spiffe://x/us;Hash=ab;Subject="CN=alice,O=\\"A;B, C\\"";URI=spiffe://x/alice;'
    "DNS=a.example;DNS=b.example"
)


def test_envoys_header_is_read_by_its_last_element() -> None:
    """What a caller put before the proxy's element does not count, unbalanced quotes included."""
    for before in ("", 'Subject="CN=root";URI=spiffe://x/root,', 'Subject="CN=root,', '"\\",'):
        read = read_xfcc(before + ENVOY)
        assert read.subject == 'CN=alice,O="A;B, C"'
        assert read.alternatives == {"uri": "spiffe://x/alice", "dns": "a.example"}
        found = resolver("san").resolve({"client": PROXY}, {XFCC: before + ENVOY})
        assert found is not None
        assert (found.assurance, found.user_id) == ("verified", "spiffe://x/alice")


@pytest.mark.parametrize(
    ("said", "assurance"),
    [("SUCCESS", "verified"), ("0", "verified"), ("FAILED:expired", "failed"), ("", "failed"),
     ("success,SUCCESS", "failed"), ("10", "failed")],
)  # fmt: skip
def test_a_subject_counts_only_beside_the_proxys_word_that_it_verified(
    said: str, assurance: str
) -> None:
    """nginx passes the subject of a certificate on that did not verify."""
    found = resolver().resolve({"client": PROXY}, {SUBJECT: "CN=alice", VERIFY: said})

    assert found is not None
    assert found.assurance == assurance
    assert found.user_id == ("CN=alice" if assurance == "verified" else "")


def test_a_proxy_without_a_callers_certificate_names_nobody() -> None:
    """The proxy's own certificate is not the caller's."""
    scope = {**connection(client_cert_name="CN=proxy"), "client": PROXY}

    assert resolver().resolve(scope, {}) is None
    assert resolver().resolve(scope, {SUBJECT: "CN=x", VERIFY: "NONE"}) is None


@pytest.mark.parametrize("client", [CLIENT, ("10.0.0.1", 0), None, ("junk", 1)])
def test_headers_of_anybody_else_are_as_if_they_were_not_there(client: Any) -> None:
    """An address that a server took out of a header (port 0) is not a proxy's either."""
    headers = {XFCC: ENVOY, SUBJECT: "CN=root", VERIFY: "SUCCESS"}

    assert resolver().resolve({"client": client}, headers) is None


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("CN=alice,O=x", "alice"),
        ("O=x, CN = alice", "alice"),
        ("CN=a\\,b+OU=x", "a,b"),
        ('O="x,CN=admin",CN=alice', "alice"),
        ("O=x\\,CN=admin", ""),
        ("CN=J\\C3\\BCrgen", "Jürgen"),
        ("CN=alice,CN=admin", ""),
        ("/O=x/CN=admin", ""),
        ('O="x,CN=admin', ""),
        ("CN=a\\", ""),
        ("", ""),
    ],
)
def test_a_common_name_within_another_value_is_not_one(subject: str, name: str) -> None:
    """Whoever may choose an organisation's name cannot be somebody else by it."""
    assert common_name(subject) == name
