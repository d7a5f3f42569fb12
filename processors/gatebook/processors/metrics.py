"""Every Prometheus metric of the workers, registered here and nowhere else."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ALERT_BUCKETS_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 2, 5, 10, 30, 60, 300, 3600)

# Frames taken from the raw topic.
FRAMES = Counter("gatebook_intake_frames_total", "Raw frames read")
# Events that left intake as documents.
EVENTS = Counter("gatebook_intake_events_total", "Events enriched and passed on")
# Events that went to the dead letters, by where and why.
DEAD_LETTERS = Counter(
    "gatebook_dead_letters_total", "Events sent to the dead letters", ["stage", "reason"]
)
# Sequence numbers that never came, per producer run; a late frame may fill the gap.
SEQUENCE_GAPS = Counter("gatebook_intake_sequence_missing_total", "Sequence numbers skipped")
# Sequence numbers that came again: a producer or a worker sent twice. Harmless.
SEQUENCE_REPEATS = Counter("gatebook_intake_sequence_repeated_total", "Sequence numbers repeated")
# Events a producer says it dropped before numbering them.
PRODUCER_LOSSES = Counter(
    "gatebook_intake_producer_losses_total", "Drops producers declared", ["reason"]
)
# Events whose content was dropped because redaction failed.
REDACTION_FAILED = Counter(
    "gatebook_redaction_failed_total", "Events stored without content", ["reason"]
)
# Events whose content intake could not open; any of key_lost is a key that is missing here.
SEALED_FAILED = Counter(
    "gatebook_sealed_failed_total", "Events stored without content: not opened", ["reason"]
)
# Tries to fetch subjects' keys that have to be made again; the worker waits meanwhile.
SUBJECT_WAITS = Counter(
    "gatebook_subject_key_waits_total", "Failed tries to fetch keys of subjects"
)
# Events with content that was left out because their subject was erased since.
SUBJECT_ERASED = Counter(
    "gatebook_subject_erased_total", "Events stored without content of an erased subject"
)
# Documents with content that could not be opened for search: erased, or sealed under another key.
UNSEARCHABLE = Counter(
    "gatebook_index_unsearchable_total", "Documents whose content could not be opened for search"
)
# Documents Elasticsearch took, by kind.
INDEXED = Counter("gatebook_index_documents_total", "Documents indexed", ["kind"])
# Documents that were there already, with the same digest.
INDEX_DUPLICATES = Counter("gatebook_index_duplicates_total", "Documents already indexed", ["kind"])
# Findings by rule.
FINDINGS = Counter("gatebook_detect_findings_total", "Findings", ["rule"])
# What the engines did, by name: late, duplicate, clamped (clocks ahead), evicted, suppressed, ...
# See Counts in detect/limits.py.
DETECT_COUNTS = Counter("gatebook_detect_counts_total", "What detection engines did", ["what"])
# Keys the engines of this worker remember, by scope.
DETECT_KEYS = Gauge("gatebook_detect_keys", "Keys remembered", ["scope"])
# Length of the engines' state as it was stored last.
DETECT_STATE_BYTES = Gauge("gatebook_detect_state_bytes", "Bytes of detector state")
# How long it took until an assigned partition had its state back.
DETECT_RECOVERY_SECONDS = Histogram("gatebook_detect_recovery_seconds", "Time to load a state")
# How far behind the clock the time of an event partition is, by which its windows close.
DETECT_BEHIND_SECONDS = Gauge(
    "gatebook_detect_behind_seconds", "Clock minus the time of the slowest event partition"
)
# Alerts by target and outcome.
ALERTS = Counter("gatebook_notify_alerts_total", "Alert deliveries", ["target", "outcome"])
# Problems notify remembers, in the partitions this worker holds.
INCIDENTS = Gauge("gatebook_notify_incidents", "Problems remembered")
# Deliveries under way or waiting for a free place at their target.
ALERTS_OWED = Gauge("gatebook_notify_under_way", "Deliveries under way")
# Findings that did not become a page: budget, overflow, stale, hold, suppressed, verdict.
NOT_PAGED = Counter("gatebook_notify_not_paged_total", "Findings not paged", ["why"])
# Event time of a finding to the target's answer.
ALERT_SECONDS = Histogram(
    "gatebook_notify_seconds", "Event to target", ["target"], buckets=ALERT_BUCKETS_SECONDS
)
# Intents without an end that became incomplete events. Counted again by a run that is repeated.
INCOMPLETE = Counter("gatebook_reconcile_incomplete_total", "Incomplete events written")
# Batches by role: how long one took until everything in it was delivered.
BATCH_SECONDS = Histogram("gatebook_worker_batch_seconds", "Time to deliver one batch", ["role"])
# Messages given back to be fetched again because an earlier one had not come.
OFFSET_GAPS = Counter(
    "gatebook_worker_offset_gaps_total", "Offsets that came out of turn", ["role"]
)
# Messages waiting in the topic, by role, as the watchdog saw it last.
LAG = Gauge(
    "gatebook_worker_lag_messages", "Messages between the committed offset and the end", ["role"]
)
