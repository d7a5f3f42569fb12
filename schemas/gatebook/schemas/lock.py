"""Released schemas never change: schemas.lock.json holds their digests.

`python -m gatebook.schemas.lock` (or `--check`) prints what is wrong and exits 1 if anything is;
`--add NAME` releases a schema. A change to a released schema is a new file with the next version,
which must read what the version before it wrote.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path

from fastavro.schema import fingerprint, to_parsing_canonical_form

from gatebook.schemas.compatibility import incompatibilities
from gatebook.schemas.errors import Fatal
from gatebook.schemas.registry import self_contained

LOCK_FILE = Path(__file__).parent / "schemas.lock.json"
NAME = re.compile(r"([a-z_]+)\.v([1-9]\d*)")
Texts = Mapping[str, str]


@dataclass(frozen=True)
class Locked:
    """A released schema: digest of its .avsc text, fingerprint that stands on the wire."""

    version: int
    sha256: str
    fingerprint: str


def packaged_texts() -> dict[str, str]:
    """Every .avsc file that is shipped: name to text."""
    files = (resources.files("gatebook.schemas") / "avsc").iterdir()
    return {
        file.name.removesuffix(".avsc"): file.read_text(encoding="utf-8")
        for file in sorted(files, key=lambda file: file.name)
        if file.name.endswith(".avsc")
    }


def read_lock(path: Path = LOCK_FILE) -> dict[str, Locked]:
    """The released schemas by name."""
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {name: Locked(**row) for name, row in rows.items()}


def describe(name: str, texts: Texts) -> Locked:
    """What the lock says of a schema as it stands now."""
    parts = NAME.fullmatch(name)
    if parts is None or name not in texts:
        raise Fatal(f"no schema {name!r}", "name it <name>.v<N> and put it into avsc/")
    canonical = to_parsing_canonical_form(self_contained(name, texts.__getitem__))
    return Locked(
        version=int(parts[2]),
        sha256=hashlib.sha256(texts[name].encode("utf-8")).hexdigest(),
        fingerprint=fingerprint(canonical, "CRC-64-AVRO"),
    )


def problems(texts: Texts, locked: Mapping[str, Locked]) -> Iterator[str]:
    """Everything that keeps these schemas from being released: one line each."""
    for name in sorted(locked.keys() - texts.keys()):
        yield f"{name}: is released but its file is gone"
    for name in texts:
        if name not in locked:
            yield f"{name}: is not released; run python -m gatebook.schemas.lock --add {name}"
        elif describe(name, texts) != locked[name]:
            yield f"{name}: is released and was changed; write the next version instead"
    for older, newer in consecutive(texts):
        yield from incompatible(older, newer, texts)


def consecutive(names: Texts) -> Iterator[tuple[str, str]]:
    """Each version of a schema with the one that follows it."""
    versions: dict[str, list[int]] = {}
    for parts in filter(None, map(NAME.fullmatch, names)):
        versions.setdefault(parts[1], []).append(int(parts[2]))
    for stem, numbers in sorted(versions.items()):
        for older, newer in pairwise(sorted(numbers)):
            yield f"{stem}.v{older}", f"{stem}.v{newer}"


def incompatible(older: str, newer: str, texts: Texts) -> Iterator[str]:
    """Why `newer` cannot read what `older` wrote."""
    read = texts.__getitem__
    for reason in incompatibilities(self_contained(newer, read), self_contained(older, read)):
        yield f"{newer}: cannot read {older}: {reason}"


def add(name: str, texts: Texts, locked: Mapping[str, Locked]) -> dict[str, Locked]:
    """The lock with `name` released. Fatal if it was released before, or breaks readers."""
    if name in locked:
        raise Fatal(f"{name} is released already", "write the next version instead")
    entry = describe(name, texts)
    for older, newer in consecutive(texts):
        for problem in incompatible(older, newer, texts) if newer == name else ():
            raise Fatal(problem, "keep old fields, and give new ones a default")
    return dict(sorted({**locked, name: entry}.items()))


def main(arguments: Sequence[str] | None = None, path: Path = LOCK_FILE) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m gatebook.schemas.lock")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="the default: report and exit 1")
    choice.add_argument("--add", metavar="NAME", help="release a schema")
    name = parser.parse_args(arguments).add
    if name is None:
        found = list(problems(packaged_texts(), read_lock(path)))
        sys.stdout.write("".join(f"{line}\n" for line in found))
        return 1 if found else 0
    return _add_and_write(name, path)


def _add_and_write(name: str, path: Path) -> int:
    try:
        rows = add(name, packaged_texts(), read_lock(path))
    except Fatal as error:
        sys.stderr.write(f"{error}\n{error.next_step}\n")
        return 1
    text = json.dumps({key: vars(row) for key, row in rows.items()}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
