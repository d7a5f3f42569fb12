"""One row of `gatebook doctor`."""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["ok", "warn", "fail"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, how it is, and what to do where it is not ok.

    `warn` is no obstacle to working; `fail` is one.
    """

    name: str
    verdict: Verdict
    detail: str
    next_step: str = ""
