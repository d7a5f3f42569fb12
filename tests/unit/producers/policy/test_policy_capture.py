"""The policy at work in a recorder: reloads, notices, counts; and what callers try."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.registry import CollectorRegistry
from tests.unit.producers.policy.break_glass import Box, policy_text, request_of
from tests.waiting import wait_until

from gatebook.producers.adapters.outside import Policy
from gatebook.producers.asgi import GatebookMiddleware
from gatebook.producers.config import CAPTURE_VARIABLE, ProducerSettings
from gatebook.producers.identity import Identity
from gatebook.producers.metrics import ProducerCollector
from gatebook.producers.policy.capture import REMEMBERED_DECISIONS, CapturePolicy
from gatebook.producers.policy.match import Policy as Ruling
from gatebook.producers.policy.notices import ControlEvent, Notice
from gatebook.schemas.intents import terminal_id

LEVELS = """
version = 1
name = "acme"
[fields]
"user.email" = "drop"
[[rule]]
name = "silent"
match = { tenant = "clinic" }
level = "none"
[[rule]]
name = "lab"
match = { tenant = "lab" }
level = "redacted"
fields = { "source.ip" = "truncate", "user.id" = "digest" }
"""
QUESTION = {"model": "slm", "messages": [{"role": "user", "content": "planted question"}]}
ANSWER = {
    "model": "slm",
    "choices": [{"message": {"role": "assistant", "content": "planted answer"}}],
}


async def model(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(ANSWER).encode()})


async def call(
    recorder: Any,
    tenant: str = "",
    headers: dict[str, str] | None = None,
    body: Any = None,
    path: str = "/v1/chat/completions",
) -> None:
    """One request by a verified user of a tenant."""
    who = Identity(
        user_id="grace",
        user_email="grace@example.org",
        organization_id=tenant,
        method="oidc",
        assurance="verified",
    )
    app = GatebookMiddleware(model, recorder, resolve_identity=lambda scope: who)
    given = {"content-type": "application/json", **(headers or {})}
    scope = {
        "type": "http", "method": "POST", "path": path, "client": ("203.0.113.77", 5),
        "headers": [(k.encode(), v.encode()) for k, v in given.items()],
    }  # fmt: skip
    data = json.dumps({**QUESTION, **(body or {})}).encode()

    async def receive() -> Any:
        return {"type": "http.request", "body": data, "more_body": False}

    async def send(message: Any) -> None:
        pass

    await app(scope, receive, send)


async def test_each_tenant_gets_what_its_rule_says(ruled: Any) -> None:
    """Nothing, metadata or content, with the fields that the policy leaves."""
    recorder = ruled.recorder(LEVELS)
    for tenant in ("clinic", "lab", "other"):
        await call(recorder, tenant)
    assert recorder.close(10).complete
    silent, lab, other = ruled.accesses()

    assert silent["gatebook"]["capture"]["rule"] == "silent"
    assert "grace" not in repr(silent)
    assert "clinic" not in repr(silent)
    assert b"planted question" in lab["content"]
    assert b"planted answer" in lab["content"]
    assert lab["source"]["ip"] == "203.0.113.0"
    assert lab["user"]["id"].startswith("hmac_")
    assert lab["gatebook"]["capture"]["searchable"] is True
    assert (other["user"]["id"], other["user"]["email"], other["content"]) == ("grace", "", None)
    for event in (silent, lab, other):
        assert event["gatebook"]["capture"]["policy_version"] == Ruling.read(LEVELS.encode()).digest
    assert ruled.published.sequences() == [0, 1, 2, 3], "what is not kept is still counted"
    captured = recorder.counters().captured
    assert captured == {"none": 1, "redacted": 1, "metadata": 1}


HOSTILE_HEADERS = {
    "x-gatebook-capture-level": "full",
    "gatebook-capture": "none",
    "gatebook_capture_level": "full",
    "otel-instrumentation-genai-capture-message-content": "true",
    CAPTURE_VARIABLE.lower(): "true",
    "x-litellm-no-log": "true",
    "litellm-disable-message-redaction": "true",
    "x-litellm-enable-message-redaction": "true",
    "x-capture": "none",
    "x-organization": "clinic",
    "openai-organization": "lab",
    "x-tenant": "lab",
    "x-forwarded-user": "root",
    "x-end-user": "lab",
    "baggage": "gatebook.capture.level=full,organization.id=lab",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "gatebook=full",
}
HOSTILE_BODIES: list[dict[str, Any]] = [
    {"user": "lab"},
    {"user": "gatebook:full"},
    {"metadata": {"capture_level": "full", "organization": {"id": "lab"}, "user_id": "lab"}},
    {"store": True, "no-log": True},
    {"gatebook": {"capture": {"level": "full", "policy": "mine"}}},
    {"capture": {"level": "none"}, "capture_level": "none"},
    {"organization": "lab", "tenant": "lab", "organization_id": "clinic"},
    {"safety_identifier": "clinic"},
    {"conversation": "lab"},
    {"model": "lab"},
    {"model": {"tenant": "lab"}},
]


@pytest.mark.parametrize("tenant", ["clinic", "lab", "other"])
async def test_no_caller_chooses_what_is_captured(ruled: Any, tenant: str) -> None:
    """No header, no field of a body and no name of a user changes the level, or the rule."""
    recorder = ruled.recorder(LEVELS)
    await call(recorder, tenant)
    for name, value in HOSTILE_HEADERS.items():
        await call(recorder, tenant, {name: value})
    await call(recorder, tenant, HOSTILE_HEADERS)
    for body in HOSTILE_BODIES:
        await call(recorder, tenant, HOSTILE_HEADERS, body)
    assert recorder.close(10).complete
    events = ruled.accesses()
    assert len(events) == 2 + len(HOSTILE_HEADERS) + len(HOSTILE_BODIES)
    captures = {json.dumps(e["gatebook"]["capture"], sort_keys=True) for e in events}
    assert len(captures) == 1
    level = {"clinic": "none", "lab": "redacted", "other": "metadata"}[tenant]
    assert events[0]["gatebook"]["capture"]["level"] == level
    assert {bool(e["content"]) for e in events} == {level == "redacted"}


async def test_a_name_that_the_service_does_not_confirm_brings_no_content(ruled: Any) -> None:
    """A caller may name any model; the answer says which one it was."""
    recorder = ruled.recorder(
        'version = 1\nname = "m"\n[[rule]]\nname = "o"\nmatch = { model = "open-*" }\n'
        'level = "redacted"\n[[rule]]\nname = "q"\nmatch = { model = "quiet" }\nlevel = "none"\n'
    )
    for name in ("open-1", "quiet", "slm"):
        await call(recorder, body={"model": name})
    assert recorder.close(10).complete
    assert [e["gatebook"]["capture"]["level"] for e in ruled.accesses()] == ["metadata"] * 3


def test_the_capture_variable_is_the_operators_and_a_policy_goes_before_it(
    ruled: Any, published: Any
) -> None:
    """It sets the one level there is without a file; with one, the file alone decides."""
    environment = {CAPTURE_VARIABLE: "true"}
    assert ProducerSettings.from_env(environment).capture_level == "redacted"
    recorder = ruled.recorder(LEVELS, capture_level="redacted")
    recorder.emit({"user": {"id": "x"}, "content": b'{"tools":[1]}', "content_encoding": "json"})
    assert recorder.close(10).complete
    (event,) = ruled.accesses()
    assert (event["gatebook"]["capture"]["level"], event["content"]) == ("metadata", None)


async def test_an_intent_of_a_silent_rule_names_nobody(ruled: Any) -> None:
    """Before the call as after it."""
    recorder = ruled.recorder(LEVELS, intents="on")
    await call(recorder, "clinic")
    assert recorder.close(10).complete
    intent, event = ruled.accesses()
    assert terminal_id(intent["event"]["id"]) == event["event"]["id"]
    assert "grace" not in repr(intent)
    assert intent["gatebook"]["capture"]["level"] == "none"


async def test_without_a_file_the_one_level_is_a_policy_of_its_own(
    make_recorder: Any, published: Any
) -> None:
    """So that events of every producer say what decided."""
    recorder = make_recorder(capture_level="none")
    await call(recorder)
    assert recorder.close(10).complete
    (event,) = published.events()
    capture = event["gatebook"]["capture"]
    assert (capture["level"], capture["policy"]) == ("none", "settings")
    assert len(capture["policy_version"]) == 64
    assert recorder.counters().policy_loads == {}


async def test_a_changed_file_holds_without_a_restart_and_a_broken_one_changes_nothing(
    ruled: Any,
) -> None:
    """Each is an event in the same log, with digests, and in the metrics; never with text."""
    recorder = ruled.recorder(LEVELS)
    await call(recorder, "lab")
    first = ruled.wait_for("capture_policy_changed")
    assert (first["event"]["reason"], first["attributes"].get("old_policy")) == ("first", None)
    stricter = LEVELS.replace('"redacted"', '"metadata"')
    ruled.write(stricter)
    wait_until("the change", lambda: recorder.counters().policy_loads["changed"] == 2)
    await call(recorder, "lab")
    ruled.write(stricter.replace('"metadata"', '"planted"'))
    broken = ruled.wait_for("capture_policy_broken")
    assert recorder.counters().is_policy_broken
    await call(recorder, "lab")
    assert recorder.close(10).complete

    levels = [e["gatebook"]["capture"]["level"] for e in ruled.accesses()]
    assert levels == ["redacted", "metadata", "metadata"]
    assert (broken["event"]["type"], broken["event"]["reason"]) == ("error", "invalid")
    digest = Ruling.read(stricter.encode()).digest
    assert broken["attributes"]["policy_in_force"] == digest
    assert broken["gatebook"]["capture"]["policy_version"] == digest
    assert "planted" not in repr(broken)
    changed = ruled.notices()[1]["attributes"]
    assert changed["old_policy"] == Ruling.read(LEVELS.encode()).digest
    assert changed["new_policy"] == digest


def test_the_policys_state_is_in_the_metrics(ruled: Any) -> None:
    """What an operator alerts on."""
    recorder = ruled.recorder("not a policy", capture_policy_fallback="metadata")
    recorder.emit({"user": {"id": "x"}})
    ruled.wait_for("capture_policy_broken")
    collector, registry = ProducerCollector(), CollectorRegistry()
    collector.add(recorder)
    registry.register(collector)
    prefix = "gatebook_producer_"
    assert registry.get_sample_value(prefix + "policy_broken") == 1
    assert registry.get_sample_value(prefix + "policy_loads_total", {"what": "broken"}) == 1
    assert registry.get_sample_value(prefix + "break_glass_active") == 0
    assert registry.get_sample_value(prefix + "events_captured_total", {"level": "metadata"}) == 1


@pytest.mark.parametrize(
    ("given", "named"), [({}, False), ({"capture_policy_fallback": "metadata"}, True)]
)
async def test_a_first_start_under_a_broken_file_loses_no_event_and_names_nobody(
    ruled: Any, given: dict[str, str], named: bool
) -> None:
    """Without a last good policy accesses are counted, with neither user nor address nor tenant,
    and it is said; naming them anyway has to be set."""
    recorder = ruled.recorder(LEVELS + "[fields", **given)
    await call(recorder, "clinic")
    notice = ruled.wait_for("capture_policy_broken")
    assert recorder.close(10).complete
    (event,) = ruled.accesses()
    assert (event["event"]["action"], event["content"]) == ("chat", None)
    for text in ("grace", "clinic", "203.0.113.77"):
        assert (text in repr(event)) is named
    assert notice["attributes"]["level"] == event["gatebook"]["capture"]["level"]


async def test_break_glass_raises_the_running_producer_and_ends(ruled: Any) -> None:
    """From approval to revocation, without a restart; each step is in the log."""
    text = policy_text()
    recorder = ruled.recorder(text)
    await call(recorder, "lab")
    box = Box(ruled.path)
    request = box.ask(request_of(Ruling.read(text.encode()), begins_ns=time.time_ns() - 10**9))
    box.approve(request, "bob")
    box.approve(request, "cyd")
    ruled.wait_for("break_glass_active")
    assert recorder.counters().break_glass == 1
    assert recorder.wants_content()
    await call(recorder, "lab")
    await call(recorder, "other")
    box.revoke(request, "cyd")
    ended = ruled.wait_for("break_glass_ended")
    await call(recorder, "lab")
    assert recorder.close(10).complete

    before, during, other, after = ruled.accesses()
    found = [e["gatebook"]["capture"] for e in (before, during, other, after)]
    assert [c["level"] for c in found] == ["metadata", "redacted", "metadata", "metadata"]
    assert [c["break_glass"] for c in found] == ["", request.id, "", ""]
    assert b"planted" in during["content"]
    assert after["content"] is None
    assert ended["event"]["reason"] == "revoked"
    assert ended["gatebook"]["capture"]["break_glass"] == request.id
    assert ended["attributes"]["justification"] == "incident 7"


def test_a_forged_approval_is_an_event_and_raises_nothing(ruled: Any) -> None:
    """Somebody who can write the folder and has no key."""
    text = policy_text()
    recorder = ruled.recorder(text)
    box = Box(ruled.path)
    request = box.ask(request_of(Ruling.read(text.encode()), begins_ns=time.time_ns()))
    box.approve(request, "bob", key_of="eve")
    box.approve(request, "cyd", key_of="eve")
    recorder.emit({"user": {"id": "x"}})
    refused = ruled.wait_for("break_glass_refused")
    assert (refused["event"]["type"], refused["event"]["reason"]) == ("denied", "forged")
    assert recorder.counters().break_glass == 0


def test_an_event_that_cannot_be_judged_is_dropped_and_counted(ruled: Any) -> None:
    """What is not judged must not go on; and the writer goes on."""
    recorder = ruled.recorder(LEVELS)
    recorder.emit({"gatebook": "planted", "content": b"planted"})
    recorder.emit({"user": {"id": "x"}})
    assert recorder.close(10).complete
    assert recorder.counters().dropped == {"invalid_event": 1}
    assert "planted" not in repr(ruled.published.events())


@pytest.mark.parametrize("level", ["none", "metadata", "redacted"])
async def test_content_is_composed_only_where_it_is_kept(
    ruled: Any, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """Otherwise it is never put together, not even in memory."""
    packed: list[str] = []

    def pack(*given: Any) -> tuple[bytes, bool]:
        packed.append(level)
        return b"{}", False

    monkeypatch.setattr("gatebook.producers.draft.pack", pack)
    recorder = ruled.recorder(LEVELS)
    await call(recorder, {"none": "clinic", "metadata": "other", "redacted": "lab"}[level])
    assert recorder.close(10).complete
    assert [e["gatebook"]["capture"]["level"] for e in ruled.accesses()] == [level]
    assert packed == (["redacted"] if level == "redacted" else [])


@pytest.mark.parametrize(("text", "kept"), [('version = 1\nname = "x"\n', False), (LEVELS, True)])
def test_an_agent_queues_no_content_that_no_rule_wants(ruled: Any, text: str, kept: bool) -> None:
    """What it is sent is judged like all else; its tenants are asserted, so they bring nothing."""
    recorder = ruled.recorder(text)
    recorder.start()
    door = Policy(recorder.settings, b"s" * 16, "agent", recorder.wants_content)
    claimed = {
        "organization": {"id": "lab"},
        "gatebook": {"identity": {"assurance": "verified"}, "capture": {"level": "full"}},
        "content": {"input_messages": ["planted"]},
    }
    event = door.admit(claimed)
    assert (b"planted" in (event.build().get("content") or b"")) is kept
    recorder.emit(event)
    assert recorder.close(10).complete
    (found,) = ruled.accesses()
    assert (found["gatebook"]["capture"]["level"], found["content"]) == ("metadata", None)


def test_without_a_key_fields_are_dropped_and_the_event_goes_on(ruled: Any, tmp_path: Path) -> None:
    """A secret that cannot be read costs the digest, not the access."""
    short = tmp_path / "short.key"
    short.write_bytes(b"x")
    recorder = ruled.recorder(
        'version = 1\nname = "x"\n[fields]\n"user.id" = "digest"\n',
        key_digest_secret_file=str(short),
    )
    recorder.emit({"user": {"id": "grace"}})
    assert recorder.close(10).complete
    (found,) = ruled.accesses()
    assert found["user"]["id"] == ""


def test_decisions_are_remembered_and_the_memory_is_bounded(tmp_path: Path) -> None:
    """A caller can make up any number of paths."""
    path = tmp_path / "capture.toml"
    path.write_text(LEVELS)
    settings = ProducerSettings(home=str(tmp_path), capture_policy=str(path))
    policy = CapturePolicy(settings, lambda event: None)
    for number in range(REMEMBERED_DECISIONS + 10):
        policy.hold(None, {"url": {"path": f"/{number}"}})
    assert 0 < len(policy._decisions) <= REMEMBERED_DECISIONS
    assert policy.captured == {"metadata": REMEMBERED_DECISIONS + 10}


def test_a_reason_somebody_typed_is_scrubbed_and_digests_are_not(ruled: Any) -> None:
    """The steps of break-glass travel in the open; their digests look like secrets and are none."""
    recorder = ruled.recorder(LEVELS)
    digest = Ruling.read(LEVELS.encode()).digest
    told = {"justification": "password: hunter2-planted", "new_policy": digest}
    recorder.emit(ControlEvent(Notice("break_glass_requested", "", told, "grace")))
    assert recorder.close(10).complete
    found = next(e for e in ruled.notices() if e["event"]["action"] == "break_glass_requested")
    assert "planted" not in repr(found)
    assert found["attributes"]["new_policy"] == digest
    assert found["user"]["id"] == "grace"
