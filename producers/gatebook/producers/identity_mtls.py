"""Client certificates: of the connection itself, or as trusted proxies tell of them.

The connection: the ASGI extension `tls` (client_cert_name, client_cert_chain, client_cert_error).
A proxy, only where GATEBOOK_TRUSTED_PROXIES names it and it sets *and* removes the header:

    GATEBOOK_MTLS_XFCC_HEADER=x-forwarded-client-cert   Envoy's form; its right-most element counts
    GATEBOOK_MTLS_SUBJECT_HEADER=x-ssl-client-s-dn      a subject, as nginx and HAProxy write it
    GATEBOOK_MTLS_VERIFY_HEADER=x-ssl-client-verify     must say SUCCESS (nginx) or 0 (HAProxy)

GATEBOOK_MTLS_NAME says what user.id is: `subject` (the whole name), `common_name`, or `san` (the
first URI, else DNS name, else mail address). A renewed certificate with the same name is the same
principal. Reading names out of the certificates themselves needs `gatebook[oidc]` (cryptography).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from gatebook.producers.addresses import Network, from_right, is_trusted_peer
from gatebook.producers.identity import Identity, failed, name_problem
from gatebook.producers.identity_header import decoded

_METHOD = "mtls"
_VERIFIED_MARKS = frozenset({"success", "0"})
_SAN_KINDS = ("uri", "dns", "email")
_MAX_CERTIFICATE_CHARS = 64 * 1024
# A name's parts as RFC 4514 writes them: separators may be escaped or stand in quotes.
_PART = re.compile(r'((?:\\.|"(?:\\.|[^"\\])*"|[^,+;"\\])*)(?:[,+;]|$)')
_ESCAPED = re.compile(r"\\([0-9A-Fa-f]{2}|.)")


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """What a client certificate says; `alternatives` are names by kind: uri, dns, email."""

    subject: str = ""
    issuer: str = ""
    alternatives: Mapping[str, str] = {}


class MtlsResolver:
    """Client certificates. Verified means: by the server that ended TLS."""

    def __init__(
        self,
        name: str,
        trusted: Sequence[Network],
        xfcc_header: str = "",
        subject_header: str = "",
        verify_header: str = "",
    ) -> None:
        self._name = name
        self._trusted = tuple(trusted)
        self._xfcc, self._subject = xfcc_header.lower(), subject_header.lower()
        self._verify = verify_header.lower()

    def resolve(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> Identity | None:
        """See IdentityResolver. Of a proxy that tells of certificates, the connection's own
        certificate is the proxy's, and names no caller."""
        told_by_proxy = self._xfcc or self._subject
        if told_by_proxy and is_trusted_peer(scope.get("client"), self._trusted):
            return self._of_proxy(headers)
        return self._of_connection(scope.get("extensions") or {})

    def _of_proxy(self, headers: Mapping[str, str]) -> Identity | None:
        given = headers.get(self._xfcc, "") if self._xfcc else ""
        if given:
            return self._named(read_xfcc(decoded(given)))
        subject = headers.get(self._subject, "").strip() if self._subject else ""
        verdict = headers.get(self._verify, "").strip().lower() if self._verify else "success"
        if not subject or verdict == "none":
            return None
        if verdict not in _VERIFIED_MARKS:
            return failed(_METHOD, "certificate_not_verified")
        return self._named(Certificate(subject=decoded(subject)))

    def _of_connection(self, extensions: Mapping[str, Any]) -> Identity | None:
        tls = extensions.get("tls")
        if not tls:
            return None
        if tls.get("client_cert_error"):
            return failed(_METHOD, "certificate_not_verified")
        chain = list(tls.get("client_cert_chain") or ())
        read = read_certificate(chain[0]) if chain else Certificate()
        subject = tls.get("client_cert_name") or read.subject
        if not chain and not subject:
            return None
        return self._named(msgspec.structs.replace(read, subject=subject or ""))

    def _named(self, certificate: Certificate) -> Identity:
        name = _name_of(certificate, self._name)
        problem = name_problem(name)
        if problem:
            return failed(_METHOD, problem)
        return Identity(
            method=_METHOD, assurance="verified", user_id=name, issuer=certificate.issuer
        )


def _name_of(certificate: Certificate, kind: str) -> str:
    if kind == "subject":
        return certificate.subject
    if kind == "common_name":
        return common_name(certificate.subject)
    names = certificate.alternatives
    return next((names[kind] for kind in _SAN_KINDS if names.get(kind)), "")


def common_name(subject: str) -> str:
    """The CN of a name as RFC 4514 writes it; empty unless there is exactly one. OpenSSL's old
    form with slashes is not read: a slash within a value looks like the next part."""
    if subject.startswith("/"):
        return ""
    pairs = (part.partition("=") for part in _parts(subject))
    found = [value.strip() for name, _, value in pairs if name.strip().upper() in ("CN", "2.5.4.3")]
    return _plain(found[0]) if len(found) == 1 else ""


def _parts(subject: str) -> list[str]:
    """The parts of a name; none where any of it cannot be read, since another split could find a
    part within a value."""
    parts: list[str] = []
    at = 0
    while at < len(subject):
        match = _PART.match(subject, at)
        if match is None:
            return []
        parts.append(match[1])
        at = match.end()
    return parts


def _plain(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    return decoded(_ESCAPED.sub(_unescaped, value))


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if len(match[1]) == 2 else match[1]


def read_xfcc(value: str) -> Certificate:
    """The right-most element of X-Forwarded-Client-Cert: the one that the nearest proxy wrote.
    Of a key that stands there several times the first value counts."""
    found: dict[str, str] = {}
    for name, content in _pairs(next(from_right(value, ","))):
        found[name] = content  # read from the right: the first one written comes last
    alternatives = {kind: found[kind] for kind in _SAN_KINDS if found.get(kind)}
    return Certificate(subject=found.get("subject", ""), alternatives=alternatives)


def _pairs(element: str) -> Iterator[tuple[str, str]]:
    for pair in from_right(element, ";"):
        name, _, content = pair.partition("=")
        if len(content) > 1 and content[0] == content[-1] == '"':
            # Only the quotes' own escapes: those of the name inside stay.
            content = content[1:-1].replace('\\"', '"')
        yield name.strip().lower(), content


@lru_cache(maxsize=256)
def read_certificate(pem: str) -> Certificate:
    """What a certificate in PEM says; empty where it cannot be read, or without cryptography."""
    try:
        from cryptography import x509
        from cryptography.x509.oid import ExtensionOID

        if len(pem) > _MAX_CERTIFICATE_CHARS:
            return Certificate()
        certificate = x509.load_pem_x509_certificate(pem.encode())
        names: dict[str, str] = {}
        for extension in certificate.extensions:
            if extension.oid == ExtensionOID.SUBJECT_ALTERNATIVE_NAME:
                names = _alternatives(extension.value)
        return Certificate(
            subject=certificate.subject.rfc4514_string(),
            issuer=certificate.issuer.rfc4514_string(),
            alternatives=names,
        )
    except (ImportError, ValueError):
        return Certificate()


def _alternatives(san: Any) -> dict[str, str]:
    from cryptography import x509

    kinds = {"uri": x509.UniformResourceIdentifier, "dns": x509.DNSName, "email": x509.RFC822Name}
    found = {kind: san.get_values_for_type(cls) for kind, cls in kinds.items()}
    return {kind: values[0] for kind, values in found.items() if values}
