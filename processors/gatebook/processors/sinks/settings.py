"""Settings of the connection to Elasticsearch and of the sink that writes to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from gatebook.schemas.setting_errors import wrong_setting

SettingsT = TypeVar("SettingsT", bound=Struct)
_SECRETS = ("api_key", "password")


class ElasticsearchSettings(Struct, frozen=True, kw_only=True):
    """How to reach Elasticsearch. Read from GATEBOOK_ELASTICSEARCH_<FIELD>."""

    url: Annotated[
        str, Meta(description="Address; several, separated by commas, are tried in turn.")
    ] = "http://127.0.0.1:19200"
    api_key: Annotated[str, Meta(description="Encoded API key; before user name and password.")] = (
        ""
    )
    username: Annotated[str, Meta(description="User name for basic authentication.")] = ""
    password: Annotated[str, Meta(description="Password for basic authentication.")] = ""
    ca_file: Annotated[
        str, Meta(description="PEM file of the authority that signed the server's certificate.")
    ] = ""
    connect_timeout_seconds: Annotated[
        float, Meta(gt=0, description="Longest wait for a connection.")
    ] = 5.0
    request_timeout_seconds: Annotated[
        float, Meta(gt=0, description="Longest wait for an answer, connection included.")
    ] = 60.0

    def __repr__(self) -> str:
        """All fields but the secrets, so that a log line with settings in it is harmless."""
        shown = {
            name: "***" if name in _SECRETS and getattr(self, name) else getattr(self, name)
            for name in self.__struct_fields__
        }
        return f"ElasticsearchSettings({shown})"


class SinkSettings(Struct, frozen=True, kw_only=True):
    """How the sink writes. Read from GATEBOOK_SINK_<FIELD>."""

    max_request_bytes: Annotated[
        int, Meta(ge=64 * 1024, description="Size at which a bulk request is closed.")
    ] = 4 * 1024 * 1024
    max_request_documents: Annotated[
        int, Meta(ge=1, description="Documents at which a bulk request is closed.")
    ] = 2_000
    max_row_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            le=90 * 1024 * 1024,
            description="A larger document is rejected as oversize; keep it below the cluster's "
            "http.max_content_length, which cuts the connection instead of answering.",
        ),
    ] = 16 * 1024 * 1024
    concurrent_requests: Annotated[
        int, Meta(ge=1, le=16, description="Bulk requests in flight at once.")
    ] = 3
    retry_base_seconds: Annotated[
        float, Meta(gt=0, description="First retry waits up to this long; it doubles each time.")
    ] = 0.2
    retry_cap_seconds: Annotated[float, Meta(gt=0, description="Longest wait before a retry.")] = (
        20.0
    )
    retry_limit_seconds: Annotated[
        float,
        Meta(ge=0, description="Give up after this long without an answer; 0 means never."),
    ] = 0.0
    max_age_days: Annotated[
        int,
        Meta(ge=0, description="An event older than this is out of range."),
    ] = 35
    max_future_days: Annotated[
        int, Meta(ge=0, description="An event further in the future than this is out of range.")
    ] = 1
    max_odd_indices_per_hour: Annotated[
        int,
        Meta(
            ge=0,
            description="New indices per hour and worker for days out of range; rows beyond that "
            "are rejected, so that wrong clocks cannot fill the cluster with shards.",
        ),
    ] = 12


def from_environment(
    kind: type[SettingsT], prefix: str, environment: Mapping[str, str] | None = None
) -> SettingsT:
    """Settings of `kind` from variables named prefix + FIELD. Raises WrongSetting with the
    variable's name, never with its value."""
    source = os.environ if environment is None else environment
    given: dict[str, Any] = {
        name: source[prefix + name.upper()]
        for name in kind.__struct_fields__
        if source.get(prefix + name.upper())
    }
    for name, value in given.items():
        _check(kind, name, value, prefix)
    return msgspec.convert(given, kind, strict=False)


def _check(kind: type[Struct], name: str, value: str, prefix: str) -> None:
    try:
        msgspec.convert({name: value}, kind, strict=False)
    except msgspec.ValidationError as error:
        raise wrong_setting(error, kind, prefix) from None


def elasticsearch_settings(
    environment: Mapping[str, str] | None = None, url: str = ""
) -> ElasticsearchSettings:
    """The connection's settings from the environment; `url`, where given, comes first."""
    settings = from_environment(ElasticsearchSettings, "GATEBOOK_ELASTICSEARCH_", environment)
    return msgspec.structs.replace(settings, url=url) if url else settings


def sink_settings(environment: Mapping[str, str] | None = None) -> SinkSettings:
    """The sink's settings from the environment."""
    return from_environment(SinkSettings, "GATEBOOK_SINK_", environment)
