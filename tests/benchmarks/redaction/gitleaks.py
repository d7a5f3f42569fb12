"""gitleaks' own test cases, fetched when the benchmark runs; none of them is in this repository.

What is fetched is the zip of its module from the public Go module proxy (the first of `GOPROXY`,
else proxy.golang.org), checked by its checksum and kept in the user's cache folder. It is read as
text: `go_literals` evaluates what each rule is validated with (`cmd/generate/config/rules`), and
secrets that gitleaks generates from a pattern are drawn from a generator seeded by their rule, so
they are the same in every run. No code of gitleaks is built or run.

A rule with an expression that the reader does not know is left out as a whole, and so are cases
that are decided by a file's path. `coverage()` says how many rules that leaves.

What is labelled in a positive: what the rule's own regular expression (`config/gitleaks.toml`)
finds in the text, as gitleaks does: its secret group, else the first group that is not empty, else
all of the match; of that the secret alone, where it is known. Where that finds nothing, the secret
that was put into the text, and where none was put, the whole text.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import random
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import re2
from tests.benchmarks.redaction import go_literals, regex_samples, scorer
from tests.benchmarks.redaction.go_literals import Declared, Function, Planted, Unreadable, Value
from tests.benchmarks.redaction.scorer import Label, Sample

from gatebook.engines.settings import default_cache

MODULE, VERSION = "github.com/zricethezav/gitleaks/v8", "v8.30.0"
SHA256 = "1c4b22aa8450009b485b2324b44fefc12358a5abe5e73cae42bd7746588c6ad4"
PROXY = "https://proxy.golang.org"
SOURCE = "gitleaks"
PATIENCE_SECONDS = 30
DRAWS = 1_000
_RULES, _UTILS = "cmd/generate/config/rules/", "cmd/generate/config/utils/"
_CONFIG = "config/gitleaks.toml"
_WHAT = f"{MODULE} {VERSION} of the Go module proxy"


class Unavailable(Exception):
    """The zip could not be had; the text says why."""


@dataclass(frozen=True, slots=True)
class Case:
    """A text that a rule is validated with; `secret` is what was put into it, empty if unknown."""

    rule: str
    text: str
    secret: str


@dataclass(slots=True)
class Cases:
    """All that was read; `rules` were to be read, `skipped` says of some why they were not."""

    positives: list[Case] = field(default_factory=list)
    negatives: list[Case] = field(default_factory=list)
    rules: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


def positives() -> list[Sample]:
    """Texts in which a rule of gitleaks must find something. Unavailable without the zip.

    All texts that one secret was put into are of one group.
    """
    rules = _rules()
    return [
        Sample(case.text, _labels(case, rules[case.rule]), _group(case), SOURCE)
        for case in _cases().positives
    ]


def negatives(alone: bool) -> list[Sample]:
    """Texts that a rule of gitleaks must leave alone; with `alone`, those that no other rule fires
    on. Which do is decided as gitleaks does, but for the paths of files. Unavailable likewise."""
    return [
        Sample(case.text, (), case.text, SOURCE)
        for case in _cases().negatives
        if not (alone and _others_fire(case))
    ]


def coverage() -> str:
    """How many of the rules could be read, and how their positives are labelled."""
    cases, rules = _cases(), _rules()
    fallen = Counter(
        "by the secret put in" if case.secret else "as a whole"
        for case in cases.positives
        if not list(rules[case.rule].find(case.text))
    )
    said = "".join(f", {count} labelled {how}" for how, count in fallen.items())
    read = f"{cases.rules - len(cases.skipped)} of {cases.rules} rules read"
    return f"{read}; {len(cases.positives):,} positives{said or ', all labelled by their rule'}"


def _group(case: Case) -> str:
    return f"{case.rule}:{case.secret or case.text}"


def _labels(case: Case, rule: Rule) -> tuple[Label, ...]:
    spans = list(rule.find(case.text))
    if not spans:
        secret = case.secret or case.text
        begin = case.text.index(secret)
        spans = [(begin, begin + len(secret))]
    return tuple(Label(scorer.SECRET, *_alone(case, *span)) for span in spans)


def _alone(case: Case, begin: int, end: int) -> tuple[int, int]:
    """Without what an expression reads around the secret: the quote behind it, its name."""
    at = case.text.find(case.secret, begin, end) if case.secret else -1
    return (at, at + len(case.secret)) if at >= 0 else (begin, end)


def _others_fire(case: Case) -> bool:
    others = (rule for name, rule in _rules().items() if name != case.rule)
    return any(True for rule in others for _ in rule.find(case.text))


# ---- the zip -----------------------------------------------------------------------------------


@functools.cache
def _archive() -> Mapping[str, str]:
    """The files that are read, by their path in the module."""
    wanted = (_RULES, _UTILS, _CONFIG)
    with zipfile.ZipFile(_fetched()) as archive:
        paths = {name.partition(f"@{VERSION}/")[2]: name for name in archive.namelist()}
        return {
            path: archive.read(name).decode()
            for path, name in sorted(paths.items())
            if path.startswith(wanted) and not path.endswith("_test.go")
        }


def _fetched() -> Path:
    import pooch
    import requests

    logging.getLogger("pooch").setLevel(logging.WARNING)  # else it announces the file
    pooch.get_logger().setLevel(logging.WARNING)
    url = f"{_proxy()}/{MODULE}/@v/{VERSION}.zip"
    try:
        path = pooch.retrieve(
            url,
            known_hash=f"sha256:{SHA256}",
            path=default_cache() / "bench",
            fname=f"gitleaks-{VERSION}.zip",
            downloader=pooch.HTTPDownloader(timeout=PATIENCE_SECONDS),
        )
    except (requests.exceptions.RequestException, OSError) as error:
        why = type(error).__name__  # its text may hold the proxy's address, and that a password
        raise Unavailable(f"{_WHAT} was not to be had ({why})") from error
    except ValueError as error:  # what pooch raises on a wrong checksum
        raise Unavailable(f"{_WHAT} is another file than the one that is locked") from error
    return Path(path)


def _proxy(environment: Mapping[str, str] = os.environ) -> str:
    first = environment.get("GOPROXY", "").replace("|", ",").split(",")[0].strip()
    if first == "off":
        raise Unavailable("GOPROXY is off")
    return PROXY if first in ("", "direct") else first.rstrip("/")


# ---- the rules ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """A rule as `config/gitleaks.toml` gives it."""

    pattern: Any
    group: int
    bits: float
    keywords: tuple[str, ...]
    by_path: bool
    allowed: tuple[Allowed, ...]

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Where gitleaks finds secrets in a text that is in no file."""
        lowered = text.lower()
        if self.by_path or not any(word in lowered for word in self.keywords or ("",)):
            return
        for match in self.pattern.finditer(text):
            begin, end = self._secret(match)
            secret = text[begin:end]
            if self.bits and entropy(secret) <= self.bits:
                continue
            line = text[text.rfind("\n", 0, begin) + 1 :].partition("\n")[0]
            if not any(one.allows(secret, match.group(), line) for one in self.allowed):
                yield begin, end

    def _secret(self, match: Any) -> tuple[int, int]:
        if self.group:
            return match.start(self.group), match.end(self.group)
        spans = (match.span(at) for at in range(1, match.re.groups + 1))
        first: tuple[int, int] = next((span for span in spans if span[0] < span[1]), match.span())
        return first


@dataclass(frozen=True)
class Allowed:
    """What a rule leaves alone although its expression matches."""

    target: str
    patterns: tuple[Any, ...]
    words: tuple[str, ...]
    by_path: bool
    every: bool

    def allows(self, secret: str, match: str, line: str) -> bool:
        """Whether this finding is one of those; what needs a path never is."""
        if self.every and self.by_path:
            return False
        told = {"match": match, "line": line}.get(self.target, secret)
        checks = []
        if self.patterns:
            checks.append(any(pattern.search(told) for pattern in self.patterns))
        if self.words:
            checks.append(any(word in secret.lower() for word in self.words))
        return bool(checks) and (all if self.every else any)(checks)


def entropy(text: str) -> float:
    """Shannon's, in bits per character."""
    shares = [count / len(text) for count in Counter(text).values()]
    return -sum(share * math.log2(share) for share in shares)


@functools.cache
def _rules() -> Mapping[str, Rule]:
    config = tomllib.loads(_archive()[_CONFIG])
    everywhere = [config["allowlist"]] if "allowlist" in config else config.get("allowlists", [])
    return {
        row["id"]: Rule(
            pattern=_compiled(row["regex"]),
            group=row.get("secretGroup", 0),
            bits=row.get("entropy", 0.0),
            keywords=tuple(word.lower() for word in row.get("keywords", ())),
            by_path="path" in row,
            allowed=tuple(_allowed(one) for one in [*row.get("allowlists", ()), *everywhere]),
        )
        for row in config["rules"]
        if "regex" in row
    }


def _allowed(row: Mapping[str, Any]) -> Allowed:
    return Allowed(
        target=row.get("regexTarget", "secret"),
        patterns=tuple(_compiled(pattern) for pattern in row.get("regexes", ())),
        words=tuple(word.lower() for word in row.get("stopwords", ())),
        by_path="paths" in row,
        every=row.get("condition", "OR").upper() in ("AND", "&&"),
    )


def _compiled(pattern: str) -> Any:
    return re2.compile(pattern)


# ---- the cases ---------------------------------------------------------------------------------


@functools.cache
def _cases() -> Cases:
    archive = _archive()
    files = {path: go_literals.tokens(text) for path, text in archive.items() if path != _CONFIG}
    utils = _declared(files, _UTILS)
    forms = _forms(utils["GenerateSampleSecrets"])
    shared = _shared(files)
    cases = Cases()
    for name, declared in _declared(files, _RULES).items():
        rule = _rule_of(declared)
        if rule in _rules():
            _read_rule(rule, declared, shared, _known(name, utils, forms, _stop_words()), cases)
    return cases


def _declared(files: Mapping[str, list[go_literals.Token]], folder: str) -> dict[str, Declared]:
    return {
        name: declared
        for path, stream in files.items()
        if str(PurePosixPath(path).parent) + "/" == folder
        for name, declared in go_literals.functions(stream).items()
    }


def _shared(files: Mapping[str, list[go_literals.Token]]) -> Mapping[str, Value]:
    """What the files of the rules define outside their functions."""
    scope = go_literals.Scope({"nil": ()}, go_literals.LIBRARY)
    for path, stream in files.items():
        for statement in go_literals.statements(stream):
            if path.startswith(_RULES) and statement[0].text == "var":
                scope.run(statement)
    return scope.names


def _forms(declared: Declared) -> tuple[str, ...]:
    """The forms of assignment that gitleaks puts a secret into."""
    for statement in go_literals.statements(declared.body):
        if [token.text for token in statement[:2]] == ["samples", ":="]:
            forms = go_literals.Scope({}, {}).value(statement[2:])
            if isinstance(forms, Mapping):
                return tuple(forms.values())
    raise Unavailable("the forms of gitleaks' samples were not found")


def _stop_words() -> frozenset[str]:
    allowed = _rules()["generic-api-key"].allowed
    return frozenset(word for one in allowed for word in one.words)


def _rule_of(declared: Declared) -> str:
    texts = [token.text for token in declared.body]
    for at in range(len(texts) - 2):
        if texts[at : at + 2] == ["RuleID", ":"]:
            return go_literals.unquoted(declared.body[at + 2])
    return ""


def _read_rule(
    rule: str,
    declared: Declared,
    shared: Mapping[str, Value],
    known: Mapping[str, Function],
    cases: Cases,
) -> None:
    """Add the cases of one rule; all of them or, if one is unreadable, none."""
    found: list[tuple[list[Case], list[Case]]] = []

    def validate(_: Value, right: Value, wrong: Value) -> str:
        found.append((_texts(rule, right), _texts(rule, wrong)))
        return rule

    cases.rules += 1
    scope = go_literals.Scope(shared, {**known, "utils.Validate": validate})
    try:
        scope.run(declared.body)
        if not found:
            raise Unreadable("no cases")
    except (Unreadable, ValueError) as error:
        cases.skipped[rule] = str(error)
        return
    for right, wrong in found:
        cases.positives += right
        cases.negatives += wrong


def _texts(rule: str, values: Value) -> list[Case]:
    return [
        Case(rule, str(text), text.secret if isinstance(text, Planted) else "")
        for text in go_literals.texts(values)
    ]


def _known(
    name: str, utils: Mapping[str, Declared], forms: Sequence[str], stop_words: frozenset[str]
) -> Mapping[str, Function]:
    """The functions that a rule may call; what they draw is the same in every run."""
    generator = random.Random(name)

    def new_secret(pattern: Value) -> str:
        return regex_samples.sample(go_literals.text(pattern), generator)

    def plausible_secret(pattern: Value) -> str:
        for _ in range(DRAWS):
            secret = new_secret(pattern)
            lowered = secret.lower()
            if set(secret) & set("123456789") and not any(word in lowered for word in stop_words):
                return secret
        raise Unreadable("a pattern whose secrets all hold a stop word")

    def sample(identifier: Value, secret: Value) -> str:
        text = go_literals.text(helper.call(utils["GenerateSampleSecret"], identifier, secret))
        return Planted.of(text, go_literals.text(secret))

    def samples(identifier: Value, secret: Value) -> list[str]:
        who, what = go_literals.text(identifier), go_literals.text(secret)
        named = (form.replace("{i}", who).replace("{I}", who.upper()) for form in forms)
        return [Planted.of(form.replace("{s}", what), what) for form in named]

    def by_path(*_: Value) -> str:
        raise Unreadable("cases that are decided by a file's path")

    helper = go_literals.Scope({}, go_literals.LIBRARY)
    calls = {f"utils.{key}": functools.partial(helper.call, one) for key, one in utils.items()}
    return {
        **go_literals.LIBRARY,
        **calls,
        "utils.GenerateSampleSecret": sample,
        "utils.GenerateSampleSecrets": samples,
        "utils.ValidateWithPaths": by_path,
        "secrets.NewSecret": new_secret,
        "newPlausibleSecret": plausible_secret,
    }
