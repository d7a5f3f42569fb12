"""Break-glass: two others approve, for a while, up to a level; nothing less raises anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.producers.policy.break_glass import (
    REQUEST_ID,
    SECOND_NS,
    Box,
    policy_text,
    request_of,
)

from gatebook.producers.policy.capture import Grants, decide
from gatebook.producers.policy.document import Match
from gatebook.producers.policy.grants import Grant, read_grants
from gatebook.producers.policy.match import Facts, Policy

POLICY = Policy.read(policy_text().encode())
LAB = Facts(tenant="lab")


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "capture.toml")


def grants_of(box: Box) -> Grants:
    return Grants(box.folder, box.folder.with_name("ended"))


def judged(box: Box, policy: Policy = POLICY) -> Grant:
    (grant,) = read_grants(box.folder, policy)
    return grant


def test_two_approvals_by_others_raise_the_level_until_it_expires(box: Box) -> None:
    """For what the request matches, and not a nanosecond longer."""
    request = box.ask(request_of(POLICY))
    box.approve(request, "bob")
    assert judged(box).state_at(1) == "pending"
    box.approve(request, "cyd")
    grant = judged(box)
    assert (grant.state, grant.approved_by) == ("approved", ("bob", "cyd"))
    grants = grants_of(box)
    assert grants.look(POLICY)
    raises, until_ns = grants.active(1)
    found = decide(POLICY, LAB, raises)
    assert (found.level, found.break_glass, found.rule) == ("redacted", REQUEST_ID, "all")
    assert decide(POLICY, Facts(tenant="other"), raises).level == "metadata"
    claimed = Facts(tenant="lab", is_tenant_claimed=True)
    assert decide(POLICY, claimed, raises).level == "metadata", "a claim raises nothing"
    assert until_ns == request.expires_ns
    assert grants.active(request.expires_ns) == ((), 1 << 63)


def test_a_raise_never_lowers(box: Box) -> None:
    """Where the rule keeps more, it stays so."""
    full = Policy.read(policy_text("full").encode())
    request = box.ask(request_of(full))
    box.approve(request, "bob")
    box.approve(request, "cyd")
    grants = grants_of(box)
    grants.look(full)
    assert decide(full, LAB, grants.active(1)[0]).break_glass == ""


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"id": "bg-" + "1" * 16}, "another_id"),
        ({"policy_version": "0" * 64}, "another_policy"),
        ({"policy": "other"}, "another_policy"),
        ({"level": "full"}, "too_high"),
        ({"expires_ns": 3601 * SECOND_NS}, "too_long"),
        ({"expires_ns": 0}, "too_long"),
        ({"match": Match()}, "matches_everything"),
        ({"requested_by": "eve"}, "forged"),
    ],
)
def test_a_request_the_policy_does_not_allow_is_refused(
    box: Box, changed: dict[str, Any], problem: str
) -> None:
    """Though two approved it."""
    request = box.ask(request_of(POLICY, **changed))
    box.approve(request, "bob")
    box.approve(request, "cyd")
    grant = judged(box)
    assert (grant.state, grant.problem) == ("refused", problem)


def test_a_request_signed_by_another_is_refused(box: Box) -> None:
    """Or an approver could ask in somebody's name and approve it too."""
    request = request_of(POLICY)
    box.ask(request, by="bob")
    assert judged(box).problem == "signed_by_another"
    box.ask(request, by="ada", key_of="bob")
    assert judged(box).problem == "forged"


@pytest.mark.parametrize(
    ("approval", "problem"),
    [
        ({"by": "ada"}, "approved_by_requester"),
        ({"by": "cyd", "key_of": "bob"}, "forged"),
        ({"by": "cyd", "key_of": "eve"}, "forged"),
        ({"by": "eve"}, "not_an_approver"),
        ({"by": "cyd", "step": "request"}, "forged"),
    ],
)
def test_one_approval_and_one_that_does_not_count_raise_nothing(
    box: Box, approval: dict[str, Any], problem: str
) -> None:
    """Not the requester's own, not one in another's name, not one of another step."""
    request = box.ask(request_of(POLICY))
    box.approve(request, "bob")
    box.approve(request, **approval)
    grant = judged(box)
    assert (grant.state, grant.approved_by, grant.ignored) == ("pending", ("bob",), (problem,))


def test_one_person_twice_is_one_person(box: Box) -> None:
    """However many files there are."""
    request = box.ask(request_of(POLICY))
    box.approve(request, "bob")
    copy = (box.folder / f"{REQUEST_ID}.approval.bob.json").read_bytes()
    (box.folder / f"{REQUEST_ID}.approval.bob2.json").write_bytes(copy)
    assert judged(box).state == "pending"


def test_a_request_changed_after_its_approval_has_none(box: Box) -> None:
    """The signature is over everything in it."""
    request = box.ask(request_of(POLICY))
    box.approve(request, "bob")
    box.approve(request, "cyd")
    box.ask(request_of(POLICY, expires_ns=3000 * SECOND_NS))
    grant = judged(box)
    assert (grant.state, grant.ignored) == ("pending", ("forged", "forged"))


def test_a_change_of_the_policy_ends_it(box: Box) -> None:
    """What was approved was a raise over that policy, not over another."""
    request = box.ask(request_of(POLICY))
    box.approve(request, "bob")
    box.approve(request, "cyd")
    changed = Policy.read(policy_text().encode() + b"# changed\n")
    assert judged(box, changed).problem == "another_policy"
    without = Policy.read(policy_text().partition("[break_glass]")[0].encode())
    assert judged(box, without).problem == "not_allowed"


def test_what_is_no_request_is_refused_and_stops_nothing(box: Box) -> None:
    """Junk, and files of other names."""
    (box.folder / f"{REQUEST_ID}.request.json").write_bytes(b"{junk")
    (box.folder / "notes.txt").write_text("x")
    assert judged(box).problem == "unreadable"
    (box.folder / f"{REQUEST_ID}.request.json").unlink()
    (box.folder / f"{REQUEST_ID}.approval.bob.json").write_bytes(b"{}")
    assert judged(box).problem == "unreadable"


def test_without_a_way_to_verify_nothing_is_raised(box: Box) -> None:
    """A host without the package for signatures."""
    request = box.ask(request_of(POLICY))
    box.approve(request, "bob")
    box.approve(request, "cyd")
    (grant,) = read_grants(box.folder, POLICY, lambda key, signature, message: False)
    assert grant.problem == "forged"


def test_what_ended_does_not_come_back(box: Box) -> None:
    """Not by a deleted revocation, not by a clock set back; each step is said once."""
    request = box.ask(request_of(POLICY, begins_ns=10 * SECOND_NS))
    box.approve(request, "bob")
    box.approve(request, "cyd")
    grants = grants_of(box)
    grants.look(POLICY)
    assert grants.take_notices(9 * SECOND_NS) == []
    (begun,) = grants.take_notices(10 * SECOND_NS)
    assert begun.action == "break_glass_active"
    assert begun.attributes["approved_by"] == "bob,cyd"
    assert begun.attributes["justification"] == "incident 7"
    assert grants.take_notices(11 * SECOND_NS) == []
    box.revoke(request, "bob", key_of="eve")
    grants.look(POLICY)
    assert len(grants.active(12 * SECOND_NS)[0]) == 1, "a forged revocation ends nothing"
    box.revoke(request, "bob")
    grants.look(POLICY)
    (ended,) = grants.take_notices(13 * SECOND_NS)
    assert (ended.action, ended.reason) == ("break_glass_ended", "revoked")
    (box.folder / f"{REQUEST_ID}.revoked.bob.json").unlink()
    grants.look(POLICY)
    assert grants.active(14 * SECOND_NS)[0] == ()
    assert grants.take_notices(14 * SECOND_NS) == []
    later = grants_of(box)
    later.look(POLICY)
    assert later.active(15 * SECOND_NS)[0] == (), "nor in another process"


def test_a_revocation_counts_also_where_the_raise_was_never_active(box: Box) -> None:
    """A host that starts under a revocation, and loses the file, does not take the raise up; nor
    does another process there."""
    request = box.ask(request_of(POLICY))
    box.approve(request, "bob")
    box.approve(request, "cyd")
    box.revoke(request, "bob")
    grants = grants_of(box)
    grants.look(POLICY)
    assert grants.take_notices(1) == []
    (box.folder / f"{REQUEST_ID}.revoked.bob.json").unlink()
    for one in (grants, grants_of(box)):
        one.look(POLICY)
        assert one.active(2)[0] == ()
        assert one.take_notices(2) == []


def test_expiry_and_refusals_are_said(box: Box) -> None:
    """An attempt to forge an approval is itself an event; old requests are no noise."""
    request = box.ask(request_of(POLICY))
    box.approve(request, "bob")
    box.approve(request, "cyd", key_of="bob")
    grants = grants_of(box)
    grants.look(POLICY)
    (refused,) = grants.take_notices(1)
    assert (refused.action, refused.reason) == ("break_glass_refused", "forged")
    assert grants.take_notices(2) == []
    box.approve(request, "cyd")
    grants.look(POLICY)
    assert [n.action for n in grants.take_notices(3)] == ["break_glass_active"]
    (ended,) = grants.take_notices(request.expires_ns)
    assert (ended.action, ended.reason) == ("break_glass_ended", "expired")
    late = grants_of(box)
    late.look(POLICY)
    assert late.take_notices(request.expires_ns) == []
