"""Prometheus metrics of `gatebook agent`, beside those of its recorder."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

# Any that is no 2xx: somebody's events are not getting in; 401 says that a token is wrong.
REQUESTS = Counter(
    "gatebook_agent_requests_total", "Requests to POST /v1/events, by answer.", ["status"]
)
EVENTS = Counter(
    "gatebook_agent_events_total",
    "Events that were sent in, by result: accepted, invalid, or why they were sent back.",
    ["result"],
)
CONNECTIONS = Gauge("gatebook_agent_connections", "Open connections.")
# Connections that were refused because the limit was reached.
REFUSED = Counter(
    "gatebook_agent_connections_refused_total", "Connections closed at once: too many were open."
)
