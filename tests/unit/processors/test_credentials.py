"""One set of GATEBOOK_KAFKA_ settings serves the part that consumes too."""

from __future__ import annotations

import ssl

import pytest

from gatebook.processors.app import credentials
from gatebook.schemas.errors import Fatal


@pytest.mark.parametrize("properties", [{}, {"security.protocol": "plaintext"}])
def test_plain_text_needs_none(properties: dict[str, str]) -> None:
    """Nothing is set, or plain text by name."""
    assert credentials(properties) is None


def test_passwords_go_over_tls_where_the_protocol_says_so() -> None:
    """SASL_SSL has a context that checks the broker; SASL_PLAINTEXT has none."""
    given = {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "u", "sasl.password": "planted"}
    safe = credentials({**given, "security.protocol": "SASL_SSL"})
    assert (safe.username, safe.password, safe.mechanism.value) == ("u", "planted", "SCRAM-SHA-512")
    assert safe.protocol.value == "SASL_SSL"
    assert safe.ssl_context.verify_mode == ssl.CERT_REQUIRED
    assert safe.ssl_context.check_hostname
    plain = credentials({**given, "security.protocol": "sasl_plaintext"})
    assert plain.protocol.value == "SASL_PLAINTEXT"
    assert plain.ssl_context is None
    assert "planted" not in repr(safe) + repr(plain)


def test_checks_are_switched_off_by_name_only() -> None:
    """The two librdkafka settings for it, each for what it says."""
    tls = {"security.protocol": "SSL"}
    assert credentials(tls).context.check_hostname
    no_name = credentials({**tls, "ssl.endpoint.identification.algorithm": "none"}).context
    assert (no_name.check_hostname, no_name.verify_mode) == (False, ssl.CERT_REQUIRED)
    nothing = credentials({**tls, "enable.ssl.certificate.verification": "false"}).context
    assert nothing.verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize(
    "properties",
    [
        {"security.protocol": "planted"},
        {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "GSSAPI"},
        {"security.protocol": "SSL", "ssl.ca.location": "/planted/no/such/file"},
        {"security.protocol": "SSL", "ssl.certificate.location": "/planted/no/such/file"},
    ],
)
def test_what_cannot_be_used_is_refused_at_start(properties: dict[str, str]) -> None:
    """With what to do, and without the values."""
    with pytest.raises(Fatal) as refused:
        credentials(properties)
    assert refused.value.next_step
    assert "planted" not in str(refused.value) + refused.value.next_step


@pytest.mark.parametrize(
    ("more", "variable"),
    [
        ({"ssl.keystore.location": "/x"}, "SSL_KEYSTORE_LOCATION"),
        ({"sasl.kerberos.keytab": "/x"}, "SASL_KERBEROS_KEYTAB"),
        ({"sasl.password": ""}, "SASL_PASSWORD"),
        ({"ssl.certificate.location": "/x"}, "SSL_KEY_LOCATION"),
        ({"ssl.key.location": "/x"}, "SSL_CERTIFICATE_LOCATION"),
        (
            {"ssl.endpoint.identification.algorithm": "maybe"},
            "SSL_ENDPOINT_IDENTIFICATION_ALGORITHM",
        ),
    ],
)
def test_what_the_consumer_cannot_do_is_refused_by_name(
    more: dict[str, str], variable: str
) -> None:
    """A worker must not read by other means than it writes; the message shows no secret."""
    scram = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "worker",
        "sasl.password": "hidden-secret",
    }
    with pytest.raises(Fatal, match=f"GATEBOOK_KAFKA_{variable}") as caught:
        credentials({**scram, **more})
    assert "hidden-secret" not in f"{caught.value} {caught.value.next_step}"
