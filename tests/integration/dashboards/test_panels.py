"""Every chart's query on the real Elasticsearch, as Kibana and Grafana would ask it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gatebook.processors.search.dsl import compile_query
from gatebook.processors.search.fields import fields_of
from gatebook.processors.setup import setup_elasticsearch
from gatebook.processors.sinks.base import Row
from gatebook.processors.sinks.connection import Connection
from gatebook.processors.sinks.elasticsearch import ElasticsearchSink
from gatebook.processors.sinks.settings import ElasticsearchSettings

FOLDER = Path(__file__).parents[3] / "infra" / "dashboards"
NOW = datetime.now(UTC)
ACCESSES = 40
INTENTS = 5
Json = dict[str, Any]
Cells = dict[tuple[str, ...], list[float]]


# --- documents that have something for every chart ---------------------------------------------


def stamp(number: int) -> str:
    moment = NOW - timedelta(minutes=7 * number + 1)
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "000Z"


def access(number: int) -> Json:
    failed = number % 4 == 0
    reason = ("forbidden", "server_error")[number % 8 == 0] if failed else ""
    return {
        "event": {
            "action": "chat",
            "outcome": "failure" if failed else "success",
            "duration": 1_000_000 * (number + 1),
            **({"reason": reason} if failed else {}),
        },
        "user": {"id": f"user-{number % 3}"},
        "organization": {"id": "acme"},
        "service": {"name": "gatebook-operator" if number % 10 == 9 else "chat"},
        "source": {"ip": f"10.0.0.{number % 3}"},
        "http": {"response": {"status_code": 500 if failed else 200}},
        **({"error": {"type": "upstream"}} if failed else {}),
        "gen_ai": {
            "request": {"model": f"slm-{number % 2}"},
            "usage": {"input_tokens": 3, "output_tokens": 5},
        },
        "gatebook": {
            "phase": "terminal",
            "principal": f"user:user-{number % 3}",
            "producer_id": "p1",
            "epoch": 1 + number % 2,
            "sequence": number,
            "capture": {"level": "redacted", "data_class": "internal"},
            "retention": {"metadata": "year"},
            "redaction": {"entities": ["email"]},
        },
    }


def odd_accesses() -> list[Json]:
    """Intents, which no chart of accesses counts, and what is seldom."""
    intents = [{"gatebook": {"phase": "intent"}, "event": {"action": "chat"}}] * INTENTS
    seldom = [
        {"gatebook": {"phase": "intent", "redaction": {"failed": "timeout"}}},
        {"gatebook": {"phase": "intent", "sealed": {"failed": "key_lost"}}},
        {"gatebook": {"phase": "intent", "capture": {"degraded_reason": "buffers"}}},
        {"gatebook": {"phase": "intent", "content": {"signals": ["refusal"]}}},
        {"gatebook": {"phase": "intent"}, "event": {"reason": "incomplete"}},
    ]
    return intents + seldom


def others() -> list[tuple[str, Json]]:
    finding = {
        "event": {"action": "firing"},
        "rule": {"id": "rate_baseline"},
        "gatebook": {"severity": "high", "principal": "user:user-1", "verdict": "true_positive"},
    }
    letter = {"event": {"reason": "oversize"}, "gatebook": {"stage": "intake", "count": 1}}
    alert = {"event": {"action": "firing", "outcome": "failure"}, "gatebook": {"target": "pager"}}
    return [("finding", finding)] * 6 + [("deadletter", letter)] * 3 + [("alert", alert)] * 2


def rows() -> list[Row]:
    documents = [("access", access(number)) for number in range(ACCESSES)]
    documents += [("access", one) for one in odd_accesses()]
    return [_row(n, kind, document) for n, (kind, document) in enumerate([*documents, *others()])]


def _row(number: int, kind: str, document: Json) -> Row:
    at, id_ = stamp(number), f"{kind}-{number:04d}"
    event = {**document.get("event", {}), "id": id_, "hash": f"h{number}", "ingested": at}
    body = json.dumps({**document, "@timestamp": at, "event": event}).encode()
    return Row(kind, at[:10].replace("-", "."), id_, f"h{number}", body)


class Book:
    """One namespace that holds them."""

    def __init__(self, url: str, namespace: str) -> None:
        self.namespace = namespace
        self.connection = Connection(ElasticsearchSettings(url=url))

    async def fill(self) -> None:
        sink = ElasticsearchSink(self.namespace, self.connection)
        outcome = await sink.write(rows())
        assert outcome.indexed == len(rows()), outcome
        await self.connection.request("POST", f"/{self.namespace}-*/_refresh")

    async def ask(self, kind: str, query: Json, aggregations: Json) -> Json:
        """The aggregations and the total of the last day."""
        day = {"gte": stamp(24 * 60 // 7), "lte": stamp(-1)}
        within = {"bool": {"filter": [{"range": {"@timestamp": day}}, query]}}
        body = {"size": 0, "track_total_hits": True, "query": within, "aggs": aggregations}
        answer = await self.connection.request(
            "POST", f"/{self.namespace}-{kind}/_search", json=body
        )
        assert answer.status == 200, answer.body
        found = answer.body.get("aggregations", {})
        return {**found, "doc_count": answer.body["hits"]["total"]["value"]}


@pytest.fixture
async def book(engines: Any, namespace: str) -> AsyncIterator[Book]:
    settings = ElasticsearchSettings(url=engines.elasticsearch_url)
    await setup_elasticsearch(settings, namespace)
    found = Book(engines.elasticsearch_url, namespace)
    await found.fill()
    yield found
    names = await found.connection.request("GET", f"/{namespace}-*/_alias")
    await found.connection.request("DELETE", "/" + ",".join(names.body))
    await found.connection.close()


# --- as the two of them ask --------------------------------------------------------------------


def nested(splits: list[Json], measures: Json) -> Json:
    """Aggregations within each other, the measures innermost."""
    if not splits:
        return measures
    return {"split": {**splits[0], "aggs": nested(splits[1:], measures)}}


def cells(found: Mapping[str, Any], measures: list[str], key: tuple[str, ...] = ()) -> Cells:
    """Values of the measures by the keys of the splits; a count is the bucket's own."""
    if "split" not in found:
        return {key: [_value(found, name) for name in measures]}
    every: Cells = {}
    for bucket in found["split"]["buckets"]:
        every |= cells(bucket, measures, (*key, str(bucket["key"])))
    return every


def _value(found: Mapping[str, Any], name: str) -> float:
    if name == "count":
        return float(found["doc_count"])
    if "values" in found[name]:
        (only,) = found[name]["values"].values()
        return float(only or 0)
    return float(found[name]["value"] or 0)


BY_HOUR = {"field": "@timestamp", "fixed_interval": "1h", "min_doc_count": 1}
LENS_MEASURES = {"sum": "sum", "unique_count": "cardinality", "max": "max"}


async def by_kibana(book: Book) -> dict[str, Cells]:
    """The cells of each chart, from what the file of saved objects says."""
    found = {}
    for line in (FOLDER / "kibana" / "gatebook.ndjson").read_text().splitlines():
        one = json.loads(line)
        if one["type"] == "lens":
            found[one["attributes"]["title"].partition(": ")[2]] = await _lens(book, one)
    return found


async def _lens(book: Book, one: Json) -> Cells:
    kind = one["references"][0]["id"].partition("-")[2]
    state = one["attributes"]["state"]
    columns = state["datasourceStates"]["formBased"]["layers"]["layer"]["columns"]
    splits, measures, names = [], {}, []
    for name, column in columns.items():
        field, how = column["sourceField"], column["operationType"]
        if how == "terms":
            splits.append({"terms": {"field": field, "size": column["params"]["size"]}})
        elif how == "date_histogram":
            splits.append({"date_histogram": {**BY_HOUR, "field": field}})
        elif how == "percentile":
            percents = [column["params"]["percentile"]]
            measures[name] = {"percentiles": {"field": field, "percents": percents}}
        elif how != "count":
            measures[name] = {LENS_MEASURES[how]: {"field": field}}
        if not column["isBucketed"]:
            names.append("count" if how == "count" else name)
    query = compile_query(state["query"]["query"], fields_of(kind))
    return cells(await book.ask(kind, query, nested(splits, measures)), names)


async def by_grafana(book: Book) -> dict[str, Cells]:
    """The cells of each chart, from what the dashboard says."""
    dashboard = json.loads((FOLDER / "grafana" / "gatebook-documents.json").read_text())
    found, board = {}, ""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            board = panel["title"].partition(": ")[2]
        else:
            found[f"{board}: {panel['title']}"] = await _panel(book, panel)
    return found


async def _panel(book: Book, panel: Json) -> Cells:
    kind = panel["datasource"]["uid"][2:-1]
    (target,) = panel["targets"]
    splits, measures, names = [], {}, []
    for bucket in target["bucketAggs"]:
        if bucket["type"] == "terms":
            size = int(bucket["settings"]["size"])
            splits.append({"terms": {"field": bucket["field"], "size": size}})
        else:
            interval = bucket["settings"]["interval"]
            chosen = BY_HOUR["fixed_interval"] if interval == "auto" else interval
            splits.append({"date_histogram": {**BY_HOUR, "fixed_interval": chosen}})
    for metric in target["metrics"]:
        names.append("count" if metric["type"] == "count" else metric["id"])
        if metric["type"] == "count":
            continue
        given: Json = {"field": metric["field"]}
        if metric["type"] == "percentiles":
            given["percents"] = [float(one) for one in metric["settings"]["percents"]]
        measures[metric["id"]] = {metric["type"]: given}
    text = {"query": target["query"] or "*", "analyze_wildcard": True}
    found = await book.ask(kind, {"query_string": text}, nested(splits, measures))
    values = cells(found, names)
    if panel["type"] != "stat":
        return values
    (only,) = values.values()  # one bucket of time, however long the range is
    return {(): only}


# --- what they answer --------------------------------------------------------------------------


async def test_every_chart_shows_something_and_both_show_the_same(book: Book) -> None:
    """Each chart of Kibana and of Grafana has values above zero where there is something to show,
    and both tools' queries give the same numbers."""
    kibana, grafana = await by_kibana(book), await by_grafana(book)
    assert kibana.keys() == grafana.keys()
    for title, found in grafana.items():
        assert found, f"{title}: nothing"
        assert any(max(values) > 0 for values in found.values()), f"{title}: {found}"
        assert kibana[title] == found, title


async def test_the_numbers_are_those_of_the_documents(book: Book) -> None:
    """Accesses count once, by their end; failures, callers, tokens and findings as written."""
    found = await by_grafana(book)
    accesses, errors = "accesses: ", "errors and refusals: "
    assert found[accesses + "Accesses"] == {(): [ACCESSES]}
    assert found[accesses + "Input tokens"] == {(): [3 * ACCESSES]}
    models = found[accesses + "Models"]
    each = [ACCESSES / 2, 3, 1.5 * ACCESSES, 2.5 * ACCESSES]
    assert models == {("slm-0",): each, ("slm-1",): each}
    assert found[errors + "Failures"] == {(): [ACCESSES / 4]}
    assert found[errors + "Denied"] == {(): [ACCESSES / 8]}
    assert found["findings: Findings"] == {(): [6]}
