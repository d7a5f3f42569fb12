"""Fields that come with the same value in every event of a service.

Codes of ours and names from the configuration. Producer and intake look through them for secrets
all the same, as one group: what was clean once is not read again.
"""

from __future__ import annotations

STEADY_FIELDS: tuple[tuple[str, ...], ...] = (
    ("event", "kind"),
    ("event", "category"),
    ("event", "type"),
    ("event", "outcome"),
    ("service", "name"),
    ("service", "version"),
    ("service", "environment"),
    ("service", "node", "name"),
    ("gatebook", "component"),
    ("gatebook", "phase"),
    ("gatebook", "identity", "method"),
    ("gatebook", "identity", "assurance"),
    ("gatebook", "capture", "level"),
    ("gatebook", "capture", "policy"),
    ("gatebook", "capture", "policy_version"),
    ("gatebook", "capture", "degraded_reason"),
    ("gatebook", "capture", "rule"),
    ("gatebook", "capture", "data_class"),
    ("gatebook", "capture", "break_glass"),
    ("gatebook", "retention", "metadata"),
    ("gatebook", "retention", "redacted"),
    ("gatebook", "retention", "full"),
    ("gatebook", "model", "weights_hash"),
    ("gatebook", "model", "quantization"),
    ("gatebook", "model", "adapter"),
    ("gatebook", "model", "engine"),
    ("gatebook", "model", "engine_version"),
    ("gatebook", "stream", "aborted_by"),
)
