"""Metrics of the retention manager. No label ever holds content."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

DELETED = Counter(
    "gatebook_retention_deleted_documents_total",
    "Documents deleted by retention, by kind and cause (expired, disk).",
    ["kind", "why"],
)
STRIPPED = Counter(
    "gatebook_retention_stripped_documents_total",
    "Documents of which retention took a layer of content.",
    ["layer"],
)
THINNED = Counter(
    "gatebook_retention_thinned_documents_total",
    "Documents left out by a policy that keeps a sample.",
)
INDICES = Counter(
    "gatebook_retention_indices_total",
    "Indices retention rewrote or deleted, by action.",
    ["action"],
)
RUNS = Counter(
    "gatebook_retention_runs_total", "Runs by result: done, nothing, failed.", ["result"]
)
LAST_DONE = Gauge(
    "gatebook_retention_last_success_timestamp_seconds",
    "When a run last ended well, also with nothing to do; 0: never in this process.",
)
DUE = Gauge("gatebook_retention_due_indices", "Indices with something due, as the last look found.")
HELD = Gauge("gatebook_retention_held_documents", "Due documents a hold keeps, as last looked.")
DISK_USED = Gauge(
    "gatebook_retention_disk_used_ratio", "Used part of the fullest data node's disk, 0 to 1."
)
DISK_STATE = Gauge(
    "gatebook_retention_disk_state",
    "0 fine, 1 above the policy's warn_percent, 2 above act_percent, 3 nothing left to free.",
)
CUTS = Counter("gatebook_retention_cuts_total", "Days cut because their index grew too large.")
