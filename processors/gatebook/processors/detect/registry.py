"""Finds the rules: every folder with a rule.toml, ours in this package and the users' own below
a folder of theirs.

A newcomer adds one folder: rule.toml, where needed logic.py, runbook.md and cases/. Nothing else
has to be edited. See README.md.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import import_module, resources
from importlib.resources.abc import Traversable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import msgspec

from gatebook.processors.detect.base import Common, Detector, Rule
from gatebook.processors.detect.findings import DEFAULT_REASON
from gatebook.processors.detect.kinds.baseline import Baseline
from gatebook.processors.detect.kinds.count import Count
from gatebook.processors.detect.kinds.distinct import DistinctItems
from gatebook.processors.detect.kinds.first_seen import FirstSeen
from gatebook.processors.detect.kinds.ratio import Ratio
from gatebook.processors.detect.kinds.silence import Silence
from gatebook.processors.detect.kinds.simple import FUNCTIONS, SimpleDetector
from gatebook.processors.detect.limits import Limits
from gatebook.schemas.errors import Fatal, WrongSetting

PACKAGE = "gatebook.processors.detect"
KINDS: Mapping[str, type[SimpleDetector]] = {
    "count": Count,
    "distinct": DistinctItems,
    "ratio": Ratio,
    "first_seen": FirstSeen,
    "baseline": Baseline,
    "silence": Silence,
}
# Tables and keys of the detectors file that are no parameters.
LIMITS = "limits"
RULE_KEYS = ("severity", "team")
_PARAMETER = re.compile(r" - at `\$\.(\w+)")
PathLike = Path | str
Overrides = Mapping[str, Mapping[str, Any]]


def _packaged() -> list[Traversable]:
    return [f for f in resources.files(PACKAGE).iterdir() if (f / "rule.toml").is_file()]


def _users(rules_path: PathLike) -> list[Traversable]:
    """Folders of users' rules. Fatal where one has an id of ours."""
    if not rules_path:
        return []
    root = Path(rules_path)
    if not root.is_dir():
        raise Fatal(f"GATEBOOK_RULES_PATH: {root} is no folder", "name a folder with rule folders")
    found: list[Traversable] = [f for f in root.iterdir() if (f / "rule.toml").is_file()]
    ours = {folder.name for folder in _packaged()}
    for folder in found:
        if folder.name in ours:
            raise Fatal(f"{folder}: {folder.name} is a rule of the package", "choose another id")
    return found


def _folders(rules_path: PathLike) -> list[Traversable]:
    return sorted([*_packaged(), *_users(rules_path)], key=lambda folder: folder.name)


def detector_ids(rules_path: PathLike = "") -> list[str]:
    """The ids of all rules, sorted."""
    return [folder.name for folder in _folders(rules_path)]


@cache
def retired_ids() -> frozenset[str]:
    """Ids that were once in use and must never be again."""
    text = (resources.files(PACKAGE) / "retired.toml").read_text(encoding="utf-8")
    return frozenset(tomllib.loads(text)["retired"])


def folder_of(detector_id: str, rules_path: PathLike = "") -> Traversable:
    """A rule's folder. Fatal where there is none."""
    for folder in _folders(rules_path):
        if folder.name == detector_id:
            return folder
    known = ", ".join(detector_ids(rules_path))
    raise WrongSetting(f"there is no detector {detector_id!r}", f"name one of: {known}")


def load_rule(detector_id: str, rules_path: PathLike = "") -> Rule:
    """The metadata of a rule. Fatal where its rule.toml is wrong."""
    return _read_rule(folder_of(detector_id, rules_path))


def _read_rule(folder: Traversable) -> Rule:
    file = folder / "rule.toml"
    try:
        rule = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), Rule)
        rule.dedup_key.format(rule="", key="", principal="", group="")
        (rule.detect.says or DEFAULT_REASON).format(
            who="", observed="", threshold="", baseline="", window="", unit="", group=""
        )
    except (msgspec.ValidationError, tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise Fatal(f"{file}: {error}", "correct the file") from None
    except (KeyError, IndexError, ValueError) as error:
        raise Fatal(f"{file}: a template names {error}", "see Rule in detect/base.py") from None
    if rule.id != folder.name or rule.id in retired_ids():
        raise Fatal(f"{file}: rule id {rule.id} in folder {folder.name}", "use its name, unused")
    if not (folder / rule.runbook).is_file():
        raise Fatal(f"{file}: there is no {rule.runbook} beside it", "write the runbook")
    return rule


def runbook_text(detector_id: str, rules_path: PathLike = "") -> str:
    """The runbook of a rule."""
    folder = folder_of(detector_id, rules_path)
    return (folder / _read_rule(folder).runbook).read_text(encoding="utf-8")


def _module(folder: Traversable) -> ModuleType | None:
    """A folder's logic.py; None without one. Fatal where it cannot be imported."""
    file = folder / "logic.py"
    if not file.is_file():
        return None
    try:
        if folder in _packaged():
            return import_module(f"{PACKAGE}.{folder.name}.logic")
        return _users_module(folder.name, Path(str(file)))
    except Exception as error:
        raise Fatal(f"{file}: {type(error).__name__}: {error}", "correct the file") from None


def _users_module(name: str, file: Path) -> ModuleType:
    spec = spec_from_file_location(f"gatebook_rules.{name}", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no module")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # what msgspec reads annotations by
    spec.loader.exec_module(module)
    return module


def _parameters(
    folder: Traversable, rule: Rule, overrides: Mapping[str, Any], wanted: type[Any]
) -> Any:
    known = getattr(wanted, "__struct_fields__", None)
    if known is not None and (unknown := sorted(overrides.keys() - set(known))):
        raise WrongSetting(
            f"rule {folder.name} has no parameter {', '.join(unknown)}",
            f"its parameters are: {', '.join(sorted(known))}",
        )
    try:
        return msgspec.convert({**rule.parameters, **overrides}, wanted)
    except msgspec.ValidationError as error:
        said = f"parameters of {folder.name}: {error}"
        at = _PARAMETER.search(str(error))
        if at and at[1] in overrides:
            raise WrongSetting(said, "correct it in the detectors file, or in --set") from None
        raise Fatal(said, f"correct {folder}/rule.toml") from None


def _build(folder: Traversable, rule: Rule, overrides: Mapping[str, Any]) -> Detector:
    module = _module(folder)
    kind = KINDS.get(rule.detect.kind)
    own = getattr(module, "Parameters", None)
    wanted = own or (kind.parameters_type if kind else Common)
    if kind is not None:
        logic = {n: getattr(module, n) for n in FUNCTIONS if hasattr(module, n)}
        return cast(Detector, kind(rule, _parameters(folder, rule, overrides, wanted), logic))
    build = getattr(module, "build", None)
    if build is None:
        raise Fatal(f"{folder}: no kind and no logic.py with build", "see detect/README.md")
    return cast(Detector, build(rule, _parameters(folder, rule, overrides, wanted)))


def _with_overrides(rule: Rule, table: Mapping[str, Any]) -> Rule:
    changed = {name: table[name] for name in RULE_KEYS if name in table}
    if not changed:
        return rule
    try:
        return msgspec.convert({**msgspec.to_builtins(rule), **changed}, Rule)
    except msgspec.ValidationError as error:
        raise Fatal(f"detectors file: {rule.id}: {error}", "correct it") from None


def load_detector(
    detector_id: str, overrides: Mapping[str, Any] | None = None, rules_path: PathLike = ""
) -> Detector:
    """One detector with its parameters, and those of tenants.

    `overrides` is the table of the detectors file: parameters, severity, team, `enabled`, and
    `tenants` with a table of the same for each tenant.
    """
    folder = folder_of(detector_id, rules_path)
    plain = _read_rule(folder)
    table = dict(overrides or {})
    tenants = table.pop("tenants", {})
    base: Detector = _one(folder, plain, table)
    for tenant, own in tenants.items():
        merged = {**table, **own}
        base.tenants[tenant] = _one(folder, plain, merged) if merged.get("enabled", True) else None
    return base


def _one(folder: Traversable, rule: Rule, table: Mapping[str, Any]) -> Any:
    apart = {"enabled", *RULE_KEYS}
    wanted = {name: value for name, value in table.items() if name not in apart}
    try:
        detector: Any = _build(folder, _with_overrides(rule, table), wanted)
    except Fatal:
        raise
    except Exception as error:  # a user's build may fail in any way; no worker runs without it
        raise Fatal(f"{folder}: {type(error).__name__}: {error}", "correct logic.py") from None
    detector.enabled = table.get("enabled", True)
    return detector


def load_overrides(path: PathLike | None, rules_path: PathLike = "") -> Overrides:
    """Tables by detector id from a TOML file (GATEBOOK_DETECTORS_FILE); none without a path.

    Fatal for a file that cannot be read or that names a detector that is not there.
    """
    if not path:
        return {}
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Fatal(f"detectors file: {type(error).__name__}", "check its path and TOML") from None
    for detector_id, table in tables.items():
        if detector_id != LIMITS:
            folder_of(detector_id, rules_path)
        if not isinstance(table, dict):
            raise Fatal(f"detectors file: {detector_id} is not a table", "write [detector_id]")
    return tables


def load_limits(overrides: Overrides) -> Limits:
    """Table [limits] of the detectors file. Fatal where it is wrong."""
    try:
        return msgspec.convert(overrides.get(LIMITS, {}), Limits)
    except msgspec.ValidationError as error:
        raise Fatal(f"detectors file: [limits]: {error}", "correct it") from None


def is_on(table: Mapping[str, Any]) -> bool:
    """Whether a table of the detectors file leaves a detector on for anybody."""
    tenants = table.get("tenants", {}).values()
    return bool(table.get("enabled", True)) or any(own.get("enabled") for own in tenants)


def all_detectors(overrides: Overrides | None = None, rules_path: PathLike = "") -> list[Detector]:
    """Every detector that is not switched off with `enabled = false`."""
    tables = overrides or {}
    return [
        load_detector(detector_id, tables.get(detector_id), rules_path)
        for detector_id in detector_ids(rules_path)
        if is_on(tables.get(detector_id, {}))
    ]
