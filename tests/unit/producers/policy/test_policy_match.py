"""Which rule decides: the first that matches, and no caller's word alone."""

from __future__ import annotations

import pytest

from gatebook.producers.policy.match import (
    Facts,
    Policy,
    explain,
    facts_of,
    is_same_model,
    normal_route,
)

POLICY = Policy.read(
    b"""
version = 1
name = "acme"
[retention]
metadata = "1y"
redacted = "30d"
full = "7d"
[classes.health]
tenants = ["clinic-*"]
models = "med-*"
[[rule]]
name = "health"
match = { data_class = "health" }
level = "none"
[[rule]]
name = "lab"
match = { tenant = ["lab", "lab-*"], model = "slm-*", route = "/v1/*", operation = "chat" }
level = "full"
retention = { redacted = "60d" }
[[rule]]
name = "support"
match = { service = "desk", model = "slm-small" }
level = "redacted"
searchable = false
[[rule]]
name = "probe"
match = { route = "/internal/*" }
level = "none"
"""
)
SLM = {"model": "slm-1", "answered": "slm-1"}


def decided(**facts: object) -> tuple[str, str]:
    found = POLICY.decide(Facts(**facts))  # type: ignore[arg-type]  # of the case
    return found.rule, found.level


@pytest.mark.parametrize(
    ("facts", "rule", "level"),
    [
        ({}, "default", "metadata"),
        ({"tenant": "clinic-7", **SLM}, "health", "none"),
        ({"model": "MED-x", "answered": "med-x"}, "health", "none"),
        ({"tenant": "lab-2", "route": "/v1/chat", "operation": "chat", **SLM}, "lab", "full"),
        ({"tenant": "lab-2", "route": "/v2/c", "operation": "chat", **SLM}, "default", "metadata"),
        ({"tenant": "LAB", "route": "/v1/chat", "operation": "chat", **SLM}, "default", "metadata"),
        ({"service": "desk", "model": "slm-small", "answered": "slm-small"}, "support", "redacted"),
        ({"route": "/internal/status"}, "probe", "none"),
    ],
)  # fmt: skip
def test_the_first_rule_that_matches_decides(facts: dict[str, str], rule: str, level: str) -> None:
    """All its conditions have to hold; without any rule it is metadata."""
    assert decided(**facts) == (rule, level)


@pytest.mark.parametrize(
    ("facts", "rule", "level"),
    [
        # A name that the service did not confirm brings no content ...
        ({"service": "desk", "model": "slm-small"}, "default", "metadata"),
        ({"service": "desk", "model": "slm-small", "answered": "other"}, "default", "metadata"),
        # ... not even where the service repeats it, and is known to run another one ...
        (
            {"service": "desk", "model": "slm-small", "answered": "slm-small", "resolved": "q4"},
            "default",
            "metadata",
        ),
        # ... nor makes nobody of a caller.
        ({"model": "med-1"}, "health", "metadata"),
        ({"tenant": "clinic-1", "is_tenant_claimed": True}, "health", "metadata"),
        ({"route": "/internal/x", "is_route_claimed": True}, "probe", "metadata"),
        # It does take content away.
        ({"service": "desk", "tenant": "clinic-1", "is_tenant_claimed": True, "model": "slm-small",
          "answered": "slm-small"}, "health", "metadata"),
        # A dated or prefixed form of a name is that name.
        ({"service": "desk", "model": "slm-small", "answered": "slm-small-2026-01-01"}, "support",
         "redacted"),
        ({"service": "desk", "model": "slm-small", "resolved": "vllm/slm-small"}, "support",
         "redacted"),
    ],
)  # fmt: skip
def test_a_callers_word_adds_no_content_and_hides_nobody(
    facts: dict[str, object], rule: str, level: str
) -> None:
    """What only the caller says may take content away, no more."""
    assert decided(**facts) == (rule, level)


def test_an_operator_may_trust_what_callers_say() -> None:
    """Where a service checks names itself, but does not repeat them."""
    text = b'version = 1\nname = "x"\ntrust = ["requested_model", "asserted_tenant"]\n'
    rules = b'[[rule]]\nname = "r"\nmatch = {model = "m", tenant = "t"}\nlevel = "redacted"\n'
    trusting = Policy.read(text + rules)
    facts = Facts(tenant="t", model="m", is_tenant_claimed=True)
    assert trusting.decide(facts).level == "redacted"
    wary = Policy.read(text.replace(b"trust", b"# trust") + rules)
    assert wary.decide(facts).level == "metadata"


def test_an_intent_says_the_least_that_may_come_out() -> None:
    """Before the call nobody knows the model that will answer."""
    early = Facts(service="desk", has_model=False, is_intent=True)
    assert POLICY.decide(early).level == "none", "it could become a health access"
    only = Policy.read(b'version = 1\nname = "x"\n[[rule]]\nname = "r"\nlevel = "redacted"\n')
    assert only.decide(early).level == "redacted"


def test_an_unread_body_brings_no_content_and_hides_nobody() -> None:
    """A caller can send a body that nobody can read; so can a full buffer give it up unread."""
    late = Policy.read(
        b'version = 1\nname = "x"\n[[rule]]\nname = "med"\nmatch = { model = "med-*" }\n'
        b'level = "none"\nfields = { "user.id" = "digest" }\n'
        b'[[rule]]\nname = "rest"\nlevel = "redacted"\n'
    )
    unread = late.decide(Facts(has_model=False))
    assert (unread.level, unread.actions) == ("metadata", {"user.id": "digest"})
    assert late.decide(Facts()).level == "redacted"
    assert late.decide(Facts(has_model=False, is_intent=True)).level == "none"
    silent = Policy.read(b'version = 1\nname = "x"\n[[rule]]\nname = "s"\nlevel = "none"\n')
    assert silent.decide(Facts(has_model=False)).level == "none", "whatever the model was"


def test_retention_is_said_for_the_layers_there_are() -> None:
    """A rule's class goes over the policy's."""
    lab = Facts(tenant="lab", route="/v1/x", operation="chat", **SLM)
    assert POLICY.decide(lab).retention == {"metadata": "1y", "redacted": "60d", "full": "7d"}
    assert POLICY.decide(Facts()).retention == {"metadata": "1y"}
    assert POLICY.decide(Facts(tenant="clinic-1")).retention == {"metadata": "1y"}


def test_what_was_decided_stands_on_the_event() -> None:
    """Policy, its digest, the rule, the class; searchable only where there is text to search."""
    health = POLICY.decide(Facts(tenant="clinic-1")).capture
    assert health["policy"] == "acme"
    assert health["policy_version"] == POLICY.digest
    assert (health["rule"], health["data_class"], health["level"]) == ("health", "health", "none")
    assert "searchable" not in health
    desk = Facts(service="desk", model="slm-small", answered="slm-small")
    assert POLICY.decide(desk).capture["searchable"] is False
    lab = Facts(tenant="lab", route="/v1/x", operation="chat", **SLM)
    assert POLICY.decide(lab).capture["searchable"] is False, "the original is never searchable"


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("/v1/chat", "/v1/chat"),
        ("//v1///chat/", "/v1/chat"),
        ("/v1/./x/../chat", "/v1/chat"),
        ("/v1/%63hat", "/v1/chat"),
        ("/../../v1/chat", "/v1/chat"),
        ("", ""),
    ],
)
def test_a_route_is_one_however_it_is_written(path: str, plain: str) -> None:
    """Or a caller could leave a rule by writing the path another way."""
    assert normal_route(path) == plain


@pytest.mark.parametrize(
    ("asked", "word", "same"),
    [("a", "a", True), ("A", "a", True), ("a", "a:q4", True), ("a", "x/a", True),
     ("a", "ab", False), ("", "a", False), ("x/a", "a", False)],
)  # fmt: skip
def test_forms_of_a_model_name(asked: str, word: str, same: bool) -> None:
    """Services date and prefix the names of their models."""
    assert is_same_model(asked, word) is same


def test_facts_come_from_fields_that_the_service_fills() -> None:
    """A tenant counts as claimed unless the identity was verified; a route, where there is none."""
    event = {
        "organization": {"id": "lab"},
        "url": {"path": "/v1/x"},
        "event": {"action": "chat"},
        "service": {"name": "s"},
        "http": {"response": {"status_code": 404}},
        "gen_ai": {"request": {"model": "a"}, "response": {"model": "b"}},
        "gatebook": {"phase": "terminal", "model": {"resolved": "c"}},
    }
    assert facts_of(event) == Facts("lab", "a", "b", "c", "/v1/x", "chat", "s", True, True)
    verified = {**event, "gatebook": {"phase": "intent", "identity": {"assurance": "verified"}}}
    found = facts_of(verified)
    assert (found.is_tenant_claimed, found.has_model, found.is_intent) == (False, False, True)
    unread = {"gatebook": {"capture": {"degraded_reason": "request_not_json"}}}
    assert (facts_of(unread).has_model, facts_of(unread).is_intent) == (False, False)
    assert facts_of({**unread, "gen_ai": event["gen_ai"]}).has_model
    assert facts_of({}) == Facts()


def test_explaining_names_what_did_not_match() -> None:
    """Rule by rule, up to the one that decides."""
    steps = list(explain(POLICY, Facts(tenant="lab", route="/v1/x", operation="chat", **SLM)))
    assert [(s.rule, s.verdict, s.because) for s in steps] == [
        ("health", "no", "data_class"),
        ("lab", "yes", ""),
    ]
    steps = list(explain(POLICY, Facts()))
    assert (steps[-1].rule, steps[-1].level) == ("default", "metadata")
    assert steps[1].because == "tenant"
    assert (steps[1].wanted, steps[1].found) == (("lab", "lab-*"), ("",))


def test_content_is_wanted_only_where_a_rule_could_keep_it() -> None:
    """Otherwise none is ever composed."""
    assert POLICY.highest_level == "full"
    assert Policy.read(b'version = 1\nname = "x"\n').highest_level == "metadata"
