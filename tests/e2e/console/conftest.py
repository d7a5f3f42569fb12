"""The console in a real browser, before the real service on the real engines."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright
from tests.e2e.console.book import Book

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
Visit = Callable[..., Page]
PATIENCE_MS = 15_000
expect.set_options(timeout=PATIENCE_MS)


def chromium(playwright: Playwright) -> str:
    """The Chromium that is there. A missing one is a failure, with what to do."""
    for name in (os.environ.get("GATEBOOK_CHROMIUM", ""), *NAMES):
        if name and (found := shutil.which(name)):
            return found
    own = playwright.chromium.executable_path
    if os.path.exists(own):
        return own
    raise AssertionError(
        "no Chromium: run `make browser`, install the package chromium, "
        "or name one in GATEBOOK_CHROMIUM"
    )


@pytest.fixture(scope="session")
def book(engines: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Book]:
    """The log that all tests of the console look at."""
    found = Book(engines, tmp_path_factory.mktemp("console"))
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def browser(book: Book) -> Iterator[Browser]:
    """One Chromium. It ends with its module: while it runs, so does an event loop of its own, and
    no test of another folder could run one."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=chromium(playwright), args=list(FLAGS), headless=True
        )
        yield found
        found.close()


@pytest.fixture(scope="module")
def signed_in(book: Book, browser: Browser) -> Callable[[str], Any]:
    """The cookies of a role, made by its token once."""
    known: dict[str, Any] = {}

    def state(role: str) -> Any:
        if role not in known:
            context = browser.new_context()
            page = context.new_page()
            page.goto(f"{book.origin}/login")
            page.locator("input[name=token]").fill(book.tokens[role])
            page.locator("form button, form input[type=submit]").first.click()
            page.wait_for_url(lambda url: "/login" not in url)
            known[role] = context.storage_state()
            context.close()
        return known[role]

    return state


@pytest.fixture
def visit(book: Book, browser: Browser, signed_in: Callable[[str], Any]) -> Iterator[Visit]:
    """Opens an address of the console as somebody of a role.

    After the test: no page asked for anything that is not of this service, none complained (a
    broken content security policy does), and no script of a field's content ran.
    """
    opened: list[tuple[BrowserContext, Page]] = []
    asked: list[str] = []
    complaints: list[str] = []

    def go(path: str, role: str = "analyst", **options: Any) -> Page:
        viewport = options.pop("viewport", {"width": 1440, "height": 900})
        state = signed_in(role) if role else None
        context = browser.new_context(viewport=viewport, storage_state=state, **options)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if _bad(said) else None)
        page.goto(book.origin + path)
        opened.append((context, page))
        return page

    yield go
    for context, page in opened:
        assert page.evaluate("window.hacked") is None
        context.close()
    assert [url for url in asked if not url.startswith((f"{book.origin}/", "blob:"))] == []
    assert complaints == []


def _bad(said: Any) -> bool:
    """Whether the browser's console tells of a fault; a refused request is none by itself."""
    return said.type in ("error", "warning") and "Failed to load resource" not in said.text
