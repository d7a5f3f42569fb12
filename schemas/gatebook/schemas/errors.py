"""The two kinds of error every part uses, under one base."""

from __future__ import annotations


class GatebookError(Exception):
    """Base of all errors of Gatebook. Its text never holds content or secrets."""


class RecordRejected(GatebookError):
    """One record cannot be processed; the work goes on without it.

    `reason` is a code of a closed list (see DeadLetter.event.reason), `detail` a text
    without content.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Fatal(GatebookError):
    """The process cannot go on. `next_step` tells a person what to do."""

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.next_step = next_step


class WrongSetting(Fatal):
    """A setting is wrong: nothing was tried. The command line ends with 2, as for wrong usage."""

    exit_code = 2


class RegistryUnavailable(GatebookError):
    """The schema registry gave no usable answer: try the same call again later.

    Says nothing about the message at hand, which must not be rejected for it.
    """
