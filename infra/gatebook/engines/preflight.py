"""Refuse to start where starting would hurt: too little disk or memory."""

from __future__ import annotations

import shutil
from pathlib import Path

from gatebook.engines.errors import TooLittleSpace
from gatebook.engines.processes import available_memory_bytes

MIB = 1024 * 1024
GIB = 1024 * MIB
REQUIRED_DISK_BYTES = 2 * GIB
REQUIRED_MEMORY_BYTES = int(2.5 * GIB)
# Elasticsearch stops placing shards on a disk that is fuller than this.
LOW_WATERMARK = 0.85


def free_disk_bytes(path: Path) -> int:
    """Free space for us on the disk that holds `path` (or will, once it exists)."""
    return shutil.disk_usage(_existing(path)).free


def disk_used_share(path: Path) -> float:
    usage = shutil.disk_usage(_existing(path))
    return (usage.total - usage.free) / usage.total


def require_disk(path: Path, free_bytes: int | None = None) -> None:
    free = free_disk_bytes(path) if free_bytes is None else free_bytes
    if free < REQUIRED_DISK_BYTES:
        raise TooLittleSpace(
            f"Only {free / GIB:.1f} GiB are free on the disk of {path}; "
            f"the engines need {REQUIRED_DISK_BYTES / GIB:.0f} GiB.",
            "free some space, or set GATEBOOK_HOME to a directory on a larger disk",
        )


def require_memory(available_bytes: int | None = None) -> None:
    available = available_memory_bytes() if available_bytes is None else available_bytes
    if available < REQUIRED_MEMORY_BYTES:
        raise TooLittleSpace(
            f"Only {available / GIB:.1f} GiB of memory are available; "
            f"the engines need {REQUIRED_MEMORY_BYTES / GIB:.1f} GiB.",
            "close other programs, or use engines elsewhere by setting "
            "GATEBOOK_KAFKA_BOOTSTRAP and GATEBOOK_ELASTICSEARCH_URL",
        )


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
