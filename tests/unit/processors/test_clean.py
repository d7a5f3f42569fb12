"""Texts that need no redaction are remembered, within bounds."""

from __future__ import annotations

from gatebook.processors.clean import MAX_CLEAN_TEXT_CHARS, CleanTexts


def test_only_the_very_same_text_is_known() -> None:
    """A text that differs in anything from a clean one is read by the redactor."""
    clean = CleanTexts()
    clean.add("/v1/chat")
    clean.add(["a", "b"])
    assert "/v1/chat" in clean
    assert ["a", "b"] in clean
    for other in ("/v1/chat ", "/V1/chat", ["/v1/chat"], ["a"], ["b", "a"], "ab", "", None, {}):
        assert other not in clean


def test_long_texts_and_other_values_are_not_kept() -> None:
    """Prompts and maps are read every time: only names and codes come again."""
    clean = CleanTexts()
    for value in ("x" * (MAX_CLEAN_TEXT_CHARS + 1), ["x" * MAX_CLEAN_TEXT_CHARS, "x"], {"a": "b"}):
        clean.add(value)
        assert value not in clean


def test_memory_is_bounded_and_keeps_what_is_used() -> None:
    """However many texts there are, two generations are kept, and a text in use stays."""
    clean = CleanTexts(limit=10)
    clean.add("often")
    for number in range(1000):
        clean.add(f"once {number}")
        assert "often" in clean
    known = [number for number in range(1000) if f"once {number}" in clean]
    assert 1 <= len(known) <= 20
    assert 999 in known
