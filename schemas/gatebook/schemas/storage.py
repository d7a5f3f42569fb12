"""How fields are kept in an index, where that differs from what their type would do by itself.

A keyword, number or time is kept three times: in the document, in an index (finding documents by a
value) and in doc values (sorting, counting, charts). Values that hardly repeat, such as ids and
digests, make up most of what an index weighs. What nobody asks of such a field is not paid for.

This is about indices alone: documents carry every field whatever stands here, and no schema changes
with it. Indices that exist keep what they have. The search reads the outcome from the generated
templates: it refuses to sort or count what has no doc values, and to query what has neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Storage:
    """index: documents are found by a value at once (without it, doc values are read through,
    which takes longer). doc_values: it can be sorted by, counted and charted. why: one line."""

    index: bool
    doc_values: bool
    why: str

    @property
    def note(self) -> str:
        """What it can be used for, in words for people."""
        if not self.index and not self.doc_values:
            return "shown only"
        return "no sorting or counting" if self.index else "slower to search"

    @property
    def mapping(self) -> dict[str, bool]:
        """What is added to a field's mapping: only what is not the default."""
        given = {"index": self.index, "doc_values": self.doc_values}
        return {name: False for name, is_on in given.items() if not is_on}


SHOWN_ONLY, SEARCHED, COUNTED = (False, False), (True, False), (False, True)

# Of every kind of document.
_HASH = {
    "event.hash": Storage(*SHOWN_ONLY, "compared with the stored document, never looked up"),
}
STORAGE: Mapping[str, Mapping[str, Storage]] = {
    "access": {
        **_HASH,
        "trace.id": Storage(*SEARCHED, "found by its value; every trace has one of its own"),
        "span.id": Storage(*SEARCHED, "found by its value; every call has one of its own"),
        "http.request.id": Storage(*SEARCHED, "found by its value; every request has its own"),
        "gen_ai.response.id": Storage(*SEARCHED, "found by its value; every answer has its own"),
        "gatebook.content_digest.input": Storage(
            *COUNTED, "findings count different inputs; rarely searched"
        ),
        "gatebook.content_digest.output": Storage(*SEARCHED, "found by its value; hardly repeats"),
        "gatebook.content.commitment": Storage(*SEARCHED, "found by its value; never repeats"),
        "event.created": Storage(*COUNTED, "close to @timestamp, by which ranges are narrowed"),
        "event.end": Storage(*COUNTED, "close to @timestamp, by which ranges are narrowed"),
    },
    "finding": _HASH,
    "deadletter": _HASH,
    "alert": _HASH,
}
