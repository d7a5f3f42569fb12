"""Content leaves intake sealed for its subject, and the digest survives its erasure."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from gatebook.processors import render
from gatebook.processors.enrich import Catalog
from gatebook.processors.intake import IntakeContext, IntakeResult, Source, process_frame
from gatebook.processors.reconcile import incomplete_document, rendered
from gatebook.processors.redact import Redactor
from gatebook.processors.sinks import bulk
from gatebook.processors.sinks.base import Row
from gatebook.processors.subjects import layers
from gatebook.processors.subjects.erasure import stripped_of
from gatebook.processors.subjects.erasures import Erasure
from gatebook.processors.subjects.identity import PRINCIPAL, Subject, SubjectTags
from gatebook.processors.subjects.keys import FULL, LAYERS, REDACTED, CannotOpen, SubjectKey
from gatebook.processors.subjects.layers import KeyEntry, Subjects
from gatebook.processors.subjects.reveal import opened
from gatebook.processors.subjects.verify import verify_document
from gatebook.schemas.codec import FrameHeader, Record, build_frame, encode_event

NOW = time.time_ns()
TAGS = SubjectTags(b"a key of tags, for tests")
MAIL = "jo.doe@example.org"
PROMPT = f"a purple walrus wrote to {MAIL}"
CONTENT = {"input_messages": [{"role": "user", "content": PROMPT}], "error_text": "no such walrus"}


def key(tag: str, generation: int = 0) -> SubjectKey:
    return SubjectKey(f"{tag}.{generation}", bytes([generation + 1]) * 32)


class AllKeys(dict[str, KeyEntry]):
    """A key for everybody."""

    def get(self, tag: str, default: Any = None) -> KeyEntry:
        return super().get(tag) or KeyEntry(key(tag))


def context(keys: Mapping[str, KeyEntry] | None = None) -> IntakeContext:
    redactor = Redactor.default(b"a key for tests only")
    held: Any = AllKeys() if keys is None else keys
    return IntakeContext(Catalog(), redactor, 4, subjects=Subjects(TAGS, held))


def event(level: str = "redacted", number: int = 0, **more: Any) -> Record:
    made: Record = {
        "timestamp": NOW - 10**9,
        "event": {"id": f"id-{number}", "kind": "event", "action": "chat", "end": NOW},
        "user": {"id": "alice"},
        "organization": {"id": "acme"},
        "gatebook": {"capture": {"level": level}},
        "content": json.dumps(CONTENT).encode(),
        "content_encoding": "json",
    }
    for name, value in more.items():
        made[name] = {**made[name], **value} if isinstance(made.get(name), dict) else value
    return made


def process(*events: Record, given: IntakeContext | None = None, now: int = NOW) -> IntakeResult:
    message = build_frame(
        FrameHeader("p", 1, 0, len(events), NOW), [encode_event(e) for e in events]
    )
    return process_frame(message, Source("t", 0, 0), given or context(), now)


def document(*args: Any, **more: Any) -> dict[str, Any]:
    result = process(event(*args, **more))
    assert not result.dead_letters
    (found,) = result.documents
    return dict(orjson.loads(found.body))


ALICE = TAGS.of(Subject("acme", "alice"))


def test_no_word_of_content_leaves_intake() -> None:
    """At no level does what intake passes on hold a word of what was said, redacted or not."""
    for level in ("none", "metadata", "redacted", "full"):
        (found,) = process(event(level)).documents
        assert b"walrus" not in found.body, level
        assert MAIL.encode() not in found.body, level


def test_the_subjects_key_opens_what_the_level_keeps() -> None:
    """Level redacted keeps the redacted layer, level full the original as well; error texts and
    tools are in them."""
    redacted, full = document("redacted"), document("full")
    assert FULL not in redacted["gatebook"]["sealed"]
    for found in (redacted, full):
        opened = layers.open_redacted(found, key(ALICE))
        assert "purple walrus" in opened["input_messages"][0]["content"]
        assert MAIL not in json.dumps(opened)
        assert opened["error_text"] == "no such walrus"
    assert json.loads(layers.open_layer(full, FULL, key(ALICE))) == CONTENT
    assert "sealed" not in document("metadata")["gatebook"]


def test_a_layer_opens_under_its_own_key_event_and_name_only() -> None:
    """A layer that was moved to another event, layer or key does not open."""
    found = document("full")
    sealed = found["gatebook"]["sealed"]
    for wrong, layer, event_id in (
        (key(ALICE, 1), REDACTED, "id-0"),
        (key(ALICE), FULL, "id-0"),
        (key(ALICE), REDACTED, "id-1"),
    ):
        with pytest.raises(CannotOpen):
            wrong.open(layer, event_id, sealed[REDACTED])
    with pytest.raises(CannotOpen):
        key(ALICE).open(REDACTED, "id-0", "not base64!")


def test_a_replay_gives_the_same_bytes() -> None:
    """The same raw frame becomes the same document, to the byte, in another worker."""
    first, second = (process(event("full"), given=context()).documents[0] for _ in range(2))
    assert first == second


def test_the_digest_holds_when_content_is_erased() -> None:
    """Sealed layers, searched text and names can go; the digest still holds, and any other change
    breaks it."""
    found = document("redacted", user={"id": "alice", "name": "Alice"})
    layers.place_text(found, layers.open_redacted(found, key(ALICE)))
    assert verify_document(found, key(ALICE)).content_holds is True
    for names in (False, True):
        stripped = stripped_of(found, ALICE, {f"{ALICE}.0"}, 0, names)
        assert stripped is not None
        assert "walrus" not in json.dumps(stripped)
        assert ("Alice" in json.dumps(stripped)) is not names
        verified = verify_document(stripped)
        assert verified.holds
        assert verified.content == "erased"
        assert not verify_document({**stripped, "user": {"id": "mallory"}}).holds


def test_what_was_destroyed_is_not_told_as_never_kept() -> None:
    """Erased is what the document was written with, or what came in too late, with the erasure
    that took it; absent is what its level never kept. One under way has no time yet."""
    erasures = [
        Erasure("job.0", 0, 2 * 10**18, "2033-05-18T03:33:20Z"),
        Erasure("job.1", 1, 4 * 10**18),
    ]
    for level, wanted in (("redacted", "absent"), ("full", "erased")):
        stripped = stripped_of(document(level), ALICE, {f"{ALICE}.0"}, 0, False)
        assert stripped is not None
        found = opened(stripped, None, LAYERS, erasures)
        assert found[REDACTED]["state"] == "erased"
        assert found[REDACTED]["job"] == "job.0"
        assert found[REDACTED]["erased_at"].startswith("2033")
        assert found[FULL]["state"] == wanted
    later = opened(stripped or {}, None, (REDACTED,), erasures[1:])
    assert later[REDACTED]["erased_at"] == "under way"
    never = opened(document("metadata"), None, LAYERS, erasures)
    assert {one["state"] for one in never.values()} == {"absent"}
    late = document("metadata")
    late["gatebook"]["sealed"] = {"failed": "subject_erased"}
    assert opened(late, None, (REDACTED,), erasures)[REDACTED]["state"] == "erased"
    assert verify_document(late).content == "erased"


def test_changed_content_is_noticed_while_it_is_there() -> None:
    """Text, name or a layer that is not what was committed to is found with the subject's key."""
    found = document("full", user={"id": "alice", "name": "Alice"})
    other = document("full", 1)
    layers.place_text(found, layers.open_redacted(found, key(ALICE)))
    assert verify_document(found, key(ALICE)).content_holds is True
    changes: tuple[dict[str, Any], ...] = (
        {"gen_ai": {"input": {"messages": "something else"}}},
        {"user": {"id": "alice", "name": "Bob"}},
        {"gatebook": {**found["gatebook"], "sealed": other["gatebook"]["sealed"]}},
    )
    for change in changes:
        changed = {**found, **change}
        assert verify_document(changed, key(ALICE)).content_holds is False


def test_names_are_committed_to_without_content() -> None:
    """A name on an event without content can be erased as well, and is checked with the tags' key
    until then."""
    found = document("metadata", user={"id": "alice", "name": "Alice"})
    assert verify_document(found, tags=TAGS).content_holds is True
    renamed = {**found, "user": {"id": "alice", "name": "Bob"}}
    assert verify_document(renamed, tags=TAGS).content_holds is False
    erased = stripped_of(found, ALICE, set(), NOW, names=True)
    assert erased is not None
    assert erased["user"]["name"].startswith("[ERASED_")
    assert verify_document(erased, tags=TAGS).holds


def test_a_document_without_commitment_is_digested_whole() -> None:
    """Documents of before there were commitments verify as they did."""
    old = {"event": {"id": "x"}, "gen_ai": {"input": {"messages": "text"}}}
    digest, body = render.render(old, NOW)
    stored = orjson.loads(body)
    assert verify_document(stored).holds
    stored["gen_ai"]["input"]["messages"] = "other"
    assert not verify_document(stored).holds
    assert len(digest) == 64


def test_content_of_before_the_erasure_is_not_kept() -> None:
    """An event of before its subject was erased goes on without content and says why; a later one
    is sealed under the new key."""
    late = {ALICE: KeyEntry(key(ALICE, 1), erased_before_ns=NOW)}
    result = process(event("full"), event("full", 1, timestamp=NOW), given=context(late))
    before, after = (orjson.loads(d.body) for d in result.documents)
    assert before["gatebook"]["sealed"] == {"failed": "subject_erased"}
    assert after["gatebook"]["sealed"]["key_id"] == f"{ALICE}.1"
    assert result.erased == 1


def test_a_replay_after_the_erasure_meets_its_first_copy() -> None:
    """Kafka read again after an erasure: the index knows the event, stripped or not, and nothing
    counts as a conflict; another event under the same id does."""
    first = document("redacted")
    late = context({ALICE: KeyEntry(key(ALICE, 1), erased_before_ns=NOW)})
    (again,) = process(event("redacted"), given=late).documents
    row = Row("access", "2026.11.23", again.id, again.hash, again.body)
    stripped = stripped_of(first, ALICE, {f"{ALICE}.0"}, 0, names=False)
    assert bulk.is_same_document(row, first)
    assert bulk.is_same_document(row, stripped or {})
    assert not bulk.is_same_document(row, {**first, "url": {"path": "/elsewhere"}})


def test_a_key_that_is_not_at_hand_is_asked_for() -> None:
    """Intake names the subjects whose keys it lacks, all of a frame at once, and none whose
    content it would not keep."""
    bob = {"user": {"id": "bob"}}
    carol = {"user": {"id": "carol"}}
    events = (event("full"), event("redacted", 1, **bob), event("metadata", 2, **carol))
    result = process(*events, given=context({}))
    assert result.missing_subjects == {ALICE, TAGS.of(Subject("acme", "bob"))}
    assert not result.dead_letters


@pytest.mark.parametrize(
    ("more", "subject"),
    [
        ({}, Subject("acme", "alice")),
        (
            {"gatebook": {"identity": {"on_behalf_of": "ada"}, "capture": {"level": "redacted"}}},
            Subject("acme", "ada"),
        ),
        ({"organization": {"id": ""}}, Subject("", "alice")),
        ({"user": {"id": MAIL}}, Subject("acme", MAIL)),
        (
            {"user": {"id": ""}, "source": {"ip": "10.0.0.1"}},
            Subject("acme", "acme/ip:10.0.0.1", PRINCIPAL),
        ),
    ],
)
def test_an_event_is_about_its_end_user(more: dict[str, Any], subject: Subject) -> None:
    """The end user where one is named, else the caller, else the principal; as they were sent,
    also where the document shows them masked."""
    assert document(**more)["gatebook"]["subject"] == TAGS.of(subject)


@pytest.mark.parametrize(
    ("method", "assurance", "subject"),
    [
        ("oidc", "verified", "alice"),
        ("sso", "verified", "alice"),
        ("header", "verified", "alice"),
        ("oidc", "asserted", "x-17"),
        ("api_key", "verified", "x-17"),
        ("api_key", "asserted", "x-17"),
        ("mtls", "verified", "x-17"),
        ("anonymous", "", "x-17"),
    ],
)
def test_nobody_who_proved_who_they_are_is_somebody_else_by_their_own_word(
    method: str, assurance: str, subject: str
) -> None:
    """A verified person stays the subject whatever `user` the request names; a key or certificate
    may be a service's, and its end users stay subjects of their own."""
    identity = {"method": method, "assurance": assurance, "on_behalf_of": "x-17"}
    found = document(gatebook={"identity": identity, "capture": {"level": "redacted"}})
    assert found["gatebook"]["subject"] == TAGS.of(Subject("acme", subject))
    nobody = document(
        user={"id": ""}, gatebook={"identity": identity, "capture": {"level": "redacted"}}
    )
    assert nobody["gatebook"]["subject"] == TAGS.of(Subject("acme", "x-17"))


def test_tags_tell_tenants_and_kinds_apart() -> None:
    """The same id in another tenant, or as a principal, is somebody else; without the key nobody
    computes a tag."""
    subjects = [Subject("a", "bc"), Subject("ab", "c"), Subject("a", "bc", PRINCIPAL)]
    found = {TAGS.of(subject) for subject in subjects}
    assert len(found) == 3
    assert SubjectTags(b"another key of tags").of(subjects[0]) not in found


def test_keys_do_not_show() -> None:
    """Neither keys nor tags show their secret when they are printed."""
    assert b"\x01" * 32 not in repr(key(ALICE)).encode()
    assert "\\x01" not in repr(key(ALICE))
    assert "for tests" not in repr(TAGS)


def test_what_stands_for_a_missing_end_holds_sealed_content_only() -> None:
    """An incomplete event takes the intent's sealed content along, and no text that the index
    added; it opens under the same key, and its digest and commitment hold."""
    intent = document("redacted", event={"id": "id-7:intent"}, user={"id": "alice", "name": "A"})
    intent["gatebook"]["phase"] = "intent"
    layers.place_text(intent, layers.open_redacted(intent, key(ALICE)))
    found = dict(orjson.loads(rendered(incomplete_document(intent), NOW).body))
    assert found["event"]["id"] == "id-7"
    assert "walrus" not in json.dumps(found)
    assert "walrus" in json.dumps(layers.open_redacted(found, key(ALICE)))
    assert verify_document(found, key(ALICE)).content_holds is True


@pytest.mark.parametrize("level", ["metadata", "redacted", "full"])
@pytest.mark.parametrize("user", [{}, {"id": "a"}, {"id": "a", "name": "A", "email": "a@b"}])
@pytest.mark.parametrize("spoken", [{}, {"request": {"model": "slm"}}])
def test_the_fast_way_leaves_out_the_same(level: str, user: Any, spoken: Any) -> None:
    """What a digest leaves out is the erasable fields, no more and no less, in every shape."""
    found = document(level, user=user, gen_ai=spoken)
    for text in ({}, CONTENT):
        shaped = json.loads(json.dumps(found))
        layers.place_text(shaped, text)
        whole = json.dumps(shaped)
        assert layers.without_erasable(shaped) == layers.without(shaped, layers.ERASABLE)
        assert json.dumps(shaped) == whole
    for bare in ({"user": {"name": "A"}}, {"gatebook": {"sealed": {"full": "x"}}}):
        assert layers.without_erasable(bare) == {}
