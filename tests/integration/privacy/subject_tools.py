"""What the tests of subjects share: people who write things, and the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from ahocorasick_rs import BytesAhoCorasick
from tests.pipeline import Pipeline, make_event

from gatebook.processors.subjects.identity import Subject, SubjectTags
from gatebook.schemas.codec import Record

DAY_NS = 86_400 * 10**9
LEASE = {"GATEBOOK_SUBJECT_LEASE_SECONDS": "1"}
TENANT = "acme"
WORD = "walrus"


def said(user: str, level: str = "full", text: str = "", days_ago: int = 0, **more: Any) -> Record:
    """An access of `user` whose prompt holds a word that nothing else does."""
    words = text or f"the {WORD}{uuid.uuid4().hex[:8]} sings for {user}@example.org"
    content = {"input_messages": [{"role": "user", "content": words}], "output_messages": "yes"}
    at = time.time_ns() - days_ago * DAY_NS
    capture = {"level": level, **more.pop("capture", {})}
    ours = {"capture": capture, **more.pop("gatebook", {})}
    event = make_event(
        user,
        timestamp=at,
        organization={"id": TENANT},
        gatebook=ours,
        content=json.dumps(content).encode(),
        content_encoding="json",
        **more,
    )
    event["user"]["name"] = user.title()
    return event


class Desk:
    """Runs `gatebook` commands against a pipeline, as an operator would."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        pipeline.start("intake", "index", **LEASE)

    def run(
        self, *arguments: str, expect: int = 0, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """One command; asserts its exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "gatebook.cli.main", *arguments],
            env=self.pipeline.environment(**{**LEASE, **environment}),
            capture_output=True,
            text=True,
            timeout=180,
            input=stdin,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done

    def json(self, *arguments: str, expect: int = 0, **more: str) -> dict[str, Any]:
        """What a command prints with --json."""
        return dict(json.loads(self.run(*arguments, "--json", expect=expect, **more).stdout))

    def subject(self, command: str, user: str, *more: str, expect: int = 0) -> dict[str, Any]:
        """`gatebook subject COMMAND user` within the tenant, with a reason."""
        return self.json(
            "subject", command, user, "--tenant", TENANT, "--reason", "test", *more, expect=expect
        )

    def erase(self, user: str, *more: str, expect: int = 0) -> dict[str, Any]:
        """The certificate."""
        return self.subject("erase", user, "--yes", *more, expect=expect)

    def tag(self, user: str) -> str:
        """The tag that stands on a user's events."""
        key = (self.pipeline.home / "keys" / "subject-tags.key").read_bytes()
        return SubjectTags(key).of(Subject(TENANT, user))

    def of(self, user: str) -> list[dict[str, Any]]:
        """The user's documents."""
        tag = self.tag(user)
        return [d for d in self.pipeline.documents() if d["gatebook"].get("subject") == tag]


class Snapshot:
    """A snapshot of everything but the subjects' keys, and what one finds in it restored."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.name = pipeline.namespace
        self._ask("PUT", "", {"type": "fs", "settings": {"location": self.name}})
        self.take("before")

    def take(self, name: str) -> None:
        """Take one under this name."""
        everything = f"{self.name}-*,-{self.name}-subject-*"
        self._ask("PUT", f"/{name}", {"indices": everything, "include_global_state": False})

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        url = f"/_snapshot/{self.name}{path}"
        params = {"wait_for_completion": "true"} if path else {}
        answer = self.pipeline.http.request(method, url, json=body, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def restored(self) -> list[dict[str, Any]]:
        """The access documents in it, under other index names."""
        rename = {"rename_pattern": "^", "rename_replacement": "restored-"}
        found = f"{self.name}-access-*"
        self._ask(
            "POST", "/before/_restore", {"indices": found, "include_aliases": False, **rename}
        )
        index = f"restored-{self.name}-*"
        try:
            self.pipeline.http.post(f"/{index}/_refresh")
            answer = self.pipeline.http.get(f"/{index}/_search", params={"size": 10_000})
            return [hit["_source"] for hit in answer.json()["hits"]["hits"]]
        finally:
            self.pipeline.http.delete(f"/{index}")

    def close(self, *more: str) -> None:
        for name in ("before", *more):
            self.pipeline.http.delete(f"/_snapshot/{self.name}/{name}")
        self.pipeline.http.delete(f"/_snapshot/{self.name}")


PIECE_BYTES = 16


OFFSETS = frozenset({".index", ".timeindex"})


def holds_anywhere(folder: Path, secret: bytes) -> bool:
    """Whether some file below a folder holds a piece of a random secret: stored fields are cut
    into blocks, so the whole need not stand in one place. Files that vanish meanwhile do not; nor
    do Kafka's own of offsets and times, which hold nothing else and are large and empty."""
    pieces = [secret[i : i + PIECE_BYTES] for i in range(len(secret) - PIECE_BYTES + 1)]
    any_piece = BytesAhoCorasick(pieces)  # one pass, however much the engines hold by now
    for path in folder.rglob("*"):
        try:
            data = path.read_bytes() if path.is_file() and path.suffix not in OFFSETS else b""
        except OSError:
            continue
        if any_piece.find_matches_as_indexes(data):
            return True
    return False
