"""A system Chromium driven by Playwright: what it was asked for and what went wrong is kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import axe_playwright_python
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")


def binary() -> str | None:
    """The first Chromium on the path."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """One browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary(), args=list(FLAGS))
        yield browser
        browser.close()


class Opened:
    """A page that was opened from its file, and every problem that it had: messages, errors, dialogs, requests."""

    def __init__(self, context: BrowserContext, path: Path) -> None:
        self.problems: list[str] = []
        self.page: Page = context.new_page()
        self.page.on("console", lambda message: self.problems.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("dialog", self.refuse)
        self.page.on("request", lambda request: self.seen(request.url, path.as_uri()))
        self.page.goto(path.as_uri())

    def refuse(self, dialog: Any) -> None:
        """A dialog is a script that nobody wrote."""
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def seen(self, url: str, own: str) -> None:
        """Only the page itself and data inside of it may be asked for."""
        if url != own and not url.startswith("data:"):
            self.problems.append(f"request: {url}")


@contextmanager
def opened(
    browser: Browser, path: Path, width: int = 768, dark: bool = False, script: bool = True, **how: Any
) -> Iterator[Opened]:
    """A page in a context of its own, offline."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light",
        java_script_enabled=script, offline=True, **how,
    )  # fmt: skip
    try:
        yield Opened(context, path)
    finally:
        context.close()


@cache
def axe() -> str:
    """The source of axe-core, as axe-playwright-python brings it."""
    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def violations(page: Page) -> list[str]:
    """What axe-core finds against WCAG 2.2 A and AA; the context must bypass the page's own security policy."""
    page.evaluate(axe())
    found = page.evaluate("rules => axe.run(document, {runOnly: {type: 'tag', values: rules}})", list(RULES))
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found["violations"]]
