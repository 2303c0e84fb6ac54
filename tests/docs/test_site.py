"""The site of docs/: it builds without a warning, says what the code says, and loads nothing from elsewhere."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from adapt.config import TrainConfig
from tests.docs.pages import DOCS, PAGES, ROOT, hooks, module

LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "embed": "src"}
RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch", "manifest"}
ELSEWHERE = ("http:", "https:", "//")
GENERATED = {DOCS / "reference" / "commands.md", DOCS / "reference" / "settings.md"}


def test_every_link_between_pages_leads_to_a_page_or_file() -> None:
    for page in PAGES:
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            target = (page.parent / link.partition("#")[0]).resolve()
            assert link.startswith(("https://", "#")) or target.is_file() or target in GENERATED, f"{page}: {link}"


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page for page in PAGES if page.relative_to(DOCS).as_posix() not in menu] == []


def test_the_command_reference_has_every_command_option_and_default() -> None:
    page = hooks.commands_page()
    for program, app in hooks.applications().items():
        for sub, command in app.commands.items():
            part = page.partition(f"### {program} {sub} {{")[2].partition("\n### ")[0]
            for param in (param for param in command.params if not getattr(param, "hidden", False)):
                assert param.opts[0] in part.replace("[CONFIG]", "config"), (program, sub, param.opts)
    assert "default: 30" in page
    assert "default: 400" in page  # a default of `adapt train`, which is a setting's


def test_the_settings_page_has_every_setting_once_with_its_default() -> None:
    page = hooks.settings_page()
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", page, re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(TrainConfig.model_fields)
    assert dict(rows)["steps"] == "`400`"
    assert dict(rows)["model"] == "*required*"


def test_every_public_name_is_in_the_reference() -> None:
    import adapt
    import datasets_cache
    import reports
    import spectra

    for package in (spectra, adapt, reports, datasets_cache):
        text = (DOCS / "reference" / f"{package.__name__}.md").read_text(encoding="utf-8")
        missing = [name for name in package.__all__ if f"\n::: {package.__name__}.{name}\n" not in text]
        assert missing == [], package.__name__


def test_every_entry_of_the_reference_exists_and_has_a_docstring() -> None:
    for page in (DOCS / "reference").glob("*.md"):
        for name in re.findall(r"^::: ([\w.]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            place, _, last = name.rpartition(".")
            assert inspect.getdoc(getattr(importlib.import_module(place), last)), name
            assert hooks.home_of(name).rpartition(".")[2] == last


def test_the_lists_of_names_say_what_the_docstrings_say() -> None:
    for page in (DOCS / "reference").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert hooks.listed(text) == text, f"{page.name}: renew it with python docs/hooks.py"
        assert "make site" in text
        assert "In a clone" not in hooks.on_page_markdown(text)
        for name in re.findall(r"^::: ([\w.]+)", text, re.MULTILINE):
            assert len(re.findall(rf"^- \[`{re.escape(name)}`\]\(#\S+\): \S.*", text, re.MULTILINE)) == 1, name


def test_products_in_angle_brackets_are_no_tags_and_joint_arguments_are_parted() -> None:
    prepare = module("docstrings")
    assert prepare.plain("<x, B x> of `<x>`, 1 < 2") == "&lt;x, B x> of `<x>`, 1 < 2"
    together = "Args:\n    a, b: what\n        it is\n    c: that"
    parted = "Args:\n    a: what\n        it is\n    b: what\n        it is\n    c: that"
    assert prepare.apart(together) == parted


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a broken link or anchor fails the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class _Loads(HTMLParser):
    """What a page loads when it is opened, in `found`."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "link" and RELATIONS & set(given.get("rel", "").split()):
            self.found.append(given.get("href", ""))
        if tag in LOADED:
            self.found += [given.get(LOADED[tag], ""), *given.get("srcset", "").split()]


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        loads = _Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert loads.found
        assert [url for url in loads.found if url.startswith(ELSEWHERE)] == [], page
    for sheet in site.rglob("*.css"):
        urls = re.findall(r"(?:url\(|@import )\s*[\"']?([^\"')\s]+)", sheet.read_text(encoding="utf-8"))
        assert [url for url in urls if url.startswith(ELSEWHERE)] == [], sheet
    assert not list(site.rglob("*.py"))


@pytest.mark.slow
def test_docstrings_are_shown_in_full(site: Path) -> None:
    shown = (site / "reference" / "spectra.html").read_text(encoding="utf-8")
    assert "&lt;x, B_b x&gt; of x" in shown or "&lt;x, B_b x> of x" in shown
    assert "Raises" in (site / "reference" / "adapt.html").read_text(encoding="utf-8")


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """The site, served on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_in_a_browser_pages_ask_only_their_own_server_fit_a_phone_and_can_be_searched(address: str) -> None:
    api = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium here")
    asked: list[str] = []
    said: list[str] = []
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 375, "height": 800})
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        for name in ("index", "numbers", "reference/spectra", "reference/commands", "howto/compare"):
            page.goto(f"{address}/{name}.html")
            assert page.evaluate("document.documentElement.scrollWidth") <= 375, name
        page.set_viewport_size({"width": 1440, "height": 900})
        page.goto(f"{address}/index.html")
        page.fill("input.md-search__input", "coherence")
        page.wait_for_selector(".md-search-result__item a")
        browser.close()
    assert {url for url in asked if not url.startswith((address, "data:", "blob:"))} == set()
    assert said == []
