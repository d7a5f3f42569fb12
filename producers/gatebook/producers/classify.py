"""How an access ended, from what was seen of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

# Fixed texts: a service's own words may quote a prompt.
MESSAGES = {
    "unauthenticated": "The caller was not authenticated.",
    "forbidden": "The caller is not allowed to do this.",
    "invalid_request": "The request was not valid.",
    "not_found": "There is no such endpoint or model.",
    "rate_limited": "The caller exceeded a rate limit.",
    "content_filtered": "The content was refused by a filter.",
    "timeout": "The model did not answer in time.",
    "client_aborted": "The caller left before the answer was complete.",
    "upstream_error": "The model service behind this one failed.",
    "server_error": "The service failed.",
    "unavailable": "The service was not available.",
}
_BY_STATUS = {
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    408: "timeout",
    429: "rate_limited",
    499: "client_aborted",
    502: "upstream_error",
    503: "unavailable",
    504: "timeout",
}
_AUTHENTICATION = frozenset({"unauthenticated", "forbidden"})
_DENIED = frozenset({"unauthenticated", "forbidden", "rate_limited", "content_filtered"})
_CLIENT_LIBRARIES = ("httpx", "httpx2", "httpcore", "aiohttp", "requests", "urllib3", "openai")


@dataclass(frozen=True)
class Raised:
    """An exception, without what it holds: its class, and how an access ends with it."""

    type_name: str
    verdict: Verdict


@dataclass(frozen=True)
class Ending:
    """What was seen of an access's end. `status` is None where no answer was begun; `sent_all`
    says that the last chunk was handed to the server; `recognised` that the answer's format is
    known, and `ended` that its own end mark was seen."""

    status: int | None
    sent_all: bool
    client_gone: bool = False
    raised: Raised | None = None
    streamed: bool = False
    recognised: bool = False
    ended: bool = False
    answer_failed: bool = False
    filtered: bool = False


@dataclass(frozen=True)
class Verdict:
    """event.outcome, event.reason and what follows from them."""

    outcome: str
    reason: str = ""
    aborted_by: str = ""

    @property
    def category(self) -> str:
        """ECS event.category."""
        return "authentication" if self.reason in _AUTHENTICATION else "api"

    @property
    def event_type(self) -> str:
        """ECS event.type."""
        if self.outcome == "success":
            return "access"
        return "denied" if self.reason in _DENIED else "error"


SUCCESS = Verdict("success")


def judge(ending: Ending) -> Verdict:
    """The verdict on an access."""
    if ending.client_gone and not ending.sent_all:
        return Verdict("failure", "client_aborted", "client")
    if ending.raised is not None and not ending.sent_all:
        return ending.raised.verdict
    if ending.status is None:
        return Verdict("failure", "server_error", "server")
    if ending.status >= 400:
        reason = _by_status(ending.status)
        filtered = ending.filtered and reason == "invalid_request"
        return Verdict("failure", "content_filtered" if filtered else reason)
    return _of_answer(ending)


def _of_answer(ending: Ending) -> Verdict:
    """A good status says little of a stream: it was sent before the answer was made."""
    if not ending.sent_all:
        return Verdict("failure", "server_error", "server")
    if ending.answer_failed:
        return Verdict("failure", "upstream_error", "upstream" if ending.streamed else "")
    if ending.streamed and ending.recognised and not ending.ended:
        return Verdict("failure", "upstream_error", "upstream")
    if ending.filtered:
        return Verdict("failure", "content_filtered")
    return SUCCESS


def _by_status(status: int) -> str:
    return _BY_STATUS.get(status, "invalid_request" if status < 500 else "server_error")


def describe(error: BaseException) -> Raised:
    """What an exception says of an access. Of an exception group, the first inside it counts."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return Raised(type(error).__name__, _of_exception(error))


def _of_exception(error: BaseException) -> Verdict:
    kind = type(error)
    if any("timeout" in base.__name__.lower() for base in kind.__mro__):
        return Verdict("failure", "timeout", "upstream")
    if not isinstance(error, Exception):  # cancelled, or the process is told to end
        return Verdict("unknown", "", "server")
    if kind.__module__.partition(".")[0] in _CLIENT_LIBRARIES:
        return Verdict("failure", "upstream_error", "upstream")
    return Verdict("failure", "server_error", "server")
