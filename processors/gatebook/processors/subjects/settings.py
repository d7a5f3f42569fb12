"""Settings of the subjects' keys. Read from GATEBOOK_SUBJECT_<FIELD>."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from gatebook.processors.config import WorkerSettings, read_or_make_key
from gatebook.processors.sinks.settings import from_environment
from gatebook.processors.subjects.identity import SubjectTags
from gatebook.processors.subjects.wrapping import KeyFolder, NamedSources, WrappingKeys

PREFIX = "GATEBOOK_SUBJECT_"
TAG_KEY_NAME = "subject-tags.key"
WRAPPING_KEY_NAME = "subject-wrapping.key"
CERTIFICATE_KEY_NAME = "certificates.key"


class SubjectSettings(Struct, frozen=True, kw_only=True):
    """Keys that stand behind the subjects' own. The same for all workers and for operators."""

    tag_key_file: Annotated[
        str, Meta(description="Key of the subjects' tags, shared by all workers; made if absent")
    ] = ""
    wrapping_keys: Annotated[
        str,
        Meta(
            description="Sources (file:PATH, env:NAME, or a plug-in) of the key that subjects' "
            "keys are stored under, newest first, separated by commas; default: files in "
            "GATEBOOK_HOME, the first made if absent"
        ),
    ] = ""
    lease_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="A worker asks again for a key after this long; an erasure waits so long",
        ),
    ] = 15.0
    certificate_key_file: Annotated[
        str,
        Meta(description="Ed25519 key that signs certificates of erasure; made if absent"),
    ] = ""

    def tags(self, worker: WorkerSettings) -> SubjectTags:
        """Computes the subjects' tags. Raises Fatal."""
        return SubjectTags(read_or_make_key(self._path(self.tag_key_file, worker, TAG_KEY_NAME)))

    def wrapping(self, worker: WorkerSettings) -> WrappingKeys:
        """What subjects' keys are stored under. Raises Fatal."""
        if self.wrapping_keys:
            return WrappingKeys.of(NamedSources.of(self.wrapping_keys))
        folder = self.wrapping_folder(worker)
        if not folder.files():
            read_or_make_key(folder.first)
        return WrappingKeys.of(folder)

    def wrapping_folder(self, worker: WorkerSettings) -> KeyFolder:
        """Where the wrapping keys are if no setting names them."""
        return KeyFolder(self._path("", worker, WRAPPING_KEY_NAME))

    def certificate_key_path(self, worker: WorkerSettings) -> Path:
        """Where the key is that signs certificates."""
        return self._path(self.certificate_key_file, worker, CERTIFICATE_KEY_NAME)

    def _path(self, given: str, worker: WorkerSettings, name: str) -> Path:
        return Path(given).expanduser() if given else worker.home_path / "keys" / name


def subject_settings(environment: Mapping[str, str] | None = None) -> SubjectSettings:
    """The settings from the environment. Raises WrongSetting."""
    return from_environment(SubjectSettings, PREFIX, environment)
