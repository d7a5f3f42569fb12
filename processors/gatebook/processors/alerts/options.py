"""What all targets of the alerts file have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import msgspec

from gatebook.processors.alerts.addresses import check_target_url
from gatebook.processors.alerts.secrets import read_secret
from gatebook.processors.alerts.settings import AlertSettings
from gatebook.schemas.errors import Fatal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatebook.processors.alerts.base import AlertTarget


class TargetOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    """One table `[targets.NAME]`; `type` says which kind. Secrets stand in it by reference."""

    def build(self, name: str, settings: AlertSettings, **seams: Any) -> AlertTarget:
        """The target. Raises Fatal where the options are wrong or dangerous."""
        raise NotImplementedError


def is_reference(url: str) -> bool:
    """Whether a URL is kept elsewhere."""
    return url.startswith(("env:", "file:"))


def check_url(url: str, settings: AlertSettings) -> None:
    """Fatal where a URL must not be a target."""
    check_target_url(url, settings.address_policy)


def check_plain(url: str, plaintext_auth: Literal["refuse", "allow"]) -> None:
    """Fatal where credentials would go over plain http."""
    if urlsplit(url).scheme == "http" and plaintext_auth != "allow":
        raise Fatal(
            "credentials would go over plain http",
            "use https, or set plaintext_auth to allow "
            "(GATEBOOK_ALERTMANAGER_PLAINTEXT_AUTH=allow where there is no alerts file)",
        )


def read_url(url: str, environment: Mapping[str, str] | None) -> tuple[str, bool]:
    """The URL and whether it is a secret. Raises SecretUnreadable."""
    return (read_secret(url, environment), True) if is_reference(url) else (url, False)
