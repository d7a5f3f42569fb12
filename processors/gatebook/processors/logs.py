"""Structured logs: one JSON object a line, without content.

A message is a fixed text; what varies goes into `extra={"gatebook": {...}}` and is codes, counts
and offsets. An exception is logged by its class, never by its text, which may quote a record.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import orjson

from gatebook.schemas.errors import GatebookError


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
        return orjson.dumps(line, default=str).decode()


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


class NotFaust(logging.Filter):
    """Lets our own lines pass, not those mode.Service writes below a warning."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or not record.getMessage().startswith("[^")


def configure(level: str = "INFO") -> None:
    """Send all logs of this process to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(NoExceptionText())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Faust logs its consumer under the name of the module that defines it: ours.
    logging.getLogger("gatebook.processors.app").addFilter(NotFaust())
    for noisy in ("aiokafka", "faust", "mode", "elastic_transport", "elasticsearch"):
        logging.getLogger(noisy).setLevel("ERROR" if level != "DEBUG" else "DEBUG")
