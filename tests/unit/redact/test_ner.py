"""Names are found by a plug-in in a process of its own; whatever it does, nothing leaks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gatebook.processors.redact import (
    NerLimits,
    NerPool,
    RedactionFailed,
    Redactor,
    RuleInvalid,
    default_rules,
)

KEY = b"a pseudonym key for tests only"
PLUGIN = "tests.unit.redact.plugins.capitals"
PATIENT = NerLimits(timeout_seconds=5.0, restart_seconds=0.0)


@pytest.fixture(scope="module")
def pool() -> Iterator[NerPool]:
    pool = NerPool(PLUGIN, PATIENT)
    yield pool
    pool.close()


@pytest.fixture
def redactor(pool: NerPool) -> Redactor:
    return Redactor(default_rules(), KEY, "e1", ner=pool)


def test_names_are_masked_beside_everything_else(redactor: Redactor) -> None:
    """The same person reads the same, in any spelling of spaces, and rules go on working."""
    text = "Ada Lovelace wrote to ada@example.com. Ada Lovelace!"
    redacted = redactor.redact_text(text)
    assert redacted.counts == {"person": 2, "email": 1}
    first, *_, last = redacted.text.split(" ")
    assert first == last.rstrip("!")
    assert first.startswith("[PERSON_e1_")


def test_a_name_in_json_and_over_chunks_is_masked(redactor: Redactor) -> None:
    """Every path of a text goes by the plug-in."""
    value, counts = redactor.redact_json({"a": ["said Ada Love", "lace here"]})
    assert value["a"][1] == " here"  # type: ignore[index,call-overload]  # as it went in
    assert counts == {"person": 1}


def test_identifiers_are_not_asked_about(redactor: Redactor) -> None:
    """A single word costs no round trip to the model."""
    assert redactor.redact_text("please_die").counts == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("please die now", "plugin"),
        ("please raise now", "plugin"),
        ("please lie now", "plugin"),
    ],
)
def test_a_plug_in_that_fails_fails_closed_and_comes_back(
    redactor: Redactor, text: str, reason: str
) -> None:
    """The text is dropped, the failure says nothing of it, and the next text is read again."""
    with pytest.raises(RedactionFailed) as caught:
        redactor.redact_text(text)
    assert caught.value.reason == reason
    assert "please" not in str(caught.value)
    assert redactor.redact_text("by Ada Lovelace").counts == {"person": 1}


def test_a_plug_in_that_hangs_is_ended_and_replaced() -> None:
    """No text waits longer than the time-out, and the next has a child that answers."""
    limits = NerLimits(timeout_seconds=2.0, restart_seconds=0.0)
    pool = NerPool(PLUGIN, limits)
    try:
        redactor = Redactor(default_rules(), KEY, "e1", ner=pool)
        with pytest.raises(RedactionFailed) as caught:
            redactor.redact_text("please hang now")
        assert caught.value.reason == "timeout"
        assert redactor.redact_text("by Ada Lovelace").counts == {"person": 1}
    finally:
        pool.close()


def test_a_child_that_dies_again_and_again_is_not_started_all_the_time() -> None:
    """Until it may be started again, every text fails closed."""
    pool = NerPool(PLUGIN, NerLimits(timeout_seconds=5.0, restart_seconds=3600.0))
    try:
        reasons = []
        for text in ("please die now", "please die now", "all is well", "all is well"):
            try:
                pool.find(text)
                reasons.append("")
            except RedactionFailed as failure:
                reasons.append(failure.reason)
        assert reasons == ["plugin", "plugin", "plugin", "plugin"]
    finally:
        pool.close()


def test_a_closed_pool_fails() -> None:
    """After the end nothing is called clean."""
    pool = NerPool(PLUGIN, PATIENT)
    pool.close()
    with pytest.raises(RedactionFailed):
        pool.find("Ada Lovelace")


def test_a_plug_in_that_cannot_be_loaded_stops_the_start() -> None:
    """A model that is not there is no model that finds nothing."""
    with pytest.raises(RuleInvalid, match=r"plug-in nowhere\.to_be_found"):
        NerPool("nowhere.to_be_found", NerLimits(start_seconds=20.0))


def test_the_plug_in_and_its_version_belong_to_the_policy_version(redactor: Redactor) -> None:
    """Texts that another model has read are another policy's."""
    assert redactor.ner is not None
    assert redactor.ner.version == "3"
    assert redactor.policy_version != Redactor.default(KEY).policy_version


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("我叫王小明。住在北京市。", "我叫{}。住在北京市。"),
        ("山田太郎と申します。", "{}と申します。"),
        ("ผมชื่อสมชาย", "ผมชื่อ{}"),
        ("ask:王小明", "ask:{}"),
    ],
)
def test_texts_without_spaces_are_asked_about(text: str, masked: str) -> None:
    """Chinese, Japanese and Thai write a sentence as one word."""
    pool = NerPool("tests.unit.redact.plugins.scripts", PATIENT)
    try:
        redacted = Redactor(default_rules(), KEY, "e1", ner=pool).redact_text(text)
    finally:
        pool.close()
    assert redacted.counts == {"person": 1}
    before, after = masked.split("{}")
    assert redacted.text.startswith(f"{before}[PERSON_e1_")
    assert redacted.text.endswith(f"]{after}")
