"""Grafana's dashboards: one over Elasticsearch with the charts of every board, one over the
pipeline's metrics in Prometheus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gatebook.cli.dashboards.charts import BOARDS, TOP, Board, Chart, Measure
from gatebook.cli.dashboards.kibana import KINDS, places

Json = dict[str, Any]
WIDTH = 24
HEIGHTS = {"number": 4, "time": 8, "table": 9}
SCHEMA_VERSION = 39
UNITS = {"ns": "ns", "s": "s", "bytes": "bytes", "": "short"}
PANELS = {"number": "stat", "time": "timeseries", "table": "table"}
METRICS = {"count": "count", "sum": "sum", "unique": "cardinality", "max": "max"}
ONE_BUCKET = "36500d"  # a hundred years from 1970: a number is over the whole range
PERCENTS = {"p50": "50", "p95": "95"}


# --- over Elasticsearch ------------------------------------------------------------------------


def documents() -> Json:
    """The boards below each other, each under a heading."""
    panels: list[Json] = []
    top = 0
    for board in BOARDS:
        spot = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        panels.append(_heading(board, spot, len(panels) + 1))
        found = places(board, WIDTH, HEIGHTS)
        for chart, place in zip(board.charts, found, strict=True):
            moved = {**place, "y": place["y"] + top + 1}
            panels.append(_panel(chart, moved, len(panels) + 1))
        top += 1 + max(place["y"] + place["h"] for place in found)
    sources = [_source(kind, label, "elasticsearch") for kind, label in KINDS.items()]
    return _dashboard("gatebook-documents", "Gatebook: documents", panels, sources)


def _heading(board: Board, place: dict[str, int], id_: int) -> Json:
    row = {"type": "row", "id": id_, "title": board.title, "gridPos": place}
    return {**row, "collapsed": False, "panels": []}


def _panel(chart: Chart, place: dict[str, int], id_: int) -> Json:
    source = {"type": "elasticsearch", "uid": f"${{{chart.kind}}}"}
    target = {
        "refId": "A",
        "datasource": source,
        "query": chart.where[1],
        "timeField": "@timestamp",
        "metrics": [_metric(one, number) for number, one in enumerate(chart.measures)],
        "bucketAggs": _buckets(chart),
    }
    unit = UNITS[chart.measures[0].unit]
    return {
        "type": PANELS[chart.shape],
        "id": id_,
        "title": chart.title,
        "gridPos": place,
        "datasource": source,
        "targets": [target],
        "fieldConfig": {"defaults": {"unit": unit, **_style(chart)}, "overrides": []},
        "options": _options(chart.shape),
    }


def _metric(one: Measure, number: int) -> Json:
    """Ids of measures are 1, 2, 3; those of buckets begin at 101."""
    found: Json = {"id": str(number + 1), "type": METRICS.get(one.how, "percentiles")}
    if one.field:
        found["field"] = one.field
    if one.how in PERCENTS:
        found["settings"] = {"percents": [PERCENTS[one.how]]}
    return found


def _buckets(chart: Chart) -> list[Json]:
    """Grafana wants a bucket even for a number: its sum over time is what a stat shows."""
    found: list[Json] = [
        {
            "id": str(101 + number),
            "type": "terms",
            "field": name,
            "settings": {
                "size": str(TOP),
                "order": "desc",
                "orderBy": "_count",
                "min_doc_count": "1",
            },
        }
        for number, name in enumerate(chart.by)
    ]
    if chart.shape == "table":
        return found
    interval = "auto" if chart.shape == "time" else ONE_BUCKET
    settings = {"interval": interval, "min_doc_count": "0", "trimEdges": "0"}
    time = {"id": "199", "type": "date_histogram", "field": "@timestamp", "settings": settings}
    return [*found, time]


def _style(chart: Chart) -> Json:
    if chart.shape != "time":
        return {}
    mode = "normal" if chart.stacked else "none"
    style = "bars" if chart.stacked else "line"
    return {"custom": {"drawStyle": style, "fillOpacity": 60, "stacking": {"mode": mode}}}


def _options(shape: str) -> Json:
    if shape == "number":
        return {"reduceOptions": {"calcs": ["sum"], "fields": "", "values": False}}
    return {}


# --- over Prometheus ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Query:
    """A line of a chart: PromQL and how its series are called."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Lines:
    """One chart of metrics."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"


def rate(metric: str, by: str = "") -> str:
    """Per second, over instances; by a label where one is given."""
    group = f" by ({by})" if by else ""
    return f"sum{group} (rate({metric}[$__rate_interval]))"


def _quantile(metric: str, by: str, quantile: float = 0.95) -> str:
    inner = f"sum by (le, {by}) (rate({metric}_bucket[$__rate_interval]))"
    return f"histogram_quantile({quantile}, {inner})"


PIPELINE: tuple[tuple[str, tuple[Lines, ...]], ...] = (
    (
        "Flow",
        (
            Lines(
                "Events a second",
                (
                    Query(rate("gatebook_producer_events_emitted_total"), "emitted"),
                    Query(rate("gatebook_producer_events_acknowledged_total"), "acknowledged"),
                    Query(rate("gatebook_intake_events_total"), "through intake"),
                    Query(rate("gatebook_index_documents_total", "kind"), "indexed: {{kind}}"),
                ),
                "eps",
            ),
            Lines(
                "Messages waiting",
                (Query("max by (role) (gatebook_worker_lag_messages)", "{{role}}"),),
            ),
            Lines(
                "Time to deliver a batch, 95 of 100",
                (Query(_quantile("gatebook_worker_batch_seconds", "role"), "{{role}}"),),
                "s",
            ),
        ),
    ),
    (
        "Losses and rejections",
        (
            Lines(
                "Dead letters a second",
                (
                    Query(
                        rate("gatebook_dead_letters_total", "stage, reason"),
                        "{{stage}}: {{reason}}",
                    ),
                ),
                "eps",
            ),
            Lines(
                "Events lost a second",
                (
                    Query(
                        rate("gatebook_producer_events_dropped_total", "reason"),
                        "dropped: {{reason}}",
                    ),
                    Query(
                        rate("gatebook_intake_producer_losses_total", "reason"),
                        "declared: {{reason}}",
                    ),
                    Query(rate("gatebook_intake_sequence_missing_total"), "sequence missing"),
                ),
                "eps",
            ),
            Lines(
                "Stored without content, a second",
                (
                    Query(
                        rate("gatebook_redaction_failed_total", "reason"), "redaction: {{reason}}"
                    ),
                    Query(rate("gatebook_sealed_failed_total", "reason"), "not opened: {{reason}}"),
                    Query(
                        rate("gatebook_producer_events_unsealed_total", "reason"),
                        "not sealed: {{reason}}",
                    ),
                ),
                "eps",
            ),
        ),
    ),
    (
        "Producers",
        (
            Lines(
                "Events not acknowledged yet",
                (Query("sum (gatebook_producer_events_pending)", "pending"),),
            ),
            Lines(
                "Spool",
                (
                    Query("sum (gatebook_producer_spool_bytes)", "spool"),
                    Query("sum (gatebook_producer_queue_bytes)", "memory"),
                ),
                "bytes",
            ),
            Lines(
                "Degraded",
                (
                    Query("max (gatebook_producer_degrade_step)", "step"),
                    Query("max (gatebook_producer_spool_degraded)", "spool cannot be written"),
                    Query("max (gatebook_producer_policy_broken)", "policy broken"),
                    Query("max (gatebook_producer_break_glass_active)", "break glass"),
                ),
            ),
        ),
    ),
    (
        "Elasticsearch",
        (
            Lines(
                "Rows a second",
                (Query(rate("gatebook_sink_rows_total", "result"), "{{result}}"),),
                "eps",
            ),
            Lines(
                "Waiting",
                (
                    Query("sum (gatebook_sink_waiting_rows)", "rows not decided"),
                    Query("sum (gatebook_sink_paused_requests)", "requests held back"),
                ),
            ),
            Lines(
                "Retries a second",
                (Query(rate("gatebook_sink_retries_total", "cause"), "{{cause}}"),),
                "eps",
            ),
        ),
    ),
    (
        "Retention",
        (
            Lines(
                "Disk",
                (Query("max (gatebook_retention_disk_used_ratio)", "fullest data node"),),
                "percentunit",
            ),
            Lines(
                "Documents deleted an hour",
                (
                    Query(
                        "3600 * " + rate("gatebook_retention_deleted_documents_total", "kind, why"),
                        "{{kind}}: {{why}}",
                    ),
                ),
            ),
            Lines(
                "Due and held",
                (
                    Query("max (gatebook_retention_due_indices)", "indices with something due"),
                    Query("max (gatebook_retention_held_documents)", "due documents held"),
                ),
            ),
        ),
    ),
    (
        "Detection and alerts",
        (
            Lines(
                "Findings a minute",
                (Query("60 * " + rate("gatebook_detect_findings_total", "rule"), "{{rule}}"),),
            ),
            Lines(
                "Alerts a minute",
                (
                    Query(
                        "60 * " + rate("gatebook_notify_alerts_total", "target, outcome"),
                        "{{target}}: {{outcome}}",
                    ),
                    Query(
                        "60 * " + rate("gatebook_notify_not_paged_total", "why"), "kept: {{why}}"
                    ),
                ),
            ),
            Lines(
                "From event to alert, 95 of 100",
                (
                    Query(_quantile("gatebook_notify_seconds", "target"), "{{target}}"),
                    Query("max (gatebook_detect_behind_seconds)", "windows behind the clock"),
                ),
                "s",
            ),
        ),
    ),
)


def pipeline() -> Json:
    """The pipeline's own metrics, three charts a row."""
    panels: list[Json] = []
    for number, (title, charts) in enumerate(PIPELINE):
        top = number * (HEIGHTS["time"] + 1)
        row = {"type": "row", "id": len(panels) + 1, "title": title, "collapsed": False}
        panels.append({**row, "panels": [], "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1}})
        each = WIDTH // len(charts)
        for column, chart in enumerate(charts):
            place = {"x": column * each, "y": top + 1, "w": each, "h": HEIGHTS["time"]}
            panels.append(_lines(chart, place, len(panels) + 1))
    sources = [_source("prometheus", "Prometheus", "prometheus")]
    return _dashboard("gatebook-pipeline", "Gatebook: pipeline", panels, sources)


def _lines(chart: Lines, place: dict[str, int], id_: int) -> Json:
    source = {"type": "prometheus", "uid": "${prometheus}"}
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": source,
            "expr": one.expr,
            "legendFormat": one.legend,
        }
        for number, one in enumerate(chart.queries)
    ]
    return {
        "type": "timeseries",
        "id": id_,
        "title": chart.title,
        "gridPos": place,
        "datasource": source,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": chart.unit, "min": 0}, "overrides": []},
        "options": {},
    }


# --- both --------------------------------------------------------------------------------------


def _source(name: str, label: str, type_: str) -> Json:
    """A variable by which one chooses the data source."""
    return {"type": "datasource", "name": name, "label": label, "query": type_, "hide": 0}


def _dashboard(uid: str, title: str, panels: list[Json], sources: list[Json]) -> Json:
    return {
        "uid": uid,
        "title": title,
        "tags": ["gatebook"],
        "schemaVersion": SCHEMA_VERSION,
        "timezone": "utc",
        "editable": True,
        "graphTooltip": 1,
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": sources},
        "annotations": {"list": []},
        "links": [],
        "panels": panels,
    }
