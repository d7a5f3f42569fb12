"""Accesses by which Gatebook records what its own users do: they are judged by other rules."""

from __future__ import annotations

from gatebook.processors.detect.access import Access

SERVICES = frozenset({"gatebook-operator", "gatebook-policy"})


def is_slip(access: Access) -> bool:
    """Whether a reader of the log asked for something in a form that cannot be answered, such as a
    search with a typo, of which one look makes several. A refusal is no slip."""
    return access.reason == "invalid_request" and access.service in SERVICES


def has_no_content(access: Access) -> bool:
    """Whether this is an act on the log, which has no prompt and no answer: what redaction found
    stands in a query, a reason or a name that one of its users wrote."""
    return access.service in SERVICES and access.capture_level in ("none", "metadata")
