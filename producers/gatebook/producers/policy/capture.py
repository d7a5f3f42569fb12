"""The capture policy at work, in the writer's thread: every event is held to it before it is
encoded. Nothing of a request but the facts of match.py has a say in it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gatebook.producers.config import ProducerSettings
from gatebook.producers.policy.document import RANK
from gatebook.producers.policy.fields import digest_key
from gatebook.producers.policy.grants import (
    Grant,
    Raise,
    fingerprint,
    folder_of,
    read_grants,
)
from gatebook.producers.policy.hold import held
from gatebook.producers.policy.match import Decision, Facts, Policy, Verdict, facts_of, raised
from gatebook.producers.policy.notices import ACTIVE, ENDED, REFUSED, ControlEvent, Notice
from gatebook.producers.policy.store import PolicyStore, kept_path, policy_of_level
from gatebook.schemas.documents import timestamp_text
from gatebook.schemas.errors import Fatal, RecordRejected

log = logging.getLogger("gatebook.producers")

LOOK_SECONDS = 1.0
REMEMBERED_DECISIONS = 4096
ENDED_FILE = "break-glass-ended"
NEVER_NS = 1 << 63


class CapturePolicy:
    """Holds events to the policy of the settings: of their file, else to their one level.

    `say` takes the events that tell what happened to the policy. Not for use from several
    threads, but for reading the counts.
    """

    def __init__(
        self,
        settings: ProducerSettings,
        say: Callable[[ControlEvent], object],
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._say = say
        self._clock_ns = clock_ns
        self._monotonic = monotonic
        self._look_at = 0.0
        self._secret: bytes | None = None
        path = Path(settings.capture_policy).expanduser() if settings.capture_policy else None
        self._store = _store(settings, path, monotonic) if path else None
        self.policy = self._store.policy if self._store else policy_of_level(settings.capture_level)
        ended_file = settings.home_path / "policy" / ENDED_FILE
        self._grants = Grants(folder_of(path), ended_file) if path else None
        self._raises: tuple[Raise, ...] = ()
        self._until_ns = NEVER_NS if path is None else 0
        self._decisions: dict[Facts, Decision] = {}
        self.captured: dict[str, int] = {}

    # -- counts -------------------------------------------------------------------------------

    @property
    def is_broken(self) -> bool:
        """Whether the file is not what is in force."""
        return bool(self._store and self._store.problem)

    @property
    def loads(self) -> dict[str, int]:
        """How often the file was taken over, and found broken."""
        store = self._store
        return {"changed": store.changed, "broken": store.broken} if store else {}

    @property
    def raised(self) -> int:
        """Break-glass grants that are active."""
        return len(self._raises)

    @property
    def wants_content(self) -> bool:
        """Whether there is an access of which content would be kept."""
        highest = [self.policy.highest_level, *(one.level for one in self._raises)]
        return any(RANK[level] > RANK["metadata"] for level in highest)

    # -- events -------------------------------------------------------------------------------

    def hold(self, given: Any, event: Mapping[str, Any]) -> dict[str, Any]:
        """The event as the policy lets it be. `given` is what it was built from.

        Raises RecordRejected for an event it cannot judge: that is dropped and counted, for what
        is not judged must not go on.
        """
        try:
            if isinstance(given, ControlEvent):
                return self._stamped(event)
            decision = self._decision(facts_of(event))
            allowed = held(event, decision, self._key() if decision.actions else b"")
        except Exception as error:
            raise RecordRejected("invalid_event", type(error).__name__) from None
        self.captured[decision.level] = self.captured.get(decision.level, 0) + 1
        return allowed

    def _stamped(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """A notice, with the policy it was written under."""
        policy = self.policy
        capture = {"level": "metadata", "policy": policy.name, "policy_version": policy.digest}
        kept = {"metadata": policy.file.retention.metadata}
        about = {**capture, "break_glass": event["attributes"].get("break_glass", "")}
        return {**event, "gatebook": {**event["gatebook"], "capture": about, "retention": kept}}

    def _key(self) -> bytes:
        """The key of field digests; empty where there is none: then those fields are dropped."""
        if self._secret is None:
            try:
                self._secret = digest_key(self._settings.digest_secret())
            except Fatal as error:
                log.error("fields are dropped, not digested: %s", error)
                self._secret = b""
        return self._secret

    def _decision(self, facts: Facts) -> Decision:
        if self._clock_ns() >= self._until_ns:
            self._choose_raises()
        found = self._decisions.get(facts)
        if found is None:
            if len(self._decisions) >= REMEMBERED_DECISIONS:
                self._decisions.clear()
            found = self._decisions[facts] = decide(self.policy, facts, self._raises)
        return found

    # -- changes ------------------------------------------------------------------------------

    def look(self) -> None:
        """Look at the files, at most once a second. Raises nothing."""
        if self._store is None or self._monotonic() < self._look_at:
            return
        self._look_at = self._monotonic() + LOOK_SECONDS
        try:
            self._look()
        except Exception as error:  # a policy that cannot be looked at stays as it is
            log.error("the capture policy could not be looked at: %s", type(error).__name__)

    def _look(self) -> None:
        assert self._store is not None
        assert self._grants is not None
        notices = self._store.look()
        if self._store.policy is not self.policy:
            self.policy = self._store.policy
            self._decisions.clear()
        if self._grants.look(self.policy):
            self._choose_raises()
        for notice in [*notices, *self._grants.take_notices(self._clock_ns())]:
            self._say(ControlEvent(notice))

    def _choose_raises(self) -> None:
        now_ns = self._clock_ns()
        self._raises, self._until_ns = (
            self._grants.active(now_ns) if self._grants else ((), NEVER_NS)
        )
        self._decisions.clear()


def _store(settings: ProducerSettings, path: Path, monotonic: Callable[[], float]) -> PolicyStore:
    kept_at = kept_path(settings.home_path, path)
    return PolicyStore(path, kept_at, monotonic, settings.capture_policy_fallback)


def decide(policy: Policy, facts: Facts, raises: tuple[Raise, ...] = ()) -> Decision:
    """What is captured of an access, break-glass included: that goes by what is sure alone."""
    decision = policy.decide(facts)
    if raises:
        seen = policy.seen(facts, sure=True)
        for one in raises:
            if one.matcher.verdict(seen)[0] is Verdict.YES:
                decision = raised(decision, one.level, one.id)
    return decision


class Grants:
    """The break-glass folder over time: what is active, and what is to be said. A grant that has
    ended here does not come back, whatever becomes of its files, of the clock or of this process:
    `ended_file` keeps their ids."""

    def __init__(self, folder: Path, ended_file: Path) -> None:
        self._folder = folder
        self._ended_file = ended_file
        self._seen: object = None
        self._found: dict[str, Grant] = {}
        self._active: dict[str, Grant] = {}
        self._ended = _lines_of(ended_file)
        self._said: set[tuple[str, str]] = set()

    def look(self, policy: Policy) -> bool:
        """Read the folder if it, or the policy, changed."""
        if policy.file.break_glass is None and not self._found:
            return False
        seen = (policy.digest, fingerprint(self._folder))
        if seen == self._seen:
            return False
        self._seen = seen
        self._found = {grant.id: grant for grant in read_grants(self._folder, policy)}
        self._remember_revoked()
        return True

    def _remember_revoked(self) -> None:
        """A revocation that was seen once counts here for good, also of what was never active."""
        for grant in self._found.values():
            if grant.state == "revoked" and not self._is_known(grant.id):
                self._end(grant.id)

    def _is_known(self, request_id: str) -> bool:
        return request_id in self._active or request_id in self._ended

    def active(self, now_ns: int) -> tuple[tuple[Raise, ...], int]:
        """What is in force now, and when that changes by itself."""
        raises, until_ns = [], NEVER_NS
        for grant in self._found.values():
            request = grant.request
            if request is None or grant.id in self._ended:
                continue
            state = grant.state_at(now_ns)
            if state == "active":
                raises.append(Raise(request))
            if state in ("active", "waiting"):
                edge = request.expires_ns if state == "active" else request.begins_ns
                until_ns = min(until_ns, edge)
        return tuple(raises), until_ns

    def take_notices(self, now_ns: int) -> list[Notice]:
        """What became active, ended or was refused since the last call."""
        fresh = (g for g in self._found.values() if not g.request or g.request.expires_ns > now_ns)
        notices = [notice for grant in fresh for notice in self._refusals(grant)]
        active = {r.id for r in self.active(now_ns)[0]}
        for request_id in active - self._active.keys():
            self._active[request_id] = self._found[request_id]
            notices.append(_notice(ACTIVE, "approved", self._found[request_id]))
        for request_id in self._active.keys() - active:
            grant = self._active.pop(request_id)
            self._end(request_id)
            notices.append(_notice(ENDED, self._why(request_id, now_ns), grant))
        return notices

    def _end(self, request_id: str) -> None:
        """If we die before it is written, the files say the same to the next process."""
        self._ended.add(request_id)
        try:
            self._ended_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._ended_file.open("a", encoding="ascii") as file:
                file.write(f"{request_id}\n")
        except OSError as error:
            log.warning("the end of a raise could not be kept: %s", error.strerror)

    def _why(self, request_id: str, now_ns: int) -> str:
        grant = self._found.get(request_id)
        state = grant.state_at(now_ns) if grant else "withdrawn"
        return state if state in ("expired", "revoked") else "withdrawn"

    def _refusals(self, grant: Grant) -> list[Notice]:
        codes = (grant.problem,) if grant.problem else grant.ignored
        fresh = [code for code in dict.fromkeys(codes) if (grant.id, code) not in self._said]
        if grant.id in self._active or grant.id in self._ended:
            fresh = []  # it was in force, and its end is what is said
        self._said.update((grant.id, code) for code in fresh)
        return [_notice(REFUSED, code, grant) for code in fresh]


def _lines_of(path: Path) -> set[str]:
    try:
        return set(path.read_text(encoding="ascii").split())
    except (OSError, UnicodeDecodeError):
        return set()


def _notice(action: str, reason: str, grant: Grant) -> Notice:
    request = grant.request
    if request is None:
        return Notice(action, reason, {"break_glass": grant.id})
    return Notice(action, reason, {**told(request), "approved_by": ",".join(grant.approved_by)})


def told(request: Any) -> dict[str, str]:
    """What an event says of a request."""
    return {
        "break_glass": request.id,
        "policy_version": request.policy_version,
        "level": request.level,
        "requested_by": request.requested_by,
        "justification": request.reason,
        "expires": timestamp_text(request.expires_ns),
    }
