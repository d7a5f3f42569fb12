"""How many different things: exact while they are few, a HyperLogLog sketch when they are many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from datasketches import hll_sketch, hll_union, tgt_hll_type

# Up to so many the count is exact. A digest has 8 bytes, so this is where the sketch is smaller.
EXACT_ITEMS = 128
# 2**10 registers: a standard error of about 3 %, 552 bytes.
LG_K = 10
DIGEST_BYTES = 8


@lru_cache(maxsize=16_384)  # models, addresses and people come again and again
def item_digest(item: str) -> int:
    """A number that stands for an item; the item itself is never kept."""
    digest = blake2b(item.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES)
    return int.from_bytes(digest.digest(), "big")


class Distinct:
    """A count of different items that can be stored and united with others.

    `below` is no part of what is counted: whoever adds to it may note there that a total was looked
    at and is below its threshold for as long as nothing new is added. It is not stored.
    """

    __slots__ = ("below", "items", "sketch")

    def __init__(self, items: Iterable[int] = (), sketch: Any = None) -> None:
        self.items: set[int] = set(items)
        self.sketch = sketch
        self.below = False

    def add(self, digest: int) -> bool:
        """Count an item; whether it was certainly not there before."""
        if self.sketch is not None:
            self.sketch.update(digest)
            return False
        if digest in self.items:
            return False
        self.items.add(digest)
        if len(self.items) > EXACT_ITEMS:
            self._give_up_exactness()
        return True

    def _give_up_exactness(self) -> None:
        self.sketch = hll_sketch(LG_K, tgt_hll_type.HLL_4)
        for digest in sorted(self.items):  # in one order: the sketch is the same in every run
            self.sketch.update(digest)
        self.items = set()

    def __len__(self) -> int:
        return len(self.items) if self.sketch is None else round(self.sketch.get_estimate())

    @classmethod
    def union(cls, parts: Sequence[Distinct]) -> Distinct:
        """What is in any of several."""
        if len(parts) == 1:
            return parts[0]
        if all(part.sketch is None for part in parts):
            return cls(set().union(*(part.items for part in parts)))
        union = hll_union(LG_K)
        for part in parts:
            if part.sketch is not None:
                union.update(part.sketch)
            for digest in sorted(part.items):
                union.update(digest)
        return cls(sketch=union.get_result(tgt_hll_type.HLL_4))

    def pack(self) -> bytes | list[int]:
        """For the state topic."""
        return sorted(self.items) if self.sketch is None else self.sketch.serialize_compact()

    @classmethod
    def unpack(cls, stored: bytes | list[int]) -> Distinct:
        """What `pack` gave. Raises ValueError for junk."""
        if isinstance(stored, list):
            return cls(stored)
        try:
            return cls(sketch=hll_sketch.deserialize(stored))
        except RuntimeError as error:
            raise ValueError(str(error)) from None
