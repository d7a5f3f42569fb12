"""Errors of the redactor. None of them ever carries text, a key or a value."""

from __future__ import annotations


class RuleInvalid(ValueError):
    """A packaged rule cannot be used; the message names the rule and the field only."""


class RedactionFailed(Exception):
    """The text could not be redacted; the caller keeps metadata only (fail closed).

    `reason` is one of the constants below, fit for a metric label; `where` is the label the
    caller gave (never a key or value from the data).
    """

    OVERSIZE = "oversize"
    TOO_MUCH_WORK = "too_much_work"
    TOO_DEEP = "too_deep"
    TOO_MANY_NODES = "too_many_nodes"
    UNKNOWN_TYPE = "unknown_type"
    UNSTABLE = "unstable"
    TIMEOUT = "timeout"
    PLUGIN = "plugin"
    ERROR = "error"

    def __init__(self, reason: str, where: str = "") -> None:
        super().__init__(f"redaction failed: {reason}" + (f" in {where}" if where else ""))
        self.reason = reason
        self.where = where
