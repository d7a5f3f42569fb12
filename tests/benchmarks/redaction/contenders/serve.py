"""What a contender's process answers with: JSON lines on its standard streams, stdlib only.

It runs with the interpreter of the contender's own environment, beside the contender's script:

    {"do": "find", "texts": [...]}
        -> {"answers": [[[name, start, end], ...] or "why not", ...]}
    {"do": "time", "texts": [...], "seconds": s}
        -> {"cpu_seconds": ..., "rounds": ..., "refused": ...}
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Spans = list[tuple[str, int, int]]


class Refused(Exception):
    """The contender will not answer for this text."""


def serve(find: Callable[[str], Spans], work: Callable[[str], object] | None = None) -> None:
    """Answer until standard input ends. `work` is what is timed, where finding does more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    _say(answers, {"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "find":
            _say(answers, {"answers": [_answer(find, text) for text in asked["texts"]]})
        else:
            _say(answers, _timed(work or find, asked["texts"], asked["seconds"]))


def _say(answers: Any, said: dict[str, Any]) -> None:
    answers.write(json.dumps(said) + "\n")
    answers.flush()


def _answer(find: Callable[[str], Spans], text: str) -> Spans | str:
    try:
        return find(text)
    except Refused as why:
        return str(why)


def _timed(work: Callable[[str], object], texts: list[str], seconds: float) -> dict[str, Any]:
    """All texts again and again for that many CPU seconds, once at least."""
    rounds = refused = 0
    begun = time.process_time()
    while rounds == 0 or time.process_time() - begun < seconds:
        refused = sum(_is_refused(work, text) for text in texts)
        rounds += 1
    return {
        "cpu_seconds": time.process_time() - begun,
        "rounds": rounds,
        "refused": refused,
    }


def _is_refused(work: Callable[[str], object], text: str) -> bool:
    try:
        work(text)
    except Refused:
        return True
    return False
