"""Our rules are as broad as gitleaks' published rule set: `gitleaks_rules.toml` says what of ours
masks what each of its rules is for, and here each of those is tried. No network is needed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tests.benchmarks.redaction import gitleaks

from gatebook.processors.redact import Redactor, default_rules
from gatebook.processors.redact.rules import expand, split_marks
from gatebook.processors.redact.tables import token_entries, value_pattern, vendor_entries

KEY = b"a pseudonym key for tests only"
LISTED: dict[str, Any] = tomllib.loads(
    (Path(__file__).parent / "gitleaks_rules.toml").read_text(encoding="utf-8")
)
ROWS: list[dict[str, str]] = LISTED["covered"]
ALL = Redactor.default(KEY)
ALONE = {rule.id: Redactor([rule], KEY, "e1") for rule in default_rules()}
TOKENS = {entry.id: entry for entry in token_entries("vendor_token")}
VENDORS = {entry.id: entry for entry in vendor_entries("vendor_assigned")}
SEEDS = range(5)
PUBLISHED_RULES = 222


def cases(by: str = "") -> list[object]:
    rows = [row for row in ROWS if by in ("", row["by"])]
    return [pytest.param(row, id=f"{row['id']}-{number}") for number, row in enumerate(rows)]


def is_masked(redactor: Redactor, text: str, value: str) -> bool:
    """Whether every character of the value that is no white space is in something found."""
    start = text.index(value)
    found = {at for one in redactor.find(text) for at in range(one.start, one.end)}
    value_at = range(start, start + len(value))
    return all(at in found or text[at].isspace() for at in value_at)


def test_every_published_rule_is_listed_for_the_version_that_is_benchmarked() -> None:
    """None is passed over: each is covered or says why not, and those left narrower are covered."""
    ids = {row["id"] for row in ROWS}
    assert LISTED["version"] == gitleaks.VERSION
    assert len(ids | set(LISTED["not_covered"])) == PUBLISHED_RULES
    assert not ids & set(LISTED["not_covered"])
    assert set(LISTED["narrower"]) <= ids


@pytest.mark.parametrize("row", cases())
def test_what_a_published_rule_is_for_is_masked_by_the_rule_that_is_named(
    row: dict[str, str],
) -> None:
    """The named rule masks the value alone, and so do all rules together."""
    for seed in SEEDS:
        text, (value,) = split_marks(expand(row["case"], seed))
        assert is_masked(ALONE[row["by"]], text, value), text
        assert is_masked(ALL, text, value), text


@pytest.mark.parametrize("row", cases("vendor_token"))
def test_a_named_token_of_the_table_has_the_form_of_the_case(row: dict[str, str]) -> None:
    """It is this entry that finds the value, not its neighbour."""
    entry = TOKENS[row["entry"]]
    text, (value,) = split_marks(expand(row["case"]))
    match = re.search(f"(?:{entry.before})(?:{entry.pattern})", text)
    assert match
    assert value in match[0]


@pytest.mark.parametrize("row", cases("vendor_assigned"))
def test_a_named_vendor_has_the_form_of_the_case(row: dict[str, str]) -> None:
    """Its name announces values of that form, and the value of the case is one."""
    vendor, _, form = row["entry"].partition(" ")
    entry = VENDORS[vendor]
    text, (value,) = split_marks(expand(row["case"]))
    assert form in entry.values
    assert re.fullmatch(f"(?i:{value_pattern(form)})", value)
    assert any(name in text.lower() for name in entry.names or (entry.id,))
