"""Kibana's saved objects: data views with field formats, charts (Lens), dashboards."""

from __future__ import annotations

import json
from typing import Any

from gatebook.cli.dashboards.charts import BOARDS, TOP, Board, Chart, Measure
from gatebook.processors.search.fields import fields_of

Json = dict[str, Any]
KINDS = {
    "access": "Gatebook accesses",
    "finding": "Gatebook findings",
    "deadletter": "Gatebook dead letters",
    "alert": "Gatebook alerts",
}
VERSIONS = {"coreMigrationVersion": "8.8.0", "managed": False}
WIDTH = 48
HEIGHTS = {"number": 6, "time": 12, "table": 14}
LAYER = "layer"
DATA_TYPES = {"long": "number", "double": "number", "boolean": "boolean", "ip": "ip"}
DATA_TYPES |= {"date_nanos": "date"}
DURATION = {
    "id": "duration",
    "params": {"inputFormat": "nanoseconds", "outputFormat": "humanizePrecise"},
}
SECONDS = {
    "id": "duration",
    "params": {"inputFormat": "seconds", "outputFormat": "humanizePrecise"},
}
BYTES = {"id": "bytes"}
FORMATS = {"ns": DURATION, "s": SECONDS, "bytes": BYTES}
# Operations of Lens, and what they are called in a column.
OPERATIONS = {"sum": "sum", "unique": "unique_count", "max": "max"}
PERCENTILES = {"p50": 50, "p95": 95}


def objects(namespace: str) -> list[Json]:
    """All saved objects, those that others refer to first."""
    views = [data_view(namespace, kind) for kind in KINDS]
    charts = [lens(board, number) for board in BOARDS for number in range(len(board.charts))]
    return [*views, *charts, *(dashboard(board) for board in BOARDS)]


def ndjson(namespace: str) -> str:
    """The file that Kibana imports."""
    lines = [json.dumps(one, sort_keys=True) for one in objects(namespace)]
    return "\n".join(lines) + "\n"


# --- data views --------------------------------------------------------------------------------


def data_view(namespace: str, kind: str) -> Json:
    """A data view over the alias of one kind."""
    attributes = {
        "title": f"{namespace}-{kind}",
        "name": KINDS[kind],
        "timeFieldName": "@timestamp",
        "fieldFormatMap": json.dumps(field_formats(kind), sort_keys=True),
        "fieldAttrs": "{}",
        "fields": "[]",
        "runtimeFieldMap": "{}",
        "sourceFilters": "[]",
        "typeMeta": "{}",
    }
    return _saved("index-pattern", _view_id(kind), attributes, [], "8.0.0")


def _view_id(kind: str) -> str:
    return f"gatebook-{kind}"


def field_formats(kind: str) -> Json:
    """How numbers are shown, by the names that say what they are."""
    found: Json = {}
    for name, type_ in fields_of(kind).types.items():
        if name.endswith(("duration", "_ns")) and type_ == "long":
            found[name] = DURATION
        elif name.endswith(".bytes"):
            found[name] = BYTES
        elif name.endswith(("_seconds", "time_to_first_chunk")):
            found[name] = SECONDS
        elif type_ == "long" and not name.endswith("status_code"):
            found[name] = {"id": "number", "params": {"pattern": "0,0"}}
    return found


# --- charts ------------------------------------------------------------------------------------


def lens(board: Board, number: int) -> Json:
    """One chart as Lens keeps it."""
    chart = board.charts[number]
    columns = _columns(chart)
    source = {"layers": {LAYER: {"columns": columns, "columnOrder": list(columns), "sampling": 1}}}
    attributes = {
        "title": f"{board.title}: {chart.title}",
        "description": "",
        "visualizationType": SHAPES[chart.shape][0],
        "state": {
            "visualization": SHAPES[chart.shape][1](chart, columns),
            "query": {"query": chart.where[0], "language": "kuery"},
            "filters": [],
            "datasourceStates": {"formBased": source},
            "internalReferences": [],
            "adHocDataViews": {},
        },
    }
    name = f"indexpattern-datasource-layer-{LAYER}"
    reference = {"type": "index-pattern", "id": _view_id(chart.kind), "name": name}
    return _saved("lens", _chart_id(board, number), attributes, [reference], "8.9.0")


def _chart_id(board: Board, number: int) -> str:
    return f"gatebook-{board.id}-{number + 1}"


def _columns(chart: Chart) -> Json:
    """The columns of a chart in the order in which Lens nests them: splits, time, measures."""
    measures = {f"measure{n}": _measure(one) for n, one in enumerate(chart.measures)}
    found: Json = {f"split{n}": _split(chart.kind, one) for n, one in enumerate(chart.by)}
    if chart.shape == "time":
        found["time"] = _time()
    return {**found, **measures}


def _split(kind: str, name: str) -> Json:
    return {
        "label": name,
        "customLabel": True,
        "dataType": DATA_TYPES.get(fields_of(kind).types[name], "string"),
        "operationType": "terms",
        "scale": "ordinal",
        "sourceField": name,
        "isBucketed": True,
        "params": {
            "size": TOP,
            "orderBy": {"type": "column", "columnId": "measure0"},
            "orderDirection": "desc",
            "otherBucket": True,
            "missingBucket": False,
            "parentFormat": {"id": "terms"},
            "include": [],
            "exclude": [],
            "includeIsRegex": False,
            "excludeIsRegex": False,
        },
    }


def _time() -> Json:
    return {
        "label": "@timestamp",
        "dataType": "date",
        "operationType": "date_histogram",
        "sourceField": "@timestamp",
        "isBucketed": True,
        "scale": "interval",
        "params": {"interval": "auto", "includeEmptyRows": True, "dropPartials": False},
    }


def _measure(one: Measure) -> Json:
    common: Json = {
        "label": one.title,
        "customLabel": True,
        "dataType": "number",
        "isBucketed": False,
        "scale": "ratio",
        "params": {"emptyAsNull": True},
    }
    if one.unit:
        common["params"] = {"emptyAsNull": True, "format": FORMATS[one.unit]}
    if one.how == "count":
        return {**common, "operationType": "count", "sourceField": "___records___"}
    if one.how in PERCENTILES:
        params = {**common["params"], "percentile": PERCENTILES[one.how]}
        named = {"operationType": "percentile", "sourceField": one.field, "params": params}
        return {**common, **named}
    return {**common, "operationType": OPERATIONS[one.how], "sourceField": one.field}


def _xy(chart: Chart, columns: Json) -> Json:
    series = "bar_stacked" if chart.stacked else "line"
    layer: Json = {
        "layerId": LAYER,
        "layerType": "data",
        "seriesType": series,
        "xAccessor": "time",
        "accessors": [name for name in columns if name.startswith("measure")],
    }
    if chart.by:
        layer["splitAccessor"] = "split0"
    return {
        "legend": {"isVisible": True, "position": "right"},
        "valueLabels": "hide",
        "preferredSeriesType": series,
        "layers": [layer],
    }


def _table(chart: Chart, columns: Json) -> Json:
    shown = [{"columnId": name, "isTransposed": False} for name in columns]
    return {"layerId": LAYER, "layerType": "data", "columns": shown}


def _number(chart: Chart, columns: Json) -> Json:
    return {"layerId": LAYER, "layerType": "data", "metricAccessor": "measure0"}


SHAPES = {
    "number": ("lnsMetric", _number),
    "time": ("lnsXY", _xy),
    "table": ("lnsDatatable", _table),
}


# --- dashboards --------------------------------------------------------------------------------


def dashboard(board: Board) -> Json:
    """One dashboard over the charts of its board."""
    panels, references = [], []
    for number, place in enumerate(places(board, WIDTH, HEIGHTS)):
        index = str(number + 1)
        panels.append(
            {
                "type": "lens",
                "panelIndex": index,
                "gridData": {**place, "i": index},
                "embeddableConfig": {"enhancements": {}},
                "title": board.charts[number].title,
                "panelRefName": f"panel_{index}",
            }
        )
        target = {"type": "lens", "id": _chart_id(board, number)}
        references.append({**target, "name": f"{index}:panel_{index}"})
    search = {"query": {"query": "", "language": "kuery"}, "filter": []}
    attributes = {
        "title": board.title,
        "description": board.about,
        "panelsJSON": json.dumps(panels, sort_keys=True),
        "optionsJSON": json.dumps({"useMargins": True, "hidePanelTitles": False}),
        "timeRestore": True,
        "timeFrom": "now-24h",
        "timeTo": "now",
        "refreshInterval": {"pause": True, "value": 60_000},
        "kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps(search, sort_keys=True)},
        "version": 1,
    }
    return _saved("dashboard", f"gatebook-{board.id}", attributes, references, "8.9.0")


def places(board: Board, width: int, heights: dict[str, int]) -> list[dict[str, int]]:
    """Where each chart stands: rows below each other, charts of a row side by side."""
    found, top = [], 0
    for row in board.rows:
        height = max(heights[chart.shape] for chart in row)
        each = width // len(row)
        found += [{"x": n * each, "y": top, "w": each, "h": height} for n in range(len(row))]
        top += height
    return found


def _saved(
    type_: str, id_: str, attributes: Json, references: list[dict[str, str]], version: str
) -> Json:
    return {
        "type": type_,
        "id": id_,
        "attributes": attributes,
        "references": references,
        "typeMigrationVersion": version,
        **VERSIONS,
    }
