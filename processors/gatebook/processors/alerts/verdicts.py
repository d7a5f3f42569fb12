"""What a person says of a finding: written to the finding topic under its dedup key, so that it
is indexed like a finding and reaches notify in its turn; and read back from the index.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Literal
from uuid import UUID, uuid5

import msgspec
from confluent_kafka import KafkaException, Producer

from gatebook.processors.alerts.base import ACKNOWLEDGED, CLOSED, FIRING, RESOLVED
from gatebook.processors.alerts.text import plain
from gatebook.processors.search.service import search
from gatebook.processors.sinks.connection import Connection
from gatebook.schemas.codec import SINGLE_OBJECT, Record, encode
from gatebook.schemas.errors import Fatal
from gatebook.schemas.topics import FINDING, topic_name
from gatebook.schemas.wire import WireFormat

NAMESPACE_VERDICT = UUID("b3b6a9c2-6f6c-5c3c-8d0a-7d9e6a2c4f18")
VERDICTS = ("true_positive", "false_positive", "benign")
FINDING_ID_LABEL = "finding_id"
BY_LABEL = "by"
MAX_REASON_CHARACTERS = 512
SEND_TIMEOUT_SECONDS = 15.0
Word = Literal["closed", "acknowledged"]
Document = Mapping[str, Any]


class Problem(msgspec.Struct, kw_only=True):
    """All that the index has of one incident, newest facts first."""

    finding: dict[str, Any]
    """Document of its latest firing."""
    state: str = FIRING
    """firing, acknowledged, resolved or closed."""
    verdict: str = ""
    reason: str = ""
    """Why a person closed it."""
    by: str = ""
    """Who closed it, or has it in hand."""
    findings: int = 0
    """Firings that the index has."""


def word_on(
    document: Document,
    word: Word,
    now_ns: int,
    *,
    verdict: str = "",
    reason: str = "",
    by: str = "",
) -> Record:
    """The record, of schema finding.v2, of a person's word on the finding of a document."""
    ours, event, rule = document["gatebook"], document["event"], document["rule"]
    said = f"{event['id']}|{word}|{verdict}|{now_ns}"
    return {
        "timestamp": now_ns,
        "event": {
            "id": str(uuid5(NAMESPACE_VERDICT, said)),
            "kind": "alert",
            "action": word,
            "reason": plain(reason, MAX_REASON_CHARACTERS),
            "start": now_ns,
            "end": now_ns,
        },
        "rule": {name: str(rule.get(name) or "") for name in ("id", "name", "version")},
        "organization": {"id": (document.get("organization") or {}).get("id") or ""},
        "gatebook": {
            "principal": ours.get("principal") or "",
            "severity": ours.get("severity") or "",
            "dedup_key": ours["dedup_key"],
            "incident": ours.get("incident") or "",
            "observed": ours.get("observed"),
            "verdict": verdict,
            "team": ours.get("team") or "",
        },
        "labels": {FINDING_ID_LABEL: event["id"], BY_LABEL: plain(by, 256)},
    }


def send(
    record: Record, namespace: str, properties: dict[str, Any], wire: WireFormat = SINGLE_OBJECT
) -> None:
    """Write a person's word to the finding topic; returns when the brokers have it. Raises
    Fatal."""
    failed: list[Any] = []
    producer = Producer({**properties, "acks": "all", "enable.idempotence": True})
    try:
        producer.produce(
            topic_name(namespace, FINDING),
            encode("finding.v2", record, wire),
            key=record["gatebook"]["dedup_key"].encode("utf-8", "replace"),
            on_delivery=lambda error, _message: failed.append(error) if error else None,
        )
        left = producer.flush(SEND_TIMEOUT_SECONDS)
    except KafkaException as error:
        raise Fatal(f"Kafka refuses it: {error.args[0].name()}", "see `gatebook doctor`") from None
    if left or failed:
        raise Fatal("Kafka does not take it; nothing was changed", "see `gatebook doctor`")


def problem_key(document: Document) -> str:
    """What findings of one problem have in common."""
    ours = document["gatebook"]
    own = document.get("labels") or {}
    return str(ours.get("incident") or own.get(FINDING_ID_LABEL) or document["event"]["id"])


def newest_firing(documents: Iterable[Document], finding_id: str) -> Document | None:
    """The finding that a word is about, of findings and words, oldest first: the one that has
    this id itself, else the newest of its incident; None: there is none."""
    firing = [d for d in documents if d["event"].get("action") in (FIRING, None)]
    own = [d for d in firing if d["event"]["id"] == finding_id]
    return next(reversed(own or firing), None)


def problems(documents: Iterable[Document]) -> list[Problem]:
    """Findings and words on them, newest first, as one entry a problem, in that order."""
    found: dict[str, Problem] = {}
    words: dict[str, list[Document]] = {}
    for document in documents:
        action, key = document["event"].get("action"), problem_key(document)
        if action in (FIRING, None):
            problem = found.setdefault(key, Problem(finding=dict(document)))
            problem.findings += 1
        else:
            words.setdefault(key, []).append(document)
    for key, problem in found.items():
        for document in reversed(words.get(key, ())):
            _apply(problem, document)
    return list(found.values())


def judged(documents: Sequence[Document]) -> list[Problem]:
    """The problems that have a verdict, of findings and words, oldest first."""
    return [problem for problem in problems(reversed(documents)) if problem.verdict]


def _apply(problem: Problem, word: Document) -> None:
    """Take in what was said later; a verdict stays, whatever comes after it."""
    action = word["event"]["action"]
    if action == CLOSED:
        problem.state = CLOSED
        problem.verdict = word["gatebook"].get("verdict") or ""
        problem.reason = word["event"].get("reason") or ""
        problem.by = (word.get("labels") or {}).get(BY_LABEL) or ""
    elif problem.state != CLOSED and action in (ACKNOWLEDGED, RESOLVED):
        problem.state = action
        if action == ACKNOWLEDGED:
            problem.by = (word.get("labels") or {}).get(BY_LABEL) or ""


async def read_problems(
    connection: Connection, namespace: str, query: str = "", since: str | None = "7d"
) -> list[Problem]:
    """Problems of the index, newest first."""
    documents: list[Document] = []
    async for page in search(connection, namespace, query, since=since, size=None, kind="finding"):
        documents += [hit.source for hit in page.hits]
    return problems(documents)


async def verdict_counts(
    connection: Connection, namespace: str, since: str | None = None
) -> dict[str, dict[str, int]]:
    """Rule id to verdict to how many problems were closed so; each problem counts by its last."""
    last: dict[str, tuple[str, str]] = {}
    async for document in _closings(connection, namespace, since):
        said = (document["rule"]["id"], document["gatebook"].get("verdict") or "")
        last.setdefault(problem_key(document), said)
    counts: dict[str, dict[str, int]] = {}
    for rule_id, verdict in last.values():
        of_rule = counts.setdefault(rule_id, {})
        of_rule[verdict] = of_rule.get(verdict, 0) + 1
    return counts


async def _closings(
    connection: Connection, namespace: str, since: str | None
) -> AsyncIterator[Document]:
    query = f"event.action:{CLOSED}"
    async for page in search(connection, namespace, query, since=since, size=None, kind="finding"):
        for hit in page.hits:
            yield hit.source
