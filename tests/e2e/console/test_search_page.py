"""The search page: find, narrow, zoom, open, share."""

from __future__ import annotations

import re
import time
from datetime import datetime
from email.utils import formatdate
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, Route, expect
from tests.e2e.console.book import ACCESSES, HOSTILE_ID, INCIDENT, Book
from tests.e2e.console.conftest import Visit


def total(page: Page) -> int:
    """The M of 'N of M', once nothing is loading."""
    expect(page.locator(".stale")).to_have_count(0)
    text = page.locator(".count strong").nth(1).inner_text()
    return int(re.sub(r"\D", "", text))


def params(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def test_it_shows_the_last_day_with_histogram_facets_and_counts(visit: Visit) -> None:
    """Who opens the console sees what happened, without a click."""
    page = visit("/")
    expect(page).to_have_url(re.compile("/search"))
    expect(page.locator(".count")).to_contain_text("100 of")
    assert ACCESSES < total(page) < ACCESSES + 5  # looks at the log are not in it
    expect(page.locator(".results tbody tr")).to_have_count(100)
    expect(page.locator(".histogram .bar rect").nth(20)).to_be_attached()
    expect(page.locator(".histogram-note")).to_contain_text("failure")
    expect(page.get_by_role("button", name="Only Outcome: failure")).to_have_count(1)
    expect(page.locator(".badge").first).to_contain_text("newest event")


def test_more_rows_come_page_by_page(visit: Visit) -> None:
    """The next page joins the first; nothing comes twice."""
    page = visit("/search?q=service.name:support")
    page.get_by_role("button", name="Show 100 more").click()
    expect(page.locator(".results tbody tr")).to_have_count(200)
    page.get_by_role("button", name="Show 100 more").click()
    expect(page.locator(".results tbody tr")).to_have_count(ACCESSES)
    ids = page.locator(".results tbody tr").evaluate_all("rows => rows.map(r => r.dataset.id)")
    assert len(set(ids)) == ACCESSES


def test_a_query_is_typed_and_stays_in_the_address(visit: Visit) -> None:
    """Slash goes to the query, Enter asks it, the address holds it with absolute times."""
    page = visit("/search")
    expect(page.locator(".results")).to_be_visible()
    page.keyboard.press("/")
    expect(page.get_by_role("textbox", name="Query")).to_be_focused()
    page.keyboard.type("event.outcome:failure and user.id:alice@example.org")
    page.keyboard.press("Enter")
    expect(page.locator(".count")).to_contain_text("8 of")
    assert params(page)["q"] == ["event.outcome:failure and user.id:alice@example.org"]
    assert params(page)["from"][0].endswith("Z")
    assert params(page)["to"][0].endswith("Z")


def test_a_permalink_shows_the_same_to_somebody_else(visit: Visit) -> None:
    """The address alone carries query, chips, absolute range, columns and order."""
    page = visit("/search?q=event.outcome:failure")
    page.get_by_role("button", name="Only User: bob@example.org").click()
    page.get_by_role("button", name="Duration").click()
    expect(page.locator(".chip")).to_have_count(1)
    found = total(page)
    first = page.locator(".results tbody tr").first.get_attribute("data-id")
    other = visit(page.url.split("/", 3)[3].join(["/", ""]))
    assert total(other) == found == 8
    assert other.locator(".results tbody tr").first.get_attribute("data-id") == first
    expect(other.get_by_role("button", name="Time range")).to_contain_text(" \u2013 ")


def test_a_reload_keeps_following_the_clock(visit: Visit) -> None:
    """Within one window 'last 15 minutes' stays what it is, though the address is absolute."""
    page = visit("/search")
    page.get_by_role("button", name="Time range").click()
    page.get_by_role("button", name="Last 15 minutes").click()
    expect(page.get_by_role("button", name="Time range")).to_contain_text("Last 15 minutes")
    page.reload()
    expect(page.get_by_role("button", name="Time range")).to_contain_text("Last 15 minutes")


def until(page: Page) -> float:
    """The end of what is asked for, seconds since 1970."""
    expect(page).to_have_url(re.compile("to="))
    return datetime.fromisoformat(params(page)["to"][0]).timestamp()


def test_a_wrong_clock_of_the_browser_moves_nothing(visit: Visit) -> None:
    """'Last 24 hours' ends now by the server's clock, to two seconds; a slow answer is no wrong
    clock, and does not hide what came in meanwhile."""
    page = visit("/search")
    page.clock.set_fixed_time(time.time() + 3_600)
    before = time.time()
    page.goto(page.url.split("?")[0])
    assert before - 2 < until(page) < time.time() + 2
    slow = visit("/search")
    clock = time.time()
    slow.clock.set_fixed_time(clock)

    def late(route: Route) -> None:
        answer = route.fetch()
        slow.clock.set_fixed_time(clock + 3)
        route.fulfill(
            response=answer, headers={**answer.headers, "date": formatdate(clock, usegmt=True)}
        )

    slow.route("**/api/v1/session", late)
    slow.goto(slow.url.split("?")[0])
    assert until(slow) >= clock + 2.9


def test_an_absolute_range_is_typed(visit: Visit) -> None:
    """From and to as text, in the zone that is shown; what is no time is told."""
    page = visit("/search")
    page.get_by_role("button", name="Time range").click()
    page.get_by_label("From", exact=True).fill("yesterday")
    page.locator("form", has_text="From").get_by_role("button", name="Apply").click()
    expect(page.get_by_role("alert")).to_contain_text("2026-11-23 10:15:00")
    page.get_by_label("From", exact=True).fill("2026-01-01 00:00:00")
    page.get_by_label("To, not included").fill("2026-01-02")
    page.locator("form", has_text="From").get_by_role("button", name="Apply").click()
    assert params(page)["from"] == ["2026-01-01T00:00:00.000Z"]
    expect(page.get_by_text("Nothing matches.")).to_be_visible()


def test_the_histogram_is_brushed(visit: Visit) -> None:
    """Dragging over bars narrows the range to them; zooming out widens it again."""
    page = visit("/search?q=service.name:support")
    before = total(page)
    box = page.locator(".histogram-plot").bounding_box()
    assert box is not None
    middle = box["y"] + 40
    page.mouse.move(box["x"] + box["width"] * 0.4, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=5)
    expect(page.locator(".brush")).to_be_visible()
    page.mouse.up()
    expect(page.get_by_role("button", name="Time range")).to_contain_text(" \u2013 ")
    narrow = total(page)
    assert 0 < narrow < before / 3
    page.get_by_role("button", name="Zoom out in time").click()
    expect(page.locator(".count strong").nth(1)).not_to_contain_text(f"{narrow} event")
    assert narrow < total(page) <= before


def test_the_histogram_is_brushed_by_keys(visit: Visit) -> None:
    """Arrows with shift choose bars, Enter zooms to them."""
    page = visit("/search?q=service.name:support")
    before = total(page)
    page.locator(".histogram-plot").focus()
    page.keyboard.press("End")
    for _ in range(6):
        page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Time range")).to_contain_text(" \u2013 ")
    assert 0 < total(page) < before / 2


def test_facets_include_and_exclude(visit: Visit) -> None:
    """Plus narrows to a value, minus leaves it out, a click on the chip turns it around."""
    page = visit("/search?q=service.name:support")
    page.get_by_role("button", name="Without User: carol@example.org").click()
    expect(page.locator(".chip.exclude")).to_contain_text("not user.id: carol@example.org")
    assert total(page) == ACCESSES * 2 // 3
    page.locator(".chip-text").click()
    expect(page.locator(".chip.exclude")).to_have_count(0)
    assert total(page) == ACCESSES // 3
    page.get_by_role("button", name="Only Reason: none").click()
    expect(page.locator(".chip")).to_have_count(2)
    assert total(page) == ACCESSES // 3 - 8
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator(".chip")).to_have_count(0)
    assert total(page) == ACCESSES


def test_columns_are_chosen_and_sorted(visit: Visit) -> None:
    """A chosen field becomes a column; its heading sorts, and says so."""
    page = visit("/search?q=service.name:support")
    page.get_by_role("button", name="Columns").click()
    page.get_by_label("Find a field").last.fill("trace.id")
    page.get_by_role("checkbox", name="trace.id", exact=True).last.check()
    page.keyboard.press("Escape")
    expect(page.get_by_role("columnheader", name="trace.id")).to_be_visible()
    page.get_by_role("columnheader", name="Tokens in").get_by_role("button").click()
    heading = page.get_by_role("columnheader", name="Tokens in")
    expect(heading).to_have_attribute("aria-sort", "descending")
    assert params(page)["sort"] == ["gen_ai.usage.input_tokens:desc"]
    expect(page.locator(".stale")).to_have_count(0)
    expect(page.locator(".results tbody tr").first).to_contain_text("339")


def test_keys_alone_open_read_and_close_an_event(visit: Visit) -> None:
    """j, j, Enter, k, Esc: the focus is never lost."""
    page = visit("/search?q=service.name:support")
    expect(page.locator(".results tbody tr").first).to_be_visible()
    rows = page.locator(".row-open")
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(rows.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    details = page.get_by_role("complementary", name="Details of the event")
    expect(details).to_be_visible()
    expect(details.locator(".event-id")).to_have_text(rows.nth(1).get_attribute("data-row") or "")
    page.keyboard.press("k")
    expect(details.locator(".event-id")).to_have_text(rows.nth(0).get_attribute("data-row") or "")
    page.keyboard.press("Escape")
    expect(details).to_have_count(0)
    expect(rows.nth(0)).to_be_focused()


def test_help_tells_the_keys_and_switches_them_off(visit: Visit) -> None:
    """? opens help; single keys can be switched off for those whom they are in the way of."""
    page = visit("/search")
    expect(page.locator(".results")).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Help")).to_be_visible()
    page.get_by_label("Single-key shortcuts").uncheck()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.locator("body").click(position={"x": 2, "y": 500})
    page.keyboard.press("/")
    expect(page.get_by_role("textbox", name="Query")).not_to_be_focused()


def test_a_query_error_is_shown_at_its_character(visit: Visit) -> None:
    """The caret stands under the character at fault, with what to do."""
    page = visit("/search?q=event.outcome%3Afailure+%F0%9F%94%92+user.id%3Ax")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("`and` or `or` is missing")
    expect(alert.locator(".caret mark")).to_have_count(1)
    expect(alert.locator(".caret")).to_contain_text("user.id:x")
    at = (alert.locator(".caret").get_attribute("aria-label") or "").split()[-1]
    query = "event.outcome:failure \U0001f512 user.id:x"
    assert alert.locator(".caret mark").inner_text().strip() in query[int(at) - 1 :]


def test_a_bracket_in_the_text_reaches_no_chip(visit: Visit) -> None:
    """`a) or (b` beside a chip is an error of the text, not another query."""
    page = visit("/search?q=user.id%3Aa%29+or+%28user.id%3Ab&f=%2Bevent.outcome%3Dfailure")
    expect(page.get_by_role("alert")).to_contain_text("closes nothing")
    assert page.get_by_role("alert").locator(".caret mark").inner_text() == ")"


def test_nothing_found_says_where_it_looked(visit: Visit) -> None:
    """An empty result is no dead end."""
    page = visit("/search?q=user.id:nobody")
    expect(page.get_by_text("Nothing matches.")).to_be_visible()
    page.get_by_role("button", name="Drop query and filters").click()
    expect(page.locator(".results tbody tr").first).to_be_visible()


def test_gatebooks_own_acts_are_left_out_and_that_is_said(visit: Visit, book: Book) -> None:
    """A switch beside the count has them in it, in the address too; who names them finds them."""
    book.write_own()
    page = visit("/search")
    without = page.get_by_role("checkbox", name="without Gatebook's own")
    expect(without).to_be_checked()
    expect(page.get_by_role("button", name="Only Service: gatebook-operator")).to_have_count(0)
    hidden = total(page)
    without.uncheck()
    expect(page.get_by_role("button", name="Only Service: gatebook-operator")).to_have_count(1)
    assert total(page) > hidden
    assert params(page)["own"] == ["1"]
    page.reload()
    expect(without).not_to_be_checked()
    named = visit("/search?q=service.name:gatebook-operator")
    expect(named.locator(".results tbody tr").first).to_contain_text("gatebook-operator")
    expect(named.get_by_role("checkbox", name="without Gatebook's own")).not_to_be_checked()
    wrong = visit("/search?q=user.id%3Aa%29+or+%28user.id%3Ab")
    expect(wrong.get_by_role("alert")).to_contain_text("closes nothing")
    assert wrong.get_by_role("alert").locator(".caret mark").inner_text() == ")"


def test_a_caller_without_a_user_is_its_principal(visit: Visit, book: Book) -> None:
    """The list says who it was, also of a key; a viewer sees no more of it than before."""
    book.write_key_access("key:key_4f1c")
    page = visit("/search?q=trace.id:key-trace")
    expect(page.locator(".results tbody tr")).to_contain_text("key:key_4f1c")
    masked = visit("/search?q=trace.id:key-trace&columns=@timestamp,user.id", role="viewer")
    expect(masked.locator(".results tbody tr")).to_have_count(1)
    assert "key_4f1c" not in masked.locator(".results").inner_html()
    none = visit('/search?q=user.id:"key:key_4f1c"')
    expect(none.locator(".empty")).to_contain_text("gatebook.principal")


def test_a_caller_without_a_user_leads_to_their_other_accesses(visit: Visit, book: Book) -> None:
    """By their principal: those before and after, and a search for all of them; not for a viewer,
    who does not see it."""
    book.write_key_access("key:key_77ab", "other-trace")
    page = visit('/search?q=gatebook.principal:"key:key_77ab"')
    page.locator(".row-open").first.click()
    details = page.get_by_role("complementary", name="Details of the event")
    details.get_by_role("tab", name="Around").click()
    details.get_by_label("Same").select_option("gatebook.principal")
    expect(details.locator(".around li")).to_have_count(1)
    details.get_by_role("tab", name="Evidence").click()
    same = details.get_by_role("link", name="gatebook.principal: key:key_77ab")
    same.click()
    expect(page.locator(".chip")).to_contain_text("gatebook.principal: key:key_77ab")
    assert total(page) == 1
    event_id = page.locator(".results tbody tr").get_attribute("data-id")
    masked = visit(f"/search?q=event.id:{event_id}", role="viewer")
    masked.locator(".row-open").first.click()
    details = masked.get_by_role("complementary", name="Details of the event")
    details.get_by_role("tab", name="Around").click()
    expect(details.locator(".around li.here")).to_have_count(1)
    expect(details.get_by_label("Same").locator("option")).to_have_text(
        ["service.name", "trace.id", "anything"]
    )
    details.get_by_role("tab", name="Evidence").click()
    expect(details.get_by_role("link", name="service.name: batch")).to_be_visible()
    expect(details.get_by_role("link", name="gatebook.principal")).to_have_count(0)


def test_what_cannot_be_found_is_explained(visit: Visit) -> None:
    """A mail address is a pseudonym; the fields stand below a field that is none."""
    page = visit("/search?q=user.id:nobody@example.org")
    expect(page.locator(".empty")).to_contain_text("stored as a pseudonym")
    unknown = visit("/search?q=zzzqq:1")
    expect(unknown.get_by_role("alert")).to_contain_text("All fields are listed below")
    expect(unknown.get_by_role("list", name="Fields")).to_contain_text("event.outcome")


def test_details_tell_fields_json_timeline_evidence_and_neighbours(visit: Visit) -> None:
    """One event from every side; each tab by its key."""
    page = visit("/search?q=service.name:support+and+event.outcome:failure")
    page.locator(".row-open").nth(1).click()
    details = page.get_by_role("complementary", name="Details of the event")
    expect(details.get_by_role("row", name="event.reason rate_limited")).to_be_visible()
    details.get_by_role("tab", name="Fields").focus()
    page.keyboard.press("ArrowRight")
    expect(details.locator(".json").first).to_contain_text('"rate_limited"')
    page.keyboard.press("ArrowRight")
    expect(details.locator(".timeline li").first).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(details.locator(".integrity")).to_contain_text("is what was written")
    expect(details.get_by_role("link", name="Burst of refused callers")).to_have_attribute(
        "href", re.compile(INCIDENT)
    )
    page.keyboard.press("ArrowRight")
    expect(details.locator(".around li.here")).to_have_count(1)
    assert details.locator(".around li").count() > 5


def test_a_value_in_the_details_becomes_a_chip(visit: Visit) -> None:
    """What is read can be asked for."""
    page = visit("/search?q=service.name:support")
    page.locator(".row-open").first.click()
    page.get_by_role("button", name="Only gen_ai.request.model: slm-1b").click()
    expect(page.locator(".chip")).to_contain_text("gen_ai.request.model: slm-1b")
    assert total(page) == ACCESSES // 2


def test_other_kinds_have_their_own_columns(visit: Visit) -> None:
    """Findings are searched like accesses."""
    page = visit("/search")
    page.get_by_label("Kind of document").select_option("finding")
    expect(page.locator(".results tbody tr")).to_have_count(1)
    expect(page.get_by_role("columnheader", name="Severity")).to_be_visible()
    assert params(page)["kind"] == ["finding"]


def test_searches_are_saved_opened_and_deleted(visit: Visit) -> None:
    """A saved search brings back query, range and columns."""
    page = visit("/search?q=event.outcome:failure")
    page.get_by_role("button", name="Saved").click()
    page.get_by_label("Save this search as").fill("failures <b>")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("button", name="failures <b>", exact=True)).to_be_visible()
    again = visit("/search?q=user.id:nobody")
    again.get_by_role("button", name="Saved").click()
    again.get_by_role("button", name="failures <b>", exact=True).click()
    expect(again.get_by_role("textbox", name="Query")).to_have_value("event.outcome:failure")
    again.get_by_role("button", name="Saved").click()
    again.get_by_role("button", name="Delete failures <b>").click()
    expect(again.get_by_text("None yet.")).to_be_visible()


def test_an_export_is_downloaded_with_progress(visit: Visit) -> None:
    """All that matches arrives as a file, though the page shows less."""
    page = visit("/search?q=service.name:support")
    expect(page.locator(".results")).to_be_visible()
    page.get_by_role("button", name="Export").click()
    page.get_by_label("CSV").check()
    with page.expect_download() as download:
        page.get_by_role("dialog").get_by_role("button", name="Export").click()
    lines = download.value.path().read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) == ACCESSES + 1
    expect(page.locator(".export-progress")).to_contain_text(f"Done: {ACCESSES} lines")


def test_an_export_says_that_details_are_gone(visit: Visit) -> None:
    """Who exports a range of which retention took some is told."""
    page = visit("/search?q=event.outcome:failure")
    gone = {"complete": False, "thinned": []}
    page.route(
        "**/api/v1/exports",
        lambda route: route.fulfill(json={**route.fetch().json(), "detail": gone}),
    )
    page.get_by_role("button", name="Export").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("Retention removed")).to_have_count(0)
    with page.expect_download():
        dialog.get_by_role("button", name="Export", exact=True).click()
    expect(dialog.get_by_text("Retention removed some details of this range")).to_be_visible()


def test_the_live_tail_shows_what_comes_in(visit: Visit, book: Book) -> None:
    """A new event appears by itself; while it is paused, events only are counted."""
    page = visit("/search?q=service.name:support")
    page.get_by_role("button", name="Live").click()
    expect(page.get_by_role("status").get_by_text("live", exact=True)).to_be_visible()
    first = book.write_access(100_001)
    expect(page.locator(f'[data-id="{first}"]')).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    second = book.write_access(100_002)
    expect(page.locator(".toolbar")).to_contain_text("1 waiting")
    expect(page.locator(f'[data-id="{second}"]')).to_have_count(0)
    page.get_by_role("button", name="Go on").click()
    expect(page.locator(".results tbody tr").first).to_have_attribute("data-id", second)


def test_a_refused_tail_says_why_and_connects_again(visit: Visit) -> None:
    """Whoever watches knows what is missing, and that it goes on once that is back."""
    page = visit("/search?q=service.name:support")
    said = {"type": "unavailable", "message": "Elasticsearch does not answer", "next_step": "wait"}
    page.route("**/api/v1/tail?*", lambda route: route.fulfill(status=503, json={"error": said}))
    page.get_by_role("button", name="Live").click()
    expect(page.get_by_role("alert")).to_contain_text("Elasticsearch does not answer")
    expect(page.locator(".tail-problem")).to_contain_text("tries again every 10 seconds")
    page.unroute("**/api/v1/tail?*")
    page.get_by_role("button", name="Try now").click()
    expect(page.get_by_role("status").get_by_text("live", exact=True)).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_columns_out_of_sight_are_told(visit: Visit) -> None:
    """In a window that is too narrow for the table, a button leads to the rest of it."""
    page = visit("/search?q=service.name:support", viewport={"width": 900, "height": 800})
    more = page.get_by_role("button", name="More columns to the right")
    more.click()
    page.wait_for_function("document.querySelector('.table-scroll').scrollLeft > 100")
    page.locator(".table-scroll").evaluate("box => box.scrollTo({left: box.scrollWidth})")
    expect(more).to_have_count(0)


def test_hostile_content_is_shown_as_text(visit: Visit) -> None:
    """Scripts, terminal escapes, turned-around text and line breaks are read, never carried out.
    That no script ran is checked after every test."""
    page = visit("/search?q=event.id:hostile-event&columns=@timestamp,user.name,service.name")
    row = page.locator(f'[data-id="{HOSTILE_ID}"]')
    expect(row).to_contain_text("<script>top.hacked=1</script>")
    expect(row).to_contain_text("\\u202e")
    expect(row).to_contain_text("\\e")
    page.locator(".row-open").click()
    details = page.get_by_role("complementary", name="Details of the event")
    expect(details).to_contain_text("\\r\\nSet-Cookie: a=b")
    expect(details).to_contain_text("<img src=x onerror=top.hacked=1>")
    details.get_by_role("button", name="all 4,000 characters").click()
    expect(details).to_contain_text("A" * 4_000)
    details.get_by_role("tab", name="JSON").click()
    expect(details.locator(".json").first).to_contain_text("\\u202e")
    assert page.locator("img, .results script").count() == 0
    assert "\u202e" not in page.locator("body").inner_text()
    page.goto(page.url.replace("event.id%3Ahostile-event", ""))
    page.get_by_role("button", name="Only Service: <img src=x onerror=top.hacked=1>").click()
    expect(page.locator(".chip")).to_contain_text("<img src=x onerror=top.hacked=1>")
    assert total(page) == 1
