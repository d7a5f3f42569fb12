"""Prometheus metrics of producers, in one list. They are read from the recorders' counters when
they are scraped, so that they cost a request nothing; none carries content or an identity."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry

if TYPE_CHECKING:
    from gatebook.producers.recorder import Counters, Recorder

PREFIX = "gatebook_producer_"


class MetricDefinition(NamedTuple):
    """One metric: its full name, kind, help text, and how to read it. A read that gives a mapping
    is a metric with the label `label`."""

    name: str
    kind: Literal["counter", "gauge"]
    text: str
    read: Callable[[Counters], float | dict[str, float]]
    label: str = ""


METRICS: tuple[MetricDefinition, ...] = (
    # Alert where emitted - acknowledged - dropped keeps growing: events do not get through.
    MetricDefinition(
        PREFIX + "events_emitted_total",
        "counter",
        "Events handed to the recorder.",
        lambda c: c.emitted,
    ),
    MetricDefinition(
        PREFIX + "events_spooled_total",
        "counter",
        "Events fsynced to the spool.",
        lambda c: c.spooled,
    ),
    MetricDefinition(
        PREFIX + "events_acknowledged_total",
        "counter",
        "Events of this process that the broker has acknowledged.",
        lambda c: c.acknowledged,
    ),
    # Any increase is a gap in the log; the frames state it as well.
    MetricDefinition(
        PREFIX + "events_dropped_total",
        "counter",
        "Events that were not recorded, by reason.",
        lambda c: {reason: float(count) for reason, count in c.dropped.items()},
        "reason",
    ),
    MetricDefinition(
        PREFIX + "events_degraded_total",
        "counter",
        "Events kept in memory only because the spool could not be written.",
        lambda c: c.degraded,
    ),
    # Any increase means events with less in them than the capture level asks for.
    MetricDefinition(
        PREFIX + "events_reduced_total",
        "counter",
        "Events that lost their content, or their bodies unread, because buffers filled.",
        lambda c: {what: float(count) for what, count in c.reduced.items()},
        "what",
    ),
    MetricDefinition(
        PREFIX + "events_captured_total",
        "counter",
        "Events by the level the capture policy gave them: none, metadata, redacted, full.",
        lambda c: {level: float(count) for level, count in c.captured.items()},
        "level",
    ),
    MetricDefinition(
        PREFIX + "policy_loads_total",
        "counter",
        "Capture policy files looked at, by what came of it: changed, broken.",
        lambda c: {what: float(count) for what, count in c.policy_loads.items()},
        "what",
    ),
    # 1 means that an older policy is in force than the file was meant to set.
    MetricDefinition(
        PREFIX + "policy_broken",
        "gauge",
        "1 while the capture policy's file cannot be used and the last good one holds, else 0.",
        lambda c: float(c.is_policy_broken),
    ),
    MetricDefinition(
        PREFIX + "break_glass_active",
        "gauge",
        "Approved raises of the capture level that are in force.",
        lambda c: c.break_glass,
    ),
    MetricDefinition(
        PREFIX + "events_sealed_total",
        "counter",
        "Events whose content was sealed for intake.",
        lambda c: c.sealed,
    ),
    # Any increase means that intake's public key is missing or unusable: see the log.
    MetricDefinition(
        PREFIX + "events_unsealed_total",
        "counter",
        "Events that lost their content because it could not be sealed: no_key, sealing_failed.",
        lambda c: {reason: float(count) for reason, count in c.unsealed.items()},
        "reason",
    ),
    MetricDefinition(
        PREFIX + "degrade_steps_total",
        "counter",
        "Changes of the degrade ladder, by the step that began: full, metadata, bare, counters.",
        lambda c: {step: float(count) for step, count in c.steps_entered.items()},
        "step",
    ),
    # Summed over the recorders of a process; there is one, as a rule.
    MetricDefinition(
        PREFIX + "degrade_step",
        "gauge",
        "0 full, 1 without content, 2 without bodies, 3 what does not fit is only counted.",
        lambda c: c.step,
    ),
    MetricDefinition(
        PREFIX + "events_recovered_total",
        "counter",
        "Events sent from the spools of processes that died.",
        lambda c: c.recovered,
    ),
    MetricDefinition(
        PREFIX + "frames_sent_total",
        "counter",
        "Frames acknowledged, heartbeats among them.",
        lambda c: c.frames,
    ),
    MetricDefinition(
        PREFIX + "events_pending",
        "gauge",
        "Events neither acknowledged nor dropped yet.",
        lambda c: c.on_the_way,
    ),
    MetricDefinition(
        PREFIX + "queue_bytes",
        "gauge",
        "Bytes of events waiting in memory to be spooled, approximately.",
        lambda c: c.queued_bytes,
    ),
    MetricDefinition(
        PREFIX + "spool_bytes",
        "gauge",
        "Bytes of the spool's files.",
        lambda c: c.spool_bytes,
    ),
    # 1 means that a kill now would lose events.
    MetricDefinition(
        PREFIX + "spool_degraded",
        "gauge",
        "1 while the spool cannot be written, else 0.",
        lambda c: float(c.is_degraded),
    ),
)


class ProducerCollector(Collector):
    """All recorders of this process, summed."""

    def __init__(self) -> None:
        self._recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()

    def add(self, recorder: Recorder) -> None:
        """Include a recorder, for as long as it lives."""
        self._recorders.add(recorder)

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        counters = [recorder.counters() for recorder in self._recorders]
        for definition in METRICS:
            yield _family(definition, [definition.read(c) for c in counters])


def _family(definition: MetricDefinition, readings: list[float | dict[str, float]]) -> Metric:
    labels = [definition.label] if definition.label else []
    kind = CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily
    family = kind(definition.name, definition.text, labels=labels)
    totals: dict[str, float] = {} if labels else {"": 0.0}
    for reading in readings:
        for value, count in (reading if isinstance(reading, dict) else {"": reading}).items():
            totals[value] = totals.get(value, 0.0) + count
    for value, total in totals.items():
        family.add_metric([value] if labels else [], total)
    return family


COLLECTOR = ProducerCollector()


def register(registry: CollectorRegistry = REGISTRY) -> None:
    """Expose the metrics of this process's recorders. Importing this package's recorder does it
    for the default registry."""
    registry.register(COLLECTOR)
