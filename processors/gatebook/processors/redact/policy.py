"""What an operator adds: rules in a folder, allow lists and switched-off rules in a file.

    [redaction]
    disabled = ["high_entropy"]

    [[redaction.allow]]
    tenant = "*"
    kind = "email"
    values = ["support@example.com"]
    patterns = [".*@status[.]example[.]com"]
    reason = "published on our pages"

Everything is read once, at start. What cannot be used stops the start and is named, all of it at
once: a rule that is left out in silence would be a leak that nobody sees.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from .allow import Allowed, AllowList
from .engine import RedactionLimits, Redactor
from .errors import RedactionFailed, RuleInvalid
from .ner import NerPool
from .rules import Rule, default_rules, expand, read_rule, split_marks

_CASE_KEY = b"for written cases only"


class RedactionPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table `redaction` of the policy file."""

    disabled: tuple[str, ...] = ()
    """Ids of packaged rules that are not run. Which ones is part of the policy version."""
    allow: tuple[Allowed, ...] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    redaction: RedactionPolicy = RedactionPolicy()


def build_redactor(
    pseudonym_key: bytes,
    epoch: str = "e1",
    *,
    rules_folder: Path | None = None,
    policy_file: Path | None = None,
    ner_module: str = "",
    limits: RedactionLimits | None = None,
) -> Redactor:
    """Return a redactor with the packaged rules and what the operator adds to them.

    `ner_module` names a plug-in for names and addresses, see `ner`; its processes start here.
    Raises RuleInvalid with every problem found, each with its file, one a line.
    """
    policy = load_policy(policy_file) if policy_file else RedactionPolicy()
    own = load_own_rules(rules_folder) if rules_folder else ()
    rules = [rule for rule in default_rules() if rule.id not in policy.disabled]
    ner = NerPool(ner_module) if ner_module else None
    return Redactor([*rules, *own], pseudonym_key, epoch, limits, AllowList(policy.allow), ner)


def load_policy(path: Path) -> RedactionPolicy:
    """Read the policy file. Raises RuleInvalid with the file and the reason."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        policy = msgspec.convert(data, _File).redaction
        AllowList(policy.allow)
    except OSError as error:
        raise RuleInvalid(f"{path}: {error.strerror}") from None
    except (ValueError, RuleInvalid) as error:
        raise RuleInvalid(f"{path}: {error}") from None
    unknown = set(policy.disabled) - {rule.id for rule in default_rules()}
    if unknown:
        raise RuleInvalid(f"{path}: disabled: no packaged rule is called {min(unknown)}")
    return policy


def load_own_rules(folder: Path) -> tuple[Rule, ...]:
    """Read `<id>/rule.toml` or `<id>.toml` in a folder, and run the cases of each.

    Raises RuleInvalid with a line for each file that cannot be used: none is left out.
    """
    if not folder.is_dir():
        raise RuleInvalid(f"{folder}: there is no such folder")
    files = sorted({*folder.glob("*/rule.toml"), *folder.glob("*.toml")})
    rules: list[Rule] = []
    problems: list[str] = []
    for path in files:
        try:
            rules.append(_own_rule(path))
        except (OSError, RuleInvalid) as error:
            problems.append(f"{path}: {getattr(error, 'strerror', None) or error}")
    problems += _clashes(rules)
    if problems:
        raise RuleInvalid("\n".join(problems))
    return tuple(rules)


def _own_rule(path: Path) -> Rule:
    name = path.parent.name if path.name == "rule.toml" else path.stem
    rule = read_rule(path.read_bytes(), name)
    problems = list(case_problems(rule))
    if problems:
        raise RuleInvalid("; ".join(problems))
    return rule


def _clashes(own: Sequence[Rule]) -> Iterator[str]:
    counts = Counter(rule.id for rule in (*default_rules(), *own))
    for rule in own:
        if counts[rule.id] > 1:
            yield f"rule {rule.id}: another rule has this id"


def case_problems(rule: Rule) -> Iterator[str]:
    """Say which written cases of a rule do not hold. Raises RuleInvalid if it cannot be run."""
    redactor = Redactor([rule], _CASE_KEY, "e1")
    if not rule.positive or not rule.negative:
        yield "it needs at least one positive and one negative case"
    for number, case in enumerate(rule.positive, 1):
        text, values = split_marks(expand(case))
        if not values:
            yield f"positive case {number} marks no value"
        elif _left(redactor, text, values):
            yield f"positive case {number} is not masked where it is marked"
    for number, case in enumerate(rule.negative, 1):
        text, _ = split_marks(expand(case))
        if _counts(redactor, text):
            yield f"negative case {number} is masked"


def _left(redactor: Redactor, text: str, values: Sequence[str]) -> bool:
    try:
        found = [finding.value for finding in redactor.find(text)]
    except RedactionFailed:
        return True
    return found != list(values)


def _counts(redactor: Redactor, text: str) -> bool:
    try:
        return bool(redactor.redact_text(text).counts)
    except RedactionFailed:
        return True
