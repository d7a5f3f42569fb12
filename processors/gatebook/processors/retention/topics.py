"""Kafka's topics hold the same layers: kept no longer than the policy allows, and long enough for
a replay.

Kafka deletes whole segments, and the one that is written to stays: a message lives for up to
retention.ms and segment.ms together. So both are looked at, and both are set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not marked so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from msgspec import Struct

from gatebook.processors.retention.policy import LAYERS, Policy
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
# Detectors and intents; a topic that is gone in less loses what they wait for.
OF_KIND = {FINDING: "finding", ALERT: "alert", DEAD_LETTER: "deadletter"}
TOPICS = (ACCESS, EVENT, *OF_KIND)


class TopicTerms(Struct, frozen=True, kw_only=True):
    """One topic: what the policy allows, what a replay needs, and how long messages really stay.
    Seconds; None: not known, or without end."""

    name: str
    allowed_seconds: float | None
    replay_seconds: float
    kept_seconds: float | None
    problem: str = ""
    wanted: dict[str, str] = {}

    @property
    def is_beyond_setting(self) -> bool:
        """Whether no retention of the topic's could do for both the policy and a replay."""
        return self.allowed_seconds is not None and self.replay_seconds > self.allowed_seconds


def allowed_seconds(policy: Policy, key: str) -> float:
    """How long the policy lets a topic keep messages. The topics of events hold every layer, so
    the one that is kept shortest decides."""
    if key in OF_KIND:
        return policy.kind_seconds(OF_KIND[key])
    return min(policy.shortest_seconds(layer) for layer in LAYERS)


def wanted_config(policy: Policy, key: str) -> dict[str, str]:
    """retention.ms and segment.ms of a topic. Never less than a replay needs."""
    replay = policy.seconds_of(policy.file.kafka.replay)
    usual = all_topics()[key].retention_hours * HOUR_SECONDS
    whole = min(float(usual), allowed_seconds(policy, key))
    segment = max(SHORTEST_SEGMENT_SECONDS, min(LONGEST_SEGMENT_SECONDS, whole / 4))
    retention = max(whole - segment, replay)
    return {"retention.ms": str(int(retention * 1000)), "segment.ms": str(int(segment * 1000))}


def judged(policy: Policy, name: str, key: str, config: Mapping[str, str]) -> TopicTerms:
    """What is wrong with a topic. Pure."""
    allowed, replay = allowed_seconds(policy, key), policy.seconds_of(policy.file.kafka.replay)
    kept, least = _kept(config)
    problem = ""
    if replay > allowed:
        problem = "a replay needs it longer than the policy allows"
    elif kept is None:
        problem = "kept without end"
    elif kept > allowed:
        problem = f"kept for up to {_told(kept)}, the policy allows {_told(allowed)}"
    elif least < replay:
        problem = f"kept for {_told(least)}, a replay needs {_told(replay)}"
    return TopicTerms(
        name=name,
        allowed_seconds=None if allowed == float("inf") else allowed,
        replay_seconds=replay,
        kept_seconds=kept,
        problem=problem if kept is not None or allowed != float("inf") else "",
        wanted=wanted_config(policy, key),
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


def set_topics(
    namespace: str, found: Sequence[TopicTerms], properties: Mapping[str, Any]
) -> list[str]:
    """Give those with a problem what they should have; their names. Raises Fatal."""
    admin = AdminClient(dict(properties))
    wrong = [one for one in found if one.problem and not one.is_beyond_setting]
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            one.name,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in one.wanted.items()
            ],
        )
        for one in wrong
    ]
    if not resources:
        return []
    try:
        for change in admin.incremental_alter_configs(resources).values():
            change.result(TIMEOUT_SECONDS)
    except KafkaException as error:
        raise Fatal(
            f"Kafka refuses to change a topic of {namespace} ({error.args[0].name()})",
            "see that the user may alter topic configurations",
        ) from None
    return [one.name for one in wrong]


def _config(admin: AdminClient, name: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, name)
    try:
        entries = admin.describe_configs([resource])[resource].result(TIMEOUT_SECONDS)
    except KafkaException as error:
        raise Fatal(
            f"Kafka does not tell the configuration of {name} ({error.args[0].name()})",
            "start it, run `gatebook setup`, see that the user may describe topics",
        ) from None
    return {key: str(entry.value) for key, entry in entries.items()}
