"""What Kibana and Grafana show of the documents: each chart said once, drawn by both."""

from __future__ import annotations

from dataclasses import dataclass, field

from gatebook.processors.search.fields import fields_of

TOP = 10


@dataclass(frozen=True, slots=True)
class Measure:
    """A number over documents. `how`: count, sum, unique, p50, p95 or max. `unit`: ns, s, bytes
    or "" for a plain number."""

    how: str = "count"
    field: str = ""
    title: str = "events"
    unit: str = ""


EVENTS = Measure()


@dataclass(frozen=True, slots=True)
class Chart:
    """One panel. `shape`: number, time (a histogram) or table. `by`: fields whose most frequent
    values split it. `where`: which documents, in KQL (Kibana, and our own search) and in Lucene's
    language (Grafana)."""

    title: str
    shape: str
    kind: str = "access"
    measures: tuple[Measure, ...] = (EVENTS,)
    by: tuple[str, ...] = ()
    where: tuple[str, str] = ("", "")
    stacked: bool = True


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard: rows of charts, each row of equal width."""

    id: str
    title: str
    about: str
    rows: tuple[tuple[Chart, ...], ...] = field(default=())

    @property
    def charts(self) -> list[Chart]:
        """All of them."""
        return [chart for row in self.rows for chart in row]


FAILED = ("event.outcome : failure", "event.outcome:failure")
TERMINAL = ("not gatebook.phase : intent", "NOT gatebook.phase:intent")
_DENIED = ("unauthenticated", "forbidden", "rate_limited", "content_filtered")
DENIED = (
    f"event.reason : ({' or '.join(_DENIED)})",
    f"event.reason:({' OR '.join(_DENIED)})",
)
FIRING = ("event.action : firing", "event.action:firing")
INPUT = Measure("sum", "gen_ai.usage.input_tokens", "input tokens")
OUTPUT = Measure("sum", "gen_ai.usage.output_tokens", "output tokens")
PEOPLE = Measure("unique", "gatebook.principal", "callers")


def _both(one: tuple[str, str], other: tuple[str, str]) -> tuple[str, str]:
    """Both conditions, in both languages."""
    return f"{one[0]} and {other[0]}", f"{one[1]} AND {other[1]}"


OVERVIEW = Board(
    "access",
    "Gatebook: accesses",
    "Who uses which model, how much, and how fast",
    (
        (
            Chart("Accesses", "number", where=TERMINAL),
            Chart("Callers", "number", measures=(PEOPLE,), where=TERMINAL),
            Chart("Input tokens", "number", measures=(INPUT,), where=TERMINAL),
            Chart("Output tokens", "number", measures=(OUTPUT,), where=TERMINAL),
        ),
        (
            Chart("Accesses by outcome", "time", by=("event.outcome",), where=TERMINAL),
            Chart("Accesses by model", "time", by=("gen_ai.request.model",), where=TERMINAL),
        ),
        (
            Chart("Tokens", "time", measures=(INPUT, OUTPUT), where=TERMINAL),
            Chart(
                "Duration",
                "time",
                measures=(
                    Measure("p50", "event.duration", "median", "ns"),
                    Measure("p95", "event.duration", "95 of 100", "ns"),
                ),
                stacked=False,
                where=TERMINAL,
            ),
        ),
        (
            Chart(
                "Models",
                "table",
                by=("gen_ai.request.model",),
                measures=(EVENTS, PEOPLE, INPUT, OUTPUT),
                where=TERMINAL,
            ),
            Chart(
                "Most active callers",
                "table",
                by=("gatebook.principal",),
                measures=(EVENTS, INPUT, OUTPUT),
                where=TERMINAL,
            ),
            Chart("Services", "table", by=("service.name", "organization.id"), where=TERMINAL),
        ),
    ),
)

ERRORS = Board(
    "errors",
    "Gatebook: errors and refusals",
    "What failed or was refused, for whom, and why",
    (
        (
            Chart("Failures", "number", where=_both(TERMINAL, FAILED)),
            Chart(
                "Callers with failures", "number", measures=(PEOPLE,), where=_both(TERMINAL, FAILED)
            ),
            Chart("Denied", "number", where=DENIED),
            Chart(
                "Refused by the model",
                "number",
                where=("gatebook.content.signals : refusal", "gatebook.content.signals:refusal"),
            ),
        ),
        (
            Chart(
                "Failures by reason", "time", by=("event.reason",), where=_both(TERMINAL, FAILED)
            ),
            Chart("Answers by status", "time", by=("http.response.status_code",), where=TERMINAL),
        ),
        (
            Chart(
                "Errors", "table", by=("error.type", "event.reason"), where=_both(TERMINAL, FAILED)
            ),
            Chart("Callers", "table", by=("gatebook.principal",), where=_both(TERMINAL, FAILED)),
            Chart("Addresses", "table", by=("source.ip",), where=_both(TERMINAL, FAILED)),
        ),
    ),
)

FINDINGS = Board(
    "findings",
    "Gatebook: findings",
    "What detectors found, and what became of the alerts",
    (
        (
            Chart("Findings", "number", kind="finding", where=FIRING),
            Chart("Callers concerned", "number", kind="finding", measures=(PEOPLE,), where=FIRING),
            Chart(
                "Alerts not delivered",
                "number",
                kind="alert",
                where=("event.outcome : failure", "event.outcome:failure"),
            ),
        ),
        (
            Chart(
                "Findings by severity",
                "time",
                kind="finding",
                by=("gatebook.severity",),
                where=FIRING,
            ),
            Chart("Alerts by target", "time", kind="alert", by=("gatebook.target",)),
        ),
        (
            Chart(
                "Rules",
                "table",
                kind="finding",
                by=("rule.id",),
                measures=(EVENTS, PEOPLE),
                where=FIRING,
            ),
            Chart("Callers", "table", kind="finding", by=("gatebook.principal",), where=FIRING),
            Chart("Verdicts", "table", kind="finding", by=("gatebook.verdict", "rule.id")),
        ),
    ),
)

PRIVACY = Board(
    "privacy",
    "Gatebook: privacy and completeness",
    "What was captured and redacted, what was lost, and who looked",
    (
        (
            Chart(
                "Stored without content: redaction failed",
                "number",
                where=("gatebook.redaction.failed : *", "_exists_:gatebook.redaction.failed"),
            ),
            Chart(
                "Stored without content: not opened",
                "number",
                where=("gatebook.sealed.failed : *", "_exists_:gatebook.sealed.failed"),
            ),
            Chart("Dead letters", "number", kind="deadletter"),
            Chart(
                "Accesses without an end",
                "number",
                where=("event.reason : incomplete", "event.reason:incomplete"),
            ),
        ),
        (
            Chart("Capture level", "time", by=("gatebook.capture.level",)),
            Chart("Dead letters by reason", "time", kind="deadletter", by=("event.reason",)),
        ),
        (
            Chart("Redacted entities", "table", by=("gatebook.redaction.entities",)),
            Chart(
                "Captured less than the policy says",
                "table",
                by=("gatebook.capture.degraded_reason",),
            ),
            Chart(
                "Acts of operators",
                "table",
                by=("event.action", "user.id"),
                where=("service.name : gatebook-operator", "service.name:gatebook\\-operator"),
            ),
        ),
        (
            Chart(
                "Producers",
                "table",
                by=("gatebook.producer_id", "service.name"),
                measures=(
                    EVENTS,
                    Measure("max", "gatebook.sequence", "highest sequence"),
                    Measure("unique", "gatebook.epoch", "runs"),
                ),
            ),
            Chart("Data classes", "table", by=("gatebook.capture.data_class",)),
            Chart("Retention", "table", by=("gatebook.retention.metadata",)),
        ),
    ),
)

BOARDS = (OVERVIEW, ERRORS, FINDINGS, PRIVACY)


def unknown_fields(boards: tuple[Board, ...] = BOARDS) -> list[str]:
    """Fields that a chart names and its kind of document does not have, or not for counting."""
    return [
        f"{chart.kind}: {name} ({board.title}, {chart.title})"
        for board in boards
        for chart in board.charts
        for name in (*chart.by, *(one.field for one in chart.measures if one.field))
        if fields_of(chart.kind).type_of(name) is None or not fields_of(chart.kind).has_values(name)
    ]
