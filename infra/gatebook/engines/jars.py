"""The engines' Java files: which ones, their checksums, and how they get into the cache.

The lock (`jars.lock.json`) names every file with its sha256; `infra/lock_jars.py` writes it.
A file enters the cache under its final name only when it is whole and its checksum is right, so
a fetch that dies half-way leaves nothing that could be taken for a jar.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from gatebook.engines.errors import DownloadFailed, missing_extra
from gatebook.engines.progress import Progress, Quiet

PARALLEL_DOWNLOADS = 4
TRIES_AFTER_FAILURE = 2
CONNECT_TIMEOUT_SECONDS = 15
READ_TIMEOUT_SECONDS = 60
CHUNK_BYTES = 256 * 1024


class Jar(msgspec.Struct, frozen=True):
    """One file of a Maven repository, pinned."""

    group: str
    artifact: str
    version: str
    classifier: str | None
    path: str
    """Relative to the repository's base URL, and to the cache."""
    sha256: str
    size: int


class JarGroup(msgspec.Struct, frozen=True):
    """The files of one engine (or of one part of it)."""

    version: str
    jars: tuple[Jar, ...]

    @property
    def size(self) -> int:
        return sum(jar.size for jar in self.jars)


class JarLock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    groups: dict[str, JarGroup]


@functools.cache
def read_lock() -> JarLock:
    """The lock that ships in this package."""
    text = resources.files("gatebook.engines").joinpath("jars.lock.json").read_bytes()
    return msgspec.json.decode(text, type=JarLock)


def jar_paths(group: JarGroup, cache_dir: Path) -> list[Path]:
    """Where the group's files are or will be; says nothing about their being there."""
    return [cache_dir / "jars" / jar.path for jar in group.jars]


def missing(group: JarGroup, cache_dir: Path) -> list[Jar]:
    """The files that are absent or of the wrong size (the checksum is left to `fetch`)."""
    paths = jar_paths(group, cache_dir)
    return [jar for jar, path in zip(group.jars, paths, strict=True) if not _fits(path, jar)]


def damaged(group: JarGroup, cache_dir: Path) -> list[Jar]:
    """The files that are there with another checksum than locked; reads every byte of them."""
    paths = jar_paths(group, cache_dir)
    pairs = zip(group.jars, paths, strict=True)
    return [jar for jar, path in pairs if path.is_file() and _sha256(path) != jar.sha256]


def fetch(
    groups: list[JarGroup], cache_dir: Path, repository: str, progress: Progress | None = None
) -> None:
    """Bring every file of `groups` into the cache, checksum verified; DownloadFailed if not.

    A cached file whose checksum is wrong is fetched again. Files that did arrive are kept when
    another fails, so a second try goes on where the first stopped.
    """
    jars = {jar.path: jar for group in groups for jar in group.jars}
    wanted = sum(jar.size for group in groups for jar in missing(group, cache_dir))
    meter = _Meter(wanted, progress or Quiet())
    pooch = _pooch(jars, cache_dir, repository)
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        tasks = [pool.submit(_fetch_one, pooch, jar, repository, meter) for jar in jars.values()]
        try:
            for task in tasks:
                task.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fits(path: Path, jar: Jar) -> bool:
    return path.is_file() and path.stat().st_size == jar.size


def _pooch(jars: dict[str, Jar], cache_dir: Path, repository: str) -> Any:
    try:
        import pooch
    except ImportError as error:
        raise missing_extra("pooch") from error
    logging.getLogger("pooch").setLevel(logging.WARNING)  # else it announces each file
    pooch.get_logger().setLevel(logging.WARNING)
    return pooch.create(
        path=cache_dir / "jars",
        base_url=repository.rstrip("/") + "/",
        registry={path: f"sha256:{jar.sha256}" for path, jar in jars.items()},
        retry_if_failed=TRIES_AFTER_FAILURE,
    )


def _fetch_one(pooch: Any, jar: Jar, repository: str, meter: _Meter) -> None:
    import requests

    try:
        pooch.fetch(jar.path, downloader=functools.partial(_download, meter=meter))
    except requests.exceptions.RequestException as error:
        raise _download_failed(jar, repository, error) from error
    except ValueError as error:  # what pooch raises on a wrong checksum
        raise _checksum_mismatch(jar, repository) from error


def _download(url: str, output_file: str, pooch: Any, *, meter: _Meter) -> None:
    """Write `url` into pooch's temporary file; pooch verifies, then renames.

    If we die here, the temporary file is left under a random name and is never read.
    """
    import requests

    timeout = (CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)
    with (
        requests.get(url, stream=True, timeout=timeout) as response,
        open(output_file, "wb") as sink,
    ):
        response.raise_for_status()
        for chunk in response.iter_content(CHUNK_BYTES):
            sink.write(chunk)
            meter.add(len(chunk))


class _Meter:
    """Adds up what the downloading threads have written."""

    def __init__(self, total_bytes: int, progress: Progress) -> None:
        self._total_bytes = total_bytes
        self._progress = progress
        self._done_bytes = 0
        self._lock = threading.Lock()

    def add(self, count_bytes: int) -> None:
        with self._lock:  # a file fetched twice counts twice, so hold the figure at the total
            self._done_bytes = min(self._done_bytes + count_bytes, self._total_bytes)
            self._progress.downloading(self._done_bytes, self._total_bytes)


def _download_failed(jar: Jar, repository: str, error: Exception) -> DownloadFailed:
    status = getattr(getattr(error, "response", None), "status_code", None)
    cause = f"HTTP status {status}" if status else type(error).__name__
    return DownloadFailed(
        f"Could not download {jar.artifact} {jar.version} from {repository} ({cause}).",
        "check the network and HTTPS_PROXY, or set GATEBOOK_MAVEN_REPOSITORY to a mirror you "
        "can reach; then run the command again: files that arrived are kept",
    )


def _checksum_mismatch(jar: Jar, repository: str) -> DownloadFailed:
    return DownloadFailed(
        f"{jar.artifact} {jar.version} from {repository} is not the file that Gatebook was "
        "built with (its sha256 differs), so it was thrown away.",
        "try again; if it stays so, the repository or a proxy in between changes files: set "
        "GATEBOOK_MAVEN_REPOSITORY to another one",
    )
