"""`gatebook metrics`: one list of all names, and no metric beside it."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatebook.cli.main import cli
from gatebook.cli.metrics_page import MODULES, MetricRow, gather

ROOT = Path(__file__).parents[3]
PORTIONS = ("schemas", "producers", "processors", "infra")
# What may be imported from prometheus_client anywhere: it makes no metric.
HARMLESS = {"start_http_server", "generate_latest", "CONTENT_TYPE_LATEST", "REGISTRY"}
READS_THE_LIST = "gatebook.cli.metrics_page"
SECONDARY_UNITS = re.compile(r"_(ms|millis\w*|minutes|hours|days|kb|mb|mib|kib|percent)(_|$)")


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[parts.index("gatebook") :])


def makers(root: Path) -> Iterator[str]:
    """Modules outside the lists that import something with which one can make a metric."""
    for portion in PORTIONS:
        for path in sorted((root / portion).rglob("gatebook/**/*.py")):
            name = module_name(path.relative_to(root))
            if name in (*MODULES, READS_THE_LIST):
                continue
            yield from (f"{name}: {what}" for what in imported(ast.parse(path.read_text())))


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prometheus_client"):
            yield from (one.name for one in node.names if one.name not in HARMLESS)
        if isinstance(node, ast.Import):
            names = (one.name for one in node.names)
            yield from (one for one in names if one.startswith("prometheus_client"))


def problems(rows: list[MetricRow]) -> list[str]:
    """Names that Prometheus' conventions do not allow, or that stand twice."""
    counts = Counter(one.name for one in rows)
    found = [f"{name}: stands {count} times" for name, count in counts.items() if count > 1]
    for one in rows:
        found += [f"{one.name}: {problem}" for problem in _problems_of(one)]
    return found


def _problems_of(one: MetricRow) -> Iterator[str]:
    if not re.fullmatch(r"gatebook_[a-z][a-z0-9_]*[a-z0-9]", one.name) or "__" in one.name:
        yield "is not gatebook_ and words in lower case"
    if (one.kind == "counter") != one.name.endswith("_total"):
        yield "a counter, and nothing else, ends in _total"
    if one.kind == "histogram" and not one.name.endswith(("_seconds", "_bytes")):
        yield "a histogram ends in its unit, _seconds or _bytes"
    if SECONDARY_UNITS.search(one.name):
        yield "is not in a base unit"
    if not one.meaning:
        yield "has no meaning"
    if one.kind not in ("counter", "gauge", "histogram"):
        yield f"is a {one.kind}"


def row(name: str, kind: str, meaning: str = "Said.") -> MetricRow:
    return MetricRow(name=name, kind=kind, labels=(), meaning=meaning, part="planted")


def test_no_metric_is_made_outside_the_lists() -> None:
    """Whoever reads the list knows every name."""
    assert list(makers(ROOT)) == []


@pytest.mark.parametrize(
    "line",
    [
        "from prometheus_client import Counter",
        "from prometheus_client.core import GaugeMetricFamily",
        "import prometheus_client",
        "def f():\n    from prometheus_client import start_http_server, Summary",
    ],
)
def test_a_metric_made_elsewhere_is_found(tmp_path: Path, line: str) -> None:
    """The check above can go red, inside functions too."""
    folder = tmp_path / "producers" / "gatebook" / "producers"
    folder.mkdir(parents=True)
    (folder / "one.py").write_text(line)
    (folder / "metrics.py").write_text("from prometheus_client import Counter")
    found = list(makers(tmp_path))
    assert len(found) == 1
    assert found[0].startswith("gatebook.producers.one: ")


def test_names_are_unique_and_as_prometheus_wants_them() -> None:
    """gatebook_, base units, _total for counters; each with a meaning."""
    found = gather()
    assert not found.missing
    assert problems(found.metrics) == []


@pytest.mark.parametrize(
    ("planted", "problem"),
    [
        (row("gatebook_events", "counter"), "_total"),
        (row("gatebook_events_total", "gauge"), "_total"),
        (row("gatebook_batch", "histogram"), "its unit"),
        (row("gatebook_wait_ms", "gauge"), "base unit"),
        (row("Gatebook_events_total", "counter"), "lower case"),
        (row("gatebook_events_total", "counter", ""), "no meaning"),
    ],
)
def test_a_wrong_name_is_found(planted: MetricRow, problem: str) -> None:
    """The check above can go red for each rule."""
    assert any(problem in one for one in problems([planted]))


def test_a_name_that_stands_twice_is_found() -> None:
    """Two parts cannot mean two things by one name."""
    twice = [row("gatebook_events_total", "counter")] * 2
    assert "gatebook_events_total: stands 2 times" in problems(twice)


def test_the_list_agrees_with_what_prometheus_is_shown() -> None:
    """What is registered and what is listed are the same names."""
    from prometheus_client import REGISTRY

    import gatebook.processors.sinks.metrics
    import gatebook.producers.recorder  # noqa: F401 - importing it registers the producer's

    shown = set()
    for family in REGISTRY.collect():
        if family.name.startswith("gatebook_"):
            shown.add(family.name + ("_total" if family.type == "counter" else ""))
    assert shown == {one.name for one in gather().metrics}


def test_the_command_lists_names_labels_and_parts() -> None:
    """For people, and for programs."""
    text = CliRunner().invoke(cli, ["metrics"]).output
    assert "gatebook_dead_letters_total{stage,reason}  counter" in text
    found = json.loads(CliRunner().invoke(cli, ["metrics", "--json"]).output)
    assert {one["part"] for one in found["metrics"]} == {"producer", "agent", "worker"}
