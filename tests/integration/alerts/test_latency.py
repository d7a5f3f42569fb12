"""How long it takes from an access to whoever is on call."""

from __future__ import annotations

import json
import time

from tests.contracts.alert_receivers import PagerDutyReceiver
from tests.faults.alert_pipeline import AlertPipeline, pagerduty
from tests.pipeline import Pipeline, make_event
from tests.waiting import wait_until

WIDE = '[noise]\ngroup_size = 100000\n[teams.all]\nrule = "*"\npage_budget = 1000000\n'
BURSTS = 40


def test_from_the_last_event_of_a_burst_to_the_page(pipeline: Pipeline) -> None:
    """Forty people fail fifteen times each, one person after the other: through Kafka, intake,
    detection and notify, all but the slowest few are at the pager within a second."""
    with PagerDutyReceiver() as pager:
        alerts = AlertPipeline(pipeline, pagerduty(pager.url), WIDE)
        pipeline.start("intake", "detect")
        alerts.start()

        def told(user: str) -> list[float]:
            kept = zip(pager.kept, pager.times)  # noqa: B905 - one may be a knock behind
            return [at for event, at in kept if f"user:{user}" in json.dumps(event)]

        def burst(user: str) -> float:
            sent = time.time()
            pipeline.publish([make_event(user, "failure") for _ in range(15)])
            wait_until(f"a page about {user}", lambda: told(user), 90)
            return told(user)[0] - sent

        burst("warm")
        took = sorted(burst(f"eve{number}") for number in range(BURSTS))
    p50, p95 = took[BURSTS // 2], took[BURSTS * 95 // 100]
    print(f"event to page: p50 {p50:.3f} s, p95 {p95:.3f} s, at most {took[-1]:.3f} s")
    assert p95 < 1.0
