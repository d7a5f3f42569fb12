"""The indices of summaries: their names, and what they may hold."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from gatebook.processors.summaries.rows import COUNTS, DAY, FIELDS, HOUR

_KEYWORD = {"type": "keyword", "ignore_above": 1024}
_LONG = {"type": "long"}
_SPREAD = {
    "properties": {
        "count": _LONG,
        "sum_ns": _LONG,
        "max_ns": _LONG,
        "spread": {"type": "binary"},
    }
}


def alias(namespace: str) -> str:
    """All summaries, hours and days: whoever counts here filters by summary.grain and .by."""
    return f"{namespace}-summary"


def index_of(namespace: str, grain: str, at: datetime) -> str:
    """Hours stand in an index a month, days in one a year."""
    return f"{namespace}-summary-{grain}-{at:%Y.%m}" if grain == HOUR else _day_index(namespace, at)


def _day_index(namespace: str, at: datetime) -> str:
    return f"{namespace}-summary-{DAY}-{at:%Y}"


def state_index(namespace: str) -> str:
    """How far summaries are, and what is carried of details that went."""
    return f"{namespace}-rollup-state"


def template(namespace: str, replicas: int, best_compression: bool = False) -> dict[str, Any]:
    """The body of the index template."""
    index: dict[str, Any] = {
        "number_of_shards": 1,
        "number_of_replicas": replicas,
        "refresh_interval": "30s",  # whoever sums up refreshes when it is done
    }
    if best_compression:
        index["codec"] = "best_compression"
    return {
        "index_patterns": [f"{namespace}-summary-{HOUR}-*", f"{namespace}-summary-{DAY}-*"],
        "priority": 200,
        "template": {
            "settings": {"index": index},
            "mappings": {"dynamic": "strict", "properties": _properties()},
            "aliases": {alias(namespace): {}},
        },
        "_meta": {
            "description": "Accesses by hour and by day: counts, sums and mergeable sketches"
        },
    }


def _properties() -> dict[str, Any]:
    properties: dict[str, Any] = {"@timestamp": {"type": "date"}}
    for field in FIELDS.values():
        node = properties
        *path, last = field.split(".")
        for name in path:
            node = node.setdefault(name, {"properties": {}})["properties"]
        node[last] = _KEYWORD
    properties["summary"] = {
        "properties": {
            "grain": _KEYWORD,
            "by": _KEYWORD,
            **dict.fromkeys(COUNTS, _LONG),
            "duration": _SPREAD,
            "first_chunk": _SPREAD,
            "principals": {"type": "binary"},
        }
    }
    return properties


def state_body() -> dict[str, Any]:
    """The body of the index that holds the state."""
    return {
        "settings": {
            "index": {"number_of_shards": 1, "auto_expand_replicas": "0-1", "hidden": True}
        },
        "mappings": {
            "dynamic": False,
            "properties": {
                "type": {"type": "keyword"},
                "at": {"type": "date"},
                "is_done": {"type": "boolean"},
                "tag": {"type": "keyword"},
            },
        },
    }
