"""Findings straight into the finding topic, and notify workers that tell local receivers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from tests.contracts.alert_receivers import (
    GENIE_KEY,
    ROUTING_KEY,
    SIGNING_SECRET,
    SLACK_PATH,
)
from tests.pipeline import Pipeline
from tests.unit.alerts.findings import NS, finding

from gatebook.schemas.codec import encode
from gatebook.schemas.topics import FINDING, topic_name

SECRETS = {
    "TEST_ROUTING_KEY": ROUTING_KEY,
    "TEST_GENIE_KEY": GENIE_KEY,
    "TEST_SIGNING_SECRET": SIGNING_SECRET,
}
FAST = {
    "GATEBOOK_ALERT_ALLOW_PRIVATE": "true",
    "GATEBOOK_ALERT_DEADLINE_SECONDS": "2",
    "GATEBOOK_ALERT_REQUEST_TIMEOUT_SECONDS": "1",
    "GATEBOOK_ALERT_FIRST_PAUSE_SECONDS": "0.05",
    "GATEBOOK_ALERT_LONGEST_PAUSE_SECONDS": "0.2",
    "GATEBOOK_ALERT_RETRY_SECONDS": "0.5",
}


def pagerduty(url: str) -> str:
    """Table of a target at a local receiver."""
    return (
        f'[targets.pager]\ntype = "pagerduty"\nurl = "{url}/v2/enqueue"\n'
        'routing_key = "env:TEST_ROUTING_KEY"\nplaintext_auth = "allow"\n'
    )


def webhook(url: str) -> str:
    """Table of a target at a local receiver."""
    return (
        f'[targets.hook]\ntype = "webhook"\nurl = "{url}/hook"\n'
        'secrets = ["env:TEST_SIGNING_SECRET"]\n'
    )


def slack(url: str) -> tuple[str, dict[str, str]]:
    """Table of a target at a local receiver, and the variable with its URL."""
    table = '[targets.chat]\ntype = "slack"\nurl = "env:TEST_SLACK_URL"\n'
    return table, {"TEST_SLACK_URL": url + SLACK_PATH}


def now_finding(principal: str = "acme/eve", **ours: Any) -> dict[str, Any]:
    """A finding of this moment."""
    return finding(principal, time.time_ns() - 9 * NS, **ours)


class AlertPipeline:
    """Findings in, notify workers, what they recorded out."""

    def __init__(self, pipeline: Pipeline, *tables: str, **environment: str) -> None:
        self.pipeline = pipeline
        file = Path(pipeline.home) / "alerts.toml"
        file.write_text("\n".join(tables))
        self.environment = {
            **FAST,
            **SECRETS,
            "GATEBOOK_ALERTS_FILE": str(file),
            **environment,
        }
        self._producer = Producer(
            {
                "bootstrap.servers": pipeline.engines.kafka_bootstrap,
                "acks": "all",
                "log_level": 0,  # the engines end before it does
            }
        )

    def start(self, count: int = 1) -> list[Any]:
        """Start notify workers."""
        return [self.pipeline.start("notify", **self.environment)[0] for _ in range(count)]

    def send(self, findings: Iterable[Mapping[str, Any]]) -> None:
        """Findings to the topic; returns when the broker has them."""
        topic = topic_name(self.pipeline.namespace, FINDING)
        for one in findings:
            self._producer.produce(
                topic, encode("finding.v2", one), key=one["gatebook"]["dedup_key"].encode()
            )
            self._producer.poll(0)
        assert self._producer.flush(60) == 0

    def records(self) -> list[dict[str, Any]]:
        """Deliveries recorded so far, each id once."""
        found = self.pipeline.read_topic("alert.v1", "alert.v2")
        return list({record["event"]["id"]: record for record in found}.values())
