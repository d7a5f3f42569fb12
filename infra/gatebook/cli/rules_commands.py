"""gatebook rules: what the detectors are, and whether their written cases hold."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gatebook.processors.detect.base import Detector
    from gatebook.processors.detect.cases import CaseResult
    from gatebook.processors.redact import Redactor

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
FILE_OPTION = click.option(
    "--detectors-file",
    envvar="GATEBOOK_DETECTORS_FILE",
    type=click.Path(dir_okay=False),
    help="TOML file that overrides parameters.",
)
PATH_OPTION = click.option(
    "--rules-path",
    envvar="GATEBOOK_RULES_PATH",
    default="",
    type=click.Path(file_okay=False),
    help="Folder with rules of your own.",
)


@click.group("rules")
def rules() -> None:
    """List, explain, test and begin detection rules."""


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=True))


def _parameters(detector: Detector) -> dict[str, Any]:
    import msgspec

    plain = msgspec.to_builtins(getattr(detector, "parameters", {}), order="deterministic")
    return dict(plain)


def _summary(detector_id: str, enabled: bool, rules_path: str) -> dict[str, Any]:
    from gatebook.processors.detect.cases import load_cases
    from gatebook.processors.detect.registry import load_rule

    rule = load_rule(detector_id, rules_path)
    return {
        "id": rule.id,
        "kind": rule.detect.kind,
        "scope": rule.detect.scope,
        "version": rule.version,
        "name": rule.name,
        "severity": rule.severity,
        "risk_score": rule.risk_score,
        "enabled": enabled,
        "cases": len(load_cases(detector_id, rules_path)),
    }


@rules.command("list")
@FILE_OPTION
@PATH_OPTION
@click.option("--verdicts", is_flag=True, help="Add what people said of their findings.")
@JSON_OPTION
def list_command(
    detectors_file: str | None, rules_path: str, verdicts: bool, as_json: bool
) -> None:
    """List every rule with its severity. With --verdicts the index is asked."""
    from gatebook.processors.detect.registry import detector_ids, is_on, load_overrides

    overrides = load_overrides(detectors_file, rules_path)
    ids = detector_ids(rules_path)
    rows = [_summary(i, is_on(overrides.get(i, {})), rules_path) for i in ids]
    if verdicts:
        from gatebook.cli.finding_commands import verdicts_by_rule

        counts = verdicts_by_rule()
        rows = [{**row, "verdicts": counts.get(row["id"], {})} for row in rows]
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        state = "on" if row["enabled"] else "off"
        said = ", ".join(f"{n} {word}" for word, n in sorted(row.get("verdicts", {}).items()))
        told = f"  ({said})" if said else ""
        click.echo(f"{row['id']:<28} {row['severity']:<8} {state:<3} {row['name']}{told}")


@rules.command("show")
@click.argument("rule_id")
@FILE_OPTION
@PATH_OPTION
@JSON_OPTION
def show_command(rule_id: str, detectors_file: str | None, rules_path: str, as_json: bool) -> None:
    """Show one rule: parameters in force, blind spots, references and runbook."""
    import msgspec

    from gatebook.processors.detect.registry import load_detector, load_overrides, runbook_text

    overrides = load_overrides(detectors_file, rules_path)
    detector = load_detector(rule_id, overrides.get(rule_id), rules_path)
    rule = msgspec.to_builtins(detector.rule)
    text = runbook_text(rule_id, rules_path)
    shown = {**rule, "parameters": _parameters(detector), "runbook_text": text}
    if as_json:
        _print_json(shown)
        return
    click.echo(_show_text(shown))


def _show_text(shown: dict[str, Any]) -> str:
    lines = [
        f"{shown['id']} (version {shown['version']}): {shown['name']}",
        f"severity {shown['severity']}, risk score {shown['risk_score']}",
        f"kind {shown['detect']['kind']}, scope {shown['detect']['scope']}, "
        f"dedup key {shown['dedup_key']}",
        f"OWASP LLM {', '.join(shown['owasp_llm'])}; MITRE ATLAS {', '.join(shown['mitre_atlas'])}",
        "",
        "Parameters:",
        *(f"  {name} = {value}" for name, value in shown["parameters"].items()),
        "",
        "Blind spots:",
        *(f"  - {text}" for text in shown["blind_spots"]),
        "",
        shown["runbook_text"].rstrip(),
    ]
    return "\n".join(lines)


def _result(result: CaseResult) -> dict[str, Any]:
    return {
        "rule": result.detector_id,
        "case": result.case,
        "says": result.says,
        "passed": result.passed,
        "findings": result.findings,
        "problems": list(result.problems),
    }


@rules.command("test")
@click.argument("rule_ids", nargs=-1)
@PATH_OPTION
@JSON_OPTION
def test_command(rule_ids: tuple[str, ...], rules_path: str, as_json: bool) -> None:
    """Run the cases of the rules named, or of all. Exit code 1 where one does not hold."""
    from gatebook.processors.detect.cases import load_cases, run_case
    from gatebook.processors.detect.registry import detector_ids

    chosen = rule_ids or tuple(detector_ids(rules_path))
    results = [
        run_case(rule_id, case, rules_path)
        for rule_id in chosen
        for case in load_cases(rule_id, rules_path)
    ]
    failed = sum(not result.passed for result in results)
    if as_json:
        _print_json([_result(result) for result in results])
    else:
        _print_results(results)
        click.echo(f"{len(results) - failed} passed, {failed} failed")
    if failed or not results:
        raise SystemExit(1)


def _print_results(results: list[CaseResult]) -> None:
    for result in results:
        click.echo(f"{'ok  ' if result.passed else 'FAIL'} {result.detector_id}/{result.case}")
        for problem in result.problems:
            click.echo(f"       {problem}")


@rules.command("new")
@click.argument("rule_id")
@PATH_OPTION
def new_command(rule_id: str, rules_path: str) -> None:
    """Begin a rule: a folder below --rules-path (or here) whose cases hold."""
    from pathlib import Path

    from gatebook.processors.detect.scaffold import make_rule

    root = Path(rules_path or ".")
    click.echo(f"{make_rule(rule_id, root)} is made")
    click.echo(f"next: gatebook rules test {rule_id} --rules-path {root}")


@rules.group("redaction")
def redaction() -> None:
    """List and try the rules that mask personal data and credentials."""


RULES_OPTION = click.option(
    "--rules",
    "rules_folder",
    envvar="GATEBOOK_REDACTION_RULES",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of rules of your own.",
)
POLICY_OPTION = click.option(
    "--policy",
    "policy_file",
    envvar="GATEBOOK_REDACTION_POLICY",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file of allow lists and switched-off rules.",
)
THROWAWAY_KEY_BYTES = 32


def _redactor(rules_folder: Path | None, policy_file: Path | None) -> Redactor:
    """A redactor with a key that nobody keeps: its pseudonyms are not those of the index."""
    from gatebook.processors.redact import RuleInvalid, build_redactor
    from gatebook.schemas.errors import WrongSetting

    key = os.urandom(THROWAWAY_KEY_BYTES)
    try:
        return build_redactor(key, rules_folder=rules_folder, policy_file=policy_file)
    except RuleInvalid as error:
        raise WrongSetting(f"redaction: {error}", "correct what is named") from None


@redaction.command("list")
@RULES_OPTION
@POLICY_OPTION
@JSON_OPTION
def redaction_list(rules_folder: Path | None, policy_file: Path | None, as_json: bool) -> None:
    """List the rules in force, and the policy version that they make."""
    redactor = _redactor(rules_folder, policy_file)
    rows = [
        {"id": r.id, "kind": r.kind, "version": r.version, "description": r.description}
        for r in redactor.rules
    ]
    if as_json:
        _print_json({"policy_version": redactor.policy_version, "rules": rows})
        return
    for row in rows:
        click.echo(f"{row['id']:<22} {row['kind']:<14} {row['description']}")
    click.echo(f"{len(rows)} rules, policy version {redactor.policy_version}")


@redaction.command("test")
@click.argument("rule_ids", nargs=-1)
@RULES_OPTION
@POLICY_OPTION
def redaction_test(
    rule_ids: tuple[str, ...], rules_folder: Path | None, policy_file: Path | None
) -> None:
    """Run the written cases of the rules named, or of all.

    Exit codes: 0 all hold; 1 one does not; 2 there is no such rule.
    """
    from gatebook.processors.redact.policy import case_problems

    redactor = _redactor(rules_folder, policy_file)
    known = {rule.id for rule in redactor.rules}
    if unknown := sorted(set(rule_ids) - known):
        raise click.UsageError(
            f"no redaction rule is called {', '.join(unknown)}; "
            "`gatebook rules redaction list` shows those in force"
        )
    chosen = [rule for rule in redactor.rules if not rule_ids or rule.id in rule_ids]
    problems = [f"{rule.id}: {said}" for rule in chosen for said in case_problems(rule)]
    for problem in problems:
        click.echo(f"FAIL {problem}")
    click.echo(f"{len(chosen)} rules tried, {len(problems)} problems")
    if problems:
        raise SystemExit(1)


@redaction.command("mask")
@RULES_OPTION
@POLICY_OPTION
@click.option("--tenant", default="", help="Whose allow list counts.")
def redaction_mask(rules_folder: Path | None, policy_file: Path | None, tenant: str) -> None:
    """Mask the text on standard input with a throw-away key; the counts go to standard error."""
    from gatebook.processors.redact import RedactionFailed

    redactor = _redactor(rules_folder, policy_file)
    try:
        redacted = redactor.redact_text(click.get_text_stream("stdin").read(), tenant=tenant)
    except RedactionFailed as failure:
        raise click.ClickException(f"{failure}: the text would be dropped") from None
    click.echo(redacted.text, nl=False)
    counts = ", ".join(f"{kind} {n}" for kind, n in sorted(redacted.counts.items()))
    click.echo(f"masked: {counts or 'nothing'}", err=True)


COMMANDS = [rules]
