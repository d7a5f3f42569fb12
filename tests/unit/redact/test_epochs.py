"""A new epoch of pseudonyms unlinks what was masked before from what is masked since."""

from __future__ import annotations

import hmac

import pytest

from gatebook.processors.redact import Pseudonyms, Redactor

KEY = b"a pseudonym key for tests only"
MAIL = "ada@example.org"


def test_two_epochs_give_one_value_pseudonyms_with_nothing_in_common() -> None:
    """The epoch is no label on the same digest; the same epoch gives the same, whoever asks."""
    first, second = (Pseudonyms(KEY, epoch).of("email", MAIL, "acme") for epoch in ("e1", "e2"))
    assert (first[:9], second[:9]) == ("EMAIL_e1_", "EMAIL_e2_")
    assert first[9:] != second[9:]
    assert Pseudonyms(KEY, "e1").of("email", MAIL, "acme") == first


def test_a_pseudonym_is_no_digest_under_the_key_itself() -> None:
    """Each epoch's key is derived: handing out one epoch's key gives away no other's."""
    one = Pseudonyms(KEY, "e1")
    derived = hmac.digest(KEY, b"gatebook pseudonyms of epoch e1", "sha256")
    message = b"".join(len(p).to_bytes(8, "big") + p for p in (b"acme", b"email", MAIL.encode()))
    assert one._digest(message) == hmac.digest(derived, message, "sha256")
    assert one._digest(message) != hmac.digest(KEY, message, "sha256")


def test_a_redactor_at_another_epoch_is_the_same_but_for_its_pseudonyms() -> None:
    """Its rules and its policy version stay; the one it was made from is not changed."""
    now = Redactor.default(KEY, "e2")
    before = now.at_epoch("e1")
    text = f"write to {MAIL}"
    assert before.redact_text(text) == Redactor.default(KEY, "e1").redact_text(text)
    assert now.redact_text(text) == Redactor.default(KEY, "e2").redact_text(text)
    assert before.policy_version == now.policy_version
    with pytest.raises(ValueError, match="epoch"):
        now.at_epoch("No epoch")
