"""What the demo finds in the index afterwards: counts, findings, and whether a secret got in."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from gatebook.cli.demo.scenario import API_KEYS, PLANTED_SECRETS, WRONG_API_KEY

PAGE = 500
KINDS = ("access", "finding", "deadletter", "alert")


@dataclass
class Picture:
    """The index as one run left it. `findings` and `events` are documents."""

    indexed: int = 0
    dead_lettered: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    secrets_found: dict[str, int] = field(default_factory=dict)

    def count(self, *path: str) -> Counter[str]:
        """How often each value of a field occurs among the events."""
        return Counter(str(get(event, *path)) for event in self.events if get(event, *path))


def get(document: Mapping[str, Any], *path: str) -> Any:
    """A nested value, or None."""
    node: Any = document
    for name in path:
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def look(elasticsearch_url: str, namespace: str, producer_id: str, since: str) -> Picture:
    """Read back what one producer run left since a time (ISO 8601), and search everything in the
    namespace, older runs too, for the planted secrets."""
    picture = Picture()
    with httpx.Client(base_url=elasticsearch_url, timeout=30, trust_env=False) as client:
        client.post(f"/{namespace}-*/_refresh").raise_for_status()
        for kind in KINDS:
            for document in documents(client, f"{namespace}-{kind}-*"):
                _scan(document, picture.secrets_found)
                _sort(kind, document, producer_id, since, picture)
    return picture


def _sort(
    kind: str, document: dict[str, Any], producer_id: str, since: str, picture: Picture
) -> None:
    ours = get(document, "gatebook", "producer_id") == producer_id
    if kind == "access" and ours:
        picture.indexed += 1
        picture.events.append(document)
    elif kind == "deadletter" and ours:
        picture.dead_lettered += int(get(document, "gatebook", "count") or 1)
    elif kind == "finding" and document["@timestamp"] >= since:
        picture.findings.append(document)


def documents(client: httpx.Client, index: str) -> Iterator[dict[str, Any]]:
    """Every document of an index pattern, by point in time and search_after."""
    opened = client.post(f"/{index}/_pit", params={"keep_alive": "1m", "ignore_unavailable": True})
    if opened.status_code == 404:
        return
    pit = opened.raise_for_status().json()["id"]
    after: list[Any] | None = None
    while True:
        body: dict[str, Any] = {"size": PAGE, "sort": ["_shard_doc"]}
        body["pit"] = {"id": pit, "keep_alive": "1m"}
        if after is not None:
            body["search_after"] = after
        hits = client.post("/_search", json=body).raise_for_status().json()["hits"]["hits"]
        if not hits:
            break
        yield from (hit["_source"] for hit in hits)
        after = hits[-1]["sort"]
    client.request("DELETE", "/_pit", json={"id": pit})


def _forms(secret: str) -> set[str]:
    """A secret as it was planted, and without its separators."""
    return {secret, re.sub(r"[\s-]", "", secret)}


SEARCHED = {kind: _forms(secret) for kind, secret in PLANTED_SECRETS.items()} | {
    "api_key": {*API_KEYS.values(), WRONG_API_KEY}
}


def _scan(document: Mapping[str, Any], found: dict[str, int]) -> None:
    text = json.dumps(document, ensure_ascii=False)
    for kind, forms in SEARCHED.items():
        if any(form in text for form in forms):
            found[kind] = found.get(kind, 0) + 1
