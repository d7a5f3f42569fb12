"""What stands in running engines, for `gatebook doctor`: topics, templates, lag, dead letters.

Reads only. A server that refuses an answer makes a row that says so, never an exception.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import msgspec

from gatebook.engines import http, kafka
from gatebook.engines.check import Check
from gatebook.engines.external import cluster_health
from gatebook.engines.settings import EngineSettings, Status
from gatebook.schemas.topics import (
    ACCESS,
    ALERT,
    DEAD_LETTER,
    EVENT,
    FINDING,
    OBSERVATION,
    all_topics,
    topic_name,
)

if TYPE_CHECKING:
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

REQUEST_TIMEOUT_SECONDS = 5.0
COORDINATOR_WAIT_SECONDS = 10.0
POLL_SECONDS = 0.3
NOT_READY = ("NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS")
DAY_SECONDS = 86_400
SHORT_RETENTION_MS = 3_600_000
KINDS = ("access", "finding", "deadletter", "alert")
# Which topics each role's consumer group reads, in the order of the flow.
ROLE_TOPICS = {
    "intake": (ACCESS,),
    "index": (EVENT, FINDING, DEAD_LETTER, ALERT),
    "detect": (EVENT, OBSERVATION),
    "notify": (FINDING,),
}
Offsets = dict[tuple[str, int], int]


def check_pipeline(settings: EngineSettings, status: Status) -> Iterator[Check]:
    """The rows of each engine that answers: where one is down, the other tells how much waits."""
    up = {one.name: one.address for one in status.engines if one.state == "running"}
    login = settings if status.engine == "external" else None
    if "elasticsearch" in up:
        yield from check_elasticsearch(up["elasticsearch"], settings.namespace, login)
    if "kafka" in up:
        yield from check_kafka(up["kafka"], settings.namespace, login)


# --- Elasticsearch -----------------------------------------------------------------------------


def check_elasticsearch(url: str, namespace: str, login: EngineSettings | None) -> Iterator[Check]:
    """The cluster's colour; then, where it lets us in, templates and write blocks."""
    colour = cluster_health(url, login)
    yield judge_cluster(url, colour)
    if colour not in (None, "refused"):
        yield judge_templates(http.get(url, f"/_index_template/{namespace}-*", login), namespace)
        path = f"/{namespace}-*/_settings/index.blocks.*"
        yield judge_blocks(http.get(url, path, login))


def judge_cluster(url: str, colour: str | None) -> Check:
    """Yellow lacks replicas only; red lacks data."""
    details = {
        "green": "green",
        "yellow": "yellow: every document is there, copies are missing (normal on one node)",
        "unreadable": "answers, but our credentials may not ask for its health",
        "refused": "refuses our credentials (401)",
        "red": "red: some shards are not there, searches and writes to them fail",
        None: "no longer answers",
    }
    steps = {
        "refused": "correct GATEBOOK_ELASTICSEARCH_API_KEY, or _USERNAME and _PASSWORD",
        "red": f"see which index it is: {url}/_cluster/health?level=indices; why: "
        f"{url}/_cluster/allocation/explain",
        None: "read its log; if it stays so, run gatebook down and gatebook up",
    }
    return Check(
        name="cluster",
        verdict="fail" if colour in steps else "ok",
        detail=details.get(colour, str(colour)),
        next_step=steps.get(colour, ""),
    )


def judge_templates(answer: http.Answer | None, namespace: str) -> Check:
    """Without its template an index would be made with the wrong mapping, so nothing is written."""
    if answer is None or answer.status not in (200, 404):
        return _unreadable("index templates", answer)
    found = {one["name"] for one in (answer.body or {}).get("index_templates", [])}
    wanted = [f"{namespace}-{kind}" for kind in KINDS]
    absent = [name for name in wanted if name not in found]
    if not absent:
        return Check(name="index templates", verdict="ok", detail=f"all {len(wanted)} exist")
    return Check(
        name="index templates",
        verdict="warn",
        detail=f"missing: {', '.join(absent)}; nothing can be indexed there",
        next_step="run: gatebook setup",
    )


def judge_blocks(answer: http.Answer | None) -> Check:
    """An index that takes no writes: the disk's flood stage, or somebody closed it to writing."""
    if answer is None or answer.status not in (200, 404):
        return _unreadable("index writes", answer)
    blocked = sorted(name for name, one in (answer.body or {}).items() if _is_blocked(one))
    if not blocked:
        return Check(name="index writes", verdict="ok", detail="no index is blocked")
    more = f" and {len(blocked) - 1} more" if len(blocked) > 1 else ""
    return Check(
        name="index writes",
        verdict="fail",
        detail=f"{blocked[0]}{more} take no writes; the index worker holds its rows and waits",
        next_step="free disk space on Elasticsearch's nodes (from 95% full they block), then it "
        "goes on by itself; else look who set index.blocks.*",
    )


def _is_blocked(index: dict[str, Any]) -> bool:
    blocks = index.get("settings", {}).get("index", {}).get("blocks", {})
    return any(value == "true" for key, value in blocks.items() if key != "metadata")


def _unreadable(name: str, answer: http.Answer | None) -> Check:
    what = f"status {answer.status}" if answer else "no answer"
    step = "give the credentials the privilege `monitor`, or ask whoever runs the cluster"
    return Check(name=name, verdict="warn", detail=f"cannot be read ({what})", next_step=step)


# --- Kafka -------------------------------------------------------------------------------------


class Group(msgspec.Struct, frozen=True):
    """One role's consumer group. lag: messages between its offsets and the ends; lost: those after
    its offsets that the topics no longer have, so that it never reads them."""

    role: str
    lag: int
    members: int
    state: str
    lost: int = 0


def check_kafka(bootstrap: str, namespace: str, login: EngineSettings | None) -> Iterator[Check]:
    """Topics; then, of those that exist, each role's lag and the dead letters."""
    from confluent_kafka import KafkaException

    properties = login.kafka_properties if login else {}
    counts = kafka.metadata_topics(bootstrap, properties) or {}
    yield judge_topics(counts, namespace)
    admin = kafka.admin_client(bootstrap, properties)  # held: its futures end with it
    try:
        yield judge_retention(retentions_ms(admin, namespace, counts))
    except KafkaException as error:
        yield _kafka_refused("topic retention", error)
    yield from check_groups(
        admin, {**properties, "bootstrap.servers": bootstrap}, namespace, counts
    )
    try:
        yield judge_dead_letters(*dead_letters(admin, namespace, counts, time.time()))
    except KafkaException as error:
        yield _kafka_refused("dead letters", error)


def check_groups(
    admin: AdminClient, login: dict[str, str], namespace: str, counts: dict[str, int]
) -> Iterator[Check]:
    """A row of each role."""
    from confluent_kafka import KafkaException

    found: dict[str, Group | KafkaException] = {}
    for role in ROLE_TOPICS:
        try:
            found[role] = _patiently(lambda r=role: group_of(admin, login, namespace, r, counts))  # type: ignore[misc]  # bound per turn
        except KafkaException as error:
            found[role] = error
    is_any_running = any(isinstance(one, Group) and one.members for one in found.values())
    for role, one in found.items():
        if isinstance(one, Group):
            yield judge_group(one, is_any_running)
        else:
            yield _kafka_refused(f"worker {role}", one)


def groups(
    bootstrap: str, namespace: str, login: Mapping[str, str], timeout_seconds: float
) -> list[Group] | None:
    """Every role's consumer group, in the order of the flow; None where no broker answers within
    the time. Raises KafkaException where one answers and does not tell."""
    counts = kafka.metadata_topics(bootstrap, login, timeout_seconds)
    if counts is None:
        return None
    admin = kafka.admin_client(bootstrap, login)
    given = {**login, "bootstrap.servers": bootstrap}
    return [group_of(admin, given, namespace, role, counts) for role in ROLE_TOPICS]


def _patiently(ask: Callable[[], Group]) -> Group:
    """Ask again for some seconds while the broker prepares its first consumer group."""
    deadline = time.monotonic() + COORDINATOR_WAIT_SECONDS
    while True:
        try:
            return ask()
        except Exception as error:
            if _code(error) not in NOT_READY or time.monotonic() > deadline:
                raise
        time.sleep(POLL_SECONDS)


def judge_topics(counts: dict[str, int], namespace: str) -> Check:
    """Producers and workers find no topic by themselves: none is made by a typing error."""
    wanted = [topic_name(namespace, key) for key in all_topics()]
    absent = [topic for topic in wanted if topic not in counts]
    if not absent:
        return Check(name="topics", verdict="ok", detail=f"all {len(wanted)} exist")
    return Check(
        name="topics",
        verdict="warn",
        detail=f"missing: {', '.join(absent)}; producers keep events in their spools until then",
        next_step=f"run: gatebook setup (or correct GATEBOOK_NAMESPACE, now {namespace})",
    )


def group_of(
    admin: AdminClient, login: dict[str, str], namespace: str, role: str, counts: dict[str, int]
) -> Group:
    """How a role's group stands now. KafkaException where the broker does not tell."""
    from confluent_kafka import TopicPartition

    topics = [topic_name(namespace, key) for key in ROLE_TOPICS[role]]
    parts = [TopicPartition(t, number) for t in topics for number in range(counts.get(t, 0))]
    name = f"{namespace}-{role}"
    first, end = _offsets(admin, parts, "earliest"), _offsets(admin, parts, "latest")
    committed = _committed(login, name, parts)
    lag = sum(end[at] - min(end[at], max(first[at], committed.get(at, 0))) for at in end)
    members, state = _members(admin, name)
    return Group(role, lag, members, state, lost_unread(first, committed))


def lost_unread(first: Offsets, committed: Offsets) -> int:
    """Messages that a group was to read next and that are gone. A group that never committed
    has lost nothing: it begins with what is there."""
    return sum(max(0, first[at] - offset) for at, offset in committed.items() if offset >= 0)


def judge_group(group: Group, is_any_running: bool = True) -> Check:
    """Messages that wait are fine while somebody reads them. Messages that went unread are not,
    until the group has read on."""
    name = f"worker {group.role}"
    who = f"{group.members} running" if group.members else "none running"
    start = f"gatebook worker {group.role}" if is_any_running else "gatebook worker (all roles)"
    if group.lost:
        return Check(
            name=name,
            verdict="warn",
            detail=f"{who}; {group.lost} messages were deleted from its topics before it read them",
            next_step="keep messages for longer (retention.ms of its topics) than the worker may "
            "be down" + ("" if group.members else f"; start it: {start}"),
        )
    if group.lag and not group.members:
        return Check(
            name=name,
            verdict="warn",
            detail=f"none running, and {group.lag} messages wait",
            next_step=f"start it: {start}; what waits is kept until the topic's retention ends",
        )
    if group.lag:
        detail = f"{who}, {group.lag} messages behind ({group.state}); look again: it should fall"
    else:
        detail = f"{who}, nothing waits"
    return Check(name=name, verdict="ok", detail=detail)


def retentions_ms(admin: AdminClient, namespace: str, counts: dict[str, int]) -> dict[str, int]:
    """How long each of our topics that exist keeps a message; compacted ones keep the last of each
    key and are left out, as are those without a limit."""
    from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]  # not marked so

    topics = [t for key in all_topics() if (t := topic_name(namespace, key)) in counts]
    asked = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    answers = (
        admin.describe_configs(asked, request_timeout=REQUEST_TIMEOUT_SECONDS) if asked else {}
    )
    found: dict[str, int] = {}
    for resource, future in answers.items():
        entries = future.result()
        kept_ms = int(entries["retention.ms"].value)
        if "delete" in entries["cleanup.policy"].value and kept_ms >= 0:
            found[str(resource.name)] = kept_ms
    return found


def judge_retention(kept_ms: Mapping[str, int]) -> Check:
    """A topic that forgets within the hour loses what a worker's restart or upgrade leaves."""
    short = {topic: ms for topic, ms in kept_ms.items() if ms < SHORT_RETENTION_MS}
    if not short:
        return Check(name="topic retention", verdict="ok", detail="an hour or longer")
    told = ", ".join(f"{topic} {ms / 60_000:g} min" for topic, ms in sorted(short.items()))
    return Check(
        name="topic retention",
        verdict="warn",
        detail=f"under an hour: {told}; what no worker has read by then is lost",
        next_step="set retention.ms of these topics higher (the default is days), and see "
        "[kafka] and the layers of the retention policy",
    )


def dead_letters(
    admin: AdminClient, namespace: str, counts: dict[str, int], now_seconds: float
) -> tuple[int, int, str]:
    """Messages in the dead-letter topic: of the last day, and all; and the topic's name."""
    from confluent_kafka import TopicPartition

    topic = topic_name(namespace, DEAD_LETTER)
    parts = [TopicPartition(topic, number) for number in range(counts.get(topic, 0))]
    first, end = _offsets(admin, parts, "earliest"), _offsets(admin, parts, "latest")
    since = _offsets(admin, parts, int((now_seconds - DAY_SECONDS) * 1000))
    # An offset of -1: no message is that young.
    young = sum(end[at] - (since[at] if since[at] >= 0 else end[at]) for at in end)
    return young, sum(end[at] - first[at] for at in end), topic


def judge_dead_letters(last_day: int, kept: int, topic: str) -> Check:
    """Each is one or more events that are not in the index, with the reason."""
    if not kept:
        return Check(name="dead letters", verdict="ok", detail="none")
    detail = f"{last_day} in the last 24 hours, {kept} kept in {topic}"
    if not last_day:
        return Check(name="dead letters", verdict="ok", detail=detail)
    step = "see why: gatebook search --kind deadletter --since 24h"
    return Check(name="dead letters", verdict="warn", detail=detail, next_step=step)


def _offsets(admin: AdminClient, parts: list[TopicPartition], at: str | int) -> Offsets:
    """The first, the next, or the first offset since a time in milliseconds, by partition."""
    from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # not marked so

    # These three have no types.
    if isinstance(at, int):
        spec = OffsetSpec.for_timestamp(at)
    elif at == "earliest":
        spec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
    else:
        spec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    if not parts:
        return {}
    found: dict[TopicPartition, Future[Any]] = admin.list_offsets(
        dict.fromkeys(parts, spec), request_timeout=REQUEST_TIMEOUT_SECONDS
    )
    return {
        (part.topic, part.partition): int(future.result().offset) for part, future in found.items()
    }


def _committed(login: dict[str, str], group: str, parts: list[TopicPartition]) -> Offsets:
    """What the group has committed; -1001 where nothing. Asking does not join the group.

    By a consumer and not by the admin client: on a broker that never had a group, the answer to
    `list_consumer_group_offsets` ends the process with SIGSEGV (confluent-kafka 2.16).
    """
    from confluent_kafka import Consumer

    if not parts:
        return {}
    consumer = Consumer({**login, "group.id": group}, logger=kafka.quiet_logger())
    try:
        found = consumer.committed(parts, timeout=REQUEST_TIMEOUT_SECONDS)
        return {(one.topic, one.partition): one.offset for one in found}
    finally:
        consumer.close()


def _members(admin: AdminClient, group: str) -> tuple[int, str]:
    from confluent_kafka import KafkaException

    asked = admin.describe_consumer_groups([group], request_timeout=REQUEST_TIMEOUT_SECONDS)
    try:
        found = asked[group].result()
    except KafkaException as error:
        if _code(error) == "GROUP_ID_NOT_FOUND":  # nobody was ever in it
            return 0, "empty"
        raise
    return len(found.members), found.state.name.lower().replace("_", " ")


def _kafka_refused(name: str, error: Exception) -> Check:
    return Check(
        name=name,
        verdict="warn",
        detail=f"Kafka does not tell ({_code(error)})",
        next_step="see that this user may describe groups and topics, then look again",
    )


def _code(error: Exception) -> str:
    from confluent_kafka import KafkaError

    inner = error.args[0] if error.args else None
    return str(inner.name()) if isinstance(inner, KafkaError) else type(error).__name__
