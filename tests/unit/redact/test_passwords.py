"""Passwords that take more than one value to tell: several in a sentence, columns of a table."""

from __future__ import annotations

import pytest

from gatebook.processors.redact import Redactor

REDACTOR = Redactor.default(b"a pseudonym key for tests only")


@pytest.mark.parametrize(
    ("text", "secrets", "kept"),
    [
        (
            "The passwords are Zq9kkQx1! and Yp8jjPw0?",
            ("Zq9kkQx1!", "Yp8jjPw0?"),
            ("The passwords are", " and "),
        ),
        (
            "passwords are hunter2, Winter2024 and Bb7nn, not more",
            ("hunter2", "Winter2024", "Bb7nn"),
            (" and ", ", not more"),
        ),
        (
            "user,password,role\nada,Zq9kkQx1!,admin\n\"bob, jr\",'Yp8jjPw0?',user\n\na,x9y8z7,no",
            ("Zq9kkQx1!", "Yp8jjPw0?"),
            ("user,password,role", ",admin", '"bob, jr"', "a,x9y8z7,no"),
        ),
        (
            "| user | Password |\n|:--|---|\n| ada | `Zq9kkQx1!` |\n| bob | Yp8jjPw0? |",
            ("Zq9kkQx1!", "Yp8jjPw0?"),
            ("| user | Password |", "| bob |"),
        ),
        ("the passwords are hunter2 and nobody knows", ("hunter2",), (" and nobody knows",)),
    ],
)
def test_each_of_several_passwords_goes(
    text: str, secrets: tuple[str, ...], kept: tuple[str, ...]
) -> None:
    """What is told to be several is read on from the first; the words between them stay."""
    redacted = REDACTOR.redact_text(text).text
    assert [secret for secret in secrets if secret in redacted] == []
    assert [words for words in kept if words not in redacted] == []
