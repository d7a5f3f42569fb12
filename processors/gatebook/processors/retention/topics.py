"""Kafka's topics hold the same layers: kept no longer than the policy allows, and long enough for
a replay.

Kafka deletes whole segments, and the one that is written to stays: a message lives for up to
retention.ms and segment.ms together. So both are looked at, and both are set.

What a topic loses before it was read is lost for good. So no policy makes retention.ms shorter
than an hour, and none is made shorter while a group has not read what waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not marked so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from msgspec import Struct
from msgspec.structs import replace

from gatebook.processors.retention.policy import LAYERS, LEAST_IN_TOPIC_SECONDS, Policy
from gatebook.processors.retention.unread import PATIENCE_SECONDS, who_waits
from gatebook.schemas.errors import Fatal
from gatebook.schemas.topics import (
    ACCESS,
    ALERT,
    DEAD_LETTER,
    EVENT,
    FINDING,
    all_topics,
    topic_name,
)

TIMEOUT_SECONDS = 10.0
LONGEST_SEGMENT_SECONDS = 6 * 3600
SHORTEST_SEGMENT_SECONDS = 60
HOUR_SECONDS = 3600
LEAST_RETENTION_SECONDS = HOUR_SECONDS
RETENTION, SEGMENT = SETTINGS = ("retention.ms", "segment.ms")
# Detectors and intents; a topic that is gone in less loses what they wait for.
OF_KIND = {FINDING: "finding", ALERT: "alert", DEAD_LETTER: "deadletter"}
TOPICS = (ACCESS, EVENT, *OF_KIND)


class TopicTerms(Struct, frozen=True, kw_only=True):
    """One topic: what the policy allows, what a replay needs, and how long messages really stay.
    Seconds; None: not known, or without end. `has` and `wanted` are settings of the topic's."""

    name: str
    key: str
    allowed_seconds: float | None
    replay_seconds: float
    kept_seconds: float | None
    problem: str = ""
    wanted: dict[str, str] = {}
    has: dict[str, str] = {}

    @property
    def is_beyond_setting(self) -> bool:
        """Whether no retention of the topic's could do for both the policy and a replay."""
        return self.allowed_seconds is not None and self.replay_seconds > self.allowed_seconds


class TopicChange(Struct, frozen=True, kw_only=True):
    """What is set of a topic: milliseconds by setting, before and after. `waiting`: the group that
    has not read what is there, and for whose sake nothing is set. `failed`: why it could not be."""

    name: str
    key: str
    before: dict[str, str]
    after: dict[str, str]
    waiting: str = ""
    failed: str = ""

    @property
    def is_shorter(self) -> bool:
        """Whether messages would go earlier than they do."""
        return any(
            _ends(self.after[name]) < _ends(self.before.get(name, "-1")) for name in SETTINGS
        )

    def told(self) -> str:
        """One line: old and new."""
        parts = [
            f"{name} {_told_ms(self.before.get(name, '-1'))} -> {_told_ms(self.after[name])}"
            for name in self.after
            if self.after[name] != self.before.get(name)
        ]
        return f"{self.name}: {', '.join(parts)}"


def _ends(text: str) -> float:
    return float("inf") if float(text) < 0 else float(text)


def _told_ms(text: str) -> str:
    return "without end" if float(text) < 0 else f"{text} ({_told(float(text) / 1000)})"


def allowed_seconds(policy: Policy, key: str) -> float:
    """How long the policy lets a topic keep messages. The topics of events hold every layer, so
    the one that is kept shortest decides; but never less than workers need to read them."""
    if key in OF_KIND:
        said = policy.kind_seconds(OF_KIND[key])
    else:
        said = min(policy.shortest_seconds(layer) for layer in LAYERS)
    return max(said, LEAST_IN_TOPIC_SECONDS)


def wanted_config(policy: Policy, key: str) -> dict[str, str]:
    """retention.ms and segment.ms of a topic. Never less than a replay needs, nor than an hour."""
    replay, allowed = policy.seconds_of(policy.file.kafka.replay), allowed_seconds(policy, key)
    usual = all_topics()[key].retention_hours * HOUR_SECONDS
    whole = min(float(usual), allowed)
    segment = min(LONGEST_SEGMENT_SECONDS, whole / 4)
    retention = max(whole - segment, replay, LEAST_RETENTION_SECONDS)
    segment = max(SHORTEST_SEGMENT_SECONDS, min(segment, allowed - retention))
    return {RETENTION: _ms(retention), SEGMENT: _ms(segment)}


def _ms(seconds: float) -> str:
    return "-1" if seconds == float("inf") else str(int(seconds * 1000))


def judged(policy: Policy, name: str, key: str, config: Mapping[str, str]) -> TopicTerms:
    """What is wrong with a topic. Pure."""
    allowed, replay = allowed_seconds(policy, key), policy.seconds_of(policy.file.kafka.replay)
    kept, least = _kept(config)
    problem = ""
    if replay > allowed:
        problem = "a replay needs it longer than the policy allows"
    elif kept is None:
        problem = "kept without end"
    elif kept > allowed + SHORTEST_SEGMENT_SECONDS:  # a segment can be no shorter
        problem = f"kept for up to {_told(kept)}, the policy allows {_told(allowed)}"
    elif least < replay:
        problem = f"kept for {_told(least)}, a replay needs {_told(replay)}"
    return TopicTerms(
        name=name,
        key=key,
        allowed_seconds=None if allowed == float("inf") else allowed,
        replay_seconds=replay,
        kept_seconds=kept,
        problem=problem if kept is not None or allowed != float("inf") else "",
        wanted=wanted_config(policy, key),
        has={setting: config[setting] for setting in SETTINGS if setting in config},
    )


def next_step(policy: Policy, found: TopicTerms) -> str:
    """What to do about a topic's problem."""
    if found.is_beyond_setting:
        return "change kafka.replay or a layer"
    if policy.file.kafka.set:
        return "`gatebook retention apply` sets it"
    return (
        "write set = true under [kafka] in the policy and `gatebook retention apply` sets it, or "
        "give the topic " + ", ".join(f"{name}={value}" for name, value in found.wanted.items())
    )


def _kept(config: Mapping[str, str]) -> tuple[float | None, float]:
    """The longest and the shortest time a message may stay, in seconds."""
    retention = float(config.get("retention.ms", -1)) / 1000
    segment = float(config.get("segment.ms", 0)) / 1000
    if retention < 0:
        return None, float("inf")
    return retention + segment, retention


def _told(seconds: float) -> str:
    return f"{seconds / HOUR_SECONDS:g} h"


def check_topics(policy: Policy, namespace: str, properties: Mapping[str, Any]) -> list[TopicTerms]:
    """Every topic that holds what the policy is about. Raises Fatal where Kafka does not answer."""
    admin = AdminClient(dict(properties))
    found = []
    for key in TOPICS:
        name = topic_name(namespace, key)
        found.append(judged(policy, name, key, _config(admin, name)))
    return found


class Topics(Protocol):
    """What a run asks of the topics."""

    async def changes(self, policy: Policy) -> list[TopicChange]:
        """What a policy would set, and what stands against it. Changes nothing."""

    async def set(self, changes: Sequence[TopicChange]) -> list[TopicChange]:
        """Set it, where still no group waits; the changes with what stood against them."""


@dataclass(frozen=True)
class KafkaTopics:
    """The topics of a namespace. `patience_seconds`: messages that wait for longer stand against
    a change. What it does may raise Fatal."""

    namespace: str
    properties: Mapping[str, Any]
    patience_seconds: float = PATIENCE_SECONDS

    async def changes(self, policy: Policy) -> list[TopicChange]:
        """See Topics. None where the policy leaves topics alone."""
        return await asyncio.to_thread(self._changes, policy)

    async def set(self, changes: Sequence[TopicChange]) -> list[TopicChange]:
        """See Topics."""
        return [await asyncio.to_thread(self._set, one) for one in changes]

    def _changes(self, policy: Policy) -> list[TopicChange]:
        if not policy.file.kafka.set:
            return []
        found = check_topics(policy, self.namespace, self.properties)
        return [
            self._looked(TopicChange(name=one.name, key=one.key, before=one.has, after=one.wanted))
            for one in found
            if one.problem and not one.is_beyond_setting
        ]

    def _looked(self, change: TopicChange) -> TopicChange:
        """With who waits, where messages would go earlier than they do."""
        if not change.is_shorter:
            return change
        given = (self.namespace, change.key, change.name, self.properties, self.patience_seconds)
        return replace(change, waiting=who_waits(*given))

    def _set(self, change: TopicChange) -> TopicChange:
        looked = self._looked(change)  # again: workers may have stopped since the plan
        if not looked.waiting:
            set_topic(change.name, change.after, self.properties)
        return looked


def set_topic(name: str, wanted: Mapping[str, str], properties: Mapping[str, Any]) -> None:
    """Give a topic these settings. Raises Fatal."""
    entries = [
        ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
        for setting, value in wanted.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
    admin = AdminClient(dict(properties))
    try:
        for change in admin.incremental_alter_configs([resource]).values():
            change.result(TIMEOUT_SECONDS)
    except (KafkaException, TimeoutError) as error:
        raise Fatal(
            f"Kafka does not change {name} ({_why(error)})",
            "see that the user may alter topic configurations",
        ) from None


def _why(error: Exception) -> str:
    """The code of a broker's answer; that there was none."""
    return error.args[0].name() if isinstance(error, KafkaException) else "no answer"


def _config(admin: AdminClient, name: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, name)
    try:
        entries = admin.describe_configs([resource])[resource].result(TIMEOUT_SECONDS)
    except (KafkaException, TimeoutError) as error:
        raise Fatal(
            f"Kafka does not tell the configuration of {name} ({_why(error)})",
            "start it, run `gatebook setup`, see that the user may describe topics",
        ) from None
    return {key: str(entry.value) for key, entry in entries.items()}
