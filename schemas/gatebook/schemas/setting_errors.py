"""What a person is told of a setting that cannot be used: its variable, and what it takes."""

from __future__ import annotations

import re
import typing

import msgspec

from gatebook.schemas.errors import WrongSetting

_FIELD = re.compile(r" - at `\$\.(\w+)")


def wrong_setting(
    error: msgspec.ValidationError, kind: type[msgspec.Struct], prefix: str = "GATEBOOK_"
) -> WrongSetting:
    """`error` of converting settings to `kind`, in words that never hold the value."""
    said = str(error)
    at = _FIELD.search(said)
    if at is None:
        # A required field is missing: msgspec names the field, and there is no value.
        return WrongSetting(f"a {prefix} setting is wrong: {said}", "see `gatebook settings`")
    wanted = said.partition(" - at ")[0]
    if choices := _choices(kind, at[1]):
        wanted = f"it is one of {', '.join(choices)}"
    return WrongSetting(
        f"{prefix}{at[1].upper()} is not valid: {wanted}",
        "correct it; `gatebook settings` lists what each one takes",
    )


def _choices(kind: type[msgspec.Struct], name: str) -> tuple[str, ...]:
    """The values of a field that is a Literal, as they are written; of another one, none."""
    annotation = next((f.type for f in msgspec.structs.fields(kind) if f.name == name), None)
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    is_literal = typing.get_origin(annotation) is typing.Literal
    return tuple(map(str, typing.get_args(annotation))) if is_literal else ()
