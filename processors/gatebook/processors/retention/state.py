"""Retention's own state: runs and their items, holds, gates; a few documents by id.

Whoever creates a document first wins, and a document is replaced only where it is still the one
that was read. An item says what is about to be done before it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from gatebook.processors.retention.elastic import Away, Cluster
from gatebook.processors.sinks.gates import GATES, retention_index
from gatebook.processors.sinks.slots import Closed, Gates

RUN, ITEM, HOLD, REWRITTEN, LOCK = "run", "item", "hold", "rewritten", "lock"
MAX_FOUND = 10_000
MAX_TRIES = 50
INDEX_BODY: dict[str, Any] = {
    "settings": {"index": {"number_of_shards": 1, "auto_expand_replicas": "0-1", "hidden": True}},
    "mappings": {
        "dynamic": False,
        "properties": {
            "type": {"type": "keyword"},
            "run": {"type": "keyword"},
            "done": {"type": "boolean"},
            "number": {"type": "long"},
            "at_ns": {"type": "long"},
        },
    },
}
Source = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stored:
    """A document as it was read. `version` tells whether it has changed since."""

    id: str
    source: Source
    version: tuple[int, int]


class State:
    """The state of one namespace. Every call may raise Away."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._index = retention_index(cluster.namespace)
        self._made = False

    async def get(self, document_id: str) -> Stored | None:
        """The document as it is now; None where there is none."""
        found = await self._cluster.ask("GET", f"/{self._index}/_doc/{document_id}", absent={})
        if not found.get("found"):
            return None
        return Stored(document_id, found["_source"], (found["_seq_no"], found["_primary_term"]))

    async def create(self, document_id: str, source: Source) -> bool:
        """False where there is one already: it stays as it is."""
        await self._make()
        path = f"/{self._index}/_create/{document_id}"
        answer = await self._cluster.connection.request(
            "PUT", path, params={"refresh": "true"}, json=source
        )
        if answer.status == 409:
            return False
        if answer.status != 201:
            raise Away(answer.error_type or f"status {answer.status}")
        return True

    async def replace(self, stored: Stored, source: Source) -> bool:
        """False where the document is not any more what was read: nothing is changed."""
        sequence, term = stored.version
        params = {"if_seq_no": str(sequence), "if_primary_term": str(term), "refresh": "true"}
        path = f"/{self._index}/_doc/{stored.id}"
        answer = await self._cluster.connection.request("PUT", path, params=params, json=source)
        if answer.status in (404, 409):
            return False
        if answer.status not in (200, 201):
            raise Away(answer.error_type or f"status {answer.status}")
        return True

    async def change(
        self, document_id: str, change: Callable[[Source], Source], new: Source
    ) -> Source:
        """Apply a change, whoever else changes it; `new` is what it begins with. The document
        afterwards."""
        for _ in range(MAX_TRIES):
            stored = await self.get(document_id)
            after = change(dict(stored.source) if stored else dict(new))
            if stored is None:
                done = await self.create(document_id, after)
            else:
                done = after == stored.source or await self.replace(stored, after)
            if done:
                return after
        raise Away("the state keeps being changed by others")

    async def delete(self, document_id: str) -> None:
        """Delete a document; nothing where there is none."""
        path = f"/{self._index}/_doc/{document_id}"
        await self._cluster.ask("DELETE", path, absent={}, params={"refresh": "true"})

    async def find(self, kind: str, **equal: Any) -> list[Stored]:
        """All documents of a type with these values; none where there is no state yet."""
        refreshed = await self._cluster.ask("POST", f"/{self._index}/_refresh", absent={})
        if not refreshed:
            return []
        terms = [{"term": {name: value}} for name, value in {"type": kind, **equal}.items()]
        body = {
            "query": {"bool": {"filter": terms}},
            "size": MAX_FOUND,
            "seq_no_primary_term": True,
        }
        hits = (await self._cluster.ask("POST", f"/{self._index}/_search", json=body))["hits"]
        return [
            Stored(hit["_id"], hit["_source"], (hit["_seq_no"], hit["_primary_term"]))
            for hit in hits["hits"]
        ]

    async def gates(self) -> Gates:
        """What sinks are told."""
        stored = await self.get(GATES)
        return msgspec.convert(stored.source["gates"], Gates) if stored else Gates()

    async def change_gates(self, change: Callable[[Gates], Gates]) -> bool:
        """Change what sinks are told; whether that made a difference. They all know it after
        LEASE_SECONDS."""
        before = await self.gates()

        def changed(source: Source) -> Source:
            gates = change(msgspec.convert(source["gates"], Gates))
            return {**source, "gates": msgspec.to_builtins(gates)}

        empty = {"type": GATES, "gates": {}}
        after = await self.change(GATES, changed, empty)
        return bool(msgspec.convert(after["gates"], Gates) != before)

    async def _make(self) -> None:
        if self._made:
            return
        answer = await self._cluster.connection.request("PUT", f"/{self._index}", json=INDEX_BODY)
        exists = answer.error_type == "resource_already_exists_exception"
        if answer.status != 200 and not exists:
            raise Away(answer.error_type or f"status {answer.status}")
        self._made = True


def with_closed(gates: Gates, kind: str, slot: str, closed: Closed) -> Gates:
    """The gates where a slot is closed to what it was closed to before, and to this."""
    slots = dict(gates.closed.get(kind, {}))
    before = slots.get(slot, Closed())
    slots[slot] = Closed(
        gone=before.gone or closed.gone,
        dropped=tuple(sorted({*before.dropped, *closed.dropped})),
        thinned={**before.thinned, **closed.thinned},
        whose={} if _is_everybodys(before) or _is_everybodys(closed) else _joined(before, closed),
    )
    return msgspec.structs.replace(gates, closed={**gates.closed, kind: slots})


def _is_everybodys(closed: Closed) -> bool:
    """Whether all is gone, and it is not told apart whose it was."""
    return closed.gone and not closed.whose


def _joined(before: Closed, closed: Closed) -> dict[str, tuple[str, ...]]:
    tenants = {**before.whose, **closed.whose}
    return {
        tenant: tuple(sorted({*before.whose.get(tenant, ()), *closed.whose.get(tenant, ())}))
        for tenant in tenants
    }


def with_settled(gates: Gates, kind: str, slot: str, closed: Closed) -> Gates:
    """The gates where a slot is closed to what was taken out of it in the end. It was perhaps
    announced to be gone, and then something came in that stays."""
    merged = with_closed(gates, kind, slot, closed)
    slots = dict(merged.closed[kind])
    found = msgspec.structs.replace(slots[slot], gone=closed.gone)
    if not closed.gone:  # who was announced to have lost something, and lost nothing, is left out
        whose = _joined(gates.closed.get(kind, {}).get(slot, Closed()), closed)
        found = msgspec.structs.replace(found, whose={t: tags for t, tags in whose.items() if tags})
    slots[slot] = found
    return msgspec.structs.replace(merged, closed={**merged.closed, kind: slots})


def without_closed(gates: Gates, kind: str, slot: str) -> Gates:
    """The gates where a slot is open again."""
    slots = {name: one for name, one in gates.closed.get(kind, {}).items() if name != slot}
    return msgspec.structs.replace(gates, closed={**gates.closed, kind: slots})


def with_cut(gates: Gates, kind: str, day: str, at: str) -> Gates:
    """The gates where a day goes on in another slot from `at` on."""
    days = dict(gates.cuts.get(kind, {}))
    days[day] = tuple(sorted({*days.get(day, ()), at}))
    return msgspec.structs.replace(gates, cuts={**gates.cuts, kind: days})


@dataclass(frozen=True, slots=True)
class Missing:
    """What a search over these days does not see of the details. `thinned`: a part of the
    documents of that day is left. `unknown`: something was taken, perhaps of other tenants."""

    kind: str
    slot: str
    thinned: bool
    keep_one_in: int = 0
    unknown: bool = False


async def missing_ranges(
    state: State,
    kind: str,
    first_day: str,
    last_day: str,
    tenants: frozenset[str] | None = None,
) -> list[Missing]:
    """Slots of these days (`YYYY.MM.DD`, both inclusive) of which retention took something;
    `tenants`: of theirs. None: of anybody's."""
    closed: Mapping[str, Closed] = (await state.gates()).closed.get(kind, {})
    return [
        found
        for slot, one in sorted(closed.items())
        if first_day <= slot[:10] <= last_day
        if (found := missing_in(kind, slot, one, tenants)) is not None
    ]


def missing_in(
    kind: str, slot: str, closed: Closed, tenants: frozenset[str] | None
) -> Missing | None:
    """What is missing in a slot for callers of these tenants; None: nothing. Pure."""
    if tenants is None:
        return Missing(kind, slot, not closed.gone, max(closed.thinned.values(), default=0))
    if _is_everybodys(closed):
        return Missing(kind, slot, thinned=False)
    if tenants & closed.whose.keys():
        theirs = {tag for tenant in tenants for tag in closed.whose.get(tenant, ())}
        figures = [figure for tag, figure in closed.thinned.items() if tag in theirs]
        return Missing(kind, slot, not closed.gone, max(figures, default=0))
    known = {tag for tags in closed.whose.values() for tag in tags}
    if {*closed.dropped, *closed.thinned} <= known:
        return None
    return Missing(kind, slot, thinned=True, unknown=True)


async def thinned_ranges(state: State, kind: str = "access") -> list[Missing]:
    """Slots of which retention keeps only a sample."""
    closed = (await state.gates()).closed.get(kind, {})
    return [
        Missing(kind, slot, True, max(one.thinned.values()))
        for slot, one in sorted(closed.items())
        if one.thinned and not one.gone
    ]
