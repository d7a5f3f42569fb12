"""Events looked through together come out, byte for byte, as each does alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatebook.processors.enrich import Catalog
from gatebook.processors.intake import (
    BATCH_EVENTS,
    IntakeContext,
    IntakeResult,
    Source,
    process_frame,
)
from gatebook.processors.redact import (
    Allowed,
    AllowList,
    RedactionLimits,
    Redactor,
    default_rules,
)
from gatebook.processors.redact.rules import expand, split_marks
from gatebook.processors.redact.walk import JsonWalk
from gatebook.processors.screen import Screen
from gatebook.processors.signals import all_signals, signals_of, suspected
from gatebook.processors.subjects.identity import SubjectTags
from gatebook.processors.subjects.keys import SubjectKey
from gatebook.processors.subjects.layers import KeyEntry, Subjects
from gatebook.schemas.codec import FrameHeader, build_frame, encode_event

NOW = 1_760_000_000 * 10**9
MAIL = "jo.doe@example.org"
REDACTOR = Redactor.default(b"a key for tests only")
VALUED = [split_marks(expand(case))[0] for rule in default_rules() for case in rule.positive]
QUIET = [expand(case) for rule in default_rules() for case in rule.negative]
FIRING = [text for signal in all_signals().values() for text in (*signal.fires, *signal.quiet)]
PROSE = ["", "role", "the token is in use", "naïve — yes…", "1 2", "100%", "a\nb", "x" * 9000]
texts = st.one_of(
    st.sampled_from(VALUED + QUIET + FIRING + PROSE), st.text("aé1 @.-\\", max_size=9)
)
scalars = st.one_of(texts, st.sampled_from([1, 4111111111111111, 1.5, None, True]))
shapes = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["role", "text", "type", "api_key", MAIL]), inner),
        st.tuples(texts, st.integers(0, 40)).map(lambda drawn: halves(*drawn)),
    ),
    max_leaves=6,
)
contents = st.dictionaries(
    st.sampled_from(["input_messages", "output_messages", "tools", "error_text", "more"]), shapes
)


def halves(text: str, at: int) -> list[dict[str, str]]:
    """A text over two parts of a message."""
    return [{"type": "text", "text": text[:at]}, {"type": "text", "text": text[at:]}]


class _Keys:
    """A key for everybody; what some of them wrote was erased since."""

    def get(self, tag: str) -> KeyEntry:
        erased_before_ns = NOW if tag < "f" else 0
        return KeyEntry(SubjectKey(f"{tag}.0", tag.encode()), erased_before_ns)


TAGS = SubjectTags(b"a tag key for tests only, of 32 b")


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """An encoded event; now and then one that nobody can read."""
    level = draw(st.sampled_from(["redacted", "full", "metadata"]))
    made = {
        "timestamp": NOW - 10**9,
        "event": {"id": f"id-{draw(st.integers(0, 10**6))}", "end": NOW},
        "user": {"id": draw(texts)[:60], "name": draw(st.sampled_from(["", "Jo", MAIL]))},
        "url": {"path": draw(texts)},
        "organization": {"id": draw(st.sampled_from(["", "acme", "other"]))},
        "gatebook": {"capture": {"level": level}, "attributes": {"note": draw(texts)}},
        "content": json.dumps(draw(contents)).encode(),
        "content_encoding": draw(st.sampled_from(["json", "json", "json", "zip"])),
    }
    data = encode_event(made)
    return data if draw(st.integers(0, 19)) else data[:-3]


def context(redactor: Redactor, sealed: bool) -> IntakeContext:
    subjects = Subjects(TAGS, _Keys()) if sealed else None
    return IntakeContext(Catalog(), redactor, 4, subjects=subjects)


def processed(encoded: list[bytes], first: int, given: IntakeContext) -> IntakeResult:
    header = FrameHeader("p", 1, first, len(encoded), NOW)
    return process_frame(build_frame(header, encoded), Source("t", 0, 0), given, NOW)


ALLOWING = Redactor(
    default_rules(),
    b"a key for tests only",
    "e1",
    allow=AllowList([Allowed(tenant="acme", kind="email", patterns=(".*",))]),
)


FILLER = encode_event({"timestamp": NOW, "event": {"id": "filler", "end": NOW}})
BEFORE = BATCH_EVENTS - 2
"""So many fillers, and the events stand in two batches."""


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(events(), min_size=2, max_size=6),
    st.sampled_from([REDACTOR, ALLOWING]),
    st.booleans(),
)
def test_a_frame_comes_out_as_its_events_one_by_one(
    encoded: list[bytes], redactor: Redactor, sealed: bool
) -> None:
    """Bytes, digests, dead letters and failures, whatever stands beside whatever, in more than
    one batch; with the worker's memory of texts and without."""
    together = processed([FILLER] * BEFORE + encoded, 0, context(redactor, sealed))
    alone = [
        processed([data], number, context(redactor, sealed))
        for number, data in enumerate(encoded, BEFORE)
    ]
    assert together.documents[BEFORE:] == [d for result in alone for d in result.documents]
    assert together.dead_letters == [d for result in alone for d in result.dead_letters]
    failures = [reason for result in alone for reason in result.redaction_failures]
    assert sorted(together.redaction_failures) == sorted(failures)
    assert together.erased == sum(result.erased for result in alone)


@settings(max_examples=200, deadline=None)
@given(st.lists(contents, min_size=1, max_size=5))
def test_nothing_is_in_content_that_is_passed_over(drawn: list[dict[str, Any]]) -> None:
    """What the screen says of each, the plain walk and the plain search say, too."""
    screen = Screen(REDACTOR)
    gathered = [screen.texts([], values, len(json.dumps(values))) for values in drawn]
    for values, look in zip(drawn, screen.look(gathered), strict=True):
        if look.content and look.content.settled(REDACTOR, "") is None:
            walk = JsonWalk(REDACTOR, "", {})
            assert {name: walk.value(value, 0) for name, value in values.items()} == values
            assert not walk.counts
        if not look.may_signal:
            assert signals_of(values) == []


@pytest.mark.parametrize("text", [t for s in all_signals().values() for t in s.fires])
def test_a_signal_is_suspected_wherever_it_stands(text: str) -> None:
    """A pattern that reads to the end of a text finds it among others as well."""
    for place in range(3):
        among = [["a word"], ["of", "many"], ["the last"]]
        among[place] = ["before", text]
        assert suspected(among) == {place}


def test_what_is_too_large_or_too_deep_is_read_alone() -> None:
    """The bounds of the redactor hold whoever reads ahead."""
    limits = RedactionLimits(json_nodes=40, json_depth=3)
    screen = Screen(Redactor(default_rules(), b"a key for tests only", "e1", limits))
    assert screen.texts([], {"tools": [1] * 40}, 41) is None
    deep = screen.texts([], {"tools": [[[["x"]]]]}, 9)
    assert deep is not None
    assert not deep.content.plain


def test_what_a_tenant_may_show_is_not_remembered_for_another() -> None:
    """A mail address that stands in one tenant's texts is masked in the next tenant's."""
    given = context(ALLOWING, sealed=False)
    made = [
        encode_event(
            {
                "timestamp": NOW,
                "event": {"id": f"id-{tenant}", "end": NOW},
                "organization": {"id": tenant},
                "url": {"path": f"/of/{MAIL}"},
            }
        )
        for tenant in ("acme", "other")
    ]
    for batch in (made, made):
        first, second = processed(batch, 0, given).documents
        assert MAIL in first.body.decode()
        assert MAIL not in second.body.decode()
