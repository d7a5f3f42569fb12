"""librdkafka's errors in plain words."""

from __future__ import annotations

import pytest

from gatebook.schemas.kafka_trouble import explain


@pytest.mark.parametrize(
    ("code", "text", "reason", "step"),
    [
        (
            "_TRANSPORT",
            "ssl://h:1/bootstrap: Receive failed: SSL routines::tlsv13 alert certificate required",
            "asks for a client certificate",
            "GATEBOOK_KAFKA_SSL_CERTIFICATE_LOCATION",
        ),
        (
            "_TRANSPORT",
            "ssl://h:1/bootstrap: SSL routines::ssl/tls alert certificate unknown",
            "refuses our client certificate",
            "expired",
        ),
        (
            "_AUTHENTICATION",
            "SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism",
            "SASL mechanism",
            "GATEBOOK_KAFKA_SASL_MECHANISM",
        ),
        ("_AUTHENTICATION", "invalid credentials", "user name or password", "SASL_PASSWORD"),
        ("TOPIC_AUTHORIZATION_FAILED", "", "does not let this user write", "Write"),
        ("CLUSTER_AUTHORIZATION_FAILED", "", "does not let this user write", "Write"),
        ("_TRANSPORT", "Connection refused", "cannot be reached", "GATEBOOK_KAFKA_BOOTSTRAP"),
        # Nobody answers at port 1, so that the look at the certificate fails too.
        (
            "_SSL",
            "ssl://127.0.0.1:1/bootstrap: certificate verify failed",
            "cannot be verified",
            "GATEBOOK_KAFKA_SSL_CA_LOCATION",
        ),
        ("_SSL", "certificate verify failed", "cannot be verified", "its dates"),
    ],
)
def test_an_error_says_what_is_wrong_and_what_to_do(
    code: str, text: str, reason: str, step: str
) -> None:
    """With the setting or the right that is at fault, where that is known."""
    trouble = explain(code, text, {"sasl.password": "hidden-secret"})
    assert reason in trouble.reason
    assert step in trouble.next_step
    assert "hidden-secret" not in f"{trouble}"
