"""Create what Gatebook needs in Kafka and Elasticsearch: topics, index templates, mappings.

Running it again changes nothing that is already right. What an operator changed in a topic is
reported, not undone: partition counts decide which events meet in one detector.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

import orjson
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not marked so
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)
from msgspec import Struct, field

from gatebook.processors.retention.settings import policy_path
from gatebook.processors.retention.topics import TOPICS as RETAINED
from gatebook.processors.sinks.base import KINDS
from gatebook.processors.sinks.codec import BEST, DEFAULT, has_best_compression
from gatebook.processors.sinks.connection import Answer, Connection, Unreachable
from gatebook.processors.sinks.settings import ElasticsearchSettings
from gatebook.processors.summaries.template import template as summary_template
from gatebook.schemas.codec import MAX_MESSAGE_BYTES
from gatebook.schemas.errors import Fatal
from gatebook.schemas.topics import (
    DETECTOR_STATE,
    EVENT,
    FINDING,
    NOTIFY_STATE,
    OBSERVATION,
    OBSERVATION_STATE,
    Topic,
    all_topics,
    topic_name,
)

HOUR_MS = 3_600_000
RETENTION = "retention.ms"
# Settings a topic made earlier may lack without losing anything.
HARMLESS = frozenset({"message.timestamp.type"})
ADMIN_TIMEOUT_SECONDS = 10.0
STORED_AS = ("index", "doc_values")  # what a field's mapping cannot change, and need not
MAPPED_AT_ONCE = 20  # names in one address; a server takes 4 KiB of it
# Topics that must have the same number of partitions: a state lives beside what it is made from.
COPARTITIONED = ((EVENT, DETECTOR_STATE), (FINDING, NOTIFY_STATE), (OBSERVATION, OBSERVATION_STATE))


class TopicReport(Struct, frozen=True, kw_only=True):
    """One topic. state: created, unchanged or different. `notes` are differences that do no harm
    (more partitions, longer retention), `problems` those that do."""

    name: str
    state: str
    partitions: int
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class TemplateReport(Struct, frozen=True, kw_only=True):
    """One index template. state: created, updated or unchanged. codec: of indices to come,
    default or best_compression. `problems` name indices that could not take the new fields."""

    name: str
    state: str
    codec: str = DEFAULT
    problems: list[str] = field(default_factory=list)


class SetupReport(Struct, frozen=True, kw_only=True):
    """What setup found and did."""

    namespace: str
    topics: list[TopicReport]
    templates: list[TemplateReport]

    @property
    def problems(self) -> list[str]:
        """All that a person should look at; empty where all is well."""
        parts: list[TopicReport | TemplateReport] = [*self.topics, *self.templates]
        return [f"{part.name}: {problem}" for part in parts for problem in part.problems]


def setup(
    kafka_bootstrap: str,
    elasticsearch_url: str,
    namespace: str,
    *,
    replicas: int | None = None,
    best_compression: bool | None = None,
    partitions: Mapping[str, int] | None = None,
    kafka_properties: Mapping[str, str | int] | None = None,
    elasticsearch: ElasticsearchSettings | None = None,
) -> SetupReport:
    """Create topics and templates of `namespace` and report what is there.

    replicas: copies of each index; None means 1 where the cluster has two data nodes or more,
    else 0. best_compression: the codec of indices to come; None means where the cluster has it,
    and True is refused where it does not. partitions: other counts than topics.toml, by topic key,
    for topics that do not exist yet. elasticsearch: credentials and time-outs; its url is not used.
    Raises Fatal where a server does not answer or refuses. Must not be called inside a running
    event loop (use `setup_elasticsearch` and `setup_kafka` there).
    """
    given = elasticsearch or ElasticsearchSettings()
    address = ElasticsearchSettings(
        **{name: getattr(given, name) for name in given.__struct_fields__}
        | {"url": elasticsearch_url}
    )
    topics = setup_kafka(kafka_bootstrap, namespace, partitions or {}, kafka_properties or {})
    # If we die here, topics stand without templates: the sink refuses to write until the next
    # run has installed them.
    templates = asyncio.run(setup_elasticsearch(address, namespace, replicas, best_compression))
    return SetupReport(namespace=namespace, topics=topics, templates=templates)


# --- Kafka -------------------------------------------------------------------------------------


def setup_kafka(
    bootstrap: str,
    namespace: str,
    partitions: Mapping[str, int],
    properties: Mapping[str, str | int],
    has_policy: bool | None = None,
) -> list[TopicReport]:
    """Create the topics that are missing; compare the others with topics.toml. has_policy: a
    retention policy decides how long topics are kept; None: where retention finds its policy."""
    is_managed = policy_path() is not None if has_policy is None else has_policy
    unknown = set(partitions) - set(all_topics())
    if unknown:
        raise Fatal(f"no topic {sorted(unknown)[0]!r}", "name one of " + ", ".join(all_topics()))
    # librdkafka writes its own lines to stderr; what matters of them reaches us as exceptions.
    admin = AdminClient({**properties, "bootstrap.servers": bootstrap, "log_level": 0})
    found = _partition_counts(admin, bootstrap)
    created = {
        key
        for key, topic in all_topics().items()
        if topic_name(namespace, key) not in found
        and _create(admin, namespace, topic, partitions.get(key, topic.partitions))
    }
    counts = _partition_counts(admin, bootstrap)
    reports = [
        _report(
            admin,
            topic_name(namespace, key),
            topic,
            counts,
            key in created,
            partitions,
            is_managed and key in RETAINED,
        )
        for key, topic in all_topics().items()
    ]
    for keys in COPARTITIONED:
        reports = _with_copartition_check(reports, {topic_name(namespace, key) for key in keys})
    return reports


def topic_settings(topic: Topic) -> dict[str, str]:
    """The configuration a topic is created with."""
    settings = {
        "cleanup.policy": topic.cleanup_policy,
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
    }
    if topic.timestamps == "broker":
        settings["message.timestamp.type"] = "LogAppendTime"
    if topic.retention_hours:
        settings[RETENTION] = str(topic.retention_hours * HOUR_MS)
    return settings


def _partition_counts(admin: AdminClient, bootstrap: str) -> dict[str, int]:
    try:
        topics = admin.list_topics(timeout=ADMIN_TIMEOUT_SECONDS).topics
    except KafkaException as error:
        raise Fatal(
            f"Kafka does not answer at {bootstrap} ({_code(error)})",
            "start it (`gatebook up`), or set GATEBOOK_KAFKA_BOOTSTRAP",
        ) from None
    return {name: len(topic.partitions) for name, topic in topics.items()}


def _code(error: Exception) -> str:
    inner = error.args[0] if error.args else None
    return str(inner.name()) if isinstance(inner, KafkaError) else type(error).__name__


def _create(admin: AdminClient, namespace: str, topic: Topic, partitions: int) -> bool:
    """True where we created it; False where somebody else was faster."""
    name = topic_name(namespace, topic.key)
    wanted = NewTopic(
        name, num_partitions=partitions, replication_factor=-1, config=topic_settings(topic)
    )
    try:
        admin.create_topics([wanted], operation_timeout=ADMIN_TIMEOUT_SECONDS)[name].result()
    except KafkaException as error:
        if _code(error) == "TOPIC_ALREADY_EXISTS":
            return False
        raise Fatal(
            f"Kafka refuses to create the topic {name} ({_code(error)})",
            "see that the user may create topics, or have an operator create it",
        ) from None
    return True


def _report(
    admin: AdminClient,
    name: str,
    topic: Topic,
    counts: Mapping[str, int],
    created: bool,
    partitions: Mapping[str, int],
    is_managed: bool,
) -> TopicReport:
    if created:  # the brokers may not all list it yet
        count = partitions.get(topic.key, topic.partitions)
        return TopicReport(name=name, state="created", partitions=count)
    count = counts.get(name, 0)
    notes, problems = compare_topic(
        topic, count, _config(admin, name), partitions.get(topic.key, topic.partitions), is_managed
    )
    return TopicReport(
        name=name,
        state="different" if notes or problems else "unchanged",
        partitions=count,
        notes=notes,
        problems=problems,
    )


def _config(admin: AdminClient, name: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, name)
    try:
        entries = admin.describe_configs([resource])[resource].result(ADMIN_TIMEOUT_SECONDS)
    except (KafkaException, TimeoutError) as error:
        raise Fatal(
            f"Kafka does not tell the configuration of {name} ({_code(error)})",
            "see that the user may describe topic configurations",
        ) from None
    return {key: str(entry.value) for key, entry in entries.items()}


def compare_topic(
    topic: Topic,
    partitions: int,
    config: Mapping[str, str],
    wanted_partitions: int,
    is_managed: bool = False,
) -> tuple[list[str], list[str]]:
    """Notes and problems of a topic that exists. More is a note, less a problem. is_managed: how
    long messages are kept is up to a retention policy, so that is a note either way."""
    notes: list[str] = []
    problems: list[str] = []
    if partitions != wanted_partitions:
        text = f"has {partitions} partitions, {wanted_partitions} are wanted"
        (notes if partitions > wanted_partitions else problems).append(text)
    for key, wanted in topic_settings(topic).items():
        have = config.get(key, "")
        if have == wanted:
            continue
        if is_managed and key == RETENTION:
            notes.append(f"{key} is {have or 'unknown'}: `gatebook retention check` judges that")
            continue
        text = f"{key} is {have or 'unknown'}, {wanted} is wanted"
        (notes if key in HARMLESS or _is_more(have, wanted) else problems).append(text)
    return notes, problems


def _is_more(have: str, wanted: str) -> bool:
    """Whether a number is larger than wanted; -1 is without limit."""
    if not have.lstrip("-").isdigit() or not wanted.isdigit():
        return False
    return int(have) == -1 or int(have) > int(wanted)


def _with_copartition_check(reports: list[TopicReport], names: set[str]) -> list[TopicReport]:
    counts = {report.partitions for report in reports if report.name in names}
    if len(counts) == 1:
        return reports
    text = "must have as many partitions as " + " and ".join(sorted(names))
    return [
        TopicReport(
            name=report.name,
            state=report.state,
            partitions=report.partitions,
            notes=report.notes,
            problems=[*report.problems, text],
        )
        if report.name in names
        else report
        for report in reports
    ]


# --- Elasticsearch -----------------------------------------------------------------------------


async def setup_elasticsearch(
    settings: ElasticsearchSettings,
    namespace: str,
    replicas: int | None = None,
    best_compression: bool | None = None,
) -> list[TemplateReport]:
    """Install the index templates and give their fields to indices that exist already."""
    connection = Connection(settings)
    try:
        copies = await _data_node_replicas(connection) if replicas is None else replicas
        best = await _is_best(connection, namespace, best_compression)
        bodies = {
            f"{namespace}-{kind}": render_template(namespace, kind, copies, best) for kind in KINDS
        }
        summaries = with_digest(summary_template(namespace, copies, best))
        bodies[f"{namespace}-summary"] = summaries
        return [await _install(connection, name, body) for name, body in bodies.items()]
    except Unreachable as error:
        raise Fatal(
            f"Elasticsearch does not answer at {connection.address} ({error})",
            "start it (`gatebook up`), or set GATEBOOK_ELASTICSEARCH_URL",
        ) from None
    finally:
        await connection.close()


def render_template(
    namespace: str, kind: str, replicas: int, best_compression: bool
) -> dict[str, Any]:
    """The body of an index template, with the digest that tells whether it changed."""
    folder = resources.files("gatebook.schemas") / "generated"
    text = (folder / f"{kind}.template.json").read_text(encoding="utf-8")
    body: dict[str, Any] = orjson.loads(text.replace("{namespace}", namespace))
    index = body["template"]["settings"]["index"]
    index["number_of_replicas"] = replicas
    if best_compression:
        index["codec"] = BEST
    return with_digest(body)


def with_digest(body: dict[str, Any]) -> dict[str, Any]:
    """A template's body with its own digest in it."""
    digest = hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return {**body, "_meta": {**body.get("_meta", {}), "gatebook_digest": digest}}


async def _data_node_replicas(connection: Connection) -> int:
    answer = _good(await connection.request("GET", "/_cluster/health"), "tell its health")
    return 1 if answer.get("number_of_data_nodes", 1) > 1 else 0


async def _is_best(connection: Connection, namespace: str, asked: bool | None) -> bool:
    """Whether indices are to have best_compression. Raises Fatal where that is asked for, and each
    of them would be lost at its first commit."""
    if asked is False:
        return False
    found = await has_best_compression(connection, namespace)
    if asked and not found:
        raise Fatal(
            "this Elasticsearch does not keep an index with codec best_compression: a trial failed",
            "leave --best-compression out, or see its log (libzstd may be missing)",
        )
    return found


async def _install(connection: Connection, name: str, body: dict[str, Any]) -> TemplateReport:
    before = await connection.request("GET", f"/_index_template/{name}")
    state = _state_of(before, body["_meta"]["gatebook_digest"])
    _good(
        await connection.request("PUT", f"/_index_template/{name}", json=body),
        f"take the index template {name}",
    )
    # If we die here, the next run gives the fields to the indices: it does so every time.
    problems = await _update_indices(connection, name, body["template"]["mappings"])
    codec = body["template"]["settings"]["index"].get("codec", DEFAULT)
    return TemplateReport(name=name, state=state, codec=codec, problems=problems)


def _state_of(before: Answer, digest: str) -> str:
    if before.status == 404:
        return "created"
    found = _good(before, "show its index templates")["index_templates"][0]["index_template"]
    same = found.get("_meta", {}).get("gatebook_digest") == digest
    return "unchanged" if same else "updated"


async def _update_indices(connection: Connection, name: str, mappings: dict[str, Any]) -> list[str]:
    """Add new fields to the indices of today and before. A field's type cannot change; how it is
    stored cannot either, and need not: an index keeps what it has."""
    answer = await _put_mapping(connection, f"{name}-*", mappings)
    if answer.status == 400:
        answer = await _put_as_stored(connection, name, mappings)
    if answer.status in (200, 404):
        return []
    return [f"existing indices keep their old mapping ({_label(answer)})"]


async def _put_mapping(connection: Connection, names: str, mappings: dict[str, Any]) -> Answer:
    return await connection.request(
        "PUT",
        f"/{names}/_mapping",
        params={"allow_no_indices": "true", "expand_wildcards": "open"},
        json=mappings,
    )


async def _put_as_stored(connection: Connection, name: str, mappings: dict[str, Any]) -> Answer:
    """The mapping for each index as it stores its fields; the last answer that is not good."""
    found = await connection.request(
        "GET",
        f"/{name}-*/_mapping",
        params={"allow_no_indices": "true", "expand_wildcards": "open"},
    )
    if found.status != 200:
        return found
    alike: dict[bytes, list[str]] = {}
    for index, one in found.body.items():
        wanted = as_stored(mappings, one["mappings"])
        alike.setdefault(orjson.dumps(wanted, option=orjson.OPT_SORT_KEYS), []).append(index)
    worst = found
    for body, names in alike.items():
        for at in range(0, len(names), MAPPED_AT_ONCE):
            some = ",".join(names[at : at + MAPPED_AT_ONCE])
            answer = await _put_mapping(connection, some, orjson.loads(body))
            worst = answer if answer.status not in (200, 404) else worst
    return worst


def as_stored(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """A wanted mapping with `index` and `doc_values` of the fields that are there as they are."""
    known = found.get("properties", {})
    if "properties" in wanted:
        inner = {n: as_stored(d, known.get(n, {})) for n, d in wanted["properties"].items()}
        return {**wanted, "properties": inner}
    if not found:
        return dict(wanted)
    kept = {name: value for name, value in wanted.items() if name not in STORED_AS}
    return kept | {name: found[name] for name in STORED_AS if name in found}


def _label(answer: Answer) -> str:
    return answer.error_type or f"status {answer.status}"


def _good(answer: Answer, what: str) -> dict[str, Any]:
    if answer.status == 200 and isinstance(answer.body, dict):
        return answer.body
    if answer.status in (401, 403) and answer.error_type != "cluster_block_exception":
        raise Fatal(
            f"Elasticsearch refuses our credentials: it does not {what}",
            "check GATEBOOK_ELASTICSEARCH_API_KEY (privilege manage_index_templates)",
        )
    raise Fatal(
        f"Elasticsearch does not {what} ({_label(answer)})", "see its log, then run it again"
    )
