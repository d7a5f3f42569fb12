"""Operators add rules and exceptions: what is wrong is named at start, what is right holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatebook.processors.redact import (
    Allowed,
    AllowList,
    RedactionLimits,
    Redactor,
    RuleInvalid,
    build_redactor,
    default_rules,
)

KEY = b"a pseudonym key for tests only"
GOOD = """
id = "badge"
kind = "badge_number"
description = "Badge numbers of our company."
pattern = 'BDG-[0-9]{6}'
keywords = ["bdg-"]
validator = "any"
positive = ["badge ⟦BDG-123456⟧ please"]
negative = ["BDG-12"]
"""


def write(folder: Path, name: str, content: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text(content, encoding="utf-8")
    return path


def test_a_rule_of_ones_own_is_run_beside_the_packaged_ones(tmp_path: Path) -> None:
    """Its kind shows in masks and counts, and the others go on working."""
    write(tmp_path, "badge", GOOD)
    redacted = build_redactor(KEY, rules_folder=tmp_path).redact_text("BDG-123456 a@example.com")
    assert redacted.counts == {"badge_number": 1, "email": 1}
    assert "BDG-" not in redacted.text


def test_a_folder_for_each_rule_does_as_well(tmp_path: Path) -> None:
    """The layout of the packaged rules works for own ones."""
    (tmp_path / "badge").mkdir()
    (tmp_path / "badge" / "rule.toml").write_text(GOOD, encoding="utf-8")
    assert build_redactor(KEY, rules_folder=tmp_path).redact_text("BDG-123456").counts


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (GOOD.replace("[0-9]", "[0-9"), "pattern does not compile"),
        (GOOD.replace('"any"', '"nonesuch"'), "validator is unknown"),
        (GOOD.replace("⟦", "").replace("⟧", ""), "positive case 1 marks no value"),
        (GOOD.replace("⟦BDG-", "BDG-⟦"), "positive case 1 is not masked where it is marked"),
        (GOOD.replace('BDG-12"', 'BDG-121212"'), "negative case 1 is masked"),
        (GOOD.replace('negative = ["BDG-12"]', ""), "one positive and one negative case"),
        (GOOD.replace('id = "badge"', 'id = "other"'), "differs"),
        (GOOD.replace('"bdg-"', '"BDG-"'), "lower-case"),
        (GOOD.replace('"badge_number"', '"Badge Number"'), "kind"),
        (GOOD + 'trigger = "digits"\n', "not both"),
        (GOOD + "speed = 3\n", "unknown field"),
        (GOOD + 'checks = ["nowhere"]\n', "check 'nowhere' is unknown"),
        ("id = ", "rule badge"),
    ],
)
def test_a_bad_rule_stops_the_start_with_file_and_reason(
    tmp_path: Path, content: str, reason: str
) -> None:
    """Nobody has to guess which file it was."""
    path = write(tmp_path, "badge", content)
    with pytest.raises(RuleInvalid) as caught:
        build_redactor(KEY, rules_folder=tmp_path)
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)


def test_every_bad_rule_is_named_and_none_is_left_out(tmp_path: Path) -> None:
    """A rule that was dropped in silence would be a leak."""
    write(tmp_path, "badge", GOOD)
    write(tmp_path, "one", "x")
    write(tmp_path, "two", GOOD)
    with pytest.raises(RuleInvalid) as caught:
        build_redactor(KEY, rules_folder=tmp_path)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        str(tmp_path / "one.toml"),
        str(tmp_path / "two.toml"),
    ]


def test_a_rule_cannot_take_the_place_of_a_packaged_one(tmp_path: Path) -> None:
    """Two rules of one name are a mistake, whoever wrote the second."""
    write(tmp_path, "email", GOOD.replace('"badge"', '"email"'))
    with pytest.raises(RuleInvalid, match="another rule has this id"):
        build_redactor(KEY, rules_folder=tmp_path)


def test_a_missing_folder_is_no_empty_one(tmp_path: Path) -> None:
    """A path with a typing error must not run without the rules it should hold."""
    with pytest.raises(RuleInvalid, match="no such folder"):
        build_redactor(KEY, rules_folder=tmp_path / "nowhere")


POLICY = """
[redaction]
disabled = ["high_entropy"]

[[redaction.allow]]
tenant = "acme"
kind = "email"
values = ["support@acme.example"]
patterns = ['.*@status[.]acme[.]example']
reason = "published"
"""


def test_an_allowed_value_stays_for_its_tenant_only(tmp_path: Path) -> None:
    """By value or by pattern, in any spelling, and nobody else's texts change."""
    path = write(tmp_path, "redaction", POLICY)
    redactor = build_redactor(KEY, policy_file=path)
    text = "Support@acme.example and a@status.acme.example and b@acme.example"
    redacted = redactor.redact_text(text, tenant="acme")
    assert redacted.text.startswith("Support@acme.example and a@status.acme.example and [EMAIL_")
    assert redacted.counts == {"email": 1}
    assert redactor.redact_text(text, tenant="other").counts == {"email": 3}


def test_a_disabled_rule_is_not_run(tmp_path: Path) -> None:
    """Which one is off shows in the policy version."""
    path = write(tmp_path, "redaction", POLICY)
    token = "q8Zt3Lw0Xc7Vb5Nm2Kj9Hg4Fd1Sa6PoIuYtR"
    assert build_redactor(KEY).redact_text(token).counts == {"high_entropy": 1}
    assert build_redactor(KEY, policy_file=path).redact_text(token).counts == {}


@pytest.mark.parametrize(
    "content",
    [
        "[redaction]\ndisabled = ['nonesuch']",
        "[redaction]\nallowed = []",
        "[[redaction.allow]]\ntenant='a'\nkind='email'\npatterns=['(']",
        "nonsense",
    ],
)
def test_a_bad_policy_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    """A wrong exception is not read as no exception, nor as one for everything."""
    path = write(tmp_path, "redaction", content)
    with pytest.raises(RuleInvalid, match=r"redaction\.toml"):
        build_redactor(KEY, policy_file=path)


def test_an_allowed_value_that_overlaps_a_secret_is_masked() -> None:
    """An exception for mail does not let a key out that stands in the address."""
    allow = AllowList([Allowed(tenant="*", kind="email", patterns=(".*@example[.]com",))])
    redactor = Redactor(default_rules(), KEY, "e1", allow=allow)
    secret = "AK" + "IAIOSFODNN7EXAMPLE"
    assert redactor.redact_text("a@example.com").counts == {}
    assert secret not in redactor.redact_text(f"{secret}@example.com").text


def test_the_policy_version_changes_with_what_decides_and_with_nothing_else() -> None:
    """Key, epoch and order of rules do not count; rules, exceptions and limits do."""
    base = Redactor.default(KEY).policy_version
    rules = default_rules()
    allow = AllowList([Allowed(tenant="*", kind="email", values=("a@example.com",))])
    assert Redactor(rules[::-1], b"another key of the tests", "e2").policy_version == base
    others = {
        Redactor(rules[1:], KEY, "e1").policy_version,
        Redactor(rules, KEY, "e1", allow=allow).policy_version,
        Redactor(rules, KEY, "e1", RedactionLimits(passes=3)).policy_version,
    }
    assert len(others | {base}) == 4
