"""The live tail when its connection ends and comes back."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

from playwright.sync_api import Route, expect
from tests.e2e.console.book import ACCESSES, Book
from tests.e2e.console.conftest import Visit
from tests.e2e.console.test_pages import violations
from tests.e2e.console.test_search_page import params, total

TAIL = "**/api/v1/tail?*"
PAGE = "/search?q=service.name:support"


def ago(**given: float) -> str:
    return (datetime.now(UTC) - timedelta(**given)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_tail_that_connects_again_shows_each_event_once(visit: Visit, book: Book) -> None:
    """It goes on where it was, by an id that came before any event; what the service repeats is no
    second row, and what it had not sent is one."""
    place = ago(seconds=30)
    first, missed = book.write_access(100_101), book.write_access(100_105)
    source = {"@timestamp": ago(), "event": {"id": first}}
    hit = json.dumps({"index": "i", "id": first, "kind": "access", "source": source})
    begun = f"retry: 100\nid: {place}\n: open\n\n"
    streams = [begun, f"{begun}event: hit\ndata: {hit}\n\n"]

    def serve(route: Route) -> None:
        if streams:
            return route.fulfill(content_type="text/event-stream", body=streams.pop(0))
        return route.continue_()

    page = visit(PAGE)
    page.route(TAIL, serve)
    page.get_by_role("button", name="Live").click()
    second = book.write_access(100_102)
    expect(page.locator(f'[data-id="{second}"]')).to_be_visible()
    for one in (first, missed):
        expect(page.locator(f'[data-id="{one}"]')).to_have_count(1)
    expect(page.locator(".toolbar .badge")).to_contain_text(re.compile(r"newest event .+ ago"))


def test_a_tail_that_was_refused_goes_on_where_it_was(visit: Visit, book: Book) -> None:
    """After an answer that ends the browser's own tries, the console says where it was."""
    page = visit(PAGE)
    place = ago(seconds=20)
    lag = f'id: {place}\nevent: lag\ndata: {{"newest_ingested": null, "seconds": 0}}\n\n'
    streams = [f"retry: 100\n\n{lag}"]

    def serve(route: Route) -> None:
        if streams:
            route.fulfill(content_type="text/event-stream", body=streams.pop())
        else:
            error = {"type": "unavailable", "message": "Elasticsearch does not answer"}
            route.fulfill(status=503, json={"error": error})

    page.route(TAIL, serve)
    page.get_by_role("button", name="Live").click()
    expect(page.get_by_role("alert")).to_contain_text("Elasticsearch does not answer")
    missed = book.write_access(100_103)
    page.unroute(TAIL)
    page.get_by_role("button", name="Try now").click()
    expect(page.locator(f'[data-id="{missed}"]')).to_be_visible()


def test_what_a_tail_skipped_is_a_row_that_leads_to_it(visit: Visit, book: Book) -> None:
    """Who comes back after days is told from when to when nothing is shown, and finds it by a
    search beside the tail, which goes on."""
    page = visit(PAGE)

    def late(route: Route) -> None:
        route.continue_(headers={**route.request.headers, "last-event-id": ago(days=2)})

    page.route(TAIL, late)
    page.get_by_role("button", name="Live").click()
    row = page.locator(".results tr.note")
    expect(row).to_contain_text(f"Skipped what came in from {ago(days=2)[:10]}")
    shown = book.write_access(100_104)
    expect(page.locator(f'[data-id="{shown}"]')).to_be_visible()
    assert violations(page) == []
    with page.context.expect_page() as opened:
        row.get_by_role("link").click()
    search = opened.value
    skipped = total(search)
    assert ACCESSES - 15 < skipped <= ACCESSES
    assert params(search)["q"][0].startswith("(service.name:support) and event.ingested >= ")
    expect(page.get_by_role("status").get_by_text("live", exact=True)).to_be_visible()
