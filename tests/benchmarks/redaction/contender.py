"""The contenders: each in a process of its own, two of them in environments of their own."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.redaction import scorer
from tests.benchmarks.redaction.scorer import Prediction

from gatebook.engines.settings import default_cache

SCRIPTS = Path(__file__).parent / "contenders"
START_SECONDS = 60.0
ANSWER_SECONDS = 900.0
BATCH_TEXTS = 200


@dataclass(frozen=True)
class Contender:
    """`requirements` names the file that its environment is made from, all versions pinned;
    without one it runs in ours."""

    name: str
    script: str
    requirements: str = ""
    offers: frozenset[str] = frozenset(scorer.KINDS)
    """Kinds it has anything for; recall elsewhere would say nothing about it."""


GATEBOOK = Contender("gatebook", "gatebook_redactor.py")
SEQUENTIAL = Contender("sequential re", "sequential.py")
PRESIDIO = Contender(
    "presidio patterns",
    "presidio_patterns.py",
    "presidio.requirements.txt",
    scorer.STRUCTURED - {scorer.BIRTH_DATE},
)
DATAFOG = Contender(
    "datafog regex",
    "datafog_regex.py",
    "datafog.requirements.txt",
    frozenset(
        {scorer.CARD, scorer.IBAN, scorer.SSN, scorer.MAIL, scorer.IP, scorer.PHONE}
        | {scorer.NATIONAL_ID}
    ),
)
CONTENDERS = (GATEBOOK, PRESIDIO, DATAFOG, SEQUENTIAL)

_NAMES = {
    "email": scorer.MAIL,
    "us_ssn": scorer.SSN,
    "mac_address": scorer.MAC,
    "ip_address": scorer.IP,
    "credit_card": scorer.CARD,
    "crypto_address": scorer.CRYPTO,
    "crypto_wallet": scorer.CRYPTO,
    "date_of_birth": scorer.BIRTH_DATE,
    "dob": scorer.BIRTH_DATE,
    "birth_date": scorer.BIRTH_DATE,
}
_SECRETS = frozenset(
    {"api_key", "jwt", "private_key", "password", "url_password", "high_entropy", "secret"}
    | {"token", "entropy", "credential", "random_string"}
    | {"pin", "one_time_code", "card_security_code"}
)


@functools.cache
def scored_kind(name: str) -> str:
    """The scored kind that a contender's own name stands for."""
    if name in scorer.KINDS:
        return name
    if name in _SECRETS:
        return scorer.SECRET
    if name in _NAMES:
        return _NAMES[name]
    if name.startswith(("national_id", "id_")) or name.endswith(("_id", "_tin")):
        return scorer.NATIONAL_ID
    return scorer.OTHER


class TookTooLong(Exception):
    """No answer within the time given; the process is ended."""


class Running:
    """A contender's process, begun again after it was ended."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self._python = str(_python(contender))
        self._process: subprocess.Popen[bytes] | None = None

    def find(self, texts: Sequence[str]) -> Iterator[list[Prediction] | str]:
        """What it finds in each text, or why it refuses it."""
        for begin in range(0, len(texts), BATCH_TEXTS):
            batch = list(texts[begin : begin + BATCH_TEXTS])
            answers = self.ask({"do": "find", "texts": batch}, ANSWER_SECONDS)["answers"]
            yield from map(_predictions, answers)

    def time(self, texts: Sequence[str], seconds: float, limit_seconds: float) -> dict[str, Any]:
        """CPU seconds for rounds over all texts. Raises TookTooLong."""
        asked = {"do": "time", "texts": list(texts), "seconds": seconds}
        return self.ask(asked, limit_seconds)

    def ask(self, asked: dict[str, Any], limit_seconds: float) -> dict[str, Any]:
        """One question, one answer. Raises TookTooLong."""
        process = self._process or self._start()
        assert process.stdin
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        process.stdin.flush()
        return self._answer(process, limit_seconds)

    def end(self) -> None:
        """End its process."""
        process, self._process = self._process, None
        if process:
            process.kill()
            process.communicate()

    def _start(self) -> subprocess.Popen[bytes]:
        process = self._process = subprocess.Popen(
            [self._python, str(SCRIPTS / self.contender.script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1", "DATAFOG_NO_TELEMETRY": "1"},
        )
        self._answer(process, START_SECONDS)
        return process

    def _answer(self, process: subprocess.Popen[bytes], limit_seconds: float) -> dict[str, Any]:
        assert process.stdout
        line, deadline = b"", time.monotonic() + limit_seconds
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], deadline - time.monotonic())
            if not ready:
                self.end()
                raise TookTooLong(self.contender.name)
            part = os.read(process.stdout.fileno(), 1 << 20)
            assert part, f"{self.contender.name} ended with {process.wait()}; it says why above"
            line += part
        answer: dict[str, Any] = json.loads(line)
        return answer


def _predictions(answer: list[list[Any]] | str) -> list[Prediction] | str:
    if isinstance(answer, str):
        return answer
    named = ((scored_kind(name), start, end) for name, start, end in answer)
    return [Prediction(*span) for span in named if span[0] != scorer.OTHER]


@contextlib.contextmanager
def running(contenders: Sequence[Contender]) -> Iterator[list[Running]]:
    """All of them; ended afterwards."""
    all_of_them = [Running(contender) for contender in contenders]
    try:
        yield all_of_them
    finally:
        for one in all_of_them:
            one.end()


def _python(contender: Contender) -> Path:
    """The interpreter to run it with; its environment is made when it is first asked for."""
    if not contender.requirements:
        return Path(sys.executable)
    wanted = (SCRIPTS / contender.requirements).read_bytes()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(wanted + version.encode()).hexdigest()[:12]
    place = default_cache() / "bench" / f"{Path(contender.requirements).stem}-{digest}"
    if not (place / "bin" / "python").exists():
        _make_environment(place, SCRIPTS / contender.requirements)
    return place / "bin" / "python"


def _make_environment(place: Path, requirements: Path) -> None:
    """Made beside and renamed when it is whole; whoever comes second keeps the first's."""
    print(f"making the environment of {requirements.name}, once ...", file=sys.stderr, flush=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=place.parent))
    try:
        venv.create(made, with_pip=True, symlinks=True)
        subprocess.run(
            [
                made / "bin" / "python",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--disable-pip-version-check",
                "--requirement",
                requirements,
            ],
            check=True,
            stdout=sys.stderr,
        )
        with contextlib.suppress(OSError):
            made.rename(place)
    finally:
        shutil.rmtree(made, ignore_errors=True)
