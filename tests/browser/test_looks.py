"""The page in a real browser: opened from a file it asks for nothing, fits every width, and reads in light and dark."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from tests.browser.chromium import opened, violations
from tests.browser.synthetic import write

OVERFLOWING = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
EAGER = "for (const image of document.images) image.loading = 'eager'"
PAPER = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
CUT = """[...document.querySelectorAll('svg[role=img]')].filter(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].some(text => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 6 || box.right > frame.right + 6;
  });
}).map(svg => svg.querySelector('title').textContent)"""
CROSSED = """[...document.querySelectorAll('svg[role=img]')].filter(
  svg => /^(glance|forest|overview|near)-/.test(svg.getAttribute('aria-labelledby'))).map(svg => {
  const seen = [...svg.querySelectorAll('path, use')].filter(
    mark => !mark.closest('defs') && (mark.tagName === 'use' || mark.style.stroke));
  const boxes = seen.map(mark => mark.getBoundingClientRect());
  return [...svg.querySelectorAll('text')].filter(text => {
    const word = text.getBoundingClientRect();
    return boxes.some(box => word.left < box.right && box.left < word.right &&
      word.top + 0.2 * word.height < box.bottom && box.top < word.bottom - 0.2 * word.height);
  }).map(text => text.textContent);
})"""
SMALLEST = """Math.min(...[...document.querySelectorAll('svg[role=img] text')].map(text =>
  parseFloat(getComputedStyle(text).fontSize) * text.ownerSVGElement.getScreenCTM().a))"""


def shot(page: Page) -> np.ndarray:
    """The whole page as pixels."""
    return np.asarray(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB"))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [375, 768, 1440])
def test_the_page_fits_and_keeps_its_scheme(browser: Browser, page: Path, width: int, dark: bool) -> None:
    with opened(browser, page, width, dark) as found:
        found.page.evaluate(EAGER)
        assert found.page.evaluate(OVERFLOWING) <= 0
        pixels = shot(found.page)
        assert found.problems == []
        assert found.page.evaluate(CUT) == []
        assert found.page.evaluate(SMALLEST) >= 7.5
    assert pixels.shape[1] == width
    dim = (pixels.mean(axis=-1) < 128).mean()
    assert (dim > 0.6) if dark else (dim < 0.4)


@pytest.mark.parametrize("width", [375, 768, 1440])
def test_no_mark_runs_through_the_words_of_a_row(browser: Browser, page: Path, tmp_path: Path, width: int) -> None:
    long = write(tmp_path / "long.html", lambda text: f"{text}-with-a-name-that-goes-on-and-on-rank16-lr1e-4 again")
    for path in (page, long):
        with opened(browser, path, width) as found:
            assert found.page.evaluate(CROSSED) == [[]] * 4


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [375, 1440])
def test_without_script_the_page_fits_and_shows_every_picture(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    with opened(browser, page, width, dark, script=False) as found:
        pixels = shot(found.page)
        assert found.problems == []
        assert pixels.shape[1] == width
        assert found.page.locator("img:visible").count() == 2 * 5 + 2 * 5 + 2 * 2
        assert found.page.locator("input, button, select").count() == 0
        assert found.page.locator(".viewer:visible, .cursor:visible").count() == 0


def test_the_page_says_the_same_with_and_without_script(browser: Browser, page: Path) -> None:
    told = []
    for script in (False, True):
        with opened(browser, page, 1440, script=script) as found:
            cells = found.page.locator("main > section > .scroll td, main > section > .said, main > section > p")
            told.append([text.strip() for text in cells.all_text_contents()])
    assert told[0] == told[1]
    assert len(told[0]) >= 15


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(375, True), (1440, False)], ids=["small-dark", "large-light"])
def test_axe_finds_nothing(browser: Browser, page: Path, width: int, dark: bool) -> None:
    with opened(browser, page, width, dark, bypass_csp=True) as found:
        found.page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
        assert violations(found.page) == []


def test_axe_would_find_something(browser: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<!doctype html><html><title>x</title><img src='data:,'><p style='color:#bbb'>grey</p></html>")
    with opened(browser, bad, bypass_csp=True) as found:
        assert {text.partition(":")[0] for text in violations(found.page)} >= {
            "html-has-lang",
            "image-alt",
            "color-contrast",
        }


def test_paper_is_light_shows_what_is_folded_and_has_no_controls(browser: Browser, page: Path) -> None:
    with opened(browser, page, 794, dark=True) as found:
        found.page.emulate_media(media="print", color_scheme="dark")
        assert min(found.page.evaluate(PAPER)) > 240
        assert found.page.locator("button:not(.sort):visible, select:visible, input:visible, nav:visible").count() == 0
        assert found.page.locator("details table").first.bounding_box()["height"] > 20
        assert found.page.evaluate(OVERFLOWING) <= 0
        stuck = "[...document.querySelectorAll('body *')].filter(e => getComputedStyle(e).position === 'sticky' &&" \
            " getComputedStyle(e).display !== 'none' && e.matches('.toolbar, tbody th')).length"  # fmt: skip
        assert found.page.evaluate(stuck) == 0


def test_it_prints_on_pages(browser: Browser, page: Path) -> None:
    with opened(browser, page) as found:
        paper = found.page.pdf(format="A4")
    assert paper.startswith(b"%PDF")
    assert 3 < paper.count(b"/Type /Page\n") < 20


def test_figures_have_a_size_and_their_text_can_be_found(browser: Browser, page: Path) -> None:
    with opened(browser, page, 1440) as found:
        widths = found.page.evaluate("[...document.querySelectorAll('svg[role=img]')].map(s => s.clientWidth)")
        assert len(widths) == 11
        assert min(widths) > 200
        assert found.page.locator("svg text", has_text="noise level, from noise").count() >= 3
