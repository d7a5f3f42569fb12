"""What is refused of identity settings: what would never work, or would let callers forge names."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gatebook.schemas.errors import WrongSetting

if TYPE_CHECKING:  # config reads this module
    from gatebook.producers.config import ProducerSettings

RESOLVER_NAMES = ("oidc", "api_key", "mtls", "header", "anonymous")
# Signatures that a public key proves. With HS* whoever knows the key could sign, and none is none.
ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
_PROXY_HEADERS = (
    "mtls_xfcc_header",
    "mtls_subject_header",
    "identity_user_header",
    "identity_email_header",
    "identity_roles_header",
)
_OTHER_HEADERS = ("mtls_verify_header", "end_user_header", "session_header")
# What has a meaning or a secret of its own is not a place for a name.
_TAKEN_HEADERS = frozenset(
    {"authorization", "cookie", "proxy-authorization", "x-forwarded-for", "forwarded", "host"}
)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]{1,64}")  # no underscore: servers differ


def _check_resolvers(settings: ProducerSettings) -> None:
    names = settings.identity_resolvers
    unknown = [name for name in names if name not in RESOLVER_NAMES]
    if unknown:
        raise WrongSetting(
            f"GATEBOOK_IDENTITY_RESOLVERS: {unknown[0]!r} is not known",
            f"choose of {', '.join(RESOLVER_NAMES)}",
        )
    if len(set(names)) < len(names):
        raise WrongSetting("GATEBOOK_IDENTITY_RESOLVERS names one twice", "name each at most once")
    if "anonymous" in names[:-1]:
        raise WrongSetting(
            "GATEBOOK_IDENTITY_RESOLVERS: what stands behind anonymous would never be asked",
            "put anonymous at the end",
        )


def _check_headers(settings: ProducerSettings) -> None:
    given = [(name, getattr(settings, name)) for name in (*_PROXY_HEADERS, *_OTHER_HEADERS)]
    given += [("api_key_headers", header) for header in settings.api_key_headers]
    for name, header in given:
        if header and (not _HEADER_NAME.fullmatch(header) or header.lower() in _TAKEN_HEADERS):
            raise WrongSetting(
                f"GATEBOOK_{name.upper()}: {header!r} cannot be used",
                "give the name of a header of its own, without underscores",
            )
    names = [header.lower() for _, header in given if header]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise WrongSetting(
            f"the header {twice[0]} is set for two identity settings",
            "give each its own: a key must not be stored as a name",
        )


def _check_proxy_headers(settings: ProducerSettings) -> None:
    for name in _PROXY_HEADERS:
        if getattr(settings, name) and not settings.trusted_proxies:
            raise WrongSetting(
                f"GATEBOOK_{name.upper()} would never be believed: no proxy is trusted",
                "set GATEBOOK_TRUSTED_PROXIES to the addresses of the proxies that set it",
            )


def _check_oidc(settings: ProducerSettings) -> None:
    bad = [name for name in settings.oidc_algorithms if name not in ALGORITHMS]
    if bad or not settings.oidc_algorithms:
        raise WrongSetting(
            f"GATEBOOK_OIDC_ALGORITHMS: {bad[0] if bad else 'nothing'} cannot be accepted",
            f"choose of {', '.join(sorted(ALGORITHMS))}",
        )
    if not settings.oidc_issuer:
        return
    if not settings.oidc_audience:
        raise WrongSetting(
            "GATEBOOK_OIDC_AUDIENCE is not set: tokens made for other services would be accepted",
            "set it to the audience (aud) of this service's tokens",
        )
    for name in ("oidc_issuer", "oidc_jwks_url"):
        _check_url(name, getattr(settings, name))


def _check_url(name: str, url: str) -> None:
    if url and not is_fetchable(url):
        raise WrongSetting(
            f"GATEBOOK_{name.upper()} is not an https URL",
            "write it like https://login.example.com/realm (http only on loopback, for tests)",
        )


def is_fetchable(url: str) -> bool:
    """Whether a URL is https, or http on loopback, with a host, and without user or fragment."""
    try:
        parts = urlsplit(url)
        plain_port = parts.port is None or 0 < parts.port < 65536
    except ValueError:
        return False
    if not parts.hostname or parts.username is not None or parts.fragment or not plain_port:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself, by its name."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


IDENTITY_CHECKS = (_check_resolvers, _check_headers, _check_proxy_headers, _check_oidc)
