"""Metrics of the sinks. No label ever holds content."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ROWS = Counter(
    "gatebook_sink_rows_total",
    "Rows a sink decided, by result: indexed, duplicate, or the reason of a rejection.",
    ["result"],
)
PAST_RETENTION = Counter(
    "gatebook_sink_past_retention_total",
    "Rows rejected because retention had deleted what they belong to: replays, or very late.",
    ["kind"],
)
RETRIES = Counter(
    "gatebook_sink_retries_total",
    "Tries that have to be made again, by cause: an error type of Elasticsearch, or unreachable.",
    ["cause"],
)
PAUSED = Gauge(
    "gatebook_sink_paused_requests",
    "Requests held back because writing is blocked (disk flood stage, closed index, no master).",
)
WAITING_ROWS = Gauge(
    "gatebook_sink_waiting_rows",
    "Rows given to the sink that are not decided yet.",
)
REQUEST_SECONDS = Histogram(
    "gatebook_sink_request_seconds",
    "Time of one bulk request, answered or not.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0),
)
REQUEST_BYTES = Counter("gatebook_sink_request_bytes_total", "Bytes of bulk requests sent.")
