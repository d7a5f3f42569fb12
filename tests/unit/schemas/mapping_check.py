"""What a strict index would say of a document, in pure code: every complaint, as text."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

DATE_NANOS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")


def _is_ip(value: Any) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


ACCEPTS: dict[str, Callable[[Any], bool]] = {
    "keyword": lambda value: isinstance(value, str),
    "text": lambda value: isinstance(value, str),
    "long": lambda value: type(value) is int and -(1 << 63) <= value < 1 << 63,
    "double": lambda value: type(value) in (int, float),
    "boolean": lambda value: type(value) is bool,
    "date_nanos": lambda value: isinstance(value, str) and bool(DATE_NANOS.fullmatch(value)),
    "ip": _is_ip,
    "flattened": lambda value: isinstance(value, dict),
}


def complaints(
    properties: Mapping[str, Any], document: Mapping[str, Any], above: str = ""
) -> Iterator[str]:
    """Unknown paths and values of the wrong type, by dotted path."""
    for name, value in document.items():
        path, mapped = above + name, properties.get(name)
        if mapped is None:
            yield f"{path}: not in the mapping"
        elif "properties" in mapped:
            yield from complaints(mapped["properties"], value, path + ".")
        else:
            values = value if isinstance(value, list) else [value]
            if not all(map(ACCEPTS[mapped["type"]], values)):
                yield f"{path}: not a {mapped['type']}"
