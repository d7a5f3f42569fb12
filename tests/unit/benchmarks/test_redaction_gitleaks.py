"""The reader of test cases written in Go, on a file written for this test."""

from __future__ import annotations

import random
import re

import pytest
from tests.benchmarks.redaction import gitleaks, go_literals, goals, regex_samples
from tests.benchmarks.redaction.go_literals import LIBRARY, Scope, Unreadable

SOURCE = r"""
package cases

import "fmt"

// shared by all; a "quote" in a comment is none
var known = []string{"one", `two\n`}

func join(left string, right string) string {
	return fmt.Sprintf("%s-%s 100%%", left, right)
}

func rule() *Rule {
	r := Rule{
		RuleID:   "a-rule",
		Keywords: []string{"k"}, // not read: pattern(`x{2}`)
	}
	var (
		first  = "tab\t" + `raw\t`
		second = unknown(first)
	)
	tps := make(first, join("a", "b"))
	tps = append(tps, known...)
	tps = append(tps,
		"\"\x41\u00e9\"" +
			"end", /* between */
	)
	fps := []string{}
	return Validate(r, tps, fps)
}
"""


def read(body: str) -> go_literals.Value | None:
    """What a function with that body returns."""
    return Scope({"nil": ()}, LIBRARY).run(go_literals.tokens(body))


def test_cases_are_computed_from_the_source() -> None:
    """Constants, both quotes, comments, calls and appended lists give the texts they stand for."""
    stream = go_literals.tokens(SOURCE)
    declared = go_literals.functions(stream)
    scope = Scope({}, LIBRARY)
    scope.run(next(s for s in go_literals.statements(stream) if s[0].text == "var"))
    known: dict[str, go_literals.Function] = {
        **LIBRARY,
        "join": lambda left, right: scope.call(declared["join"], left, right),
        "make": lambda *texts: list(texts),
        "Validate": lambda rule, right, wrong: [rule, *right, "/", *wrong],
    }
    assert Scope(scope.names, known).run(declared["rule"].body) == [
        "a-rule",
        "tab\traw\\t",
        "a-b 100%",
        "one",
        "two\\n",
        '"Aé"end',
        "/",
    ]


@pytest.mark.parametrize(
    "body",
    [
        "return unknown",
        "return unknown()",
        "a := unknown\nreturn a",
        'for i := range "a" {\n}\nreturn "a"',
        'return "a" - "b"',
        'return "a" + []string{"b"}',
        "return append(nil, nil)",
        'return fmt.Sprintf("%d", "a")',
        'return "\\xff"',
        "return (",
    ],
)
def test_what_is_not_known_is_never_guessed(body: str) -> None:
    """Every expression or statement beyond the reader is said to be unreadable."""
    with pytest.raises(Unreadable):
        read(body)


@pytest.mark.parametrize(
    "pattern",
    [
        r"sk_(?:test|live)_[a-z0-9]{24}",
        r"[^a-y]{3}\d+\w*[-.]\.x?",
        r"\b(?P<key>[A-Z2-7]{16})={0,2}\s.$",
    ],
)
def test_samples_match_their_pattern(pattern: str) -> None:
    """A drawn text matches, and the same seed draws the same one."""
    drawn = [regex_samples.sample(pattern, random.Random(seed)) for seed in range(200)]
    assert all(re.fullmatch(pattern, text) for text in drawn)
    assert drawn[0] == regex_samples.sample(pattern, random.Random(0))
    assert len(set(drawn)) > 100


def test_patterns_without_a_sample_are_refused() -> None:
    """What Python cannot parse, or draw, is an error of its own."""
    for pattern in (r"(", r"(a)\1", r"(?=a)b"):
        with pytest.raises(ValueError, match=r"no sample|not a pattern"):
            regex_samples.sample(pattern, random.Random(0))


def test_without_a_proxy_the_cases_are_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """GOPROXY=off says why there are none; the goals then are neither met nor missed."""
    monkeypatch.setenv("GOPROXY", "off")
    with pytest.raises(gitleaks.Unavailable, match="GOPROXY is off"):
        gitleaks.positives()
    assert [goal.met for goal in goals.gitleaks_absent()] == [None, None]
    assert all(line.endswith("not measured") for line in goals.lines([*goals.gitleaks_absent()]))
