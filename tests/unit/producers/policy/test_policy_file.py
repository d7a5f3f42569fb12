"""The policy file: what is wrong in it is told with field and line, and never guessed at."""

from __future__ import annotations

import base64
import hashlib

import pytest

from gatebook.producers.policy.document import (
    MAX_FILE_BYTES,
    PolicyInvalid,
    read_policy,
    warnings,
)
from gatebook.producers.policy.match import Policy

HEAD = 'version = 1\nname = "acme"\n'
RULE = '[[rule]]\nname = "one"\nlevel = "metadata"\n'
KEY = base64.b64encode(b"k" * 32).decode()


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ('name = "acme"\n', 0, "version"),
        ('version = 2\nname = "acme"\n', 1, "version"),
        (HEAD + "[[rule]\n", 3, "TOML"),
        (HEAD + RULE + RULE.replace("one", "two").replace("level", "levl"), 8, "levl"),
        (HEAD + RULE.replace("metadata", "all"), 5, "rule[1].level"),
        (HEAD + RULE + RULE, 7, "rule[2].name"),
        (HEAD + RULE.replace("one", "default"), 4, "taken"),
        (HEAD + RULE + "[rule.match]\nmodel = 5\n", 7, "rule[1].match.model"),
        (HEAD + RULE + '[rule.match]\ndata_class = "hr"\n', 7, "no such class"),
        (HEAD + RULE + '[rule.retention]\nmetadata = "a b"\n', 7, "retention"),
        (HEAD + '[fields]\n"user.mail" = "drop"\n', 4, "no such field"),
        (HEAD + '[fields]\n"event.outcome" = "drop"\n', 4, "stays as it is"),
        (HEAD + '[fields]\n"gatebook.capture.level" = "drop"\n', 4, "stays as it is"),
        (HEAD + '[fields]\n"user.email" = "truncate"\n', 4, "digest, drop, keep"),
        (HEAD + '[fields]\n"user.email" = "blur"\n', 3, "blur"),
        (HEAD + '[fields]\n"source.port" = "digest"\n', 4, "drop, keep"),
        (HEAD + '[break_glass]\napprovals = 1\n', 4, "break_glass.approvals"),
        (HEAD + '[break_glass.approvers]\nada = "short"\n', 4, "break_glass.approvers.ada"),
        (HEAD + f'[break_glass.approvers]\nada = "{KEY}"\nbob = "{KEY}"\n', 5, "twice"),
        (HEAD + "trust = [\n  'everybody',\n]\n", 3, "trust"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(text: str, line: int, told: str) -> None:
    """So that a person finds it."""
    with pytest.raises(PolicyInvalid) as caught:
        read_policy(text.encode())
    assert caught.value.line == line
    assert told in str(caught.value)
    assert caught.value.code in ("invalid", "not_toml")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff\xfe", "not_utf8"),
        (b"#" * (MAX_FILE_BYTES + 1), "too_large"),
        (b"a = " + b"[" * 100_000, "not_toml"),
    ],
)
def test_what_is_no_text_at_all_is_refused(data: bytes, code: str) -> None:
    """Whatever was copied there by mistake."""
    with pytest.raises(PolicyInvalid) as caught:
        read_policy(data)
    assert caught.value.code == code


def test_the_digest_is_that_of_the_file() -> None:
    """An auditor needs no more than sha256sum to tell which file was in force."""
    data = (HEAD + RULE).encode()
    assert Policy.read(data).digest == hashlib.sha256(data).hexdigest()


def test_a_rule_that_is_never_reached_is_a_warning() -> None:
    """It is allowed, and most likely not meant."""
    more = RULE.replace("one", "two")
    assert warnings(read_policy((HEAD + RULE + more).encode())) == [
        "rule one matches everything: never reached: two"
    ]
    people = '[break_glass.approvers]\nada = "' + KEY + '"\n'
    assert "as many approvers" in warnings(read_policy((HEAD + people).encode()))[0]
    assert warnings(read_policy((HEAD + RULE).encode())) == []
