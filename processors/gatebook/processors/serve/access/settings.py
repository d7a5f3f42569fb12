"""Settings of who may use the search service. Read from GATEBOOK_SERVE_<FIELD>."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from gatebook.processors.serve.access.roles import ROLES
from gatebook.processors.sinks.settings import from_environment
from gatebook.schemas.errors import WrongSetting

PREFIX = "GATEBOOK_SERVE_"
EVERYBODY = "*"
MIN_SECRET_CHARS = 8
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104  # compared with, not bound to
LISTS = ("trusted_proxies", "oidc_api_audience", "oidc_roles")  # separated by commas

Seconds = Annotated[float, Meta(gt=0)]
PerMinute = Annotated[float, Meta(ge=1)]


class AccessSettings(Struct, frozen=True, kw_only=True):
    """Where the service listens, who signs people in, and what they may do then."""

    host: Annotated[str, Meta(description="Address the service listens on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="Port; 0 takes a free one")] = 8321
    public_url: Annotated[
        str,
        Meta(
            description="Where browsers find the service, as https://audit.example.org; default: "
            "the address it listens on"
        ),
    ] = ""
    tls_certificate_file: Annotated[
        str, Meta(description="PEM file of the certificate chain; needed beyond loopback")
    ] = ""
    tls_key_file: Annotated[str, Meta(description="PEM file of the certificate's key")] = ""
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(
            description="Addresses and networks of proxies that end TLS in front of the service; "
            "X-Forwarded-For is believed of them alone"
        ),
    ] = ()
    oidc_issuer: Annotated[
        str, Meta(description="OpenID Connect issuer that signs people in, exactly as in iss")
    ] = ""
    oidc_client_id: Annotated[str, Meta(description="The service's client id at the issuer")] = ""
    oidc_client_secret_file: Annotated[
        str, Meta(description="File with the client's secret; none for a public client (PKCE)")
    ] = ""
    oidc_scopes: Annotated[str, Meta(description="What is asked for at sign-in")] = (
        "openid profile email"
    )
    oidc_api_audience: Annotated[
        tuple[str, ...],
        Meta(
            description="Audiences of the issuer's access tokens that the API accepts as bearer "
            "tokens; never the client id, or an ID token would do. Not set: none are accepted"
        ),
    ] = ()
    oidc_user_claim: Annotated[str, Meta(description="Claim that is the caller's id")] = "sub"
    oidc_name_claim: Annotated[str, Meta(description="Claim that is the caller's name")] = "name"
    oidc_roles_claim: Annotated[
        str, Meta(description="Claim with roles or groups; a list, or words; dots go deeper")
    ] = "roles"
    oidc_roles: Annotated[
        tuple[str, ...],
        Meta(
            description="Which value of the claim is which role: soc=analyst,dpo=privacy_officer; "
            "default: the roles' own names"
        ),
    ] = ()
    oidc_tenants_claim: Annotated[
        str, Meta(description="Claim with the tenants (organization.id) that a caller may see")
    ] = ""
    oidc_all_tenants: Annotated[
        str,
        Meta(description="Value of the roles claim by which all tenants are seen; *: by everybody"),
    ] = ""
    session_idle_seconds: Annotated[
        Seconds, Meta(description="A session that is not used for so long ends")
    ] = 1800.0
    session_absolute_seconds: Annotated[
        Seconds, Meta(description="A session ends after this, however busy")
    ] = 28_800.0
    login_link_seconds: Annotated[
        Seconds, Meta(description="The one-time link printed at start holds so long")
    ] = 900.0
    caller_per_minute: Annotated[PerMinute, Meta(description="Requests of one caller")] = 600.0
    address_per_minute: Annotated[
        PerMinute, Meta(description="Requests from one address (IPv6: from one /64)")
    ] = 1200.0
    failed_logins_per_minute: Annotated[
        PerMinute, Meta(description="Credentials that do not hold, from one address")
    ] = 10.0

    def check(self) -> AccessSettings:
        """Refuse what would let in the wrong ones, or nobody. Raises WrongSetting."""
        _check_tls(self)
        _check_proxies(self)
        _check_public_url(self)
        if self.oidc_issuer:
            _check_oidc(self)
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.host)

    @property
    def has_tls(self) -> bool:
        """Whether browsers see https: by our certificate, or by a proxy's."""
        return bool(self.tls_certificate_file) or urlsplit(self.public_url).scheme == "https"

    @property
    def origin(self) -> str:
        """Scheme, host and port as browsers know them. With port 0 it is not known before start."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls_certificate_file else 'http'}://{host}:{self.port}"

    def client_secret(self) -> str:
        """The client's secret; empty for a public client. Raises WrongSetting."""
        if not self.oidc_client_secret_file:
            return ""
        try:
            secret = Path(self.oidc_client_secret_file).expanduser().read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            secret = ""
        if len(secret) < MIN_SECRET_CHARS:
            raise WrongSetting(
                "GATEBOOK_SERVE_OIDC_CLIENT_SECRET_FILE holds no secret, or cannot be read",
                "write the client's secret into that file, readable by the service",
            )
        return secret


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_tls(settings: AccessSettings) -> None:
    pair = (settings.tls_certificate_file, settings.tls_key_file)
    if any(pair) and not all(pair):
        raise WrongSetting(
            "of certificate and key only one is set",
            "set GATEBOOK_SERVE_TLS_CERTIFICATE_FILE and GATEBOOK_SERVE_TLS_KEY_FILE",
        )
    if not settings.is_loopback and not any(pair) and not settings.trusted_proxies:
        raise WrongSetting(
            f"{settings.host} can be reached from outside, and nothing encrypts: refused",
            "set GATEBOOK_SERVE_TLS_CERTIFICATE_FILE and _TLS_KEY_FILE, or, behind a proxy that "
            "ends TLS, GATEBOOK_SERVE_TRUSTED_PROXIES and GATEBOOK_SERVE_PUBLIC_URL",
        )


def _check_proxies(settings: AccessSettings) -> None:
    for one in settings.trusted_proxies:
        try:
            found = ipaddress.ip_network(one, strict=False)
        except ValueError:
            found = None
        if found is None or found.prefixlen == 0:
            raise WrongSetting(
                f"GATEBOOK_SERVE_TRUSTED_PROXIES: {one[:60]!a} is no address or network of proxies",
                "write addresses or networks, as 10.0.0.7,10.1.0.0/24",
            )
    if settings.trusted_proxies and not settings.public_url:
        raise WrongSetting(
            "GATEBOOK_SERVE_PUBLIC_URL is not set: browsers come by a proxy's address",
            "set it to what browsers open, as https://audit.example.org",
        )


def _check_public_url(settings: AccessSettings) -> None:
    if settings.host in WILDCARDS and not settings.public_url:
        raise WrongSetting(
            "GATEBOOK_SERVE_PUBLIC_URL is not set: by which name browsers come is not known",
            "set it to what browsers open, as https://audit.example.org",
        )
    if not settings.public_url:
        return
    try:
        parts = urlsplit(settings.public_url)
        is_plain = not (parts.path.strip("/") or parts.query or parts.fragment or parts.username)
        good = bool(parts.hostname) and is_plain and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    scheme = settings.public_url.partition(":")[0]
    if not good or (scheme != "https" and not (scheme == "http" and settings.is_loopback)):
        raise WrongSetting(
            "GATEBOOK_SERVE_PUBLIC_URL is not an https origin",
            "write it like https://audit.example.org, without a path",
        )


def _check_oidc(settings: AccessSettings) -> None:
    if not settings.oidc_client_id:
        raise WrongSetting(
            "GATEBOOK_SERVE_OIDC_CLIENT_ID is not set", "register the service at the issuer"
        )
    if settings.oidc_client_id in settings.oidc_api_audience:
        raise WrongSetting(
            "GATEBOOK_SERVE_OIDC_API_AUDIENCE names the client id: ID tokens would be accepted",
            "give the API an audience of its own",
        )
    if not (settings.oidc_tenants_claim or settings.oidc_all_tenants):
        raise WrongSetting(
            "nothing says which tenants people see",
            "set GATEBOOK_SERVE_OIDC_TENANTS_CLAIM, or GATEBOOK_SERVE_OIDC_ALL_TENANTS=* where "
            "everybody may see all",
        )
    for one in settings.oidc_roles:
        value, _, role = one.rpartition("=")
        if not value or role not in ROLES:
            raise WrongSetting(
                f"GATEBOOK_SERVE_OIDC_ROLES: {one[:60]!a} is not value=role",
                f"write value=role, with a role of {', '.join(ROLES)}",
            )
    settings.client_secret()


def access_settings(environment: Mapping[str, str] | None = None) -> AccessSettings:
    """The settings from the environment, checked. Raises WrongSetting."""
    source = os.environ if environment is None else environment
    variables = {name: PREFIX + name.upper() for name in LISTS}
    lists = {name: _listed(source.get(variable, "")) for name, variable in variables.items()}
    rest = {name: text for name, text in source.items() if name not in variables.values()}
    found = from_environment(AccessSettings, PREFIX, rest)
    return msgspec.structs.replace(found, **lists).check()


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
