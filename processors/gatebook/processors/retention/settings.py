"""Settings of the retention manager. Read from GATEBOOK_RETENTION_<FIELD>."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from gatebook.processors.config import from_env
from gatebook.processors.sinks.settings import from_environment

PREFIX = "GATEBOOK_RETENTION_"
POLICY_NAME = "retention-policy.toml"


class RetentionSettings(Struct, frozen=True, kw_only=True):
    """How the retention manager runs; what it does stands in the policy file."""

    policy: Annotated[
        str,
        Meta(description="TOML: the retention policy; default: retention-policy.toml in the home"),
    ] = ""
    interval_seconds: Annotated[
        float, Meta(ge=1, description="Between two runs of `gatebook retention run --schedule`")
    ] = 3600.0
    watch_seconds: Annotated[
        float,
        Meta(ge=1, description="Between two looks at disks and at the size of today's indices"),
    ] = 60.0
    lease_seconds: Annotated[
        float,
        Meta(ge=5, description="A run that told nothing for so long is taken over by another"),
    ] = 120.0
    certificates: Annotated[
        str,
        Meta(description="Folder for the certificates; default: certificates in GATEBOOK_HOME"),
    ] = ""


def retention_settings(environment: Mapping[str, str] | None = None) -> RetentionSettings:
    """The settings from the environment. Raises WrongSetting."""
    return from_environment(RetentionSettings, PREFIX, environment)


def policy_path() -> Path | None:
    """The policy's file as it is set, or the one in GATEBOOK_HOME where there is one. Raises
    WrongSetting."""
    if given := retention_settings().policy:
        return Path(given)
    usual = from_env().home_path / POLICY_NAME
    return usual if usual.is_file() else None
