"""Every Prometheus metric of every part, read from the lists in which they are registered."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from msgspec import Struct

# The only modules that may create metrics; a test holds the code base to it.
PRODUCER_MODULE = "gatebook.producers.metrics"
AGENT_MODULE = "gatebook.producers.adapters.agent_metrics"
WORKER_MODULES = (
    "gatebook.processors.metrics",
    "gatebook.processors.sinks.metrics",
    "gatebook.processors.retention.metrics",
)
MODULES = (PRODUCER_MODULE, AGENT_MODULE, *WORKER_MODULES)


class MetricRow(Struct, frozen=True, kw_only=True):
    """One metric as Prometheus shows it."""

    name: str
    kind: str
    """counter, gauge or histogram (a histogram shows as _bucket, _count and _sum)."""
    labels: tuple[str, ...]
    meaning: str
    part: str


class Gathered(Struct, frozen=True):
    """All metrics, and what could not be looked at."""

    metrics: list[MetricRow]
    missing: dict[str, str]
    """Module -> the package that it needs and that is not installed."""


def gather(modules: Iterable[str] = MODULES) -> Gathered:
    """Every metric, in the order in which the parts list them."""
    rows: list[MetricRow] = []
    missing: dict[str, str] = {}
    for name in modules:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing[name] = error.name or "a package"
            continue
        part = "agent" if name == AGENT_MODULE else "worker"
        rows += _of_producer(module) if name == PRODUCER_MODULE else _of_objects(module, part)
    return Gathered(rows, missing)


def _of_producer(module: ModuleType) -> Iterator[MetricRow]:
    for one in module.METRICS:
        labels = (one.label,) if one.label else ()
        meaning = one.text.removesuffix(".")
        yield MetricRow(
            name=one.name, kind=one.kind, labels=labels, meaning=meaning, part="producer"
        )


def _of_objects(module: ModuleType, part: str) -> Iterator[MetricRow]:
    from prometheus_client.metrics import MetricWrapperBase

    for one in vars(module).values():
        if isinstance(one, MetricWrapperBase):
            yield _row(one, part)


def _row(metric: Any, part: str) -> MetricRow:
    (family,) = metric.describe()
    suffix = "_total" if family.type == "counter" else ""  # the library keeps it apart
    return MetricRow(
        name=family.name + suffix,
        kind=family.type,
        labels=tuple(metric._labelnames),  # there is no public way to ask
        meaning=family.documentation.removesuffix("."),
        part=part,
    )
