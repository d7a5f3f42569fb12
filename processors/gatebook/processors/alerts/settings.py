"""Settings of alert targets, from GATEBOOK_* environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from gatebook.processors.alerts.addresses import AddressPolicy, parse_networks
from gatebook.schemas.errors import Fatal
from gatebook.schemas.setting_errors import wrong_setting

PREFIX = "GATEBOOK_"
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]


class AlertSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every field is the environment variable GATEBOOK_<FIELD>; empty means: not set."""

    alerts_file: str = ""
    """TOML file of targets, routes, teams and noise control (alerts/README.md shows one)."""
    alertmanager_url: str = ""
    """Base URL of Alertmanager, without /api/v2; a target beside those of the alerts file."""
    alertmanager_name: str = "alertmanager"
    """Name of this target in metrics and in the alert index."""
    alertmanager_bearer_token: str = ""
    """Reference to a bearer token: env:NAME or file:/path."""
    alertmanager_basic_user: str = ""
    """User for basic authentication."""
    alertmanager_basic_password: str = ""
    """Reference to the password for basic authentication: env:NAME or file:/path."""
    alertmanager_plaintext_auth: Literal["refuse", "allow"] = "refuse"
    """Whether credentials may go over plain http."""
    alert_allow_private: bool = False
    """Let targets be on loopback or private addresses, as they are on premises."""
    alert_allowed_networks: str = ""
    """Further networks a target may be in, with commas, link-local and metadata ones included."""
    alert_deadline_seconds: Seconds = 60.0
    """A finding that is not accepted within this long is a failed delivery, tried again later."""
    alert_request_timeout_seconds: Seconds = 5.0
    """Time for one request and its answer."""
    alert_first_pause_seconds: Seconds = 0.25
    """Upper bound of the pause before the second attempt; it doubles with every further one."""
    alert_longest_pause_seconds: Seconds = 10.0
    """Upper bound of any pause."""
    alert_active_seconds: Annotated[float, msgspec.Meta(ge=60, le=86_400)] = 600.0
    """In Alertmanager an alert that is not sent again is resolved after this long."""
    alert_resend_seconds: Annotated[float, msgspec.Meta(ge=1, le=180)] = 60.0
    """An active alert is sent again this often to targets that forget, such as Alertmanager."""
    alert_retry_seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 5.0
    """Pause after a failed delivery before the next; it doubles up to five minutes."""
    alert_expiry_seconds: Annotated[float, msgspec.Meta(ge=60, le=30 * 86_400)] = 86_400.0
    """A step of an alert that no retry delivers within this long is given up, and recorded so."""
    search_base_url: str = ""
    """Link to the search; {query}, {start} and {end} in it are filled in, ?query= is added where
    {query} is not in it. Empty: alerts carry the query but no link."""
    runbook_url: str = ""
    """Base URL under which the runbooks are published; empty: the runbook's path alone."""

    @property
    def address_policy(self) -> AddressPolicy:
        """Where targets may be."""
        return AddressPolicy(self.alert_allow_private, parse_networks(self.alert_allowed_networks))


def _given(environment: Mapping[str, str]) -> dict[str, Any]:
    names = {PREFIX + name.upper(): name for name in AlertSettings.__struct_fields__}
    found = {name: environment.get(variable, "") for variable, name in names.items()}
    return {name: value.strip() for name, value in found.items() if value.strip()}


def load_alert_settings(
    environment: Mapping[str, str] | None = None, **known: Any
) -> AlertSettings:
    """The settings, validated; `known` ones are not read from the environment. Fatal says which
    one is wrong, without its value."""
    given = {**_given(os.environ if environment is None else environment), **known}
    try:
        settings = msgspec.convert(given, AlertSettings, strict=False)
    except msgspec.ValidationError as error:
        raise wrong_setting(error, AlertSettings, PREFIX) from None
    validate(settings)
    return settings


def validate(settings: AlertSettings) -> None:
    """Fatal where settings are wrong together or dangerous. Targets are judged as they are made."""
    for name in ("search_base_url", "runbook_url"):
        if url := getattr(settings, name):
            _check_link(PREFIX + name.upper(), url)
    parse_networks(settings.alert_allowed_networks)
    if settings.alert_resend_seconds * 2 > settings.alert_active_seconds:
        raise Fatal(
            "alerts would end before they are sent again",
            "set GATEBOOK_ALERT_ACTIVE_SECONDS to twice GATEBOOK_ALERT_RESEND_SECONDS or more",
        )


def _check_link(setting: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
        raise Fatal(f"{setting} is not an http or https link without a user", "correct it")
