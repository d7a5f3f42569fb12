"""Files that hold private keys, and who may read them beside their owner."""

from __future__ import annotations

import logging
import stat
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

OTHERS_READ = stat.S_IRGRP | stat.S_IROTH
ADVICE = "chmod 600"


def exposure(path: Path) -> str:
    """The mode of a file that its group or others may read, such as `0644`; empty for one that is
    its owner's alone, or that is not there. Folders above it are not looked at."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return ""
    return f"{mode:04o}" if mode & OTHERS_READ else ""


def may_be_private(data: bytes) -> bool:
    """Whether the bytes of a key file are to be kept to oneself: all but a bundle of public
    keys."""
    return not (data.lstrip()[:1] == b"{" and b'"private"' not in data)


def warn_if_exposed(path: Path) -> None:
    """Log a warning where others may read a private key; once for a file in a process."""
    mode = exposure(path)
    if mode:
        _warn(path, mode)


@cache
def _warn(path: Path, mode: str) -> None:
    log.warning("a private key can be read by others (mode %s): %s %s", mode, ADVICE, path)
