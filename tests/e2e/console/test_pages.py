"""Findings, overview, retention, tokens; who sees what; accessible to all."""

from __future__ import annotations

import re
from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import Page, expect
from tests.e2e.console.book import ACCESSES, HOSTILE_MARKUP, INCIDENT, Book
from tests.e2e.console.conftest import Visit
from tests.waiting import wait_until

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
NARROW = {"width": 390, "height": 844}


def violations(page: Page) -> list[str]:
    """What axe finds on the page as it is now."""
    page.evaluate(AXE)
    found = page.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)
    return [
        f"{rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def open_first(page: Page) -> None:
    page.locator(".row-open").first.click()
    expect(page.locator(".flyout .fields")).to_be_visible()


# Few rows: axe looks at the colours of every cell.
SMALL = "/search?q=event.outcome:failure"
STATES = {
    "search": (SMALL, lambda page: expect(page.locator(".results")).to_be_visible()),
    "details": (SMALL, open_first),
    "time picker": (SMALL, lambda page: page.get_by_role("button", name="Time range").click()),
    "columns": (SMALL, lambda page: page.get_by_role("button", name="Columns").click()),
    "help": (SMALL, lambda page: page.keyboard.press("?")),
    "export": (SMALL, lambda page: page.get_by_role("button", name="Export").click()),
    "query error": ("/search?q=(", lambda page: page.get_by_role("alert").wait_for()),
    "nothing found": ("/search?q=user.id:nobody", lambda page: page.locator(".empty").wait_for()),
    "live": (SMALL, lambda page: page.get_by_role("button", name="Live").click()),
    "findings": ("/findings?", lambda page: page.locator(".findings").wait_for()),
    "finding": (f"/finding/{INCIDENT}", lambda page: page.locator(".chart svg").wait_for()),
    "overview": ("/overview", lambda page: page.locator(".overview").wait_for()),
    "retention": ("/retention", lambda page: page.locator(".card").first.wait_for()),
    "tokens": ("/tokens", lambda page: page.locator("table").wait_for()),
    "new token": ("/tokens", lambda page: page.get_by_role("button", name="New token").click()),
}


@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing(visit: Visit, state: str) -> None:
    """WCAG 2.1 AA by axe, in every state, in both themes."""
    path, prepare = STATES[state]
    page = visit(path, role="everything", reduced_motion="reduce")
    page.locator("main h1").first.wait_for(state="attached")
    if path == SMALL:
        page.locator(".results").wait_for()
    prepare(page)
    expect(page.locator(".stale")).to_have_count(0)
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    assert violations(page) == []


@pytest.mark.parametrize("path", ["/search", "/findings", f"/finding/{INCIDENT}", "/overview"])
def test_a_telephone_is_wide_enough(visit: Visit, path: str) -> None:
    """At 390 pixels nothing but tables scrolls sideways."""
    page = visit(path, role="everything", viewport=NARROW)
    page.locator("main .card").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


def test_findings_lead_to_their_window_and_evidence(visit: Visit) -> None:
    """From the list to the figure against its baseline, to the events, to a verdict."""
    page = visit("/findings")
    row = page.locator(".findings tbody tr")
    expect(row).to_contain_text("Burst of refused callers")
    expect(row).to_contain_text(HOSTILE_MARKUP)
    page.get_by_role("link", name="Burst of refused callers").click()
    expect(page).to_have_url(re.compile(f"/finding/{INCIDENT}"))
    chart = page.locator(".chart svg")
    expect(chart.locator(".window")).to_have_count(1)
    expect(chart.locator(".level.threshold")).to_contain_text("threshold 5")
    expect(chart.locator(".level.usual")).to_contain_text("baseline 1")
    assert chart.locator(".point").count() > 3
    expect(page.locator(".evidence li")).to_have_count(3)
    page.locator(".evidence a").first.click()
    expect(page).to_have_url(re.compile("/event/"))
    expect(page.locator(".fields")).to_contain_text("bob")
    page.go_back()
    page.get_by_role("link", name="Show all in the search").click()
    expect(page.locator(".results tbody tr").first).to_contain_text("bob")


def test_a_verdict_is_given(visit: Visit) -> None:
    """Who may, says what a finding was; it goes into the log."""
    page = visit(f"/finding/{INCIDENT}")
    page.get_by_label("Benign").check()
    page.get_by_label("Note").fill("a load test")
    page.get_by_role("button", name="Give verdict").click()
    expect(page.get_by_text("Recorded.")).to_be_visible()


def test_a_finding_is_taken_on(visit: Visit) -> None:
    """Who may, says that somebody has it in hand."""
    page = visit(f"/finding/{INCIDENT}")
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_text("Recorded.")).to_be_visible()
    viewer = visit(f"/finding/{INCIDENT}", role="viewer")
    expect(viewer.locator(".evidence")).to_be_visible()
    expect(viewer.get_by_role("button", name="Acknowledge")).to_have_count(0)


def test_another_verdict_says_what_it_replaces_and_why(visit: Visit, book: Book) -> None:
    """No verdict is replaced unseen, nor without a reason."""
    book.write_judged("in-judged", "ada")
    page = visit("/finding/in-judged")
    expect(page.get_by_text("It replaces true positive by ada.")).to_be_visible()
    page.get_by_label("Benign").check()
    give = page.get_by_role("button", name="Give verdict")
    expect(give).to_be_disabled()
    page.get_by_label("Why it is another one").fill("it was a drill")
    give.click()
    expect(page.get_by_text("Recorded.")).to_be_visible()


def test_a_viewer_gives_no_verdict_and_sees_masks(visit: Visit) -> None:
    """What a role may not is not offered, and masked values are shown as such."""
    page = visit("/search?q=service.name:support", role="viewer")
    expect(page.locator(".results tbody tr").first).to_be_visible()
    expect(page.get_by_role("columnheader", name="User")).to_have_count(0)
    expect(page.locator(".results .masked")).to_have_count(0)
    expect(page.get_by_role("textbox", name="Query")).not_to_have_attribute(
        "placeholder", re.compile("user|@")
    )
    expect(page.get_by_role("button", name="Export")).to_have_count(0)
    expect(page.get_by_role("button", name=re.compile("Only User:"))).to_have_count(0)
    assert "alice" not in page.locator(".search-body").inner_html()
    other = visit("/search?q=user.name:alice", role="viewer")
    expect(other.get_by_role("alert")).to_contain_text("user.name is masked")
    chosen = visit("/search?q=service.name:support&columns=@timestamp,user.id", role="viewer")
    expect(chosen.locator(".results tbody tr").first).to_contain_text("masked")
    expect(chosen.get_by_role("columnheader", name="User").get_by_role("button")).to_have_count(0)
    third = visit(f"/finding/{INCIDENT}", role="viewer")
    expect(third.locator(".evidence")).to_be_visible()
    expect(third.get_by_role("button", name="Give verdict")).to_have_count(0)


def test_a_tenant_sees_its_own(visit: Visit) -> None:
    """Counts, facets and rows are those of one tenant."""
    page = visit("/search?q=service.name:support", role="acme")
    expect(page.locator(".count")).to_contain_text(f"of {ACCESSES // 2} events")
    expect(page.get_by_role("button", name="Only Tenant: acme")).to_have_count(1)
    expect(page.get_by_role("button", name="Only Tenant: globex")).to_have_count(0)


def test_content_is_revealed_with_a_reason(visit: Visit) -> None:
    """Without a reason nothing is asked for; with one it is told what became of each layer."""
    page = visit("/event/hostile-event", role="everything")
    page.get_by_role("button", name="Reveal content").click()
    confirm = page.get_by_role("button", name="Record and reveal")
    expect(confirm).to_be_disabled()
    page.get_by_label("Reason").fill("case 4711")
    confirm.click()
    expect(page.locator(".revealed")).to_contain_text("redacted:")


def waits(page: Page) -> int:
    """For how many roles the page says what waits; it asks again if Kafka was too slow to tell."""
    roles = page.locator(".pipeline li")
    expect(page.get_by_role("region", name="Indices")).to_contain_text("-access-")
    if roles.count() == 0:
        page.reload()
    return roles.count()


def test_the_overview_tells_the_day(visit: Visit) -> None:
    """Figures, top lists, pipeline and storage on one page; a name leads to its events."""
    page = visit("/overview", role="everything")
    expect(page.locator(".tile").first).to_contain_text("Accesses")
    expect(page.locator(".overview")).to_contain_text("Burst of refused callers")
    expect(page.get_by_role("region", name="Indices")).to_contain_text("-access-")
    wait_until("Kafka tells what waits", lambda: waits(page) == 4, poll_seconds=2)
    expect(page.locator(".pipeline")).to_contain_text("none running, nothing waits")
    expect(page.locator(".chart .part-failure").nth(10)).to_be_attached()
    expect(page.locator(".chart-note").first).to_contain_text("without Gatebook's own")
    page.get_by_role("link", name="slm-3b").click()
    expect(page.locator(".chip")).to_contain_text("gen_ai.request.model: slm-3b")
    expect(page.locator(".results tbody tr").first).to_contain_text("slm-3b")


def test_tokens_are_made_shown_once_and_revoked(visit: Visit) -> None:
    """An administrator makes a token; it is shown once, and can be ended."""
    page = visit("/tokens", role="everything")
    page.get_by_role("button", name="New token").click()
    page.get_by_label("What it is for").fill("nightly export")
    make = page.get_by_role("button", name="Make it")
    expect(make).to_be_disabled()  # nothing is said of tenants yet
    page.get_by_label("These alone").check()
    expect(make).to_be_disabled()
    page.get_by_label("Their names").fill("acme, globex")
    make.click()
    expect(page.locator(".secret")).to_contain_text("gb_")
    page.get_by_role("button", name="Done").click()
    row = page.get_by_role("row", name=re.compile("nightly export"))
    expect(row).to_contain_text("active")
    expect(row).to_contain_text("acme, globex")
    page.on("dialog", lambda dialog: dialog.accept())
    row.get_by_role("button", name="Revoke nightly export").click()
    expect(row).to_contain_text("revoked")
    assert "gb_" not in page.content()


def test_a_token_of_all_tenants_is_asked_for_in_words(visit: Visit) -> None:
    """All tenants are chosen as such, and by nothing that was left empty."""
    page = visit("/tokens", role="everything")
    page.get_by_role("button", name="New token").click()
    page.get_by_label("What it is for").fill("dashboards")
    page.get_by_label("All tenants").check()
    page.get_by_role("button", name="Make it").click()
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_role("row", name=re.compile("dashboards"))).to_contain_text("all")


def test_findings_are_narrowed_by_severity_and_sorted(visit: Visit) -> None:
    """The gravest first, or those of one severity; the menu says where one is."""
    page = visit("/findings")
    page.get_by_role("button", name="Severity").click()
    expect(page.get_by_role("columnheader", name="Severity")).to_have_attribute(
        "aria-sort", "descending"
    )
    expect(page.locator(".findings tbody tr")).to_have_count(1)
    page.get_by_label("Severity", exact=True).select_option("critical")
    expect(page.get_by_text("None is of this severity.")).to_be_visible()
    page.get_by_label("Severity", exact=True).select_option("error")
    page.get_by_role("link", name="Burst of refused callers").click()
    here = page.get_by_role("link", name="Findings", exact=True)
    expect(here).to_have_attribute("aria-current", "page")


def test_theme_and_zone_are_switched_and_remembered(visit: Visit) -> None:
    """Dark by the system or by hand; times in UTC or here; both survive a reload."""
    page = visit("/search", color_scheme="dark", timezone_id="Asia/Kolkata")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name=re.compile("^Theme: system")).click()
    assert page.evaluate(ground) != dark
    expect(page.get_by_role("columnheader", name="Time UTC")).to_be_visible()
    page.get_by_role("button", name=re.compile("^Times are in UTC")).click()
    expect(page.get_by_role("columnheader", name="Time UTC+05:30")).to_be_visible()
    page.reload()
    expect(page.get_by_role("columnheader", name="Time UTC+05:30")).to_be_visible()
    assert page.evaluate(ground) != dark


def test_nobody_in_particular_is_asked_to_sign_in(visit: Visit) -> None:
    """Without a session there is nothing but the way to one."""
    page = visit("/search?q=user.name:alice", role="")
    expect(page.get_by_role("link", name="Sign in")).to_have_attribute(
        "href", re.compile(r"/login\?return=%2Fsearch")
    )
    assert violations(page) == []


def test_signing_out_ends_the_session(visit: Visit, book: Book) -> None:
    """After it the same browser is nobody again."""
    page = visit("/login", role="")
    assert violations(page) == []
    page.locator("input[name=token]").fill(book.tokens["viewer"])
    page.locator("form button, form input[type=submit]").first.click()
    expect(page.locator(".results")).to_be_visible()
    page.locator(".account button").first.click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()


def test_a_session_that_ends_is_told(visit: Visit) -> None:
    """Whoever comes back to a page whose session is over is led to sign in, and back here."""
    page = visit(SMALL)
    expect(page.locator(".results")).to_be_visible()
    page.context.clear_cookies()
    page.get_by_role("button", name="Search again").click()
    expect(page.get_by_role("link", name="Sign in")).to_have_attribute(
        "href", re.compile("return=%2Fsearch%3Fq%3Devent.outcome")
    )


def test_a_long_range_says_that_summaries_answered(visit: Visit, book: Book) -> None:
    """What was counted is told beside the figures."""
    book.summarize()
    page = visit("/overview", role="everything")
    page.get_by_role("button", name="30d").click()
    expect(page.locator(".tile").first).to_contain_text("24")
    found = visit("/search?q=service.name:support", role="everything")
    found.get_by_role("button", name="Time range").click()
    found.get_by_role("button", name="Last 365 days").click()
    expect(found.locator(".badge.note")).to_contain_text("answered from summaries")


def test_what_retention_left_is_told(visit: Visit) -> None:
    """No day is said to be empty that may hold documents under hold."""
    left = {
        "summaries, and what is under hold": {"all_gone": True, "keep_one_in": None},
        "one in 4, and summaries": {"all_gone": False, "keep_one_in": 4},
        "some details, and summaries": {"all_gone": False, "keep_one_in": None},
    }
    times = {"from": "2026-10-01T00:00:00.000000Z", "to": "2026-10-02T00:00:00.000000Z"}
    thinned = [{**times, **one} for one in left.values()]
    page = visit("/overview")
    page.route(
        "**/api/v1/retention",
        lambda route: route.fulfill(json={**route.fetch().json(), "thinned": thinned}),
    )
    page.get_by_role("link", name="Retention").click()
    rows = page.get_by_role("region", name="Days without all details").locator("tbody tr")
    expect(rows.locator("td:last-child")).to_have_text(list(left))


def test_an_unreachable_service_is_told(visit: Visit) -> None:
    """No answer is no empty result."""
    page = visit(SMALL)
    expect(page.locator(".results")).to_be_visible()
    page.context.set_offline(True)
    page.get_by_role("button", name="Search again").click()
    expect(page.get_by_role("alert").first).to_contain_text("cannot be reached")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".results")).to_be_visible()


def test_an_installed_console_is_whole(visit: Visit, book: Book) -> None:
    """What the service sends is the build, with the strict policy, and nothing inline."""
    page = visit("/overview")
    answer = page.request.get(f"{book.origin}/overview")
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "immutable" not in answer.headers["cache-control"]
