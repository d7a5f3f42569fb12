"""Finds the detectors: every folder with a rule.toml beside a detector.py.

A newcomer adds one folder: rule.toml, detector.py with `build(rule, parameters)`, runbook.md and
cases/. Nothing else has to be edited.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import import_module, resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from gatebook.processors.detect.base import Detector, Rule
from gatebook.schemas.errors import Fatal

PACKAGE = "gatebook.processors.detect"
Overrides = Mapping[str, Mapping[str, Any]]
Parameters = TypeVar("Parameters")


def _folders() -> list[Traversable]:
    found = [f for f in resources.files(PACKAGE).iterdir() if (f / "rule.toml").is_file()]
    return sorted(found, key=lambda folder: folder.name)


def detector_ids() -> list[str]:
    """The ids of all packaged detectors, sorted."""
    return [folder.name for folder in _folders()]


@cache
def retired_ids() -> frozenset[str]:
    """Ids that were once in use and must never be again."""
    text = (resources.files(PACKAGE) / "retired.toml").read_text(encoding="utf-8")
    return frozenset(tomllib.loads(text)["retired"])


def folder_of(detector_id: str) -> Traversable:
    """A detector's folder. Fatal where there is none."""
    for folder in _folders():
        if folder.name == detector_id:
            return folder
    known = ", ".join(detector_ids())
    raise Fatal(f"there is no detector {detector_id!r}", f"name one of: {known}")


def load_rule(detector_id: str) -> Rule:
    """The metadata of a detector. Fatal where its rule.toml is wrong."""
    text = (folder_of(detector_id) / "rule.toml").read_text(encoding="utf-8")
    try:
        rule = msgspec.convert(tomllib.loads(text), Rule)
    except (msgspec.ValidationError, tomllib.TOMLDecodeError) as error:
        raise Fatal(f"rule.toml of {detector_id}: {error}", "correct the file") from None
    if rule.id != detector_id or rule.id in retired_ids():
        raise Fatal(f"rule id {rule.id} in folder {detector_id}", "use the folder's name, unused")
    return rule


def runbook_text(detector_id: str) -> str:
    """The runbook of a detector."""
    rule = load_rule(detector_id)
    return (folder_of(detector_id) / rule.runbook).read_text(encoding="utf-8")


def convert_parameters(
    rule: Rule, overrides: Mapping[str, Any], parameters_type: type[Parameters]
) -> Parameters:
    """Defaults of rule.toml under overrides, checked. Fatal for an unknown or wrong one."""
    try:
        return msgspec.convert({**rule.parameters, **overrides}, parameters_type)
    except msgspec.ValidationError as error:
        raise Fatal(f"parameters of {rule.id}: {error}", "correct the overrides file") from None


def load_detector(detector_id: str, overrides: Mapping[str, Any] | None = None) -> Detector:
    """One detector with its parameters, `enabled` aside."""
    rule = load_rule(detector_id)
    module = import_module(f"{PACKAGE}.{detector_id}.detector")
    wanted = {name: value for name, value in (overrides or {}).items() if name != "enabled"}
    return cast(Detector, module.build(rule, wanted))


def load_overrides(path: Path | str | None) -> Overrides:
    """Parameters by detector id from a TOML file (GATEBOOK_DETECTORS_FILE); none without a path.

    Fatal for a file that cannot be read or that names a detector that is not there.
    """
    if not path:
        return {}
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Fatal(f"detectors file: {type(error).__name__}", "check its path and TOML") from None
    for detector_id, table in tables.items():
        folder_of(detector_id)
        if not isinstance(table, dict):
            raise Fatal(f"detectors file: {detector_id} is not a table", "write [detector_id]")
    return tables


def all_detectors(overrides: Overrides | None = None) -> list[Detector]:
    """Every packaged detector that is not switched off with `enabled = false`."""
    tables = overrides or {}
    return [
        load_detector(detector_id, tables.get(detector_id))
        for detector_id in detector_ids()
        if tables.get(detector_id, {}).get("enabled", True)
    ]
