"""Why a Kafka broker does not let us in, and what to do: librdkafka's errors in plain words.

Of a certificate that it does not trust librdkafka does not tell why, so `explain` looks by itself.
What it returns holds neither a password nor a key.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple

PROBE_SECONDS = 2.0
_TLS_ADDRESS = re.compile(r"ssl://(.+?):(\d+)/")


class Trouble(NamedTuple):
    """What is wrong, and what to do about it."""

    reason: str
    next_step: str


_WRITE_DENIED = Trouble(
    "the broker does not let this user write to the topic",
    "grant it the operation Write on the topic; nothing needs a restart",
)
# In this order: what librdkafka's text holds, and what that means.
_BY_TEXT = (
    (
        "alert certificate required",
        Trouble(
            "the broker asks for a client certificate that it trusts, and none was sent",
            "set GATEBOOK_KAFKA_SSL_CERTIFICATE_LOCATION and GATEBOOK_KAFKA_SSL_KEY_LOCATION to "
            "one signed by an authority that the broker trusts",
        ),
    ),
    (
        "ssl/tls alert",
        Trouble(
            "the broker refuses our client certificate",
            "see that it has not expired and that the broker trusts the authority that signed it",
        ),
    ),
    (
        "Unsupported SASL mechanism",
        Trouble(
            "the broker does not take this SASL mechanism",
            "correct GATEBOOK_KAFKA_SASL_MECHANISM",
        ),
    ),
)
_BY_CODE = {
    "_AUTHENTICATION": Trouble(
        "the broker refuses our user name or password",
        "correct GATEBOOK_KAFKA_SASL_USERNAME and GATEBOOK_KAFKA_SASL_PASSWORD, then restart",
    ),
    "TOPIC_AUTHORIZATION_FAILED": _WRITE_DENIED,
    # Asked for a producer id, a broker answers so to a user that may write to no topic at all.
    "CLUSTER_AUTHORIZATION_FAILED": _WRITE_DENIED,
}
_NEW_CERTIFICATE = "have the broker's certificate renewed; nothing needs a restart here"
_BY_VERIFICATION = {  # OpenSSL's numbers, X509_V_ERR_*
    9: Trouble("the broker's certificate is not valid yet", "check the clocks of both machines"),
    10: Trouble("the broker's certificate has expired", _NEW_CERTIFICATE),
    **dict.fromkeys(
        (18, 19, 20, 21),
        Trouble(
            "the broker's certificate is not signed by an authority that we trust",
            "set GATEBOOK_KAFKA_SSL_CA_LOCATION to the PEM file of the authority that signed it",
        ),
    ),
    **dict.fromkeys(
        (62, 64),
        Trouble(
            "the broker's certificate is for another host name",
            "write in GATEBOOK_KAFKA_BOOTSTRAP, and in the broker's advertised.listeners, a name "
            "that stands in the certificate, or have one issued for the name in use",
        ),
    ),
}
_UNVERIFIED = Trouble(
    "the broker's certificate cannot be verified",
    "check GATEBOOK_KAFKA_SSL_CA_LOCATION, the host name in the certificate and its dates",
)


def explain(code: str, text: str, properties: Mapping[str, Any]) -> Trouble:
    """What an error of librdkafka means: its code (`_SSL`), its text, and the client's properties.

    May open one connection to the broker, for at most two seconds.
    """
    if "certificate verify failed" in text:
        return _look_at_certificate(text, properties)
    for mark, trouble in _BY_TEXT:
        if mark in text:
            return trouble
    if code in _BY_CODE:
        return _BY_CODE[code]
    return Trouble(
        f"the broker cannot be reached ({code})",
        "see that it runs at GATEBOOK_KAFKA_BOOTSTRAP and which GATEBOOK_KAFKA_SECURITY_PROTOCOL "
        "it speaks there",
    )


def _look_at_certificate(text: str, properties: Mapping[str, Any]) -> Trouble:
    address = _TLS_ADDRESS.search(text)
    if address is None:
        return _UNVERIFIED
    host, port = address[1].strip("[]"), int(address[2])
    try:
        authority = properties.get("ssl.ca.location") or None
        context = ssl.create_default_context(cafile=authority)
        with (
            socket.create_connection((host, port), timeout=PROBE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return _UNVERIFIED  # it is fine now
    except ssl.SSLCertVerificationError as error:
        return _BY_VERIFICATION.get(error.verify_code, _UNVERIFIED)
    except OSError:
        return _UNVERIFIED
