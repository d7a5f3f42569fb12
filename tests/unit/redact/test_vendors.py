"""Every vendor's token in the tables is masked, and what only resembles it is not."""

from __future__ import annotations

import random

import pytest
import re2
from tests.unit.redact.sampling import sample

from gatebook.processors.redact import Redactor, Rule, default_rules
from gatebook.processors.redact.tables import (
    TokenEntry,
    VendorEntry,
    token_entries,
    tokens_by_keyword,
    value_pattern,
    vendor_entries,
)

KEY = b"a pseudonym key for tests only"
ALL = Redactor.default(KEY)
SECRETS = {"api_key", "password", "jwt", "high_entropy", "private_key", "crypto"}
DRAWS = 5
TOKENS = token_entries("vendor_token")
VENDORS = vendor_entries("vendor_assigned")


def only(rule_id: str) -> Redactor:
    (rule,) = [rule for rule in default_rules() if rule.id == rule_id]
    return Redactor([rule], KEY, "e1")


TOKEN_RULE, VENDOR_RULE = only("vendor_token"), only("vendor_assigned")


def named(entry: TokenEntry | VendorEntry) -> str:
    return entry.id


def drawn(entry: TokenEntry, number: int) -> str:
    source = random.Random(f"{entry.id}:{number}")
    return sample(entry.before, source) + sample(entry.pattern, source)


def test_the_tables_are_as_broad_as_the_vendors_one_meets() -> None:
    """At least two hundred forms of tokens and values, each under a name of its own."""
    names = [entry.id for entry in TOKENS] + [f"vendor {entry.id}" for entry in VENDORS]
    forms = len(TOKENS) + sum(len(entry.values) for entry in VENDORS)
    assert len(names) == len(set(names))
    assert forms >= 200


@pytest.mark.parametrize("entry", TOKENS, ids=named)
def test_a_token_that_announces_itself_is_masked_anywhere(entry: TokenEntry) -> None:
    """In prose, code and settings its value goes in full."""
    for number in range(DRAWS):
        token = drawn(entry, number)
        for before, after in (("see ", " there"), ('x = "', '"\n'), ("(", ")"), ("T=", ";")):
            redacted = TOKEN_RULE.redact_text(before + token + after)
            assert redacted.counts == {"api_key": 1}, token
            assert redacted.text.startswith(before)
            assert redacted.text.endswith(after)


@pytest.mark.parametrize("entry", TOKENS, ids=named)
def test_an_example_or_a_cut_off_token_is_none(entry: TokenEntry) -> None:
    """A beginning without its secret stays, and so does one filled up with one character."""
    tokens = tokens_by_keyword("vendor_token").items()
    beginning = next(k for k, found in tokens if any(t.entry is entry for t in found)).decode()
    for text in (f"the prefix {beginning} is known", f"{beginning}...", f"{beginning}{'x' * 64}"):
        assert TOKEN_RULE.redact_text(text).text == text


@pytest.mark.parametrize("entry", VENDORS, ids=named)
def test_a_value_of_a_vendors_size_after_its_name_is_masked(entry: VendorEntry) -> None:
    """However the assignment is written, once the vendor is named."""
    for form in entry.values:
        for number in range(DRAWS):
            source = random.Random(f"{entry.id}:{form}:{number}")
            value = sample(f"(?i:{value_pattern(form)})", source)
            if not value[0].isalnum() or not any(map(str.isdigit, value)):
                continue
            for name in entry.names or (entry.id,):
                for form_of_text in ('{}_x = "{}"', "{}: {}", "{} => '{}'", "<{}>{}</x>"):
                    text = form_of_text.format(name, value)
                    assert value not in VENDOR_RULE.redact_text(text).text, text


@pytest.mark.parametrize("entry", VENDORS, ids=named)
def test_a_vendors_name_alone_announces_nothing(entry: VendorEntry) -> None:
    """Talk about a vendor, an address there or a short value is left as it is."""
    for name in entry.names or (entry.id,):
        for text in (
            f"We moved from {name} to another service in 2024.",
            f"{name} = disabled",
            f"{name}: 42",
            f"see https://{name}.example.com/docs/start",
        ):
            assert VENDOR_RULE.redact_text(text).text == text


@pytest.mark.parametrize("pattern", [p for e in TOKENS for p in (e.pattern, e.before) if p])
def test_a_table_pattern_needs_no_backtracking(pattern: str) -> None:
    """RE2 takes each: no reference back, no look around, nothing that `re` alone could hang on."""
    assert re2.compile(pattern)


def test_all_rules_together_find_every_token_as_a_secret() -> None:
    """Whichever rule names it, a token of the table counts as a credential or as random."""
    for entry in TOKENS:
        token = drawn(entry, 0)
        counts = ALL.redact_text(f"here: {token} .").counts
        assert SECRETS & set(counts), entry.id


def test_a_table_entry_without_a_beginning_is_refused() -> None:
    """An entry that nothing announces would have to be tried everywhere."""
    from gatebook.processors.redact import RuleInvalid
    from gatebook.processors.redact.tables import _token

    with pytest.raises(RuleInvalid, match="token x"):
        _token(TokenEntry(id="x", pattern="[a-z]{20}"))


def test_a_rule_with_a_table_counts_its_table_in_the_policy_version() -> None:
    """Two redactors with the same rules say the same version; without the table it is another."""
    rules: tuple[Rule, ...] = default_rules()
    fewer = [rule for rule in rules if rule.id != "vendor_token"]
    version = Redactor(rules, KEY, "e1").policy_version
    assert version == ALL.policy_version
    assert version != Redactor(fewer, KEY, "e1").policy_version
