"""Scopes: what accesses are counted together by, and what a finding says about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from gatebook.processors.detect.access import Access

# The scope by which the event topic is partitioned: its keys are whole within a partition.
LOCAL = "principal"
FRAMES = "frames"


class About(msgspec.Struct, array_like=True, omit_defaults=True):
    """Whom and what a key is about, as far as the key says it."""

    principal: str = ""
    principal_field: str = ""
    user_id: str = ""
    tenant: str = ""
    source_ip: str = ""
    service: str = ""
    model: str = ""
    producer_id: str = ""
    key_id: str = ""
    team: str = ""


class ScopeOf(NamedTuple):
    """One scope. `key` gives nothing for an access that has no such thing."""

    noun: str
    key: Callable[[Access], str]
    about: Callable[[Access], About]
    fields: tuple[tuple[str, str], ...]
    """Fields of About with the document's field that a search names."""


def _in_tenant(access: Access, value: str) -> str:
    """A key of one tenant: what two tenants call the same is not the same."""
    return value and (f"{access.tenant}/{value}" if access.tenant else value)


def about_principal(access: Access) -> About:
    """All that an access says of its caller."""
    return About(
        access.principal,
        access.principal_field,
        access.user_id,
        access.tenant,
        access.source_ip,
        access.service,
        access.model,
        "",
        access.key_id,
        access.team,
    )


TENANT_FIELD = ("tenant", "organization.id")
SCOPES = {
    "principal": ScopeOf("", lambda a: a.principal, about_principal, ()),
    "user": ScopeOf(
        "user",
        lambda a: _in_tenant(a, a.user_id),
        lambda a: About(user_id=a.user_id, tenant=a.tenant),
        (("user_id", "user.id"), TENANT_FIELD),
    ),
    "key": ScopeOf(
        "key",
        lambda a: _in_tenant(a, a.key_id),
        lambda a: About(key_id=a.key_id, tenant=a.tenant),
        (("key_id", "gatebook.identity.key_id"), TENANT_FIELD),
    ),
    "address": ScopeOf(
        "address",
        lambda a: a.source_ip,
        lambda a: About(source_ip=a.source_ip),
        (("source_ip", "source.ip"),),
    ),
    "model": ScopeOf(
        "model",
        lambda a: _in_tenant(a, a.model),
        lambda a: About(model=a.model, tenant=a.tenant),
        (("model", "gen_ai.request.model"), TENANT_FIELD),
    ),
    "service": ScopeOf(
        "service",
        lambda a: a.service,
        lambda a: About(service=a.service, team=a.team),
        (("service", "service.name"),),
    ),
    "tenant": ScopeOf(
        "tenant",
        lambda a: a.tenant or "-",
        lambda a: About(tenant=a.tenant),
        (TENANT_FIELD,),
    ),
    "producer": ScopeOf(
        "producer",
        lambda a: a.producer_id,
        lambda a: About(producer_id=a.producer_id),
        (("producer_id", "gatebook.producer_id"),),
    ),
    FRAMES: ScopeOf(
        "producer",
        lambda a: a.producer_id,
        lambda a: About(producer_id=a.producer_id),
        (("producer_id", "gatebook.producer_id"),),
    ),
    "all": ScopeOf("all accesses", lambda a: "all", lambda a: About(), ()),
}
