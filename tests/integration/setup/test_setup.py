"""`gatebook setup` on real Kafka and real Elasticsearch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not marked so
    AdminClient,
    NewTopic,
)

from gatebook.processors.setup import (
    SetupReport,
    TopicReport,
    compare_topic,
    setup,
    setup_kafka,
    topic_settings,
)
from gatebook.schemas.errors import Fatal
from gatebook.schemas.topics import all_topics, topic_name

KINDS = ("access", "finding", "deadletter", "alert")


@pytest.fixture
def admin(engines: Any) -> AdminClient:
    return AdminClient({"bootstrap.servers": engines.kafka_bootstrap})


@pytest.fixture(autouse=True)
def drop_indices(engines: Any, namespace: str) -> Iterator[None]:
    """A run of many tests must not reach the cluster's limit of shards."""
    yield
    if names := ask(engines, "GET", f"/{namespace}-*/_alias"):
        ask(engines, "DELETE", "/" + ",".join(names))


def ask(engines: Any, method: str, path: str, body: Any = None) -> Any:
    """One request to Elasticsearch; its JSON."""
    connection = HTTPConnection(urlsplit(engines.elasticsearch_url).netloc, timeout=30)
    content = None if body is None else json.dumps(body)
    connection.request(method, path, content, {"content-type": "application/json"})
    try:
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def run(engines: Any, namespace: str, **given: Any) -> SetupReport:
    return setup(engines.kafka_bootstrap, engines.elasticsearch_url, namespace, **given)


def states(report: SetupReport) -> set[str]:
    return {part.state for part in [*report.topics, *report.templates]}


def test_the_first_run_creates_all_and_the_second_changes_nothing(
    engines: Any, namespace: str
) -> None:
    """Idempotent: what is right is left alone and reported as unchanged."""
    first = run(engines, namespace)
    assert (states(first), first.problems) == ({"created"}, [])
    assert {topic.name for topic in first.topics} == {
        topic_name(namespace, key) for key in all_topics()
    }
    second = run(engines, namespace)
    assert (states(second), second.problems) == ({"unchanged"}, [])


def test_topics_get_what_topics_toml_says(engines: Any, namespace: str, admin: AdminClient) -> None:
    """Partitions as listed, and a message of just under 8 MiB goes through."""
    run(engines, namespace)
    found = admin.list_topics(timeout=10).topics
    for key, topic in all_topics().items():
        assert len(found[topic_name(namespace, key)].partitions) == topic.partitions
    name = topic_name(namespace, "access.v1")
    size = 8 * 1024 * 1024 - 1_024
    options = {"bootstrap.servers": engines.kafka_bootstrap}
    producer = Producer({**options, "message.max.bytes": 8 * 1024 * 1024})
    failures: list[Any] = []
    producer.produce(name, os.urandom(size), on_delivery=lambda e, _: failures.append(e))
    producer.flush(30)
    assert failures == [None]
    consumer = Consumer({**options, "group.id": namespace, "auto.offset.reset": "earliest"})
    consumer.subscribe([name])
    message = consumer.poll(30)
    consumer.close()
    assert message is not None
    assert len(message.value() or b"") == size


def test_differences_are_reported_and_not_undone(
    engines: Any, namespace: str, admin: AdminClient
) -> None:
    """An operator's partitions stay; fewer than wanted, a wrong policy and a topic that no longer
    lies beside its events are problems, more than wanted is a note."""
    event, state = topic_name(namespace, "event.v1"), topic_name(namespace, "detector-state.v1")
    access = topic_name(namespace, "access.v1")
    topics = [
        NewTopic(event, 2, 1, config={"max.message.bytes": "1000"}),
        NewTopic(state, 6, 1, config={"cleanup.policy": "delete"}),
        NewTopic(access, 8, 1, config={"retention.ms": "-1", "max.message.bytes": "9000000"}),
    ]
    for done in admin.create_topics(topics).values():
        done.result(30)
    report = run(engines, namespace)
    by_name = {topic.name: topic for topic in report.topics}
    assert by_name[access].problems == []
    assert len(by_name[access].notes) == 4  # and whose clock its messages carry
    assert "has 2 partitions, 4 are wanted" in by_name[event].problems
    assert any("max.message.bytes is 1000" in p for p in by_name[event].problems)
    assert any("cleanup.policy is delete" in p for p in by_name[state].problems)
    assert any("as many partitions as" in p for p in by_name[state].problems)
    assert run(engines, namespace).problems == report.problems
    assert len(admin.list_topics(timeout=10).topics[event].partitions) == 2


def test_partition_counts_can_be_chosen(engines: Any, namespace: str) -> None:
    """Another count for topics that do not exist yet; an unknown topic is refused."""
    chosen = {"event.v1": 1, "detector-state.v1": 1}
    report = run(engines, namespace, partitions=chosen)
    assert report.problems == []
    assert run(engines, namespace, partitions=chosen).problems == []
    with pytest.raises(Fatal, match=r"nope\.v1"):
        run(engines, namespace, partitions={"nope.v1": 1})


def test_an_index_of_the_pattern_is_strict_and_stands_behind_its_alias(
    engines: Any, namespace: str
) -> None:
    """A new index takes mapping and alias from the template; replicas as asked."""
    run(engines, namespace, replicas=0)
    for kind in KINDS:
        name = f"{namespace}-{kind}-2026.11.23"
        assert ask(engines, "PUT", f"/{name}")["acknowledged"]
        index = ask(engines, "GET", f"/{name}")[name]
        assert index["mappings"]["dynamic"] == "strict"
        assert list(index["aliases"]) == [f"{namespace}-{kind}"]
        assert index["settings"]["index"]["number_of_replicas"] == "0"


def test_an_index_that_exists_gets_new_fields(engines: Any, namespace: str) -> None:
    """After an upgrade today's index takes the new fields too, without being rebuilt."""
    old = {"mappings": {"dynamic": "strict", "properties": {"@timestamp": {"type": "date_nanos"}}}}
    name = f"{namespace}-access-2026.11.23"
    ask(engines, "PUT", f"/{name}", old)
    assert run(engines, namespace).problems == []
    fields = ask(engines, "GET", f"/{name}/_mapping")[name]["mappings"]["properties"]
    assert "gen_ai" in fields


def test_an_index_that_cannot_take_the_fields_is_reported(engines: Any, namespace: str) -> None:
    """A field with another type cannot be changed in place: a problem, not a crash."""
    wrong = {"mappings": {"properties": {"@timestamp": {"type": "keyword"}}}}
    ask(engines, "PUT", f"/{namespace}-access-2026.11.23", wrong)
    (problem,) = run(engines, namespace).problems
    assert "keep their old mapping" in problem


def test_a_changed_template_is_updated(engines: Any, namespace: str) -> None:
    """Another number of replicas: the template is installed anew and reported as updated."""
    run(engines, namespace, replicas=0)
    report = run(engines, namespace, replicas=1)
    assert {template.state for template in report.templates} == {"updated"}


def test_best_compression_where_the_cluster_has_it(engines: Any, namespace: str) -> None:
    """By default where a trial index takes it, never where it is not wanted; the report says which,
    asking again changes nothing, and the trial leaves nothing behind."""
    has_it = engines.best_compression_available
    for asked, wanted in ((None, has_it), (None, has_it), (False, False)):
        report = run(engines, namespace, best_compression=asked)
        codec = "best_compression" if wanted else "default"
        assert {template.codec for template in report.templates} == {codec}
        found = ask(engines, "GET", f"/_index_template/{namespace}-access")
        index = found["index_templates"][0]["index_template"]["template"]["settings"]["index"]
        assert index.get("codec", "default") == codec
        assert not ask(engines, "GET", f"/{namespace}-codec-*?expand_wildcards=all")
    assert states(run(engines, namespace, best_compression=False)) == {"unchanged"}
    if has_it:
        codecs = {t.codec for t in run(engines, namespace, best_compression=True).templates}
        assert codecs == {"best_compression"}
    else:
        with pytest.raises(Fatal, match="best_compression"):
            run(engines, namespace, best_compression=True)


def test_an_index_of_before_keeps_how_it_stores_and_takes_new_fields(
    engines: Any, namespace: str
) -> None:
    """An index whose trace.id has doc values, from an older release: no problem, and what it lacks
    is added; a search over it and a new one finds both."""
    run(engines, namespace)
    template = ask(engines, "GET", f"/_index_template/{namespace}-access")
    mappings = template["index_templates"][0]["index_template"]["template"]["mappings"]
    keyword = {"type": "keyword", "ignore_above": 1024}
    old = {
        "@timestamp": {"type": "date_nanos"},
        "event": {"properties": {"hash": keyword, "end": {"type": "date_nanos"}}},
        "trace": {"properties": {"id": keyword}},
    }
    body = {"mappings": {"dynamic": "strict", "properties": old}}
    ask(engines, "DELETE", f"/_index_template/{namespace}-access")
    ask(engines, "PUT", f"/{namespace}-access-2026.11.22", body)
    report = run(engines, namespace)
    assert report.problems == []
    ask(engines, "PUT", f"/{namespace}-access-2026.11.23")
    found = ask(engines, "GET", f"/{namespace}-access-2026.11.22,{namespace}-access-2026.11.23")
    before, after = (found[name]["mappings"] for name in sorted(found))
    assert after == mappings
    assert before["properties"]["trace"]["properties"]["id"] == keyword
    assert before["properties"]["event"]["properties"]["hash"] == keyword
    assert before["properties"]["span"] == mappings["properties"]["span"]
    for day in ("22", "23"):
        document = {"trace": {"id": "4bf9"}, "event": {"hash": day, "end": "2026-11-23T10:00:00Z"}}
        ask(engines, "PUT", f"/{namespace}-access-2026.11.{day}/_doc/{day}?refresh=true", document)
    queries: list[dict[str, Any]] = [
        {"term": {"trace.id": "4bf9"}},
        {"exists": {"field": "trace.id"}},
        {"range": {"event.end": {"gte": "2026-11-23"}}},
    ]
    for query in queries:
        asked = {"query": query, "sort": ["event.end"]}
        hits = ask(engines, "POST", f"/{namespace}-access-2026*/_search", asked)["hits"]["hits"]
        assert len(hits) == 2, query
    assert run(engines, namespace).problems == []


def command(engines: Any, namespace: str, *arguments: str, **replaced: str) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "gatebook.cli.main", "setup", *arguments],
        env={
            **os.environ,
            "GATEBOOK_KAFKA_BOOTSTRAP": engines.kafka_bootstrap,
            "GATEBOOK_ELASTICSEARCH_URL": engines.elasticsearch_url,
            "GATEBOOK_NAMESPACE": namespace,
            **replaced,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_reports_and_exits_by_what_it_found(
    engines: Any, namespace: str, admin: AdminClient
) -> None:
    """0 where all is as wanted; 1 where a topic differs harmfully, with the difference named."""
    alert = NewTopic(topic_name(namespace, "alert.v1"), 1, 1)
    admin.create_topics([alert])[alert.topic].result(30)
    done = command(engines, namespace, "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert f"{namespace}.alert.v1: has 1 partitions, 2 are wanted" in report["problems"]
    fresh = command(engines, f"{namespace}x")
    assert (fresh.returncode, fresh.stderr) == (0, "")
    assert f"template  {namespace}x-access" in fresh.stdout
    assert fresh.stdout.count(", codec ") == 5


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("GATEBOOK_KAFKA_BOOTSTRAP", "127.0.0.1:{port}", "Kafka does not answer"),
        ("GATEBOOK_ELASTICSEARCH_URL", "http://127.0.0.1:{port}", "Elasticsearch does not answer"),
        ("GATEBOOK_NAMESPACE", "Not/Valid", "GATEBOOK_NAMESPACE"),
    ],
)
def test_what_is_wrong_is_named_with_the_next_step(
    engines: Any, namespace: str, unused_tcp_port: int, variable: str, value: str, named: str
) -> None:
    """A server that is away, or a namespace that cannot be one: no traceback, what to do."""
    started = time.monotonic()
    text = value.format(port=unused_tcp_port)
    done = command(engines, namespace, **{variable: text})
    assert done.returncode != 0
    assert named in done.stderr
    assert "what to do" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - started < 40


def test_compaction_and_retention_are_compared_by_their_meaning() -> None:
    """Longer retention and unlimited are notes, shorter is a problem."""
    topic = all_topics()["access.v1"]
    good = {
        "cleanup.policy": "delete",
        "max.message.bytes": str(8 * 1024 * 1024),
        "message.timestamp.type": "LogAppendTime",
    }
    for retention, wanted in (("-1", (1, 0)), ("999999999999", (1, 0)), ("1000", (0, 1))):
        found = compare_topic(topic, 4, {**good, "retention.ms": retention}, 4)
        assert (len(found[0]), len(found[1])) == wanted


def test_a_retention_that_a_policy_decides_is_no_fault() -> None:
    """With a retention policy a shorter retention.ms is a note; other settings are judged as ever,
    and so is that of a topic no policy is about."""
    topic = all_topics()["access.v1"]
    config = {**topic_settings(topic), "retention.ms": "1000"}
    assert len(compare_topic(topic, 4, config, 4, is_managed=False)[1]) == 1
    notes, problems = compare_topic(topic, 4, config, 4, is_managed=True)
    assert problems == []
    assert "retention.ms is 1000" in notes[0]
    compacted = {**config, "cleanup.policy": "compact"}
    assert len(compare_topic(topic, 4, compacted, 4, is_managed=True)[1]) == 1


def test_setup_heeds_that_there_is_a_policy(
    engines: Any, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Topics kept for less than topics.toml says: a problem without GATEBOOK_RETENTION_POLICY, a
    note with it."""
    admin = AdminClient({"bootstrap.servers": engines.kafka_bootstrap})
    short = NewTopic(
        f"{namespace}.event.v1",
        all_topics()["event.v1"].partitions,
        1,
        config={**topic_settings(all_topics()["event.v1"]), "retention.ms": "7200000"},
    )
    admin.create_topics([short])[short.topic].result()

    def report() -> TopicReport:
        found = setup_kafka(engines.kafka_bootstrap, namespace, {}, {})
        return next(one for one in found if one.name == short.topic)

    monkeypatch.delenv("GATEBOOK_RETENTION_POLICY", raising=False)
    assert "retention.ms" in report().problems[0]
    monkeypatch.setenv("GATEBOOK_RETENTION_POLICY", "policy.toml")
    found = report()
    assert (len(found.notes), found.problems) == (1, [])
