"""Who an event is about, and the keyed tag that stands for that person.

The tag is what export, erasure and holds search by: it is the same however often the redactor's
key changes, and tells nothing without its own key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# How a person proves who they are. A key or a client certificate may be a service's, which then
# names the end users that it calls for.
PERSON_METHODS = ("sso", "oidc", "header")
PERSON = "person"
PRINCIPAL = "principal"
TAG_BYTES = 20
MAX_REMEMBERED = 20_000


class Subject(NamedTuple):
    """A person within a tenant; or, where an event names nobody, its principal."""

    tenant: str
    id: str
    kind: str = PERSON


def subject_of(
    document: Mapping[str, Any], principal: Callable[[Mapping[str, Any]], str]
) -> Subject:
    """The person a document is about: a caller who proved to be one; else the end user where one
    is named, else the caller; else what `principal` makes of it. Read it before redaction: a masked
    name would be another one in each pseudonym epoch."""
    tenant = document.get("organization", {}).get("id", "")
    identity = document.get("gatebook", {}).get("identity", {})
    caller, end_user = document.get("user", {}).get("id", ""), identity.get("on_behalf_of", "")
    person = (caller if is_a_persons(identity) else "") or end_user or caller
    if person:
        return Subject(tenant, person)
    return Subject(tenant, principal(document), PRINCIPAL)


def is_a_persons(identity: Mapping[str, Any]) -> bool:
    """Whether an identity is a person's own, proved: whoever else they say they act for is then
    their own word, and nothing of theirs goes by it."""
    return identity.get("assurance") == "verified" and identity.get("method") in PERSON_METHODS


@dataclass(slots=True)
class SubjectTags:
    """Computes tags. Pure but for a bounded memory of those it made; the key never shows."""

    key: bytes = field(repr=False)
    _made: dict[Hashable, str] = field(default_factory=dict, repr=False)

    def of(self, subject: Subject) -> str:
        """32 lower-case letters and digits: a keyed digest of tenant, kind and id."""
        return self.remembered(subject, lambda: self._tag(subject))

    def remembered(self, name: Hashable, make: Callable[[], str]) -> str:
        """What `make` gives, computed once while it is remembered."""
        found = self._made.get(name)
        if found is None:
            if len(self._made) >= MAX_REMEMBERED:
                self._made.clear()
            found = self._made[name] = make()
        return found

    def _tag(self, subject: Subject) -> str:
        digest = hmac.new(self.key, b"gatebook subject tag", hashlib.sha256)
        for part in (subject.tenant, subject.kind, subject.id):
            encoded = part.encode("utf-8", "surrogatepass")
            # Each part carries its length, so no two subjects share an input.
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
        return base64.b32encode(digest.digest()[:TAG_BYTES]).decode().lower()

    def digest(self, purpose: str, data: bytes) -> bytes:
        """32 bytes: a keyed digest for another purpose than tags."""
        return hmac.digest(self.key, purpose.encode() + b"\0" + data, "sha256")
