"""A pseudonym is traced back by the redactor that the workers use, in whatever epoch it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatebook.processors.redact import Redactor, build_redactor
from gatebook.processors.subjects.reveal import texts_of, value_behind

KEY = b"a pseudonym key for tests only"
BADGE = """
id = "badge"
kind = "badge_number"
description = "Badge numbers of our company."
pattern = 'BDG-[0-9]{6}'
keywords = ["bdg-"]
validator = "any"
positive = ["badge ⟦BDG-123456⟧ please"]
negative = ["BDG-12"]
"""


def pseudonym_of(mask: str) -> str:
    return mask.strip("[]").partition(":")[0]


def test_a_pseudonym_of_an_older_epoch_is_found() -> None:
    """It names its epoch; no setting has to go back."""
    text = "mail ada@example.org"
    masked = Redactor.default(KEY, "e1").redact_text(text, tenant="acme").text
    wanted = pseudonym_of(masked.removeprefix("mail "))
    for epoch in ("e1", "e2"):
        now = Redactor.default(KEY, epoch)
        assert value_behind(now, wanted, [text], "acme") == "ada@example.org"
    assert value_behind(Redactor.default(KEY), wanted, [text], "other") is None
    assert value_behind(Redactor.default(KEY), "no pseudonym", [text], "acme") is None


def test_a_value_of_a_rule_of_one_s_own_is_found(tmp_path: Path) -> None:
    """The redactor that was configured knows what it masked."""
    (tmp_path / "badge.toml").write_text(BADGE, encoding="utf-8")
    own = build_redactor(KEY, rules_folder=tmp_path)
    wanted = pseudonym_of(own.redact_text("badge BDG-777123").text.removeprefix("badge "))
    assert value_behind(own, wanted, ["badge BDG-777123"]) == "BDG-777123"


@pytest.mark.parametrize("value", ["536-90-4399", "536904399"])
def test_a_value_that_its_key_told_is_found(value: str) -> None:
    """What was masked in arguments of a tool is looked for with the keys it stood under."""
    redactor, content = Redactor.default(KEY), {"messages": [{"input": {"ssn": value}}]}
    redacted, counts = redactor.redact_json(content)  # type: ignore[arg-type]  # JSON
    assert counts == {"ssn": 1}
    wanted = pseudonym_of(redacted["messages"][0]["input"]["ssn"])  # type: ignore[index,call-overload]  # as it went in
    assert value_behind(redactor, wanted, texts_of(content)) == value
