"""A plug-in for tests: two capitalised words in a row are a person. It also fails on demand."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterable

__version__ = "3"
_NAME = re.compile(r"\b[A-Z][a-z]+ [A-Z][a-z]+\b")


def create() -> Callable[[str], Iterable[tuple[str, int, int]]]:
    """The finder; what the text says decides how it fails."""
    return _find


def _find(text: str) -> Iterable[tuple[str, int, int]]:
    if "please die" in text:
        os._exit(3)
    if "please hang" in text:
        signal.pause()
    if "please raise" in text:
        raise ValueError(text)
    if "please lie" in text:
        return [("person", 0, len(text) + 1)]
    return [("person", *match.span()) for match in _NAME.finditer(text)]
