"""What notify remembers of a problem, and how it lies in the state topic."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from gatebook.processors.alerts.base import FIRING, RESOLVED

Step = Literal["firing", "acknowledged", "resolved"]
# page: targets are told. group: the page of the group stands for it. digest: it is in the digest.
# hold, suppressed: it waits and is decided again. verdict: a person said that it need not be told.
# none: there is no target for it.
Way = Literal["page", "group", "digest", "hold", "suppressed", "verdict", "none"]

PAGE, GROUP, DIGEST, HOLD, SUPPRESSED, VERDICT, NONE = (
    "page",
    "group",
    "digest",
    "hold",
    "suppressed",
    "verdict",
    "none",
)


class Owed(msgspec.Struct, omit_defaults=True):
    """What one target knows of a problem."""

    has: str = ""
    """Last step it accepted; empty: it must be told from the start."""
    revision: int = 0
    """Revision of the last firing it accepted."""
    failed: int = 0
    """Deliveries that failed in a row."""
    since_ns: int = 0
    """When the first of them failed."""
    not_before_ns: int = 0
    """No attempt before."""
    sent_ns: int = 0
    """When it last accepted anything."""
    expired: int = 0
    """Steps that were given up."""


class Incident(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One problem from its first firing until it is forgotten; also the page of a group, and a
    digest under way."""

    finding: dict[str, Any]
    """Record of schema finding.v2 that is told: figures are the latest, the id is the first's."""
    ending: dict[str, Any] | None = None
    """The record that told the end, where one did."""
    state: str = FIRING
    way: str = PAGE
    team: str = ""
    severity: str = "warning"
    incident: str = ""
    """Id that pairs the start with the end."""
    paired: bool = False
    """Whether somebody will say that it is over."""
    kind: Literal["finding", "group", "digest"] = "finding"
    group: str = ""
    """Key of its group's page."""
    first_ns: int = 0
    last_ns: int = 0
    """When it was heard of last."""
    ended_ns: int = 0
    wait_until_ns: int = 0
    """When what waits is decided again."""
    occurrences: int = 1
    revision: int = 0
    """Raised when targets that take updates must be told again."""
    loud: int = 0
    """Revision that every target must know."""
    position: int = -1
    """Offset of the last message that counted here."""
    members: int = 0
    """Of a group: findings that ever joined."""
    told_members: int = 0
    """Of a group: members at the last revision."""
    told_ns: int = 0
    """Of a group: when that was."""
    owed: dict[str, Owed] = {}
    """By name of target."""

    @property
    def is_over(self) -> bool:
        """Whether the problem has ended."""
        return self.state == RESOLVED

    @property
    def is_settled(self) -> bool:
        """Whether every target that was told knows the end."""
        return self.is_over and all(o.has == RESOLVED for o in self.owed.values())


class Budget(msgspec.Struct, omit_defaults=True):
    """Pages of one team in the window that slides."""

    pages: dict[str, int] = {}
    """When each was opened, in nanoseconds, by key and offset."""
    position: int = -1


class DigestItem(msgspec.Struct):
    """One finding that a digest names."""

    rank: int
    ratio: float
    line: str
    finding_id: str


class Digest(msgspec.Struct, omit_defaults=True):
    """What was not paged, until it is told in one message."""

    since_ns: int = 0
    counts: dict[str, int] = {}
    """By `why|severity|rule`."""
    items: list[DigestItem] = []
    """The most severe."""
    targets: dict[str, None] = {}
    """Where the findings would have gone."""
    position: int = -1


class Verdict(msgspec.Struct, omit_defaults=True):
    """What a person said of a problem, and for how long it holds."""

    verdict: str
    until_ns: int
    observed: float | None = None
    """Figure it was given for."""
    kept_quiet: int = 0
    """Findings since that were not told."""
    position: int = -1


ENTRY_TYPES: dict[bytes, type[Any]] = {
    b"budget": Budget,
    b"digest": Digest,
    b"verdict": Verdict,
    b"incident": Incident,
}
_encoder = msgspec.msgpack.Encoder()
_decoders = {kind: msgspec.msgpack.Decoder(type_) for kind, type_ in ENTRY_TYPES.items()}


def entry_key(kind: bytes, key: str) -> bytes:
    """Key in the state topic."""
    return kind + b"|" + key.encode("utf-8", "surrogatepass")


def pack(entry: Budget | Digest | Verdict | Incident) -> bytes:
    """An entry as bytes for the state topic."""
    return _encoder.encode(entry)


def unpack(full_key: bytes, value: bytes) -> tuple[bytes, str, Any] | None:
    """Kind, key and entry; None for a kind nobody knows. Raises msgspec.MsgspecError where the
    bytes are no such entry."""
    kind, _, key = full_key.partition(b"|")
    decoder = _decoders.get(kind)
    if decoder is None:
        return None
    return kind, key.decode("utf-8", "surrogatepass"), decoder.decode(value)
