"""Open what a producer sealed, as intake would, with the keys a test made in a home."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from gatebook.schemas import sealing
from gatebook.schemas.keys import Bundle, Key, KeyFiles


def make_keys(home: Path) -> KeyFiles:
    """A key pair where producer and intake of this home look by default."""
    files = KeyFiles.in_folder(home / "keys")
    files.ensure()
    return files


def private_of(key: Key) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(key.private_bytes)


def associated(event: Mapping[str, Any], producer_id: str) -> bytes:
    """What the envelope of a decoded event is bound to."""
    level = event["gatebook"]["capture"]["level"]
    tenant = event["organization"]["id"]
    return sealing.associated_data(event["event"]["id"], producer_id, tenant, level)


def opened(event: Mapping[str, Any], producer_id: str, keys: Bundle) -> dict[str, Any]:
    """A decoded event with its content in the open; as it is, where none is sealed."""
    if event["content_encoding"] != sealing.ENCODING:
        assert event["content"] is None, "content left the producer in the open"
        return dict(event)
    envelope = event["content"]
    head = sealing.head_of(envelope)
    key = keys.get(sealing.name_of(sealing.key_id_in(head)))
    assert key is not None
    data_key = sealing.unwrap(head, private_of(key))
    content = sealing.open_body(envelope, data_key, associated(event, producer_id))
    return {**event, "content": content, "content_encoding": "json"}
