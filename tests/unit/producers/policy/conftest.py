"""A policy file beside a recorder, and what came out under it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.producers.conftest import Published
from tests.waiting import wait_until

from gatebook.producers.recorder import Recorder


class Ruled:
    """A recorder under a policy file."""

    def __init__(self, make_recorder: Any, published: Published, home: Path) -> None:
        self._make_recorder = make_recorder
        self.published = published
        self.path = home / "capture.toml"
        self._version = 0

    def write(self, text: str) -> None:
        """The policy file, whole, at another time."""
        draft = self.path.with_suffix(".new")
        draft.write_text(text)
        self._version += 1
        os.utime(draft, (self._version, self._version))
        draft.replace(self.path)

    def recorder(self, text: str, **settings: Any) -> Recorder:
        self.write(text)
        made: Recorder = self._make_recorder(capture_policy=str(self.path), **settings)
        return made

    def accesses(self) -> list[dict[str, Any]]:
        return [e for e in self.published.events() if e["event"]["category"] != "configuration"]

    def notices(self) -> list[dict[str, Any]]:
        return [e for e in self.published.events() if e["event"]["category"] == "configuration"]

    def wait_for(self, action: str) -> dict[str, Any]:
        """The first notice of this kind."""
        return wait_until(
            action, lambda: next((e for e in self.notices() if e["event"]["action"] == action), {})
        )


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path)


@pytest.fixture
def ruled(make_recorder: Any, published: Published, tmp_path: Path) -> Ruled:
    return Ruled(make_recorder, published, tmp_path)
