"""One hash over all documents of an archive, made as they stream by: an RFC 6962 tree.

Memory is one hash per level, and the state can be stored, so that an interrupted export goes on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


def leaf(document_id: str, event_hash: str) -> bytes:
    """The leaf of one document: its id and its event.hash."""
    return hashlib.sha256(b"\0" + f"{document_id}\n{event_hash}".encode()).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


@dataclass
class Tree:
    """Roots of the full subtrees so far, largest first: one for each bit that is set in `size`."""

    size: int = 0
    peaks: list[bytes] = field(default_factory=list)

    def add(self, hashed: bytes) -> None:
        """Append a leaf."""
        size = self.size
        while size & 1:
            hashed = _node(self.peaks.pop(), hashed)
            size >>= 1
        self.peaks.append(hashed)
        self.size += 1

    @property
    def root(self) -> str:
        """The tree's hash in hex; that of nothing where it is empty."""
        if not self.peaks:
            return hashlib.sha256(b"").hexdigest()
        found = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            found = _node(peak, found)
        return found.hex()

    def copy(self) -> Tree:
        """The same tree, to be gone on with apart from this one."""
        return Tree(self.size, list(self.peaks))

    def state(self) -> list[str]:
        """What `restored` makes the tree of again, together with its size."""
        return [peak.hex() for peak in self.peaks]

    @classmethod
    def restored(cls, size: int, state: list[str]) -> Tree:
        """The tree of a stored state. Raises ValueError where the two do not fit."""
        if len(state) != size.bit_count():
            raise ValueError("this is no state of a tree of that size")
        return cls(size, [bytes.fromhex(peak) for peak in state])
