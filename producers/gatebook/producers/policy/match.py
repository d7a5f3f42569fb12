"""Which rule decides on an access. Pure: the same policy and facts give the same decision.

The first rule that matches decides. But a caller must not choose: what only the caller says is a
claim, and a claim can take content away, never add any, and never make nobody of a caller.

    model    the service's own word is what counts: what it resolved the name to, else the model
             that it says answered. The name asked for counts while it fits that word; else, and
             where the service says nothing, it is a claim.
    tenant   a claim, unless the identity was verified.
    route    a claim where the service had no such route (404, 405); the operation with it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from fnmatch import translate
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from gatebook.producers.policy.document import (
    LEVELS,
    RANK,
    DataClass,
    Match,
    PolicyFile,
    Retention,
    Rule,
    as_patterns,
    digest_of,
    read_policy,
)
from gatebook.producers.policy.fields import Actions, expanded, strictest

DEFAULT_RULE = "default"
DIMENSIONS = ("tenant", "model", "route", "operation", "data_class", "service")
# Services do not agree on the case of these names; tenants and routes are what they are.
_FOLDED = frozenset({"model", "operation", "data_class", "service"})
_NOT_FOUND = frozenset({404, 405})
REASON = "degraded_reason"  # set where bodies were not, or could not be, read


class Facts(NamedTuple):
    """What a decision depends on. `answered` and `resolved` are the service's word on the model.
    `has_model` is false where nobody can know the model: in an intent not yet, in a terminal event
    not any more, its bodies being unread."""

    tenant: str = ""
    model: str = ""
    answered: str = ""
    resolved: str = ""
    route: str = ""
    operation: str = ""
    service: str = ""
    is_tenant_claimed: bool = False
    is_route_claimed: bool = False
    has_model: bool = True
    is_intent: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What is captured of an access. `capture` and `retention` are groups of the event; they are
    shared between events, and never changed."""

    level: str
    rule: str
    data_class: str
    searchable: bool
    actions: Actions
    retention_of: Retention
    policy: str
    policy_version: str
    break_glass: str = ""
    capture: Mapping[str, Any] = field(init=False)
    retention: Mapping[str, str] = field(init=False)
    dropped_parts: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "capture", self._capture())
        layers = LEVELS[1 : max(2, RANK[self.level] + 1)]
        kept = {layer: getattr(self.retention_of, layer) for layer in layers}
        object.__setattr__(self, "retention", {k: v for k, v in kept.items() if v})
        parts = (n.removeprefix("content.") for n in self.actions if n.startswith("content."))
        object.__setattr__(self, "dropped_parts", frozenset(parts))

    def _capture(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "level": self.level,
            "policy": self.policy,
            "policy_version": self.policy_version,
            "rule": self.rule,
            "data_class": self.data_class,
            "break_glass": self.break_glass,
        }
        if self.wants_content:
            found["searchable"] = self.searchable and self.level == "redacted"
        return found

    @property
    def wants_content(self) -> bool:
        """Whether content is kept."""
        return RANK[self.level] > RANK["metadata"]


class Verdict(Enum):
    """Whether something matches. MAYBE: what it depends on is not known yet."""

    NO = "no"
    MAYBE = "maybe"
    YES = "yes"


# What an access is, by dimension: any of these texts; None is not known.
Seen = Mapping[str, tuple[str, ...] | None]


class Matcher:
    """A match with its patterns compiled."""

    def __init__(self, match: Match) -> None:
        given = {name: as_patterns(getattr(match, name)) for name in DIMENSIONS}
        self.patterns = {name: some for name, some in given.items() if some}
        self._compiled = {n: _compiled(some, n in _FOLDED) for n, some in self.patterns.items()}

    def verdict(self, seen: Seen) -> tuple[Verdict, str]:
        """Whether it matches, and the dimension that decides where it does not surely."""
        unsure = ""
        for name, pattern in self._compiled.items():
            values = seen[name]
            if values is None:
                unsure = unsure or name
            elif not any(pattern.fullmatch(value) for value in values):
                return Verdict.NO, name
        return (Verdict.MAYBE, unsure) if unsure else (Verdict.YES, "")


def _compiled(patterns: Iterable[str], folded: bool) -> re.Pattern[str]:
    text = "|".join(translate(pattern) for pattern in patterns)
    return re.compile(text, re.IGNORECASE if folded else 0)


class Policy:
    """A policy, ready to decide. `digest` is that of its file's bytes."""

    def __init__(self, file: PolicyFile, digest: str) -> None:
        self.file = file
        self.name = file.name
        self.digest = digest
        self.rules = [(rule, Matcher(rule.match)) for rule in file.rule]
        self.trusts_models = "requested_model" in file.trust
        self.trusts_tenants = "asserted_tenant" in file.trust
        self._classes = [(name, _class_matchers(one)) for name, one in file.classes.items()]
        self._models_make_classes = any(one.models is not None for one in file.classes.values())
        self._otherwise = Rule(name=DEFAULT_RULE, level="metadata")

    @classmethod
    def read(cls, data: bytes) -> Policy:
        """The policy in a file's bytes. Raises PolicyInvalid."""
        return cls(read_policy(data), digest_of(data))

    @property
    def highest_level(self) -> str:
        """The highest level any access could get: where that is metadata, no content is wanted."""
        return max((rule.level for rule, _ in self.rules), key=RANK.__getitem__, default="metadata")

    def seen(self, facts: Facts, *, sure: bool = False) -> Seen:
        """The facts by dimension, with the data class they make. `sure`: without claims."""
        no_tenant = sure and facts.is_tenant_claimed and not self.trusts_tenants
        no_route = sure and facts.is_route_claimed
        doubtful = sure and not self.trusts_models
        names = _sure_names(facts) if doubtful else _model_names(facts)
        seen: dict[str, tuple[str, ...] | None] = {
            "tenant": ("" if no_tenant else facts.tenant,),
            "model": names if facts.has_model else None,
            "route": ("" if no_route else normal_route(facts.route),),
            "operation": ("" if no_route else facts.operation,),
            "service": (facts.service,),
        }
        return {**seen, "data_class": self._class_names(seen)}

    def _class_names(self, seen: Seen) -> tuple[str, ...] | None:
        if seen["model"] is None and self._models_make_classes:
            return None
        known = {**seen, "data_class": ("",)}
        for name, matchers in self._classes:
            if any(matcher.verdict(known)[0] is Verdict.YES for matcher in matchers):
                return (name,)
        return ("",)

    def first(self, seen: Seen) -> Decision:
        """What the first rule says that surely matches."""
        for rule, matcher in self.rules:
            if matcher.verdict(seen)[0] is Verdict.YES:
                return self.decision(rule, seen)
        return self.decision(self._otherwise, seen)

    def cautious(self, seen: Seen) -> Decision:
        """The least that any rule that may come out at the end would capture."""
        possible: list[Decision] = []
        for rule, matcher in [*self.rules, (self._otherwise, Matcher(Match()))]:
            verdict, _ = matcher.verdict(seen)
            if verdict is not Verdict.NO:
                possible.append(self.decision(rule, seen))
            if verdict is Verdict.YES:
                break
        least = min(possible, key=lambda one: RANK[one.level])
        return _with_strictest(least, possible)

    def decision(self, rule: Rule, seen: Seen) -> Decision:
        """What one rule says."""
        return Decision(
            level=rule.level,
            rule=rule.name,
            data_class=(seen["data_class"] or ("",))[0],
            searchable=rule.searchable,
            actions=expanded(self.file.fields, rule.fields),
            retention_of=_over(self.file.retention, rule.retention),
            policy=self.name,
            policy_version=self.digest,
        )

    def decide(self, facts: Facts) -> Decision:
        """What is captured of an access with these facts, break-glass aside."""
        said, sure = self.seen(facts), self.seen(facts, sure=True)
        if facts.is_intent:
            return _held_back(self.cautious(said), self.cautious(sure))
        if not facts.has_model:  # a caller may have seen to that
            without = self.seen(facts._replace(has_model=True), sure=True)
            return _held_back(self.cautious(said), self.first(without))
        return self.first(said) if sure == said else _held_back(self.first(said), self.first(sure))


def _class_matchers(given: DataClass) -> list[Matcher]:
    names = {"tenants": "tenant", "models": "model", "routes": "route",
             "operations": "operation", "services": "service"}  # fmt: skip
    some = {names[n]: v for n, v in msgspec.structs.asdict(given).items() if v is not None}
    return [Matcher(msgspec.convert({name: value}, Match)) for name, value in some.items()]


def _over(policy: Retention, rule: Retention | None) -> Retention:
    if rule is None:
        return policy
    given = {n: v for n, v in msgspec.structs.asdict(rule).items() if v}
    return msgspec.structs.replace(policy, **given)


def _held_back(said: Decision, sure: Decision) -> Decision:
    """What holds where `said` rests on claims and `sure` does not."""
    chosen = said
    if RANK[said.level] > RANK[sure.level]:
        chosen = sure
    elif said.level == "none" != sure.level:
        chosen = replace(said, level="metadata")
    return _with_strictest(chosen, (said, sure))


def _with_strictest(decision: Decision, others: Iterable[Decision]) -> Decision:
    actions = decision.actions
    for one in others:
        actions = strictest(actions, one.actions)
    return replace(decision, actions=actions)


def raised(decision: Decision, level: str, by: str) -> Decision:
    """The decision with a higher level, on the word of break-glass; the same where it is none."""
    if RANK[level] <= RANK[decision.level]:
        return decision
    return replace(decision, level=level, break_glass=by)


# -- names ----------------------------------------------------------------------------------------


def _sure_names(facts: Facts) -> tuple[str, ...]:
    """The names of the model that do not rest on the caller's word alone."""
    word = facts.resolved or facts.answered
    if not word:
        return ("",)
    fitting = (name for name in (facts.answered, facts.model) if is_same_model(name, word))
    return tuple(dict.fromkeys((word, *fitting)))


def _model_names(facts: Facts) -> tuple[str, ...]:
    """The same, and what the caller's word adds: a server may just repeat the name it was given."""
    if not (facts.resolved or facts.answered):
        return (facts.model,)
    return tuple(dict.fromkeys((*_sure_names(facts), *filter(None, (facts.answered,)))))


def is_same_model(asked: str, word: str) -> bool:
    """Whether `word` is what was asked for, or a dated, tagged or prefixed form of it."""
    asked, word = asked.lower(), word.lower()
    if not asked:
        return False
    rest = word.removeprefix(asked)
    dated = rest != word and (not rest or rest[0] in "-:@")
    return dated or word.endswith("/" + asked)


@lru_cache(maxsize=4096)
def normal_route(path: str) -> str:
    """A path as routes are compared: one way to write it, however the caller wrote it."""
    if not path:
        return ""
    plain = unquote(path) if "%" in path else path
    return posixpath.normpath("/" + plain.lstrip("/"))


# -- facts of an event ----------------------------------------------------------------------------


def facts_of(event: Mapping[str, Any]) -> Facts:
    """What an event says of itself, as a producer built it."""
    generative, ours = _group(event, "gen_ai"), _group(event, "gatebook")
    asked = _text(_group(generative, "request"), "model")
    tenant = _text(_group(event, "organization"), "id")
    assurance = _text(_group(ours, "identity"), "assurance")
    status = _group(_group(event, "http"), "response").get("status_code")
    answered = _text(_group(generative, "response"), "model")
    resolved = _text(_group(ours, "model"), "resolved")
    is_intent, is_named = _text(ours, "phase") == "intent", bool(asked or answered or resolved)
    return Facts(
        tenant=tenant,
        model=asked,
        answered=answered,
        resolved=resolved,
        route=_text(_group(event, "url"), "path"),
        operation=_operation(event, generative),
        service=_text(_group(event, "service"), "name"),
        is_tenant_claimed=bool(tenant) and assurance != "verified",
        is_route_claimed=status in _NOT_FOUND,
        has_model=not is_intent and (is_named or not _text(_group(ours, "capture"), REASON)),
        is_intent=is_intent,
    )


def _operation(event: Mapping[str, Any], generative: Mapping[str, Any]) -> str:
    name = _text(_group(generative, "operation"), "name")
    return name or _text(_group(event, "event"), "action")


_NONE: Mapping[str, Any] = {}


def _group(event: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return event.get(name) or _NONE


def _text(group: Mapping[str, Any], name: str) -> str:
    value = group.get(name)
    return value if isinstance(value, str) else ""


# -- why ------------------------------------------------------------------------------------------


class Step(msgspec.Struct, frozen=True):
    """One rule on the way to a decision. `because` names the dimension that does not match."""

    rule: str
    level: str
    verdict: str
    because: str
    wanted: tuple[str, ...]
    found: tuple[str, ...]


def explain(policy: Policy, facts: Facts) -> Iterator[Step]:
    """The rules up to the one that decides."""
    seen = policy.seen(facts)
    for rule, matcher in policy.rules:
        verdict, because = matcher.verdict(seen)
        wanted = matcher.patterns.get(because, ())
        found = (seen[because] or ()) if because else ()
        yield Step(rule.name, rule.level, verdict.value, because, wanted, found)
        if verdict is Verdict.YES:
            return
    yield Step(DEFAULT_RULE, "metadata", Verdict.YES.value, "", (), ())
