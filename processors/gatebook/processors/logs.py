"""Structured logs: one JSON object a line, without content.

A message is a fixed text; what varies goes into `extra={"gatebook": {...}}` and is codes, counts
and offsets. An exception is logged by its class, never by its text, which may quote a record.
"""

from __future__ import annotations

import logging
import math
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from gatebook.schemas.errors import GatebookError

MAX_REMEMBERED = 1_000
MAX_FRAMES = 8
Clock = Callable[[], float]


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON in ECS names."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "@timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "log.level": record.levelname.lower(),
            "log.logger": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, "gatebook", {}))
        if record.exc_info and record.exc_info[0]:
            line["error.type"] = record.exc_info[0].__name__
            line["error.stack_trace"] = frames_of(record.exc_info[2])
        return orjson.dumps(line, default=str).decode()


def frames_of(trace: TracebackType | None) -> str:
    """Files, lines and functions of the innermost calls; neither values nor words."""
    frames = traceback.extract_tb(trace)[-MAX_FRAMES:]
    return " > ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames)


class NoExceptionText(logging.Filter):
    """Libraries format exceptions into their messages; keep the class, drop the words."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(map(_without_words, record.args))
        if record.name == "asyncio":  # quotes a failed task with its exception, line by line
            record.msg, record.args = record.getMessage().partition("\n")[0], ()
        record.exc_text = None
        return True


def _without_words(argument: Any) -> Any:
    """The class of an exception; our own errors keep their words, which hold no content."""
    if isinstance(argument, BaseException) and not isinstance(argument, GatebookError):
        return type(argument).__name__
    return argument


class Unrepeated(logging.Filter):
    """Lets a library say the same thing once a while: a client that cannot reach a broker says so
    many times a second. What follows tells how often it was left out. Our own lines all pass."""

    def __init__(self, every_seconds: float = 300.0, clock: Clock = time.monotonic) -> None:
        super().__init__()
        self._every_seconds, self._clock = every_seconds, clock
        self._said: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("gatebook"):
            return True
        key, now = (record.name, record.levelno, str(record.msg)), self._clock()
        said_at, left_out = self._said.get(key, (-math.inf, 0))
        if now - said_at < self._every_seconds:
            self._said[key] = (said_at, left_out + 1)
            return False
        if len(self._said) >= MAX_REMEMBERED:
            self._said.clear()
        self._said[key] = (now, 0)
        if left_out:
            record.gatebook = {"log.repeated": left_out}
        return True


class NotFaust(logging.Filter):
    """Lets our own lines pass, not those mode.Service writes below a warning."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or not record.getMessage().startswith("[^")


def configure(level: str = "INFO") -> None:
    """Send all logs of this process to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(NoExceptionText())
    handler.addFilter(Unrepeated())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Faust logs its consumer under the name of the module that defines it: ours.
    logging.getLogger("gatebook.processors.app").addFilter(NotFaust())
    for noisy in ("aiokafka", "faust", "mode", "elastic_transport", "elasticsearch"):
        logging.getLogger(noisy).setLevel("ERROR" if level != "DEBUG" else "DEBUG")
