"""A plug-in for tests that knows three people whose scripts have no spaces between words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

__version__ = "1"
_NAME = re.compile(r"王小明|山田太郎|สมชาย")


def create() -> Callable[[str], Iterable[tuple[str, int, int]]]:
    """The finder."""
    return lambda text: [("person", *match.span()) for match in _NAME.finditer(text)]
