"""Rules are data: `rules/<id>/rule.toml`, loaded once and validated as they load.

Fields of a rule file are those of `Rule`. `positive` cases mark what must be masked with
`⟦` and `⟧`, `negative` ones must come out unchanged; both may hold `{{alnum:36}}`
placeholders (see `expand`), so that no file looks like a leaked secret to a scanner.
"""

from __future__ import annotations

import random
import re
import string
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Literal

import msgspec

from .errors import RuleInvalid

SECRET_KINDS: frozenset[str] = frozenset(
    {"api_key", "jwt", "private_key", "password", "pin", "one_time_code", "card_security_code"}
)
"""Kinds that mean a credential."""

MAX_KEYWORD_BYTES = 64
MARK_OPEN, MARK_CLOSE = "⟦", "⟧"
_PLACEHOLDER = re.compile(r"\{\{([a-z0-9]+)(?::(\d+))?\}\}")
_ALPHABETS = {
    "alnum": string.ascii_letters + string.digits,
    "upper": string.ascii_uppercase + string.digits,
    "base32": string.ascii_uppercase + "234567",
    "hex": "0123456789abcdef",
    "digit": string.digits,
    "lower": string.ascii_lowercase,
    "base64": string.ascii_letters + string.digits + "+/",
}


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one form of one kind of value is found, checked and masked."""

    id: str
    """Unique, equal to its folder's name."""
    kind: str
    """What is counted and shown in the mask; several rules may share one."""
    description: str
    pattern: str
    """RE2, read over bytes (ASCII only). The group that took part, else all of it, is the value."""
    validator: str
    """Name in `validators.VALIDATORS`: confirms, narrows or widens what the pattern found."""
    priority: int = 0
    """Decides between findings of equal length; the higher wins."""
    keywords: tuple[str, ...] = ()
    """Lower-case; one must be in the text, or the pattern is not run."""
    version: int = 1
    """Raised with every change of what the rule finds; part of the policy version."""
    trigger: Literal["", "digits", "colons", "codes", "tokens"] = ""
    """Where the pattern is run, for a rule without keywords: near clusters of digits and their
    separators (six characters and more), runs of hex digits and colons, letters followed by
    digits, or tokens of 24 and more characters. Empty: on all of the text."""
    before_bytes: int = 64
    """How far before a keyword the pattern is run; more where a match begins right there."""
    after_bytes: int = 256
    """How far after a keyword the pattern is run; more where a match ends right there."""
    context: tuple[str, ...] = ()
    """Lower-case words; one must stand near the value, or it counts as chance."""
    context_before_bytes: int = 48
    context_after_bytes: int = 24
    mask: Literal["plain", "domain", "last4"] = "plain"
    cost: int = 1
    """Work units (about a microsecond each) that one candidate costs."""
    min_entropy_bits: float = 0.0
    """Shannon entropy per character that the value needs, for validators that ask."""
    min_classes: int = 1
    """Character classes (digit, lower, inner upper) the value needs, for validators that ask."""
    region: str = ""
    """Where a national telephone number is dialled: a region, `large` or `*` for any."""
    loose: bool = False
    """Ten digits in North American groups count though the plan does not have them."""
    not_after: str = ""
    """RE2; the rule is silent where it matches in the 40 bytes before the value."""
    value: str = ""
    """RE2 of the value sought after the pattern, for the validator `near`."""
    window_bytes: int = 0
    """How far after the pattern `near` looks."""
    checks: tuple[str, ...] = ()
    """For `checked`: modules of python-stdnum, one of which must accept the value."""
    blind_spots: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()


def load_rules(root: Traversable) -> tuple[Rule, ...]:
    """Load every `<id>/rule.toml` under `root`, in id order. Raises RuleInvalid."""
    folders = sorted((f for f in root.iterdir() if f.is_dir()), key=lambda f: f.name)
    return tuple(_load_rule(folder) for folder in folders if (folder / "rule.toml").is_file())


@cache
def default_rules() -> tuple[Rule, ...]:
    """Return the packaged rules, read once per process."""
    return load_rules(files(__package__) / "rules")


def _load_rule(folder: Traversable) -> Rule:
    return read_rule((folder / "rule.toml").read_bytes(), folder.name)


def read_rule(content: bytes, name: str) -> Rule:
    """Read one rule that is to be called `name`. Raises RuleInvalid with the reason."""
    try:
        rule = msgspec.convert(tomllib.loads(content.decode("utf-8")), Rule)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise RuleInvalid(f"rule {name}: {error}") from error
    if rule.id != name:
        raise RuleInvalid(f"rule {name}: its id differs from its folder")
    for problem in _problems(rule):
        raise RuleInvalid(f"rule {name}: {problem}")
    return rule


_NAME = re.compile(r"[a-z][a-z0-9_]{1,39}")


def _problems(rule: Rule) -> Iterator[str]:
    words = rule.keywords + rule.context
    if not _NAME.fullmatch(rule.kind):
        yield "its kind is 2 to 40 lower-case letters, digits and underscores"
    if any(word != word.lower() or not word for word in words):
        yield "keywords and context words are lower-case"
    if any(len(word.encode("utf-8")) > MAX_KEYWORD_BYTES for word in words):
        yield f"a keyword or context word has more than {MAX_KEYWORD_BYTES} bytes"
    if rule.keywords and rule.trigger:
        yield "it has keywords or a trigger, not both"


def expand(case: str, seed: int = 0) -> str:
    """Fill `{{alphabet:length}}` placeholders the same way each time; `{{join}}` is empty."""
    source = random.Random(f"{seed}:{case}")  # noqa: S311 - test data, not a secret

    def fill(match: re.Match[str]) -> str:
        if match[1] == "join":
            return ""
        return "".join(source.choices(_ALPHABETS[match[1]], k=int(match[2])))

    return _PLACEHOLDER.sub(fill, case)


def split_marks(case: str) -> tuple[str, list[str]]:
    """Return a case's plain text and its marked values in order."""
    values = re.findall(f"{MARK_OPEN}(.*?){MARK_CLOSE}", case, re.DOTALL)
    return case.replace(MARK_OPEN, "").replace(MARK_CLOSE, ""), values
