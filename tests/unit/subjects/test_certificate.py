"""A certificate verifies until a letter of it is changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gatebook.processors.subjects.certificate import NotVerified, Signer, verify_certificate

STATEMENT = {"subject": "abc", "documents": 3, "remains": []}


def test_what_was_signed_verifies(tmp_path: Path) -> None:
    """The key is made once with mode 0600, its public half beside it; the signature verifies with
    that half, after any re-formatting of the JSON."""
    path = tmp_path / "keys" / "certificates.key"
    certificate = Signer.from_file(path).sign(STATEMENT)
    assert path.stat().st_mode & 0o777 == 0o600
    public = path.with_suffix(".pub").read_text()
    written = json.dumps(certificate, indent=4).encode()
    assert verify_certificate(written, public)["documents"] == 3
    assert Signer.from_file(path).public == public.strip()


def test_what_was_changed_does_not(tmp_path: Path) -> None:
    """Another count, another signer, another file: refused, each in words of its own."""
    certificate = Signer.from_file(tmp_path / "a.key").sign(STATEMENT)
    other = Signer.from_file(tmp_path / "b.key")
    with pytest.raises(NotVerified, match="was changed"):
        verify_certificate(json.dumps({**certificate, "documents": 2}).encode())
    with pytest.raises(NotVerified, match="another key"):
        verify_certificate(json.dumps(certificate).encode(), other.public)
    for data in (b"", b"[]", b"{}", b'{"format":"gatebook-erasure/1"}', b"\xff"):
        with pytest.raises(NotVerified, match="no certificate"):
            verify_certificate(data)
