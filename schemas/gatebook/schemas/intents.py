"""How the record before a call and the one after it name each other: by their ids alone.

The intent's event.id is the terminal event's with a suffix, so the link needs no field of its own,
is never redacted, and both are found by one look-up of ids.
"""

from __future__ import annotations

SUFFIX = ":intent"
INTENT = "intent"
TERMINAL = "terminal"
# event.reason of what stands for a terminal event that never came.
INCOMPLETE = "incomplete"


def intent_id(terminal_id: str) -> str:
    """event.id of the intent that announces this terminal event."""
    return terminal_id + SUFFIX


def terminal_id(intent: str) -> str:
    """event.id of the terminal event that an intent announces; empty where it is no intent's."""
    return intent.removesuffix(SUFFIX) if intent.endswith(SUFFIX) else ""
