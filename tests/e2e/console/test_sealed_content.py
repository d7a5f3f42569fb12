"""Content from a caller's words to an officer's screen: sealed by the producer, through Kafka,
intake and Elasticsearch, opened in the console with a reason."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from playwright.sync_api import Locator, Page, expect
from tests.e2e.console.book import Book
from tests.e2e.console.conftest import Visit
from tests.pipeline import Pipeline, make_event
from tests.waiting import wait_until

from gatebook.producers.config import ProducerSettings
from gatebook.producers.recorder import Recorder
from gatebook.schemas import sealing
from gatebook.schemas.codec import decode_event, open_frame

MAIL = "ada.lovelace@example.org"
# Markup and script, a terminal's colours and title, text turned around, a zero-width mark, an end
# of line that forges a log line.
HOSTILE = (
    "<script>top.hacked=1</script><img src=x onerror=top.hacked=1>"
    "\x1b[31mred\x1b]0;owned\x07 \u202egnp.exe\u2069 a\u200bb\r\nlevel=info forged=yes"
)
# As the console shows JSON.
SHOWN = (
    "<script>top.hacked=1</script>",
    "<img src=x onerror=top.hacked=1>",
    "\\u001b[31mred\\u001b]0;owned\\u0007",
    "\\u202egnp.exe\\u2069",
    "a\\u200bb\\r\\nlevel=info forged=yes",
)
STEERING = "\x1b\x07\u202e\u2069\u200b"
REASON = "case 4711: <b>complaint</b>"
LEVELS = ("redacted", "full")


class SealedBook(Book):
    """A log into which a producer wrote content, at each level that keeps some."""

    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "analyst": ("analyst",),
        "officer": ("privacy_officer",),
        "viewer": ("viewer",),
    }

    def __init__(self, engines: Any, home: Path) -> None:
        self.ids: dict[str, str] = {}
        self._pipeline: Pipeline
        super().__init__(engines, home)

    def fill(self) -> None:
        """See Book: by way of the real producer and the real workers."""
        self._pipeline = Pipeline(self._engines, self.namespace, self._home)
        self._pipeline.start("intake", "index")
        for level in LEVELS:
            self.ids[level] = self._said(level)
        self._pipeline.wait_indexed(len(LEVELS))

    def _said(self, level: str) -> str:
        """An access whose caller and whose model wrote what should do harm; its id."""
        settings = ProducerSettings(
            kafka_bootstrap=self._engines.kafka_bootstrap,
            namespace=self.namespace,
            home=str(self._home),
            capture_level=level,
            producer_id=f"of-{level}",
        )
        content = {
            "input_messages": [{"role": "user", "content": f"I am {MAIL}. {HOSTILE}"}],
            "output_messages": [{"role": "assistant", "content": f"Good day. {HOSTILE}"}],
        }
        recorder = Recorder(settings)
        event = make_event("ada", organization={"id": "acme"}, gatebook={})
        del event["gatebook"]["capture"]
        event_id = recorder.emit(
            {**event, "content": json.dumps(content).encode(), "content_encoding": "json"}
        )
        assert recorder.close(30).complete
        return str(event_id)

    def raw(self) -> list[dict[str, Any]]:
        """The events of this producer as Kafka has them."""
        frames = [
            open_frame(message.value() or b"") for message in self._pipeline.messages("access.v1")
        ]
        events = [
            decode_event(data, frame.event_schema) for frame in frames for data in frame.events
        ]
        return [event for event in events if event["event"]["id"] in self.ids.values()]

    def kept(self) -> dict[str, dict[str, Any]]:
        """All documents of accesses, by id."""
        return {found["event"]["id"]: found for found in self._pipeline.documents()}

    def acts(self, action: str, event_id: str, who: str) -> list[dict[str, Any]]:
        """What is in the log of an act of somebody on an event."""
        return [
            one
            for one in self.kept().values()
            if one["event"]["action"] == action
            and one["gatebook"].get("attributes", {}).get("event") == event_id
            and one["user"].get("name") == who
        ]

    def close(self) -> None:
        """See Book."""
        super().close()
        self._pipeline.close()


@pytest.fixture(scope="module")
def book(engines: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SealedBook]:
    """The log of this module, in the place of the one that its neighbours look at."""
    found = SealedBook(engines, tmp_path_factory.mktemp("sealed"))
    try:
        yield found
    finally:
        found.close()


def reveal(page: Page, layer: str) -> Locator:
    """Ask for a layer of the event's content with a reason; where the answer is shown."""
    page.get_by_role("button", name="Reveal content").click()
    dialog = page.get_by_role("dialog", name="Reveal content")
    confirm = dialog.get_by_role("button", name="Record and reveal")
    dialog.get_by_role("radio", name=layer).check()
    expect(confirm).to_be_disabled()
    dialog.get_by_label("Reason").fill(REASON)
    confirm.click()
    expect(dialog.locator(".revealed")).to_contain_text(f"{layer}: opened")
    return dialog.locator(".revealed")


def is_text_alone(page: Page, where: Locator) -> None:
    """All that was written is there to be read, and nothing of it took effect."""
    for part in SHOWN:
        expect(where).to_contain_text(part)
    assert not set(STEERING) & set(page.locator("body").inner_text())
    assert where.locator("script, img, b").count() == 0
    assert page.title().startswith(("Gatebook", "Event")), page.title()


def test_content_is_sealed_on_its_whole_way(book: SealedBook) -> None:
    """Neither in Kafka nor in Elasticsearch is anything to be read of what is kept at level full;
    of level redacted the text that can be searched is there, without the mail address."""
    assert len(book.raw()) == len(LEVELS)
    for event in book.raw():
        assert event["content_encoding"] == sealing.ENCODING
        assert b"hacked" not in event["content"]
    documents = book.kept()
    full, redacted = (documents[book.ids[level]] for level in ("full", "redacted"))
    for document in (full, redacted):
        assert MAIL not in json.dumps(document)
        assert document["gatebook"]["sealed"]["key_id"]
    assert "hacked" not in json.dumps(full)
    assert "hacked" in redacted["gen_ai"]["input"]["messages"]


def test_an_officer_reveals_the_original_as_text(visit: Visit, book: SealedBook) -> None:
    """With a reason the words stand there as they were written, as text; and that they were shown,
    to whom and why, is an access event, which the console finds."""
    page = visit(f"/event/{book.ids['full']}", role="officer")
    expect(page.locator(".flyout, main").first).not_to_contain_text("hacked")
    shown = reveal(page, "full")
    is_text_alone(page, shown)
    expect(shown).to_contain_text(MAIL)

    find = partial(book.acts, "event.reveal", book.ids["full"], "officer")
    (act,) = wait_until("the act in the index", find, 60)
    assert act["user"]["roles"] == ["privacy_officer"]
    assert act["user"]["id"].startswith("api-token/")
    assert act["event"]["outcome"] == "success"
    assert act["event"]["category"] == "iam"
    assert act["gatebook"]["attributes"]["reason"] == REASON
    assert act["gatebook"]["attributes"]["reveal"] == "full"
    assert "hacked" not in json.dumps(act)

    found = visit(f"/event/{act['event']['id']}", role="officer")
    details = found.locator(".fields")
    expect(details.get_by_role("row", name="gatebook.attributes.reason")).to_contain_text(REASON)
    expect(details.get_by_role("row", name="user.id")).to_contain_text(act["user"]["id"])


def test_the_redacted_layer_is_without_the_person(visit: Visit, book: SealedBook) -> None:
    """An analyst reveals what is redacted: the same words as text, a mask for the address; the
    choice of the original is not offered."""
    for level in LEVELS:
        page = visit(f"/event/{book.ids[level]}", role="analyst")
        shown = reveal(page, "redacted")
        is_text_alone(page, shown)
        expect(shown).to_contain_text("[EMAIL_")
        assert MAIL not in page.content()
        expect(page.get_by_role("radio", name="full")).to_have_count(0)
        find = partial(book.acts, "event.reveal", book.ids[level], "analyst")
        (act,) = wait_until("the act in the index", find, 60)
        assert act["gatebook"]["attributes"]["reveal"] == "redacted"


ASK = """async ([id, body]) => {
    const session = await (await fetch("/api/v1/session")).json();
    const answer = await fetch(`/api/v1/events/${id}/reveal`, {
        method: "POST",
        headers: {"content-type": "application/json", "x-csrf-token": session.csrf_token},
        body: JSON.stringify(body),
    });
    return [answer.status, await answer.text()];
}"""


@pytest.mark.parametrize(("role", "layer"), [("analyst", "full"), ("viewer", "redacted")])
def test_who_may_not_reveal_does_not(visit: Visit, book: SealedBook, role: str, layer: str) -> None:
    """Past the page the service refuses as well, shows nothing, and records who tried."""
    event_id = book.ids["full"]
    page = visit(f"/event/{event_id}", role=role)
    expect(page.locator(".event-id")).to_be_visible()
    offered = page.get_by_role("button", name="Reveal content")
    expect(offered).to_have_count(0 if role == "viewer" else 1)
    status, text = page.evaluate(ASK, [event_id, {"layer": layer, "reason": "curiosity"}])
    assert (status, "forbidden" in text, "hacked" in text) == (403, True, False)

    (act,) = wait_until("the refusal", partial(refusals, book, role), 60)
    assert (act["event"]["outcome"], act["event"]["reason"]) == ("failure", "forbidden")


def refusals(book: SealedBook, who: str) -> list[dict[str, Any]]:
    """Reveals that were refused to somebody, as the log has them."""
    return [
        one
        for one in book.kept().values()
        if one["event"]["action"] == "access.refused"
        and one["gatebook"]["attributes"].get("act") == "event.reveal"
        and one["user"].get("name") == who
    ]


def test_nothing_is_kept_of_what_was_shown(visit: Visit, book: SealedBook) -> None:
    """A reload forgets it; neither the address nor the browser's storage holds it."""
    page = visit(f"/event/{book.ids['full']}", role="officer")
    reveal(page, "full")
    assert "4711" not in page.url
    stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert "hacked" not in stored
    page.reload()
    expect(page.get_by_role("button", name="Reveal content")).to_be_visible()
    assert MAIL not in page.content()
