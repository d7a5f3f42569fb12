"""What the API takes and gives, as data. Field names and meanings here are the contract."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from gatebook.processors.search.query import MAX_QUERY_CHARACTERS
from gatebook.schemas.reason_text import wrong_reason

MAX_PAGE = 500
MAX_BUCKETS = 400
MAX_FACET_FIELDS = 12
MAX_FACET_VALUES = 50
MAX_FIELDS = 100
MAX_CURSOR_CHARACTERS = 131_072
MAX_NEIGHBOURS = 200

Kind = Literal["access", "finding", "deadletter", "alert"]
CountedFrom = Literal["details", "summaries", "both"]
Verdict = Literal["true_positive", "false_positive", "benign"]
# The last character of a pattern's $ may stand before a line feed; \Z may not, and is not ECMA.
FieldName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\s\x00-\x1f]+$")]
QueryText = Annotated[
    str,
    Field(
        max_length=MAX_QUERY_CHARACTERS,
        description="The query language of `gatebook search`: field:value, and, or, not, ranges, "
        "wildcards, free text. Empty: everything.",
        examples=["event.outcome:failure and user.id:alice"],
    ),
]
Since = Annotated[
    str,
    Field(
        min_length=1,
        max_length=40,
        description="From, inclusive: 15m, 24h, 7d, now-1d, now/d, 2026-11-23, "
        "2026-11-23T10:15:00Z, or `all`. Leave it out for the default: an empty one is refused.",
        examples=["24h", "2026-11-23T10:15:00Z"],
    ),
]
Until = Annotated[
    str,
    Field(
        max_length=40,
        description="Up to, exclusive; empty: now.",
        examples=["", "now-1h", "2026-11-23T11:15:00Z"],
    ),
]
Sort = Annotated[
    str,
    Field(
        max_length=1_000,
        description="field:asc or field:desc, several with commas.",
        examples=["@timestamp:desc", "event.duration:desc,@timestamp:desc"],
    ),
]
EventId = Annotated[str, Field(min_length=1, max_length=512)]
At = Annotated[
    str | None,
    Field(description="UTC, up to nanoseconds.", examples=["2026-11-23T10:15:00.000000Z"]),
]
Values = Annotated[dict[str, int], Field(description="Value to count.")]


def _stated(text: str) -> str:
    """The reason as it was given. Raises what is answered with 422."""
    if wrong := wrong_reason(text):
        raise PydanticCustomError("reason", wrong)
    return text


class Given(BaseModel):
    """What a request carries: nothing beside what is named here."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Told(BaseModel):
    """What an answer carries."""


# --- errors ------------------------------------------------------------------------------------


class Problem(Told):
    """What is wrong, where, and what to do."""

    type: Annotated[str, Field(description="A code for programs.", examples=["query"])]
    message: Annotated[str, Field(description="A sentence for people; never content.")]
    position: Annotated[
        int | None, Field(description="Index of the character of the query that is at fault.")
    ] = None
    next_step: Annotated[str | None, Field(description="What to do now.")] = None


class ErrorBody(Told):
    """The body of every answer that is not a success."""

    error: Problem


# --- fields and queries ------------------------------------------------------------------------


class FieldInfo(Told):
    """One field of a kind of document."""

    name: str
    type: Annotated[str, Field(examples=["keyword", "long", "date_nanos", "ip", "text"])]
    searchable: Annotated[bool, Field(description="Whether documents are found by it.")]
    sortable: bool
    aggregatable: Annotated[bool, Field(description="Whether facets and splits take it.")]
    masked: Annotated[bool, Field(description="Whether the caller may neither see nor query it.")]


class FieldsAnswer(Told):
    """The fields of a kind."""

    fields: list[FieldInfo]


class CheckRequest(Given):
    """A query to look at without running it."""

    query: QueryText
    kind: Kind = "access"


class QueryProblem(Told):
    """What is wrong with a query."""

    message: str
    position: int
    next_step: str = ""


class CheckAnswer(Told):
    """Whether a query can be understood."""

    ok: bool
    normalized: Annotated[
        str | None, Field(description="The same query as the service writes it; null: not ok.")
    ] = None
    error: QueryProblem | None = None


class Asked(Given):
    """A query over a time range."""

    query: QueryText = ""
    since: Since = "24h"
    until: Until = ""
    kind: Kind = "access"


# --- search ------------------------------------------------------------------------------------


class SearchRequest(Asked):
    """One page. With `cursor`, the next one of the same query: all else must stay the same, but
    `size`."""

    size: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 100
    sort: Sort = "@timestamp:desc"
    fields: Annotated[
        list[FieldName] | None,
        Field(max_length=MAX_FIELDS, description="Only these fields; null: whole documents."),
    ] = None
    cursor: Annotated[
        str | None, Field(max_length=MAX_CURSOR_CHARACTERS, description="Of the page before.")
    ] = None


class Hit(Told):
    """One document. Masked values read `[masked]`."""

    index: str
    id: str
    kind: str
    source: dict[str, Any]


class Lag(Told):
    """How old the newest document is that a search can find."""

    newest_ingested: At
    seconds: Annotated[
        float,
        Field(
            description="Since it was taken in. Results are behind by at most so much, unless "
            "nothing happens: then it grows, too."
        ),
    ]


class Thinned(Told):
    """A range of time in which details were thinned out by policy; summaries counted them all."""

    since: At = Field(default=None, serialization_alias="from")
    until: At = Field(default=None, serialization_alias="to")
    keep_one_in: Annotated[
        int | None, Field(description="One of so many is left; null: not thinned.")
    ] = None
    all_gone: Annotated[bool, Field(description="None is left, but for those under hold.")] = False
    unknown: Annotated[
        bool,
        Field(description="Some are gone; whether any were of your tenants was not kept."),
    ] = False


class Detail(Told):
    """Whether every document that was taken in within the range is still there to be found."""

    complete: bool
    thinned: list[Thinned] = Field(default_factory=list)


class Range(Told):
    """The range that was looked at, absolute: sent as `since` and `until`, it is the same again."""

    since: At = Field(
        default=None,
        serialization_alias="from",
        description="Inclusive; null: from the very beginning. Send it as `since` (null: `all`).",
    )
    until: At = Field(
        default=None,
        serialization_alias="to",
        description="Exclusive. Send it as `until`.",
    )


class SearchAnswer(Range):
    """A page of hits. All pages of one cursor chain are of one point in time."""

    total: Annotated[int, Field(description="All matches, exactly.")]
    took_ms: float
    cursor: Annotated[
        str | None,
        Field(description="Gives the next page; null: this was the last. Ends (410) when unused."),
    ]
    lag: Lag | None
    detail: Detail
    hits: list[Hit]


# --- histogram and facets ----------------------------------------------------------------------


class HistogramRequest(Asked):
    """Counts over time."""

    buckets: Annotated[int, Field(ge=1, le=MAX_BUCKETS, description="At most so many.")] = 60
    split_by: Annotated[
        FieldName | None,
        Field(description="Counts per value of this field, too.", examples=["event.outcome"]),
    ] = None


class Bucket(Told):
    """One interval. Intervals without a match are there, with 0."""

    at: Annotated[str, Field(description="Its start, inclusive, UTC.")]
    count: int
    parts: Values = Field(default_factory=dict)


class HistogramAnswer(Range):
    """Buckets without gaps, from the one that holds `from` to the one that holds the instant
    before `to`; they begin at multiples of the interval since 1970, so the first and the last one
    may be cut by the range."""

    interval_seconds: float
    total: int
    took_ms: float
    source: Annotated[
        CountedFrom,
        Field(description="Whether documents or their hourly summaries were counted."),
    ]
    buckets: list[Bucket]


class FacetsRequest(Asked):
    """The most frequent values of some fields."""

    fields: Annotated[list[FieldName], Field(min_length=1, max_length=MAX_FACET_FIELDS)]
    size: Annotated[int, Field(ge=1, le=MAX_FACET_VALUES)] = 10


class FacetValue(Told):
    """A value and how many documents have it."""

    value: str | int | float | bool
    count: int


class Facet(Told):
    """The values of one field."""

    values: list[FacetValue]
    other: Annotated[int, Field(description="Values counted in documents, beyond those listed.")]
    missing: Annotated[int, Field(description="Documents without the field.")]
    distinct: Annotated[int, Field(description="Different values; near enough beyond 1,000.")]
    exact: Annotated[bool, Field(description="Whether the counts of values are exact.")] = True
    source: Annotated[
        CountedFrom,
        Field(
            description="What was counted. Summaries keep tenant, service, model, operation, "
            "outcome, user and principal; other fields are counted in the details that are there, "
            "and say `details`: where details are gone, they count less than `total`."
        ),
    ] = "details"


class FacetsAnswer(Range):
    """Facets by field. `total` is counted as `source` says, each facet as its own."""

    total: int
    took_ms: float
    source: Annotated[
        CountedFrom,
        Field(description="Whether documents or their hourly summaries were counted for `total`."),
    ] = "details"
    facets: dict[str, Facet]


# --- events ------------------------------------------------------------------------------------

AroundBy = Literal[
    "service.name",
    "user.id",
    "gatebook.principal",
    "trace.id",
    "gen_ai.conversation.id",
    "session.id",
    "source.ip",
]


class Moment(Told):
    """One step of what happened to a request and to its event."""

    at: str
    name: str
    detail: str = ""


class Cited(Told):
    """A finding that names the event as evidence."""

    index: str
    id: str
    kind: str = "finding"
    source: dict[str, Any]


class Related(Told):
    """How many accesses have the same value of a field."""

    by: str
    value: str
    count: int


class Evidence(Told):
    """What the stored document says of itself. That no other document is missing is not said."""

    digest: str | None = None
    digest_holds: Annotated[
        bool | None, Field(description="Whether it is what was written; null: has no digest.")
    ] = None
    content: Annotated[str, Field(examples=["present", "erased", "none"])] = "none"
    producer_id: str | None = None
    epoch: int | None = None
    sequence: int | None = None
    capture_level: str | None = None


class EventAnswer(Told):
    """Everything about one id: its documents of whatever kind, and who cites it."""

    documents: list[Hit]
    cited_by: list[Cited]
    timeline: list[Moment]
    related: list[Related]
    evidence: Evidence


class AroundAnswer(Told):
    """Accesses before and after one, in order of time. `before` ends, `after` begins, with the
    nearest."""

    by: str | None
    value: str | None
    event: Hit
    before: list[Hit]
    after: list[Hit]


class RevealRequest(Given):
    """Content to be opened."""

    layer: Literal["redacted", "full"]
    reason: Annotated[
        str,
        Field(
            min_length=3,
            max_length=500,
            description="Why; stands in the recorded event. Something of it has to be seen: spaces "
            "say nothing. Without control characters, and without such as turn text around.",
        ),
        AfterValidator(_stated),
    ]


# --- exports -----------------------------------------------------------------------------------

ExportFormat = Literal["ndjson", "csv"]


class ExportRequest(Asked):
    """What to export."""

    format: ExportFormat = "ndjson"
    fields: Annotated[
        list[FieldName] | None,
        Field(
            min_length=1,
            max_length=MAX_FIELDS,
            description="Only these; @timestamp and event.id always come first. Null: whole "
            "documents (CSV: the usual columns).",
        ),
    ] = None


class ExportMade(Told):
    """An export that can be read now."""

    id: str
    total: Annotated[int, Field(description="Lines it will have, as counted now.")]
    detail: Detail


ExportStage = Literal["ready", "running", "done"]


class ExportState(Told):
    """How far an export is."""

    id: str
    state: Annotated[
        ExportStage,
        Field(description="done: its last line was sent once."),
    ]
    total: int
    done: Annotated[int, Field(description="Lines sent so far by its latest reading.")]


# --- findings ----------------------------------------------------------------------------------


class FindingItem(Told):
    """One incident: its latest finding, and what became of it."""

    incident: str
    state: Annotated[str, Field(examples=["firing", "acknowledged", "resolved", "closed"])]
    verdict: str = ""
    reason: str = ""
    by: str = ""
    findings: Annotated[int, Field(description="Findings of this incident in the index.")] = 1
    finding: dict[str, Any]


class FindingsAnswer(Told):
    """Incidents, newest first; where there are more than fit, those of the first answer are the
    gravest. `total` counts all that were asked for."""

    total: int
    findings: list[FindingItem]
    by_severity: Annotated[
        dict[str, int],
        Field(description="Incidents of this state by severity, of every severity."),
    ]
    complete: Annotated[bool, Field(description="Whether all findings of the time were read.")] = (
        True
    )
    unread: Annotated[
        int,
        Field(description="Findings, the oldest, that were not: what only they tell is left out."),
    ] = 0
    unread_before: Annotated[
        At, Field(description="The time before which they are; null: all were read.")
    ] = None


class Point(Told):
    """A figure at a time."""

    at: str
    value: float


class Window(Range):
    """The window of a finding."""


class Baseline(Told):
    """What the finding's figure is held against, and how it went before and after. The series is
    counted from the events that the finding's own search shows, one point a window: it is what
    happened, not the detector's own state."""

    unit: str
    threshold: float | None
    observed: float | None
    baseline: float | None
    interval_seconds: float
    series: list[Point]
    window: Window
    exact: Annotated[
        bool,
        Field(description="False: the unit is not one that can be counted; accesses are shown."),
    ]


class VerdictTold(Told):
    """A verdict that was given."""

    at: str
    verdict: str
    note: str
    by: str
    action: str


class FindingAnswer(Told):
    """One incident with all its findings, oldest first."""

    finding: dict[str, Any]
    state: str
    members: list[Hit]
    baseline: Baseline | None
    verdicts: list[VerdictTold]


class AcknowledgeAnswer(Told):
    """The word as it went to the finding topic; the index has it a moment later."""

    incident: str
    at: str


class VerdictRequest(Given):
    """What a person says of a finding. `note` is wanted where a verdict is replaced."""

    verdict: Verdict
    note: Annotated[str, Field(max_length=500)] = ""


class VerdictAnswer(Told):
    """The verdict as it went to the finding topic; the index has it a moment later."""

    incident: str
    verdict: str
    at: str


# --- overview ----------------------------------------------------------------------------------


class Tokens(Told):
    """Sums of tokens."""

    input: int
    output: int


class Errors(Told):
    """Accesses that did not succeed."""

    total: int
    reasons: list[FacetValue]
    reasons_source: Annotated[
        CountedFrom,
        Field(
            description="Always `details`: summaries keep no reasons. Where details are gone, the "
            "reasons count less than `total`."
        ),
    ] = "details"


class Top(Told):
    """A frequent value with its tokens."""

    value: str
    count: int
    tokens: int


class DetectorActivity(Told):
    """Findings of one rule."""

    rule: str
    name: str
    firing: int
    resolved: int
    last: At


class IndexSize(Told):
    """One index."""

    name: str
    documents: int
    bytes: int


class Disk(Told):
    """The disks of the cluster together."""

    total_bytes: int
    free_bytes: int


class Storage(Told):
    """Indices of the namespace, newest first."""

    indices: list[IndexSize]
    disk: Disk | None


class RoleState(Told):
    """One role of the worker, as its consumer group in Kafka stands."""

    role: str
    members: Annotated[int, Field(description="Processes that read.")]
    waiting_messages: Annotated[
        int, Field(description="Messages (frames of events) it has not worked off yet.")
    ]
    state: str


class OverviewAnswer(Range):
    """The log at a glance. `storage` and `pipeline` are null for a caller of some tenants only;
    `pipeline` also where Kafka does not answer."""

    took_ms: float
    interval_seconds: float
    source: Annotated[CountedFrom, Field(description="Of `traffic` and `total`.")]
    figures_source: Annotated[
        CountedFrom,
        Field(description="Of `tokens`, `errors.total`, `top_models` and `top_principals`."),
    ] = "details"
    total: int
    traffic: list[Bucket]
    tokens: Tokens
    errors: Errors
    top_models: list[Top]
    top_principals: list[Top]
    detectors: list[DetectorActivity]
    lag: Lag | None
    storage: Storage | None
    pipeline: list[RoleState] | None = None


# --- saved searches, retention, session, health ------------------------------------------------


class SavedSearchRequest(Given):
    """A search to keep."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    query: QueryText = ""
    since: Since = "24h"
    until: Until = ""
    kind: Kind = "access"
    columns: Annotated[list[FieldName], Field(max_length=MAX_FIELDS)] = Field(default_factory=list)
    sort: Sort = "@timestamp:desc"
    shared: Annotated[bool, Field(description="Whether others see it, too.")] = False


class SavedSearch(Told):
    """A search somebody keeps."""

    id: str
    name: str
    query: str
    since: str
    until: str
    kind: str
    columns: list[str]
    sort: str
    shared: bool
    owner: str
    mine: bool
    created_at: str


class SavedSearches(Told):
    """Those of the caller, and those shared by others."""

    saved_searches: list[SavedSearch]


class PolicyRule(Told):
    """One rule: the first that matches decides. Empty: as the class on the event says, else the
    default."""

    name: str
    match: Annotated[
        dict[str, list[str]], Field(description="Patterns by field, all of which fit.")
    ]
    metadata: str = ""
    redacted: str = ""
    full: str = ""
    sample_after: str = ""
    keep_one_in: Annotated[int, Field(description="0: nothing is thinned.")] = 0


class PolicyTold(Told):
    """The retention policy as its latest run had it. A caller of some tenants sees the rules that
    can be about them, with their own tenants alone, and the classes that these name."""

    name: str
    sha256: Annotated[str, Field(description="Of the whole file.")]
    planned_at: Annotated[str, Field(description="When that run was planned.")]
    defaults: Annotated[dict[str, str], Field(description="How long each layer is kept.")]
    classes: Annotated[dict[str, str], Field(description="Durations by name.")]
    rules: list[PolicyRule]
    kinds: Annotated[
        dict[str, str],
        Field(description="How long findings, alerts and dead letters are kept; else for ever."),
    ]
    summaries: Annotated[bool, Field(description="Whether what goes is counted before.")]


class HoldTold(Told):
    """One legal hold of retention's own: what it covers stays."""

    id: str
    at: str
    by: str
    reason: str
    kinds: list[str]
    tenant: str = ""
    trace: str = ""
    query: str = ""
    since: str = ""
    until: str = ""


class RetentionAnswer(Told):
    """What retention last did, and what it goes by. Changes are made at the command line:
    `gatebook retention`. Callers of some tenants are told of themselves alone."""

    configured: Annotated[bool, Field(description="Whether it ever ran.")]
    last_run: Annotated[
        dict[str, Any] | None, Field(description="The certificate of the last run, in short.")
    ]
    thinned: list[Thinned]
    policy: Annotated[PolicyTold | None, Field(description="null: no run had one.")] = None
    holds: Annotated[
        list[HoldTold] | None,
        Field(description="Oldest first; null: not for your roles. Of your tenants alone."),
    ] = None
    subjects_held: Annotated[
        int | None,
        Field(description="Persons under hold; null: not for your roles, or not for all tenants."),
    ] = None


class CallerTold(Told):
    """Who calls."""

    id: str
    name: str
    method: str
    roles: list[str]
    tenants: Annotated[list[str] | None, Field(description="null: all.")]


class SessionAnswer(Told):
    """The session, and what it may do."""

    caller: CallerTold
    permissions: list[str]
    csrf_token: Annotated[str, Field(description="Goes into X-CSRF-Token of unsafe requests.")]
    version: str
    namespace: str
    expires_at: At


class Health(Told):
    """Whether the service answers and Elasticsearch does. No detail."""

    status: Literal["ok", "degraded"]


# --- tokens and reveal -------------------------------------------------------------------------


class RevealAnswer(Told):
    """Opened content. Each layer says its state: opened (with content), erased, absent or
    does_not_open."""

    id: str
    layers: dict[str, dict[str, Any]]


class TokenRequest(Given):
    """An API token to make."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    roles: Annotated[
        list[Literal["viewer", "analyst", "privacy_officer", "admin"]],
        Field(min_length=1, max_length=4),
    ]
    tenants: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=256)]] | None,
        Field(max_length=1_000, description="null: all."),
    ] = None
    days: Annotated[int, Field(ge=1, le=366)] = 30


class TokenTold(Told):
    """What is known of an API token."""

    id: str
    name: str
    roles: list[str]
    tenants: list[str] | None
    state: Annotated[str, Field(examples=["active", "expired", "revoked"])]
    created_at: At
    created_by: str
    expires_at: At
    last_used_at: At


class TokensAnswer(Told):
    """API tokens, newest first."""

    tokens: list[TokenTold]


class TokenMade(Told):
    """A new API token, shown once."""

    token: str
    facts: TokenTold
