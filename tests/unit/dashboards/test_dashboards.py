"""Dashboards and alert rules as files: built from what there is, and well formed."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from gatebook.cli.dashboards import build, charts, rules
from gatebook.cli.metrics_page import gather
from gatebook.processors.search.dsl import compile_query
from gatebook.processors.search.fields import fields_of

FOLDER = Path(__file__).parents[3] / "infra" / "dashboards"
OF_SCRAPE = {"instance", "job", "le"}
GRAFANA = ("gatebook-documents", "gatebook-pipeline")


def saved_objects() -> list[dict[str, Any]]:
    text = (FOLDER / "kibana" / "gatebook.ndjson").read_text()
    return [json.loads(line) for line in text.splitlines()]


def grafana(name: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / "grafana" / f"{name}.json").read_text()))


def test_what_is_committed_is_what_the_code_says(tmp_path: Path) -> None:
    """The check of `make lint` passes, and does not where any one file was changed or is gone."""
    assert build.main([str(FOLDER), "--check"]) == 0
    for name in build.files():
        copy = tmp_path / "copy"
        shutil.copytree(FOLDER, copy)
        (copy / name).write_text((copy / name).read_text() + " ")
        assert build.main([str(copy), "--check"]) == 1, name
        (copy / name).unlink()
        assert build.main([str(copy), "--check"]) == 1, name
        shutil.rmtree(copy)


def test_an_unknown_field_or_metric_is_named() -> None:
    """Where a field or metric is renamed, the build says which chart knows the old name."""
    assert charts.unknown_fields() == []
    chart = charts.Chart("Moods", "table", by=("user.mood",))
    board = replace(charts.OVERVIEW, rows=((chart,),))
    (told,) = charts.unknown_fields((board,))
    assert "user.mood" in told
    assert "Moods" in told
    counted = charts.Measure("unique", "trace.id", "traces")  # kept for searching alone
    board = replace(charts.OVERVIEW, rows=((replace(chart, by=(), measures=(counted,)),),))
    assert ["trace.id" in told for told in charts.unknown_fields((board,))] == [True]
    assert build.unknown_metrics(build.expressions()) == []
    assert build.unknown_metrics(["rate(gatebook_moods_total[5m]) > 0"]) == ["gatebook_moods_total"]
    assert build.unknown_metrics(["gatebook_notify_seconds"]) == ["gatebook_notify_seconds"]


def parsed(expr: str) -> Any:
    return promql_parser.parse(expr.replace("$__rate_interval", "5m"))


@pytest.mark.parametrize("expr", build.expressions())
def test_each_expression_is_promql_over_registered_metrics_and_labels(expr: str) -> None:
    """A real parser takes it, and finds the metrics that the build checks; labels in it are those
    with which they are registered."""
    parsed(expr)
    found = build.metrics_in(expr)
    assert found
    known = set(OF_SCRAPE)
    for row in gather().metrics:
        if any(name.startswith(row.name) for name in found):
            known |= set(row.labels)
    grouped = {
        label.strip() for group in re.findall(r"by \(([^)]*)\)", expr) for label in group.split(",")
    }
    matched = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', expr))
    assert grouped | matched <= known


def test_the_parser_takes_not_everything() -> None:
    """So that the test before can fail."""
    with pytest.raises(ValueError, match=r".+"):
        parsed("sum by (role (gatebook_worker_lag_messages)")


def test_each_rule_has_cases_of_both_kinds() -> None:
    """Each alert is shown to fire and not to fire, has a name of its own and a first step."""
    for rule in rules.RULES:
        assert any(case.fires for case in rule.cases), rule.alert
        assert any(not case.fires for case in rule.cases), rule.alert
        assert rule.next_step.endswith(".")
        assert rule.severity in (rules.CRITICAL, rules.WARNING)
    assert max(Counter(rule.alert for rule in rules.RULES).values()) == 1


def test_charts_of_a_board_have_names_of_their_own() -> None:
    """So that people can speak of them."""
    for board in charts.BOARDS:
        titles = [chart.title for chart in board.charts]
        assert len(set(titles)) == len(titles)


def test_the_pipelines_troubles_each_have_an_alert() -> None:
    """Lag, stalls, restarts, dead letters, losses, redaction, sealing, delivery, disk, policy."""
    watched = {name for rule in rules.RULES for name in build.metrics_in(rule.expr)}
    assert watched >= {
        "up",
        "process_start_time_seconds",
        "gatebook_worker_lag_messages",
        "gatebook_worker_batch_seconds_count",
        "gatebook_dead_letters_total",
        "gatebook_intake_producer_losses_total",
        "gatebook_intake_sequence_missing_total",
        "gatebook_redaction_failed_total",
        "gatebook_sealed_failed_total",
        "gatebook_notify_alerts_total",
        "gatebook_sink_paused_requests",
        "gatebook_producer_spool_degraded",
        "gatebook_producer_policy_broken",
    }


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    """What a reader of the format did not take."""
    if isinstance(before, dict):
        return [
            told
            for name, value in before.items()
            for told in (
                lost(value, after[name], f"{path}.{name}") if name in after else [f"{path}.{name}"]
            )
        ]
    if isinstance(before, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [told for n, (one, other) in pairs for told in lost(one, other, f"{path}[{n}]")]
    return [] if before == after else [path]


def through_grafana(dashboard: dict[str, Any]) -> Any:
    """Read and written by Grafana's own library of the dashboard's schema."""
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


@pytest.mark.parametrize("name", GRAFANA)
def test_grafanas_schema_knows_all_that_is_in_a_dashboard(name: str) -> None:
    """Nothing is dropped or changed by the schema's own types, panels and queries included."""
    dashboard = grafana(name)
    assert lost(dashboard, through_grafana(dashboard)) == []
    dashboard["panels"][1]["targets"][0]["mood"] = "good"
    assert lost(dashboard, through_grafana(dashboard)) == [".panels[1].targets[0].mood"]


@pytest.mark.parametrize("name", GRAFANA)
def test_grafanas_panels_do_not_overlap(name: str) -> None:
    """Each has a place of its own within the grid, an id of its own, and a known data source."""
    dashboard = grafana(name)
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    sources = {f"${{{one['name']}}}" for one in dashboard["templating"]["list"]}
    assert {p["datasource"]["uid"] for p in panels if p["type"] != "row"} <= sources
    no_overlap([panel["gridPos"] for panel in panels], 24)


def no_overlap(places: list[dict[str, int]], width: int) -> None:
    taken = Counter(
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    )
    assert max(taken.values()) == 1
    assert all(0 <= x < width for x, _ in taken)


def test_kibanas_objects_refer_to_each_other() -> None:
    """Every reference is to an object of the file, earlier in it, and every panel has one."""
    seen: set[tuple[str, str]] = set()
    for one in saved_objects():
        assert {(ref["type"], ref["id"]) for ref in one["references"]} <= seen
        assert (one["type"], one["id"]) not in seen
        seen.add((one["type"], one["id"]))
        if one["type"] != "dashboard":
            continue
        panels = json.loads(one["attributes"]["panelsJSON"])
        wanted = {f"{panel['panelIndex']}:{panel['panelRefName']}" for panel in panels}
        assert wanted == {reference["name"] for reference in one["references"]}
        no_overlap([panel["gridData"] for panel in panels], 48)
    kinds = Counter(type_ for type_, _ in seen)
    assert (kinds["index-pattern"], kinds["dashboard"]) == (4, 4)


def test_kibanas_charts_name_columns_and_fields_that_are_there() -> None:
    """Charts show columns that their data source has, over fields of the template; formats of
    the data views are for fields of the template, and queries are ones that our search reads."""
    for one in saved_objects():
        if one["type"] == "index-pattern":
            kind = one["attributes"]["title"].partition("-")[2]
            assert set(json.loads(one["attributes"]["fieldFormatMap"])) <= set(
                fields_of(kind).types
            )
        if one["type"] != "lens":
            continue
        kind = one["references"][0]["id"].partition("-")[2]
        state = one["attributes"]["state"]
        columns = state["datasourceStates"]["formBased"]["layers"]["layer"]["columns"]
        fields = {c["sourceField"] for c in columns.values()} - {"___records___"}
        assert fields <= set(fields_of(kind).types)
        shown = re.findall(r'"((?:split|measure)\d|time)"', json.dumps(state["visualization"]))
        assert set(shown) == set(columns), one["id"]
        compile_query(state["query"]["query"], fields_of(kind))


def test_another_namespace_changes_the_data_views_alone() -> None:
    """`make dashboards NAMESPACE=name` points Kibana at that namespace's aliases."""
    ours, theirs = build.files(), build.files("other")
    changed = {name for name in ours if ours[name] != theirs[name]}
    assert changed == {"kibana/gatebook.ndjson"}
    assert '"title": "other-access"' in theirs["kibana/gatebook.ndjson"]
