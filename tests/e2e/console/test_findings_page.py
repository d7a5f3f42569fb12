"""The list of findings where there are more than one answer has, or than were read."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Route, expect
from tests.e2e.console.book import Book
from tests.e2e.console.conftest import Visit

FIRST = 500  # as many as one answer has
CRITICAL = FIRST + 1
INFO = 2
ALL = CRITICAL + INFO + 1  # and the one that is in every book, an error of today
MONTHS_AGO = 100  # days: where no other test looks for findings


@pytest.fixture(scope="module")
def crowd(book: Book) -> None:
    """More than one answer has, so that the first one leaves out all that is not critical."""
    book.write_findings("critical", CRITICAL, days_ago=MONTHS_AGO)
    book.write_findings("info", INFO, days_ago=MONTHS_AGO)


def of_the_year(visit: Visit) -> Page:
    """The findings of the last year, as soon as they are there."""
    page = visit("/findings")
    page.get_by_label("Since").select_option("365d")
    expect(page.locator(".count")).to_contain_text(f"{FIRST} of {ALL} incidents")
    return page


@pytest.mark.usefixtures("crowd")
def test_a_severity_is_counted_and_found_beyond_the_first_answer(visit: Visit) -> None:
    """Those of one severity are there although graver ones fill an answer."""
    page = of_the_year(visit)
    severity = page.get_by_label("Severity", exact=True)
    expect(severity.locator("option")).to_have_text(
        ["All severities", f"critical ({CRITICAL})", "error (1)", "warning (0)", f"info ({INFO})"]
    )
    severity.select_option("info")
    expect(page.locator(".count")).to_contain_text(f"{INFO} of {INFO} incidents")
    rows = page.locator(".findings tbody tr")
    expect(rows.locator(".severity-info")).to_have_count(INFO)
    expect(rows).to_have_count(INFO)
    severity.select_option("warning")
    expect(page.get_by_text("None is of this severity.")).to_be_visible()
    expect(severity.locator("option").last).to_have_text(f"info ({INFO})")


@pytest.mark.usefixtures("crowd")
def test_more_findings_are_shown_when_asked_for(visit: Visit) -> None:
    """The gravest come first, and that is said; the others follow, each in its place by time."""
    page = of_the_year(visit)
    rows = page.locator(".findings tbody tr")
    expect(rows.locator(".severity-critical")).to_have_count(FIRST)
    more = page.get_by_role("button", name="Show more")
    expect(page.locator(".more-rows")).to_contain_text("the gravest are chosen first")
    more.click()
    expect(rows).to_have_count(ALL)
    expect(rows.first.locator(".severity-error")).to_be_visible()
    expect(page.locator(".count")).to_contain_text(f"{ALL} of {ALL} incidents")
    expect(more).to_have_count(0)
    page.get_by_label("Severity", exact=True).select_option("critical")
    expect(page.locator(".count")).to_contain_text(f"{FIRST} of {CRITICAL} incidents")
    expect(rows).to_have_count(FIRST)


@pytest.mark.parametrize(
    ("unread", "told"),
    [
        (0, None),
        (1, r"The oldest finding \(before 2026-10-01 .*\) was not read; incidents that only it"),
        (1234, r"The oldest 1,234 findings \(before 2026-10-01 .*\) were not read; incidents"),
    ],
)
def test_findings_that_were_not_read_are_told(visit: Visit, unread: int, told: str | None) -> None:
    """A list that misses the oldest says so, and from when."""
    before = "2026-10-01T12:00:00.000000Z" if unread else None
    left = {"complete": not unread, "unread": unread, "unread_before": before}

    def answer(route: Route) -> None:
        route.fulfill(json={**route.fetch().json(), **left})

    page = visit("/overview")
    page.route("**/api/v1/findings?*", answer)
    page.get_by_role("link", name="Findings", exact=True).click()
    expect(page.locator(".findings tbody tr").first).to_be_visible()
    notice = page.locator(".notice")
    if told:
        expect(notice).to_contain_text(re.compile(told))
    else:
        expect(notice).to_have_count(0)
