"""How long it takes from an event to an alert at its target: real engines, workers and HTTP.

A probe is one failed access of somebody new, with `failure_burst` set to fire at the first, among
ordinary accesses in the same frame. The clock runs from before the frame is handed to Kafka to when
the receiver has the alert, through intake, detection with all rules on, and notify. Workers run as
they come, but for a page budget and groups wide enough for all probes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.context import Context, drop_indices, running_engines
from tests.benchmarks.redaction.goals import Goal
from tests.benchmarks.report import percentile
from tests.pipeline import Pipeline, make_event
from tests.waiting import wait_until

from gatebook.cli.demo.alert_receiver import AlertReceiver

PROBES, QUICK_PROBES, WARM_UP = 200, 30, 5
COMPANY = 25
EVERY_SECONDS = 0.25
TIMEOUT_SECONDS = 60.0
GOAL_SECONDS = 1.0
DETECTORS = "[failure_burst]\nthreshold = 1\n"
ALERTS = """\
[teams.all]
rule = ["*"]
page_budget = 100000

[noise]
group_size = 100000
"""
WORKERS = ("intake", "index", "detect", "notify")


class Receiver(AlertReceiver):
    """Notes when the first alert about each probe came."""

    def __init__(self) -> None:
        super().__init__()
        self.came: dict[str, float] = {}

    def take(self, body: bytes, authorization: str) -> tuple[int, Mapping[str, str]]:
        """As Alertmanager; the moment is that of the whole body."""
        now = time.monotonic()
        answer = super().take(body, authorization)
        for part in body.split(b"user:probe-")[1:]:
            self.came.setdefault(part[:6].decode(), now)
        return answer


def run(quick: bool) -> tuple[list[str], list[Goal], dict[str, Any]]:
    """Figures in milliseconds and the goal."""
    count = QUICK_PROBES if quick else PROBES
    with running_engines() as (engines, home):
        context = Context(engines=engines, home=home, rounds=1, events=0, quick=quick)
        with Receiver() as receiver, _place(context, receiver) as place:
            probes = [f"{number:06d}" for number in range(count + WARM_UP)]
            sent = {}
            for number, probe in enumerate(probes):
                if number <= WARM_UP:  # the first ones wait for partitions, connections, caches
                    wait_until("the one before", lambda n=number: len(receiver.came) >= n, 120)
                sent[probe] = _send(place, probe)
                time.sleep(EVERY_SECONDS)  # waits: for the moment the next probe comes
            wait_until("all alerts", lambda: receiver.came.keys() >= set(probes), TIMEOUT_SECONDS)
    taken = [receiver.came[probe] - sent[probe] for probe in probes[WARM_UP:]]
    return _lines(taken), [_goal(taken)], {"seconds": taken}


def _lines(taken: list[float]) -> list[str]:
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "worst": 1.0}
    found = ", ".join(f"{name} {percentile(taken, s) * 1000:,.0f}" for name, s in shares.items())
    told = f"{len(taken)} alerts, one in {EVERY_SECONDS} s, each in a frame of {COMPANY + 1} events"
    return [told, f"milliseconds from event to target: {found}", ""]


def _goal(taken: list[float]) -> Goal:
    p99 = percentile(taken, 0.99)
    return Goal("event to alert target, p99", "< 1 s", f"{p99:.2f} s", p99 < GOAL_SECONDS)


def _send(place: Pipeline, probe: str) -> float:
    """Publish a frame; when that began."""
    users = (f"user-{random.Random(probe).randrange(50)}" for _ in range(COMPANY))
    events = [make_event(user) for user in users]
    events.append(make_event(f"probe-{probe}", "failure"))
    begun = time.monotonic()
    place.publish(events)
    return begun


@contextmanager
def _place(context: Context, receiver: AlertReceiver) -> Any:
    place = context.pipeline()
    try:
        place.start(*WORKERS, **_environment(place.home, receiver.url))
        for role in WORKERS:
            place.wait_members(role, 1)
        yield place
    except AssertionError as error:
        error.add_note(place.logs()[-4000:])
        raise
    finally:
        drop_indices(place)
        place.close()


def _environment(home: Path, url: str) -> dict[str, str]:
    (home / "detectors.toml").write_text(DETECTORS)
    (home / "alerts.toml").write_text(ALERTS)
    return {
        "GATEBOOK_DETECTORS_FILE": str(home / "detectors.toml"),
        "GATEBOOK_ALERTS_FILE": str(home / "alerts.toml"),
        "GATEBOOK_ALERTMANAGER_URL": url,
        "GATEBOOK_ALERT_ALLOW_PRIVATE": "true",
        "GATEBOOK_COMMIT_INTERVAL_SECONDS": "1",
    }
