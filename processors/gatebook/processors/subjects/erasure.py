"""Erasing what a person wrote: a job of small steps, each of which may be done twice.

The job's document in the store says how far it came. Whoever runs it again, after whatever end,
goes on from there; what is counted is counted from what stands in the index in the end, so the
certificate says the same however often the job was interrupted.

1. request      the event that says who asked, and why, is durable
2. tombstone    from now on no worker keeps content of events of before; holds were looked at
3. keys         the subject's keys are destroyed: every sealed copy is unreadable from here on;
                retention's holds were looked at once more
4. settle       workers have forgotten the keys, and what they had under way is in the index
5. index        text and sealed layers are taken out of the documents, names where asked for
6. summaries    hours and days of before count the person without a name
7. purge        what was deleted and overwritten is off the disks of Elasticsearch
8. raw          (only where asked for) intake's keys of before are destroyed, too
9. verify       keys and content are looked for again
10. certificate is signed and kept; the event that says so is durable
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gatebook.processors.sinks.slots import without_revision
from gatebook.processors.subjects import holds, layers
from gatebook.processors.subjects.certificate import Signer
from gatebook.processors.subjects.documents import Documents, Found, Person
from gatebook.processors.subjects.elastic import keys_index
from gatebook.processors.subjects.state import (
    JOB,
    MAX_TRIES,
    Hold,
    SubjectState,
    TooBusy,
    change_state,
    job_id,
    key_id,
    read_states,
)
from gatebook.processors.subjects.store import Stored, SubjectStore
from gatebook.schemas.documents import timestamp_text
from gatebook.schemas.errors import GatebookError
from gatebook.schemas.topics import ACCESS, EVENT

STEPS = (
    "request",
    "tombstone",
    "keys",
    "settle",
    "index",
    "summaries",
    "purge",
    "raw",
    "verify",
    "certificate",
)
REWRITE_AT_ONCE = 200
# By whom something that stays somewhere can be read.
NOBODY = "by nobody"
BY_INTAKE = "with intake's private key"
BY_READERS = "by whoever reads this topic"
BY_ANYBODY = "by whoever has it"
BY_GUESSING = "by nobody; but who has the producers' digest key can test guesses against it"
UNREADABLE = (NOBODY, BY_GUESSING)
MAX_SWEEPS = 100


class NotErased(GatebookError):
    """Something is still there. Running the same erasure again tries again."""

    exit_code = 1
    next_step = "run the same command again; `gatebook subject status` shows how far it came"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for. `names`: user.name and user.email go as well. `raw`: intake's keys are
    rotated and the old ones destroyed, so that raw frames cannot be opened either."""

    reason: str
    by: str
    names: bool = False
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Privileged:
    """A privileged act, to be recorded before it is done. Equal acts are the same event: its id
    follows from `action` and `name`."""

    action: str
    name: str
    by: str
    at_ns: int
    details: Mapping[str, str]


class Surroundings(Protocol):
    """What an erasure needs beyond the store and the index."""

    async def record(self, event: Privileged) -> None:
        """Make the event of a privileged act durable. Raises where that cannot be: then nothing
        is done."""

    async def settle(self) -> None:
        """Returns when no worker uses a key it fetched before this call, and what they had under
        way is in the index. Raises where that is not so in time."""

    async def kept_until(self, topic: str) -> str:
        """Until when this topic keeps messages of now, in words or as a time."""

    async def begin_raw(self) -> list[str]:
        """Add a key for intake; ids of the others, to be destroyed."""

    async def end_raw(self, key_ids: Sequence[str]) -> None:
        """Destroy these keys once intake has read everything sealed under them."""


Told = Callable[[str], None]
# Takes a subject, by its tag, out of summaries of before a time in ns; may be done again.
Summaries = Callable[[str, int], Awaitable[dict[str, Any]]]
# The holds of others than the subject's own that cover something of a person.
Barring = Callable[[Person], Awaitable[Sequence[Hold]]]
Clock = Callable[[], int]


async def _nothing_bars(person: Person) -> tuple[Hold, ...]:
    return ()


@dataclass
class Eraser:
    """Runs erasures in one namespace. `told` hears the name of each step once it is done."""

    namespace: str
    store: SubjectStore
    documents: Documents
    signer: Signer
    surroundings: Surroundings
    told: Told = lambda step: None
    clock_ns: Clock = time.time_ns
    summaries: Summaries | None = None
    barring: Barring = _nothing_bars

    async def plan(self, person: Person, names: bool = False) -> dict[str, Any]:
        """What an erasure would do now; `names` as in Request. Changes nothing."""
        state = (await read_states(self.store, [person.tag]))[person.tag]
        ids = [key_id(person.tag, number) for number in range(state.generation + 1)]
        counts = await self._counted(person, set(ids), self.clock_ns())
        return {
            "subject": person.tag,
            "holds": [holds.described(one) for one in (*state.holds, *await self.barring(person))],
            "keys": sorted(await self.store.get(ids)),
            **counts,
            "remains": await self._remains(counts, self.clock_ns(), names),
        }

    async def refuse_if_held(self, person: Person) -> None:
        """Raises Held where a hold stands in the way: on the subject, or another one that covers
        something of theirs. An erasure that destroyed the keys can only be gone on with."""
        state = (await read_states(self.store, [person.tag]))[person.tag]
        holds.refuse_if_held(state)
        last = await self._last(state)
        if last is None or last.source["done"] or not await self._is_past_keys(last):
            await self._refuse_if_barred(person)

    async def _refuse_if_barred(self, person: Person) -> None:
        if found := tuple(await self.barring(person)):
            raise holds.HeldByRetention(found)

    async def run(self, person: Person, request: Request) -> dict[str, Any]:
        """Erase, or go on with an erasure that was interrupted; the certificate.

        Raises Held, NotErased, StoreAway, and what `surroundings` raises; the job stays then.
        """
        job = await self._job(person, request)
        job = await self._joined(person, job, request)
        actions: dict[str, Callable[[Person, Stored], Awaitable[dict[str, Any]]]] = {
            "request": self._request,
            "tombstone": self._tombstone,
            "keys": self._keys,
            "settle": self._settle,
            "index": self._index,
            "summaries": self._summaries,
            "purge": self._purge,
            "raw": self._raw,
            "verify": self._verify,
            "certificate": self._certificate,
        }
        for step in STEPS:
            if step not in job.source["steps"]:
                # If we die here, or in the step, it is done again by whoever runs the job next.
                result = await actions[step](person, job)
                job = await self._done(job.id, step, result)
            self.told(step)
        return dict(job.source["steps"]["certificate"])

    # -- the job's document -------------------------------------------------------------------

    async def _job(self, person: Person, request: Request) -> Stored:
        """The job under way, or a new one."""
        state = (await read_states(self.store, [person.tag]))[person.tag]
        last = await self._last(state)
        if last is not None and not last.source["done"]:
            return last
        holds.refuse_if_held(state)
        await self._refuse_if_barred(person)
        now = self.clock_ns()
        if last is not None and await self._covers(last, person, request, now):
            return last
        source = {
            "type": JOB,
            "tag": person.tag,
            "done": False,
            "generation": state.generation,
            "before_ns": now,
            "reason": request.reason,
            "by": request.by,
            "names": request.names,
            "raw": request.raw,
            "steps": {},
        }
        return await self._begun(job_id(person.tag, state.generation), source)

    async def _last(self, state: SubjectState) -> Stored | None:
        """The job of the generation before: the only one that may be past its tombstone."""
        before = job_id(state.tag, state.generation - 1)
        return (await self.store.get([before])).get(before)

    async def _begun(self, job: str, source: dict[str, Any]) -> Stored:
        """The job with this request, unless one is past its tombstone: that is gone on with. One
        that never came so far has done nothing, and gives way."""
        await self.store.create({job: source})
        return await self._change(
            job, lambda s: s if "tombstone" in s["steps"] else _instead_of(s, source)
        )

    async def _covers(self, last: Stored, person: Person, request: Request, now_ns: int) -> bool:
        """Whether nothing has come in since an erasure that is done: then its certificate holds,
        which whoever asked may never have seen."""
        current = key_id(person.tag, last.source["generation"] + 1)
        if request.raw or await self.store.get([current]):
            return False
        return not await self._left(person, _key_ids(last), now_ns, request.names)

    async def _left(self, person: Person, ids: set[str], before_ns: int, names: bool) -> int:
        """Documents that hold what is to be erased."""
        await self.documents.refresh()
        left = 0
        async for found in self.documents.scan(person.query()):
            left += stripped_of(found.source, person.tag, ids, before_ns, names) is not None
        return left

    async def _joined(self, person: Person, job: Stored, request: Request) -> Stored:
        """Going on with a job, under way perhaps at this moment, is an act of its own, perhaps of
        somebody else: the certificate names them, too."""
        if "request" not in job.source["steps"]:
            return job
        now, details = self.clock_ns(), {"subject": person.tag, "reason": request.reason}
        again = Privileged("subject.erase", f"{job.id}/{now}", request.by, now, details)
        await self.surroundings.record(again)
        # If we die here, they are in the log; the certificate need not name who did nothing more.
        asked = {"by": request.by, "reason": request.reason, "at": timestamp_text(now)}
        return await self._change(job.id, lambda s: _with_request(s, asked))

    async def _done(self, job: str, step: str, result: Mapping[str, Any]) -> Stored:
        done = step == STEPS[-1]
        return await self._change(job, lambda s: _with_step(s, step, result, done))

    async def _change(self, job: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Stored:
        for _ in range(MAX_TRIES):
            stored = (await self.store.get([job]))[job]
            changed = change(stored.source)
            if changed == stored.source or await self.store.replace(stored, changed):
                return (await self.store.get([job]))[job]
        raise TooBusy("the job keeps being changed by others; try again")

    # -- the steps ----------------------------------------------------------------------------

    async def _request(self, person: Person, job: Stored) -> dict[str, Any]:
        details = {"subject": person.tag, "reason": job.source["reason"]}
        by, at_ns = job.source["by"], job.source["before_ns"]
        name = f"{job.id}/{at_ns}"
        await self.surroundings.record(Privileged("subject.erase", name, by, at_ns, details))
        return {"by": by}

    async def _tombstone(self, person: Person, job: Stored) -> dict[str, Any]:
        generation, before_ns = job.source["generation"], job.source["before_ns"]
        state = (await read_states(self.store, [person.tag]))[person.tag]
        try:
            if state.generation <= generation:  # else it is done, and this a second try
                await self._refuse_if_barred(person)
            await change_state(
                self.store,
                person.tag,
                lambda state: (
                    state
                    if state.generation > generation
                    else holds.refuse_if_held(state).erased(generation, before_ns)
                ),
            )
        except holds.Held:  # it came between the look and now; nothing is done yet
            await self.store.delete([job.id])
            raise
        return {"content_of_before": timestamp_text(before_ns)}

    async def _keys(self, person: Person, job: Stored) -> dict[str, Any]:
        ids = [key_id(person.tag, number) for number in range(job.source["generation"] + 1)]
        if not await self._is_past_keys(job):
            # A hold of retention's may have come in between: then the job waits until it ends.
            await self._refuse_if_barred(person)
        if "keys_found" not in job.source:
            # Noted before they are destroyed: if we die in between, they are still in the count.
            found = sorted(await self.store.get(ids))
            job = await self._change(job.id, lambda s: {"keys_found": found, **s})
        await self._destroy(ids)
        return {"destroyed": job.source["keys_found"]}

    async def _is_past_keys(self, job: Stored) -> bool:
        """Whether there is no way back: keys were found, and none is there any more."""
        if "keys" in job.source["steps"]:
            return True
        return "keys_found" in job.source and not await self.store.get(sorted(_key_ids(job)))

    async def _destroy(self, ids: Sequence[str]) -> None:
        await self.store.delete(ids)
        if await self.store.get(ids):
            raise NotErased("a key was made again while it was destroyed")

    async def _settle(self, person: Person, job: Stored) -> dict[str, Any]:
        await self.surroundings.settle()
        return {}

    async def _index(self, person: Person, job: Stored) -> dict[str, Any]:
        ids, names = _key_ids(job), job.source["names"]
        for _ in range(MAX_SWEEPS):
            if not await self._sweep(person, ids, job.source["before_ns"], names):
                break
        else:
            raise NotErased("documents keep changing while they are stripped")
        await self._note_gone(job)
        return await self._counted(person, ids, job.source["before_ns"])

    async def _note_gone(self, job: Stored) -> None:
        """From now on neither index nor store have what is erased: a snapshot of before may."""
        now = self.clock_ns()
        await self._change(job.id, lambda s: {**s, "gone_ns": now})

    async def _summaries(self, person: Person, job: Stored) -> dict[str, Any]:
        if self.summaries is None:
            return {}
        return await self.summaries(person.tag, job.source["before_ns"])

    async def _purge(self, person: Person, job: Stored) -> dict[str, Any]:
        steps = job.source["steps"]
        written = {*steps["index"]["indices"], *steps["summaries"].get("summary_indices", ())}
        await self.documents.expunge(sorted(written))
        await self.store.purge()
        return {}

    async def _sweep(self, person: Person, ids: set[str], before_ns: int, names: bool) -> int:
        """Strip what is there now; the number of documents that were not as they should be."""
        await self.documents.refresh()
        batch: list[tuple[Found, Mapping[str, Any]]] = []
        touched = 0
        async for found in self.documents.scan(person.query()):
            stripped = stripped_of(found.source, person.tag, ids, before_ns, names)
            if stripped is None:
                continue
            touched += 1
            batch.append((found, stripped))
            if len(batch) >= REWRITE_AT_ONCE:
                await self._rewrite(batch)
                batch = []
        await self._rewrite(batch)
        return touched

    async def _rewrite(self, batch: Sequence[tuple[Found, Mapping[str, Any]]]) -> None:
        # If we die here, some are stripped: the next sweep finds the others. So it does those
        # that somebody else changed meanwhile.
        outcome = await self.documents.rewrite(batch)
        if outcome.refused:
            raise NotErased(f"documents cannot be rewritten: {sorted(set(outcome.refused))[0]}")

    async def _raw(self, person: Person, job: Stored) -> dict[str, Any]:
        if not job.source["raw"]:
            return {}
        if "raw_keys" not in job.source:
            # If we die before it is noted, the next run rotates once more: harmless.
            ids = await self.surroundings.begin_raw()
            job = await self._change(job.id, lambda s: {"raw_keys": ids, **s})
        await self.surroundings.end_raw(job.source["raw_keys"])
        return {"intake_keys_destroyed": job.source["raw_keys"]}

    async def _verify(self, person: Person, job: Stored) -> dict[str, Any]:
        ids = _key_ids(job)
        if await self.store.get(ids):  # a worker that stood still since before the tombstone
            await self._destroy(sorted(ids))
            await self.store.purge()
            await self._note_gone(job)
        left = await self._left(person, ids, job.source["before_ns"], job.source["names"])
        if left:
            await self._change(job.id, lambda s: _without_steps(s, ("index", "purge")))
            raise NotErased(f"{left} documents came in with content meanwhile")
        return {"keys_left": 0, "documents_with_content_left": left}

    async def _certificate(self, person: Person, job: Stored) -> dict[str, Any]:
        if "certificate" not in job.source:
            # Kept before it is told: if we die in between, the same one is told again.
            signed = self.signer.sign(await self._statement(person, job))
            job = await self._change(job.id, lambda s: {"certificate": signed, **s})
        certificate: dict[str, Any] = job.source["certificate"]
        details = {"subject": person.tag, "signature": certificate["signature"]}
        by, at_ns = job.source["by"], int(certificate["completed_at_ns"])
        await self.surroundings.record(Privileged("subject.erased", job.id, by, at_ns, details))
        return certificate

    async def _statement(self, person: Person, job: Stored) -> dict[str, Any]:
        source, steps = job.source, job.source["steps"]
        now_ns = self.clock_ns()
        gone_ns = source.get("gone_ns", now_ns)
        remains = await self._remains(steps["index"], gone_ns, source["names"], source["raw"])
        readable = [left for left in remains if left["readable"] not in UNREADABLE]
        return {
            "namespace": self.namespace,
            "job": job.id,
            "subject": person.tag,
            "reason": source["reason"],
            "requested_by": source["by"],
            **{name: source[name] for name in ("also_requested",) if name in source},
            "content_of_before": timestamp_text(source["before_ns"]),
            "completed_at": timestamp_text(now_ns),
            "completed_at_ns": now_ns,
            "keys_destroyed": steps["keys"]["destroyed"],
            **steps["index"],
            **steps["summaries"],
            "names_erased": source["names"],
            **steps["raw"],
            **steps["verify"],
            "remains": remains,
            "complete": not readable,
            "complete_when": sorted({left["until"] for left in readable}),
        }

    # -- looking ------------------------------------------------------------------------------

    async def _counted(self, person: Person, ids: set[str], before_ns: int) -> dict[str, Any]:
        """Counts of what stands in the index, the same before and after it is stripped."""
        total, searchable, untagged, digested = 0, 0, 0, 0
        by_index: Counter[str] = Counter()
        named: Counter[str] = Counter()
        await self.documents.refresh()
        async for found in self.documents.scan(person.query(), COUNTED_FIELDS):
            total += 1
            if not is_concerned(found.source, ids, before_ns):
                continue
            named[found.index] += bool(layers.identifiers(found.source))
            digested += bool(layers.value_at(found.source, ("gatebook", "content_digest")))
            if had_content(found.source):
                by_index[found.index] += 1
                searchable += layers.is_searchable(found.source)
                untagged += not found.source["gatebook"].get("subject")
        return {
            "documents": total,
            "documents_with_content": sum(by_index.values()),
            "documents_with_names": named.total(),
            "documents_with_digests": digested,
            "documents_searchable": searchable,
            "documents_of_version_1": untagged,
            "indices": dict(sorted(by_index.items())),
            "indices_with_names": dict(sorted((+named).items())),
        }

    async def _remains(
        self, counts: Mapping[str, Any], gone_ns: int, names: bool, raw_destroyed: bool = False
    ) -> list[dict[str, Any]]:
        """What stays where, until when, and whether anybody can read it. `gone_ns`: when the index
        and the store had nothing of it any more."""
        raw_until = await self.surroundings.kept_until(ACCESS)
        event_until = await self.surroundings.kept_until(EVENT)
        raw_by = NOBODY if raw_destroyed else BY_INTAKE
        remains = [
            _left("raw frames, sealed for intake", IN_RAW, raw_until, raw_by),
            _left("sealed content", IN_EVENTS, event_until, NOBODY),
        ]
        if names and counts["documents_with_names"]:
            remains += [
                _left(NAMES, IN_RAW, raw_until, BY_READERS),
                _left(NAMES, IN_EVENTS, event_until, BY_READERS),
            ]
        if counts.get("documents_with_digests"):
            everywhere = "the events, wherever they are kept"
            remains.append(_left(DIGESTS, everywhere, "the events go", BY_GUESSING))
        for snapshot in await self.documents.snapshots():
            remains += self._in_snapshot(snapshot, counts, gone_ns, names)
        return remains

    def _in_snapshot(
        self, snapshot: Mapping[str, Any], counts: Mapping[str, Any], gone_ns: int, names: bool
    ) -> list[dict[str, Any]]:
        held = set(snapshot["indices"])
        documents = _has_days(held, counts["indices"])
        named = names and _has_days(held, counts.get("indices_with_names", ()))
        keys = keys_index(self.namespace) in held
        if snapshot["taken_ms"] * 1_000_000 > gone_ns or not (documents or named or keys):
            return []
        text = documents and counts["documents_searchable"] > 0
        what = [
            *(["the subject's keys"] if keys else []),
            *(["redacted text that could be searched"] if text else []),
            *([NAMES] if named else []),
        ]
        where = f"snapshot {snapshot['repository']}/{snapshot['snapshot']}"
        by = BY_ANYBODY if what else NOBODY
        return [_left(" and ".join(what) or "sealed content", where, "the snapshot is deleted", by)]


NAMES = "user.name and user.email"
DIGESTS = "gatebook.content_digest.*, keyed digests of content"
IN_RAW = "the topic access.v1, and spools of producers"
IN_EVENTS = "the topic event.v1"


def _left(what: str, where: str, until: str, readable: str) -> dict[str, Any]:
    return {"what": what, "where": where, "until": until, "readable": readable}


def _has_days(held: Iterable[str], indices: Iterable[str]) -> bool:
    """Whether some of these indices are held. Retention may have rewritten one since: the same day
    under another name."""
    days = {without_revision(name) for name in held}
    return any(without_revision(name) in days for name in indices)


def left_to_others(certificate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What of an erasure stays readable until somebody removes it; anything else that is readable
    ages out by itself."""
    return [left for left in certificate["remains"] if left["readable"] == BY_ANYBODY]


COUNTED_FIELDS = (
    "@timestamp",
    "user.name",
    "user.email",
    "gatebook.subject",
    "gatebook.capture",
    "gatebook.content_digest",
    "gatebook.sealed.key_id",
)


def _key_ids(job: Stored) -> set[str]:
    return {key_id(job.source["tag"], n) for n in range(job.source["generation"] + 1)}


def _with_request(source: dict[str, Any], asked: dict[str, str]) -> dict[str, Any]:
    """A job with another request for it, unless it has the same one, or is certified already."""
    others = source.get("also_requested", [])
    known = {(one["by"], one["reason"]) for one in (source, *others)}
    if "certificate" in source or (asked["by"], asked["reason"]) in known:
        return source
    return {**source, "also_requested": [*others, asked]}


def _instead_of(before: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
    """A job in the place of one that has done nothing yet; who asked for that one is kept."""
    at = timestamp_text(before["before_ns"])
    asked = {"by": before["by"], "reason": before["reason"], "at": at}
    for one in (*before.get("also_requested", ()), asked):
        source = _with_request(source, one)
    return source


def _with_step(
    source: dict[str, Any], step: str, result: Mapping[str, Any], done: bool
) -> dict[str, Any]:
    if step in source["steps"]:
        return source  # somebody else was faster
    return {**source, "steps": {**source["steps"], step: dict(result)}, "done": done}


def _without_steps(source: dict[str, Any], steps: Sequence[str]) -> dict[str, Any]:
    return {**source, "steps": {n: r for n, r in source["steps"].items() if n not in steps}}


def is_concerned(document: Mapping[str, Any], ids: set[str], before_ns: int) -> bool:
    """Whether a document falls under an erasure: it is of before, or sealed under such a key."""
    sealed = layers.value_at(document, ("gatebook", "sealed", "key_id"))
    return sealed in ids or str(document["@timestamp"]) < timestamp_text(before_ns)


def had_content(document: Mapping[str, Any]) -> bool:
    """Whether a document was written with content, whatever is left of it."""
    if layers.value_at(document, ("gatebook", "sealed", "key_id")):
        return True
    untagged = not layers.value_at(document, ("gatebook", "subject"))
    return untagged and layers.level_of(document) in layers.STORED_LEVELS


def stripped_of(
    document: Mapping[str, Any], tag: str, ids: set[str], before_ns: int, names: bool
) -> dict[str, Any] | None:
    """The document without what is to be erased; None where nothing of that is in it."""
    if not is_concerned(document, ids, before_ns):
        return None
    left = layers.without(document, layers.CONTENT_FIELDS)
    if names:
        left = _with_pseudonyms(left, tag)
    return None if left == document else left


def _with_pseudonyms(document: dict[str, Any], tag: str) -> dict[str, Any]:
    """Names replaced by one that says only that it is the same person."""
    pseudonym = f"{layers.ERASED_NAME}{tag[:16]}]"
    user = dict(document.get("user", {}))
    for _, name in layers.IDENTIFIERS:
        if user.get(name):
            user[name] = pseudonym
    return {**document, "user": user} if user else document
