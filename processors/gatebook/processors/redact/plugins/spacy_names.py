"""Names and places by a spaCy model, for the setting `redaction_ner`: give it this module's name.

Neither spaCy nor a model is among our dependencies. After a colon stands an installed model
package, `en_core_web_sm` by default. Models miss names and see some where there are none: this
tier adds to the rules, it proves nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

_KINDS = {"PERSON": "person", "PER": "person", "GPE": "place", "LOC": "place", "FAC": "place"}
_UNUSED = ("tagger", "parser", "attribute_ruler", "lemmatizer", "morphologizer")

__version__ = version("spacy")


def create(model: str = "en_core_web_sm") -> Callable[[str], Iterable[tuple[str, int, int]]]:
    """Load the model and return the finder. Raises what spaCy raises without it."""
    pipeline: Any = importlib.import_module(model).load(disable=list(_UNUSED))

    def find(text: str) -> Iterable[tuple[str, int, int]]:
        return [
            (_KINDS[entity.label_], entity.start_char, entity.end_char)
            for entity in pipeline(text).ents
            if entity.label_ in _KINDS
        ]

    return find
