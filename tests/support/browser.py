"""Headless Chromium for tests of pages; the tests skip where there is none."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# As root there is no sandbox; the other flags keep the browser from looking for hosts of its own.
_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser, or skip the test."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(
    browser: Browser, url: str, *, width: int = 1280, dark: bool = False, checked: bool = True, bypass: bool = False
) -> Iterator[tuple[Page, list[str]]]:
    """Open a URL and yield the page and its errors so far.

    Args:
        browser: Of `chromium`.
        url: Of an explorer page.
        width: Of the window.
        dark: Whether the system's theme is dark.
        checked: Fail at the end if the page had an error.
        bypass: Let scripts be added to the page, whose policy forbids it.
    """
    errors: list[str] = []
    context = browser.new_context(
        viewport={"width": width, "height": 844 if width < 700 else 900},
        color_scheme="dark" if dark else "light",
        bypass_csp=bypass,
    )
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(url)
    page.wait_for_selector("html[data-ready]")
    try:
        yield page, errors
    finally:
        context.close()
    if checked:
        assert not errors, errors


def go(page: Page, route: str) -> None:
    """Go to a place on the page and wait until it is drawn."""
    page.evaluate("route => { location.hash = route; }", route)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
