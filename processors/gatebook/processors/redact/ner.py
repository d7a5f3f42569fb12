"""Names and addresses: what no pattern tells, found by a plug-in in processes of its own.

A plug-in is a module with `create(argument) -> Callable[[str], Iterable[tuple[str, int, int]]]`:
given a text, it returns (kind, first character, character after the last) of each value it sees.
It is loaded in child processes only, so a model's memory, time and crashes stay outside of intake.

It fails closed: a plug-in that does not answer in time, answers nonsense, dies or cannot be
started makes redaction of that text fail. A child that had to be ended is replaced; one that dies
again and again is not started more often than once a `restart_seconds`.

Unlike the rules, a model is no pure function of the text for all times: its name and version
belong to the policy version, and its time-out is a clock's.
"""

from __future__ import annotations

import importlib
import multiprocessing
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import Empty, LifoQueue
from threading import Lock
from typing import Any

import msgspec

from .errors import RedactionFailed, RuleInvalid

Entity = tuple[str, int, int]
Find = Callable[[str], Iterable[Entity]]
_KIND = re.compile(r"[a-z][a-z0-9_]{1,39}")
_READY = b"ready"


@dataclass(frozen=True, slots=True)
class NerLimits:
    """Bounds on the plug-in; beyond them redaction fails."""

    timeout_seconds: float = 0.05
    """For one text, once the child runs."""
    start_seconds: float = 60.0
    """Loading a model takes long; nothing is redacted before it is there."""
    restart_seconds: float = 1.0
    processes: int = 1
    text_characters: int = 200_000
    entities: int = 5_000


@dataclass(slots=True)
class _Child:
    process: BaseProcess
    connection: Connection
    answered: bool = field(default=False)

    def end(self) -> None:
        """End the process, whatever it does at the moment."""
        self.connection.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join(timeout=5)


class NerPool:
    """Children that run one plug-in. Thread-safe; `close` ends them."""

    def __init__(self, module: str, limits: NerLimits | None = None) -> None:
        """Start the children. Raises RuleInvalid if the plug-in cannot be loaded there."""
        self.module = module
        self.limits = limits or NerLimits()
        self.version = ""
        self._context = multiprocessing.get_context("spawn")
        self._idle: LifoQueue[_Child | None] = LifoQueue()
        self._lock = Lock()
        self._next_start = 0.0
        self._closed = False
        for _ in range(self.limits.processes):
            self._idle.put(self._started())

    def find(self, text: str) -> list[Entity]:
        """Return what the plug-in sees. Raises RedactionFailed if it does not answer well."""
        if len(text) > self.limits.text_characters:
            raise RedactionFailed(RedactionFailed.OVERSIZE)
        try:
            child = self._idle.get(timeout=self.limits.timeout_seconds)
        except Empty:
            raise RedactionFailed(RedactionFailed.TIMEOUT) from None
        return self._asked(child, text)

    def close(self) -> None:
        """End all children. A pool that is closed finds nothing any more: it fails."""
        self._closed = True
        with suppress(Empty):
            while True:
                child = self._idle.get_nowait()
                if child:
                    child.end()

    def _asked(self, child: _Child | None, text: str) -> list[Entity]:
        answered: _Child | None = None
        try:
            child = child or self._restarted()
            entities = self._answer(child, text)
            answered = child
            return entities
        except (OSError, EOFError, msgspec.MsgspecError, RuleInvalid):
            raise RedactionFailed(RedactionFailed.PLUGIN) from None
        finally:
            # The slot goes back in any case: empty where the child is gone or may still be busy.
            if child and not answered:
                child.end()
            self._idle.put(answered)

    def _answer(self, child: _Child, text: str) -> list[Entity]:
        child.connection.send_bytes(text.encode("utf-8", "surrogatepass"))
        if not child.connection.poll(self.limits.timeout_seconds):
            raise RedactionFailed(RedactionFailed.TIMEOUT)
        answer = msgspec.msgpack.decode(child.connection.recv_bytes(), type=list[Entity] | None)
        if answer is None or len(answer) > self.limits.entities:
            raise RedactionFailed(RedactionFailed.PLUGIN)
        for kind, start, end in answer:
            if not (_KIND.fullmatch(kind) and 0 <= start < end <= len(text)):
                raise RedactionFailed(RedactionFailed.PLUGIN)
        return answer

    def _restarted(self) -> _Child:
        with self._lock:
            if self._closed or time.monotonic() < self._next_start:
                raise RuleInvalid("the plug-in is not running")
            self._next_start = time.monotonic() + self.limits.restart_seconds
        return self._started()

    def _started(self) -> _Child:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(self.module, theirs), daemon=True)
        process.start()
        theirs.close()
        child = _Child(process, ours)
        try:
            ready = ours.poll(self.limits.start_seconds) and ours.recv_bytes()
        except (OSError, EOFError):
            ready = False
        if not ready or not ready.startswith(_READY):
            child.end()
            raise RuleInvalid(f"plug-in {self.module}: it could not be loaded in its process")
        self.version = ready[len(_READY) :].decode("utf-8", "replace")
        return child


def load_plugin(module: str) -> tuple[Find, str]:
    """Import `package.module` or `package.module:argument` and make its finder; with its
    `__version__`, if it says one."""
    name, _, argument = module.partition(":")
    imported: Any = importlib.import_module(name)
    find = imported.create(argument) if argument else imported.create()
    return find, str(getattr(imported, "__version__", ""))


def _serve(module: str, connection: Connection) -> None:
    """The child: texts in, entities out. Dies with the pipe; nothing is logged, as it has texts."""
    try:
        find, version = load_plugin(module)
    except BaseException:  # whatever a plug-in raises: the parent is told by the closed pipe
        return
    connection.send_bytes(_READY + version.encode("utf-8"))
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            text = connection.recv_bytes().decode("utf-8", "surrogatepass")
            connection.send_bytes(msgspec.msgpack.encode(_found(find, text)))


def _found(find: Find, text: str) -> list[Entity] | None:
    """What the plug-in sees, or None where it fails on this text: the parent fails closed."""
    try:
        return [(str(kind), int(start), int(end)) for kind, start, end in find(text)]
    except Exception:  # whatever a plug-in raises is a text that was not read
        return None


def merged(entities: Sequence[Entity]) -> Iterator[Entity]:
    """Yield the longest of overlapping entities, in order."""
    last = -1
    for kind, start, end in sorted(entities, key=lambda entity: (entity[1], -entity[2])):
        if start >= last:
            yield kind, start, end
            last = end
