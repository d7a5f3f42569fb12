"""The catalogue is whole: every rule is in it, and what its texts tell people to type works."""

from __future__ import annotations

import re
import shlex
from importlib.resources import files

import pytest

from gatebook.processors.detect.registry import detector_ids, load_rule, runbook_text
from gatebook.processors.search.dsl import compile_query
from gatebook.processors.search.fields import fields_of

TABLE = (files("gatebook.processors.detect") / "CATALOGUE.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"`(gatebook search [^`]+)`")


def test_every_rule_is_in_the_catalogue_and_no_other() -> None:
    """Who reads the table knows what is watched for."""
    rows = [line.split("|") for line in TABLE.splitlines() if line.startswith("| ")][1:]
    listed = sorted({row[3].strip().strip("`") for row in rows})
    assert listed == detector_ids()


@pytest.mark.parametrize("rule_id", detector_ids())
def test_what_a_runbook_says_to_search_for_can_be_searched(rule_id: str) -> None:
    """At three in the morning nobody mends a query: each one in a runbook compiles, and so do
    the fields it wants to see."""
    for command in COMMAND.findall(runbook_text(rule_id)):
        words = shlex.split(command)[2:]
        query = "" if words[0].startswith("--") else words.pop(0)
        options = dict(zip(words[::2], words[1::2], strict=True))
        assert set(options) <= {"--since", "--until", "--fields", "--sort", "--kind"}
        known = fields_of(options.get("--kind", "access"))
        compile_query(query, known)
        shown = options.get("--fields", "event.id").split(",")
        shown.append(options.get("--sort", "event.id").partition(":")[0])
        assert all(known.type_of(name) for name in shown), command


@pytest.mark.parametrize("rule_id", detector_ids())
def test_the_search_of_a_rule_compiles(rule_id: str) -> None:
    """The link in an alert shows the accesses the rule counted."""
    search = load_rule(rule_id).detect.search
    if search:
        compile_query(search, fields_of("access"))


def test_the_search_of_privileged_acts_leaves_out_what_does_not_count() -> None:
    """The chart beside such a finding shows the acts that were counted."""
    rule = load_rule("privileged_act")
    named = re.search(r"not event\.action:\(([^)]*)\)", rule.detect.search)
    assert named is not None
    assert named[1].split(" or ") == rule.parameters["harmless"]
