"""Every packaged rule finds what it says it finds, and nothing in its counter-cases."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from gatebook.processors.redact import Redactor, Rule, RuleInvalid, default_rules, load_rules
from gatebook.processors.redact.rules import expand, split_marks

KEY = b"a pseudonym key for tests only"
RULES = default_rules()
SEEDS = range(5)


def cases(form: str) -> list[object]:
    return [
        pytest.param(rule, case, id=f"{rule.id}-{number}")
        for rule in RULES
        for number, case in enumerate(getattr(rule, form))
    ]


@pytest.mark.parametrize(("rule", "case"), cases("positive"))
def test_a_rule_alone_masks_exactly_what_its_positive_case_marks(rule: Rule, case: str) -> None:
    """The marked value goes, in full, and the text around it stays."""
    for seed in SEEDS:
        text, values = split_marks(expand(case, seed))
        redacted = Redactor([rule], KEY, "e1").redact_text(text)
        around = text.partition(values[0])
        assert redacted.text.startswith(around[0] + f"[{rule.kind.upper()}_e1_")
        assert redacted.text.endswith("]" + around[2])
        assert redacted.counts == {rule.kind: 1}


@pytest.mark.parametrize(("rule", "case"), cases("positive"))
def test_all_rules_together_leave_no_marked_value(rule: Rule, case: str) -> None:
    """Whichever rule wins, the value is gone and its kind is counted."""
    for seed in SEEDS:
        text, values = split_marks(expand(case, seed))
        redacted = Redactor.default(KEY).redact_text(text)
        assert values[0] not in redacted.text
        assert redacted.counts[rule.kind] >= 1


@pytest.mark.parametrize(("rule", "case"), cases("negative"))
def test_a_negative_case_comes_out_unchanged(rule: Rule, case: str) -> None:
    """What only resembles a value stays, with every rule switched on."""
    text = expand(case)
    assert Redactor.default(KEY).redact_text(text).text == text


def test_every_rule_has_cases_that_fire_and_cases_that_must_not() -> None:
    """A rule without both kinds of case proves nothing."""
    assert RULES
    assert [rule.id for rule in RULES if not (rule.positive and rule.negative)] == []


def test_no_rule_file_holds_a_key_in_one_piece() -> None:
    """The packaged files pass through secret scanners: cases are put together when expanded."""
    shaped = {"aws_access_key", "anthropic_key", "github_token", "gitlab_token", "slack_token"}
    shaped |= {"stripe_key", "huggingface_token", "google_api_key", "jwt", "private_key"}
    redactor = Redactor([rule for rule in RULES if rule.id in shaped], KEY, "e1")
    root = files("gatebook.processors.redact") / "rules"
    for rule in RULES:
        text = (root / rule.id / "rule.toml").read_text(encoding="utf-8")
        assert redactor.redact_text(text).counts == {}, rule.id


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('id = "x"', "missing required field"),
        ("id = ", "rule x"),
        ('id="y"\nkind="k"\ndescription=""\npattern="a"\nvalidator="any"', "differs"),
        ('id="x"\nkind="k"\ndescription=""\npattern="a"\nvalidator="any"\nbogus=1', "unknown"),
    ],
)
def test_a_bad_rule_file_is_refused_by_name(tmp_path: Path, content: str, message: str) -> None:
    """A rule that cannot be used stops the start instead of being left out."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "rule.toml").write_text(content)
    with pytest.raises(RuleInvalid, match="rule x") as caught:
        load_rules(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(("pattern", "validator"), [("(", "any"), ("a", "nonesuch")])
def test_a_rule_that_cannot_run_is_refused(pattern: str, validator: str) -> None:
    """A bad pattern or an unknown validator is found when the redactor is made."""
    rule = Rule(id="x", kind="k", description="", pattern=pattern, validator=validator)
    with pytest.raises(RuleInvalid, match="rule x"):
        Redactor([rule], KEY, "e1")
