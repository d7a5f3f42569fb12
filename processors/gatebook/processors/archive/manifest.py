"""What is in an archive, and what was asked for: JSON, signed, written last."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import msgspec
from msgspec import Struct, field

from gatebook.processors.archive.errors import Differs, WrongArchive
from gatebook.processors.archive.merkle import Tree
from gatebook.processors.archive.store import Store
from gatebook.processors.subjects.certificate import NotVerified, Signer, verify_certificate

FORMAT = "gatebook-archive/1"
MANIFEST = "manifest.json"
PROGRESS = "progress.json"
MAX_MANIFEST_BYTES = 64 * 1024 * 1024
FORMATS = ("avro", "parquet")
TREE = "RFC 6962 tree of SHA-256 over `id LF event.hash`, in the order of the files"


class Wanted(Struct, frozen=True, kw_only=True):
    """What is to be archived. Times are absolute; empty means without bound. `asked` are the
    times as they were written, by which a repeated command is known. `relative_to` is the moment
    that `now` stands for in the query, however long the export takes."""

    kind: str = "access"
    query: str = ""
    since: str = ""
    until: str = ""
    asked: tuple[str, str] = ("", "")
    relative_to: str = ""
    format: str = "avro"
    codec: str = "deflate"
    file_bytes: int = 256 * 1024 * 1024
    with_text: bool = False
    with_names: bool = False

    def same_as(self, other: Wanted) -> bool:
        """Whether the same was asked for, at whatever time."""
        free = {"since": "", "until": "", "relative_to": ""}
        return msgspec.structs.replace(self, **free) == msgspec.structs.replace(other, **free)

    def is_asked_by(self, other: Wanted) -> bool:
        """Whether `other` asks for this: in the same words, or for the range they stood for."""
        ours = {"asked": self.asked, "relative_to": self.relative_to}
        return self.same_as(other) or msgspec.structs.replace(other, **ours) == self


class Place(Struct, frozen=True, kw_only=True):
    """Where a document stands: archives are in order of time, then of id."""

    timestamp_ns: int
    id: str


class FileEntry(Struct, frozen=True, kw_only=True):
    """One file. `root` is the tree over its own documents."""

    name: str
    bytes: int
    sha256: str
    documents: int
    root: str
    first: Place
    last: Place


class Counts(Struct, frozen=True, kw_only=True):
    """Documents without something: text, names, a digest that can be checked without them."""

    without_text: int = 0
    without_names: int = 0
    unchecked: int = 0


class Progress(Struct, frozen=True, kw_only=True):
    """What an export that is under way has finished: its files, and the tree up to there."""

    namespace: str
    wanted: Wanted
    started_at: str
    total: int
    files: tuple[FileEntry, ...] = ()
    counts: Counts = field(default_factory=Counts)
    tree: tuple[str, ...] = ()

    @property
    def documents(self) -> int:
        """In the finished files."""
        return sum(file.documents for file in self.files)

    def of_tree(self) -> Tree:
        """The tree up to the end of the last finished file."""
        return Tree.restored(self.documents, list(self.tree))


class Manifest(Struct, frozen=True, kw_only=True):
    """A whole archive. `fields_left_out` stay erasable, so no file holds them. `relative_to` is
    empty in archives of before it was kept."""

    name: str
    namespace: str
    kind: str
    query: str
    since: str
    until: str
    documents: int
    root: str
    tree: str
    files: tuple[FileEntry, ...]
    encoding: dict[str, Any]
    fields_left_out: tuple[str, ...]
    left_out: Counts
    started_at: str
    created_at: str
    tool: dict[str, str]
    relative_to: str = ""
    format: str = FORMAT
    public_key: str = ""
    signature: str = ""


def tool() -> dict[str, str]:
    """What wrote the archive."""
    return {"name": "gatebook", "version": version("gatebook")}


def write_progress(store: Store, progress: Progress) -> None:
    """Returns when it is durable: what it names is not written again."""
    store.put(PROGRESS, msgspec.json.format(msgspec.json.encode(progress), indent=1))


def read_progress(store: Store) -> Progress | None:
    """What an earlier run has finished; None where nothing is under way."""
    try:
        with store.open(PROGRESS) as file:
            return msgspec.json.decode(file.read(MAX_MANIFEST_BYTES), type=Progress)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError:
        raise WrongArchive(
            f"its {PROGRESS} cannot be read", "delete the folder, or choose another --name"
        ) from None


def write_manifest(store: Store, manifest: Manifest, signer: Signer) -> Manifest:
    """Sign it and put it beside the files: from then on the archive is whole."""
    statement = msgspec.to_builtins(manifest)
    del statement["format"], statement["public_key"], statement["signature"]
    signed = signer.sign(statement, FORMAT)
    store.put(MANIFEST, msgspec.json.format(msgspec.json.encode(signed), indent=1))
    return msgspec.convert(signed, Manifest)


def read_manifest(store: Store, public_key: str = "") -> Manifest:
    """The manifest, its signature checked: with `public_key` (base64) that this key made it, else
    only that it was not changed since somebody signed it. Raises WrongArchive, Differs."""
    try:
        with store.open(MANIFEST) as file:
            data = file.read(MAX_MANIFEST_BYTES)
    except FileNotFoundError:
        raise WrongArchive(
            f"there is no archive here: {MANIFEST} is missing",
            "name an archive (`gatebook archive list` shows them); an export that was interrupted "
            "goes on with the same command",
        ) from None
    try:
        found = verify_certificate(data, public_key, FORMAT)
        return msgspec.convert(found, Manifest)
    except NotVerified as error:
        raise Differs(str(error), MANIFEST) from None
    except msgspec.ValidationError:
        raise Differs("it is signed, but no manifest", MANIFEST) from None
