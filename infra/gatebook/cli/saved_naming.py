"""Saved searches that hold a person's id: they are the auditors' own words, and no erasure changes
them; whoever erases is told which there are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from gatebook.schemas.errors import GatebookError

if TYPE_CHECKING:
    from gatebook.processors.sinks.connection import Connection

SAVED_SEARCH = "saved_search"


async def saved_naming(
    connection: Connection, namespace: str, names: Iterable[str]
) -> list[dict[str, str]] | None:
    """Id, name and owner of each saved search whose query or name holds one of these; None where
    they cannot be looked through now."""
    from gatebook.processors.serve.access.state import ConsoleState

    wanted = [name for name in names if name]
    try:
        saved = await ConsoleState(connection, namespace).find(SAVED_SEARCH)
    except GatebookError:
        return None
    return [_named(kept.id, kept.source) for kept in saved if _holds(kept.source, wanted)]


def _holds(source: dict[str, Any], names: Iterable[str]) -> bool:
    text = f"{source['name']}\n{source['query']}"
    return any(name in text or name in text.replace("\\", "") for name in names)


def _named(document_id: str, source: dict[str, Any]) -> dict[str, str]:
    return {
        "id": document_id.removeprefix("saved-"),
        "name": source["name"],
        "owner": source["owner"],
    }


def tell_saved(found: list[dict[str, str]] | None) -> None:
    """Say which stay, and who can delete them, on standard error."""
    from gatebook.processors.search.display import safe

    if found is None:
        click.echo("saved searches of the console could not be looked through", err=True)
    for one in found or ():
        owner, name = safe(one["owner"], 80), safe(one["name"], 80)
        click.echo(
            f"stays: the saved search {name!r} of {owner} holds this id; its owner can delete it",
            err=True,
        )
