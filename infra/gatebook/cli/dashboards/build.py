"""Writes infra/dashboards/: `python -m gatebook.cli.dashboards.build`; `--check` only compares.

Fields come from the index templates, metrics from the list in which they are registered: a chart
or a rule that names another one ends the run with an error.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from gatebook.cli.dashboards import charts, grafana, kibana, rules
from gatebook.cli.metrics_page import gather
from gatebook.schemas.errors import Fatal

DEFAULT_NAMESPACE = "gatebook"
# After a metric's name: what a histogram shows.
HISTOGRAM_PARTS = ("_bucket", "_count", "_sum")


def files(namespace: str = DEFAULT_NAMESPACE) -> dict[str, str]:
    """Every file by its path below infra/dashboards. Raises Fatal for an unknown name."""
    _check(charts.unknown_fields(), "no such field, or none that can be counted")
    _check(unknown_metrics(expressions()), "no such metric")
    return {
        "kibana/gatebook.ndjson": kibana.ndjson(namespace),
        "grafana/gatebook-documents.json": _json(grafana.documents()),
        "grafana/gatebook-pipeline.json": _json(grafana.pipeline()),
        "prometheus/gatebook.rules.yml": rules.rules_file(),
        "prometheus/gatebook.test.yml": rules.tests_file(),
    }


def expressions() -> list[str]:
    """Every PromQL expression of rules and charts."""
    of_charts = [q.expr for _, row in grafana.PIPELINE for chart in row for q in chart.queries]
    return [*(rule.expr for rule in rules.RULES), *of_charts]


def unknown_metrics(given: Iterable[str]) -> list[str]:
    """Metrics in expressions that no part of Gatebook registers."""
    known = set(rules.FOREIGN)
    for row in gather().metrics:
        parts = HISTOGRAM_PARTS if row.kind == "histogram" else ("",)
        known |= {row.name + part for part in parts}
    named = {name for expr in given for name in metrics_in(expr)}
    return sorted(named - known)


def metrics_in(expr: str) -> list[str]:
    """Names of metrics in an expression, by their look: what is in quotes is no name."""
    bare = re.sub(r'"[^"]*"', '""', expr)
    return re.findall(r"\b(?:gatebook_\w+|process_\w+|up)\b", bare)


def _check(wrong: list[str], what: str) -> None:
    if wrong:
        raise Fatal(f"{what}: {', '.join(wrong)}", "correct gatebook.cli.dashboards")


def _json(value: object) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write or compare; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("infra/dashboards"))
    parser.add_argument("--namespace", default=DEFAULT_NAMESPACE)
    parser.add_argument("--check", action="store_true", help="only compare; 1 on a difference")
    given = parser.parse_args(arguments)
    different = False
    for name, text in files(given.namespace).items():
        path = given.folder / name
        if given.check:
            different |= _differs(path, text)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return int(different)


def _differs(path: Path, text: str) -> bool:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    sys.stderr.write(f"{path} is not what the code says; run `make dashboards`\n")
    return True


if __name__ == "__main__":
    sys.exit(main())
