"""One HTTP request as the middleware sees it: what the event loop notes, and no more.

The loop keeps references and counts. What they mean (headers read, the caller identified, bodies
parsed) is found out in the writer's thread, in `Seen.build`. Headers are copied as they came: an
application that changes its scope, or a middleware around it that changes an answer's headers,
changes nothing here. Credentials among them are held until then, no longer, and go nowhere.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from gatebook.producers.addresses import source_of
from gatebook.producers.classify import Raised
from gatebook.producers.config import ProducerSettings
from gatebook.producers.draft import STREAM_TYPES, AccessDraft, Provenance
from gatebook.producers.identity import ANONYMOUS, Identity, judged
from gatebook.producers.ids import uuid7
from gatebook.producers.tape import Tape
from gatebook.schemas.intents import intent_id

log = logging.getLogger("gatebook.producers")

# Request headers that describe an access; those that identify its caller are kept beside them.
KEPT_REQUEST_HEADERS = frozenset(
    {"user-agent", "host", "x-request-id", "traceparent", "content-type", "content-encoding"}
)
KEPT_ANSWER_HEADERS = frozenset({"content-type", "content-encoding", "x-request-id"})


class Identify(Protocol):
    """See Identifier.identify."""

    def __call__(
        self,
        scope: Mapping[str, Any],
        headers: Mapping[str, str],
        status: int | None,
        started_at_seconds: float,
    ) -> Identity: ...


class Post:
    """What all requests of a middleware have in common.

    `identity_headers` are those that the resolvers read. The caller is then identified in the
    writer's thread, from headers, peer and TLS extension as they were at the start. None, where
    somebody else's code has a say in it: that is asked on the event loop, with the scope as the
    application left it.
    """

    def __init__(
        self,
        settings: ProducerSettings,
        content_key: bytes,
        provenance: Provenance | None,
        identify: Identify,
        identity_headers: frozenset[str] | None,
    ) -> None:
        self.settings = settings
        self.content_key = content_key
        self.provenance = provenance
        self.identify = identify
        self.identify_late = identity_headers is not None
        self.writes_intents = settings.writes_intents
        self.trusted = settings.trusted_networks()
        self.body_max_bytes = settings.body_max_bytes
        names = KEPT_REQUEST_HEADERS | {settings.forwarded_header} | (identity_headers or set())
        self.kept_headers = frozenset(name.encode("latin-1") for name in names if name)


class Seen:
    """A draft of an access (see inbox.Draft), filled on the event loop. What is not there yet
    stands at its class's values: an instance costs what differs."""

    status: int | None = None
    answer_headers: Sequence[tuple[bytes, bytes]] = ()
    first_chunk_ns: int | None = None
    duration_ns = 0
    sent_all = False
    client_gone = False
    raised: Raised | None = None
    identity: Identity | None = None  # None: found out in `build`
    shed_reason = ""
    _event_id = ""

    def __init__(self, post: Post, scope: Mapping[str, Any]) -> None:
        self.started_ns = time.time_ns()
        self.begun_ns = time.perf_counter_ns()
        self.post = post
        self.method = scope.get("method", "")
        self.path = scope.get("path", "")
        self.client = scope.get("client")
        self.extensions = scope.get("extensions")
        kept = post.kept_headers
        self.headers = [pair for pair in scope.get("headers") or () if pair[0] in kept]
        self.request = Tape(post.body_max_bytes)
        self.answer = Tape(post.body_max_bytes)

    def again(self) -> Seen:
        """Another draft of the same request, with what it has seen so far; this one may be in the
        writer's hands already."""
        new = object.__new__(Seen)
        vars(new).update(vars(self))
        new.answer = self.answer.follow()
        new.sent_all, new.identity = False, None
        if not self.post.writes_intents:
            new._event_id = ""
        return new

    @property
    def event_id(self) -> str:
        """Of its terminal event; made when it is first asked for."""
        self._event_id = self._event_id or uuid7()
        return self._event_id

    @property
    def size_bytes(self) -> int:
        """Memory it holds, approximately."""
        size = self.request.kept_bytes + self.answer.kept_bytes
        for pair in self.headers:
            size += len(pair[1])
        return size

    @property
    def streamed(self) -> bool:
        """Whether the answer is a stream by its content type."""
        return _headers(self.answer_headers).get("content-type", "").startswith(STREAM_TYPES)

    def shed(self, reason: str) -> bool:
        """Give up the bodies, unread; False where there are none. Not while they still grow."""
        if not (self.request.kept_bytes or self.answer.kept_bytes):
            return False
        self.request.drop()
        self.answer.drop()
        self.shed_reason = reason
        return True

    # -- in the writer's thread ---------------------------------------------------------------

    def build(self) -> dict[str, Any]:
        """The access event."""
        draft, headers = self._begun()
        draft.status = self.status
        draft.answer_headers = _only(_headers(self.answer_headers), KEPT_ANSWER_HEADERS)
        draft.chunks = self.answer.chunks
        draft.first_chunk_ns = self.first_chunk_ns
        draft.duration_ns = self.duration_ns
        draft.sent_all, draft.client_gone = self.sent_all, self.client_gone
        draft.raised, draft.shed_reason = self.raised, self.shed_reason
        draft.identity = self._identified(headers, self.status)
        return draft.build()

    def build_intent(self, who: Identity | None) -> dict[str, Any]:
        """The record before the call; reads only what does not change once the request has
        begun."""
        draft, headers = self._begun()
        return draft.build_intent(who or self._identified(headers, None))

    def _begun(self) -> tuple[AccessDraft, dict[str, str]]:
        """The draft as it was at the request's start, and the headers it came with."""
        post, headers = self.post, _headers(self.headers)
        peer = self.client or ("", None)
        source_ip = source_of(peer, headers, post.trusted, post.settings.forwarded_header)
        draft = AccessDraft(
            settings=post.settings,
            content_key=post.content_key,
            started_ns=self.started_ns,
            method=str(self.method),
            path=str(self.path),
            headers=_only(headers, KEPT_REQUEST_HEADERS),
            source_ip=source_ip,
            source_port=peer[1] if source_ip == str(peer[0]) else None,
            request=self.request,
            answer=self.answer,
            provenance=post.provenance,
        )
        return draft, headers

    def _identified(self, headers: Mapping[str, str], status: int | None) -> Identity:
        if self.identity is not None:
            return self.identity
        scope = {"type": "http", "client": self.client, "extensions": self.extensions}
        try:
            return self.post.identify(scope, headers, status, self.started_ns / 1e9)
        except Exception as error:  # whoever called: that there was a call is recorded
            log.error("a caller could not be identified: %s", type(error).__name__)
            return judged(ANONYMOUS, status)


class SeenIntent:
    """The intent of an access that has only begun (see inbox.Draft)."""

    size_bytes = 0  # nothing beside the access, which is there anyway

    def __init__(self, access: Seen, identity: Identity | None) -> None:
        self.access = access
        self.identity = identity

    @property
    def event_id(self) -> str:
        """Names the terminal event that is to follow."""
        return intent_id(self.access.event_id)

    def build(self) -> dict[str, Any]:
        """See Seen.build_intent."""
        return self.access.build_intent(self.identity)


def _headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Header names in lower case to values; of a repeated one, all, joined by commas."""
    out: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        out[name] = f"{out[name]},{value}" if name in out else value
    return out


def all_headers(scope: Mapping[str, Any]) -> dict[str, str]:
    """Every header of a request, for somebody else's resolvers."""
    return _headers(scope.get("headers") or ())


def _only(headers: Mapping[str, str], kept: frozenset[str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name in kept}
