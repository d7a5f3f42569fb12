"""What can be wrong with an archive."""

from __future__ import annotations

from gatebook.schemas.errors import GatebookError


class WrongArchive(GatebookError):
    """There is no archive of this name here, or it is not to be used like that."""

    exit_code = 2

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(message)
        self.next_step = next_step


class Differs(GatebookError):
    """A file or a record is not what the manifest says. `record` counts from 1; 0 is the file."""

    exit_code = 1
    next_step = "take another copy of the archive; this one was changed or is damaged"

    def __init__(self, what: str, file: str = "", record: int = 0) -> None:
        where = f"{file}, record {record}" if record else file
        super().__init__(f"{where}: {what}" if where else what)
        self.what, self.file, self.record = what, file, record


class ArchiveAway(GatebookError):
    """The store does not take or give a file: no room, no permission, not there."""

    exit_code = 3
    next_step = "see that the store can be written and read, then run the same command again"
