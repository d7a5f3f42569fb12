"""The policy in force: from its file, read again when that changes, with the last good one kept.

A file that is broken stops nothing and loosens nothing: the last good policy stays in force, also
over a restart, from a copy in the producer's home. Where there never was a good one, a level that
the settings choose holds for everything. Either way it is said: in the log without the file's text,
in a metric and in an event.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from gatebook.producers.policy.document import MAX_FILE_BYTES, PolicyInvalid, digest_of
from gatebook.producers.policy.match import Policy
from gatebook.producers.policy.notices import (
    LAST_GOOD,
    NEVER_GOOD,
    POLICY_BROKEN,
    POLICY_CHANGED,
    Notice,
)

log = logging.getLogger("gatebook.producers")

REMIND_SECONDS = 600.0
FALLBACK_NAME = "fallback"
FALLBACKS = {
    "none": "accesses are counted only",
    "metadata": "metadata is captured of everything",
}
UNREADABLE = "unreadable"
Stamp = tuple[int, int, int]


def policy_of_level(level: str) -> Policy:
    """One level for everything: what holds without a policy file."""
    return _of_level("settings", level)


def _of_level(name: str, level: str) -> Policy:
    rule = f'[[rule]]\nname = "all"\nlevel = "{level}"\n'
    return Policy.read(f'version = 1\nname = "{name}"\n\n{rule}'.encode())


class PolicyStore:
    """The policy of one file. Not for use from several threads.

    `policy` is in force; `problem` says why the file is not, and is empty where it is. `kept_at`
    is where the copy of the last good one stands. `fallback` is the level of everything where
    there never was a good one.
    """

    def __init__(
        self,
        path: Path,
        kept_at: Path,
        monotonic: Callable[[], float] = time.monotonic,
        fallback: str = "metadata",
    ) -> None:
        self.path = path
        self.problem = ""
        self.changed = self.broken = 0  # times
        self._kept_at = kept_at
        self._monotonic = monotonic
        self._stamp: Stamp | None = None
        self._suspect = ""
        self._remind_at = 0.0
        self._unsaid: list[Notice] = []
        self._fallback = fallback
        self.policy = self._kept() or _of_level(FALLBACK_NAME, fallback)
        self._had_one = self.policy.name != FALLBACK_NAME
        self._begin()

    def look(self) -> list[Notice]:
        """Read the file if it changed; what is to be said of that."""
        stamp = _stamp_of(self.path)
        if stamp is None or stamp != self._stamp or self._suspect:
            self._stamp = stamp
            self._read(patient=True)
        if self.problem and self._monotonic() >= self._remind_at:
            self._say_broken()
        unsaid, self._unsaid = self._unsaid, []
        return unsaid

    def _begin(self) -> None:
        self._stamp = _stamp_of(self.path)
        self._read(patient=False)

    def _read(self, *, patient: bool) -> None:
        """Take the file over, or note what is wrong. `patient`: a file that is wrong may be half
        written, so it counts as broken only when it is still the same at the next look."""
        try:
            data = _bytes_of(self.path)
            digest = digest_of(data)
            policy = self.policy if digest == self.policy.digest else Policy.read(data)
        except OSError:
            self._refuse(UNREADABLE, UNREADABLE, 0, patient)
        except PolicyInvalid as error:
            self._refuse(digest, error.code, error.line, patient)
        except Exception as error:  # whatever stands in the file must not stop the writer
            log.error("the capture policy could not be read: %s", type(error).__name__)
            self._refuse(UNREADABLE, UNREADABLE, 0, patient)
        else:
            self._accept(policy, data)

    def _refuse(self, sign: str, code: str, line: int, patient: bool) -> None:
        if patient and self._suspect != sign:
            self._suspect = sign
            return
        self._suspect = ""
        problem = f"{code}, line {line}" if line else code
        if problem == self.problem:
            return
        self.problem = problem
        self.broken += 1
        stays = "the last good one stays" if self._had_one else FALLBACKS[self._fallback]
        log.error("the capture policy %s is broken (%s): %s", self.path, problem, stays)
        self._say_broken()

    def _say_broken(self) -> None:
        self._remind_at = self._monotonic() + REMIND_SECONDS
        attributes = {
            "policy": self.policy.name,
            "policy_in_force": self.policy.digest,
            "in_force": LAST_GOOD if self._had_one else NEVER_GOOD,
            "level": "" if self._had_one else self._fallback,
            "problem": self.problem,
        }
        self._unsaid.append(Notice(POLICY_BROKEN, self.problem.partition(",")[0], attributes))

    def _accept(self, policy: Policy, data: bytes) -> None:
        self._suspect = ""
        old, was_broken = self.policy, bool(self.problem)
        self.problem = ""
        if policy.digest == old.digest and not was_broken:
            return
        before = old.digest if self._had_one else ""
        self.policy, self._had_one = policy, True
        self._keep(data)
        self.changed += 1
        log.info("capture policy %s, %s, is in force", policy.name, policy.digest[:12])
        attributes = {"policy": policy.name, "old_policy": before, "new_policy": policy.digest}
        reason = "restored" if policy.digest == before else "changed" if before else "first"
        self._unsaid.append(Notice(POLICY_CHANGED, reason, attributes))

    # -- the last good one --------------------------------------------------------------------

    def _kept(self) -> Policy | None:
        try:
            return Policy.read(_bytes_of(self._kept_at))
        except (OSError, PolicyInvalid):
            return None

    def _keep(self, data: bytes) -> None:
        """If we die in here, the old copy stays whole: then a start with a broken file takes one
        policy further back."""
        draft = self._kept_at.with_name(f".{self._kept_at.name}.{secrets.token_hex(4)}")
        try:
            self._kept_at.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._kept_at)
        except OSError as error:
            log.warning("no copy of the capture policy could be kept: %s", error.strerror)
            with contextlib.suppress(OSError):
                draft.unlink()


def kept_path(home: Path, path: Path) -> Path:
    """Where the last good copy of a policy file stands in a producer's home."""
    name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    return home / "policy" / f"{name}.toml"


def _bytes_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def _stamp_of(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
