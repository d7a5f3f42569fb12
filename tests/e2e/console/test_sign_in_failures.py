"""What a person sees in the browser who is not let in."""

from __future__ import annotations

from playwright.sync_api import Page, expect
from tests.e2e.console.book import HOSTILE, Book
from tests.e2e.console.conftest import Visit
from tests.e2e.console.test_pages import violations


def sign_in(page: Page, token: str) -> None:
    page.locator("input[name=token]").fill(token)
    page.get_by_role("button", name="Sign in").click()


def test_a_wrong_token_is_told_and_a_right_one_goes_on(visit: Visit, book: Book) -> None:
    """The page says what happened and what to do, is as accessible as the others, and leads to
    where one was going."""
    page = visit("/login?return=%2Foverview", role="")
    sign_in(page, f"gb_{HOSTILE[:40]}")
    expect(page.get_by_role("alert")).to_contain_text("signs nobody in")
    expect(page.get_by_role("main")).to_contain_text("ask an administrator for a new one")
    assert violations(page) == []
    sign_in(page, book.tokens["analyst"])
    expect(page.locator(".overview")).to_be_visible()
    assert page.url.endswith("/overview")


def test_what_is_refused_before_signing_in_is_a_page(visit: Visit) -> None:
    """Neither bare JSON nor a dead end: a sentence, a next step, and the way back."""
    page = visit("/login/oidc", role="")
    expect(page.get_by_role("alert")).to_have_text("No identity provider is set up here.")
    assert violations(page) == []
    page.get_by_role("link", name="Sign in").click()
    expect(page.get_by_label("API token")).to_be_visible()
    used = visit("/login?token=used-before", role="")
    expect(used.get_by_role("alert")).to_contain_text("it was used already, it is too old")
    expect(used.get_by_role("main")).to_contain_text("An API token signs in, too")
    expect(used.get_by_role("main")).to_contain_text("gatebook token new")
    assert violations(used) == []
    nowhere = visit("/nosuch")
    expect(nowhere.get_by_role("alert")).to_have_text("There is nothing here.")
    nowhere.get_by_role("link", name="To the console").click()
    expect(nowhere.locator(".results")).to_be_visible()
