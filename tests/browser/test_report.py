"""The report in a real browser: opens from a file, asks for nothing, fits every width, readable in light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import reports
from tests.browser.chromium import Chromium, binary
from tests.reports.fixtures import write_cube, write_run, write_three_arms

pytestmark = [
    pytest.mark.skipif(binary() is None, reason="no Chromium on the path (Debian: apt-get install chromium)"),
    pytest.mark.slow,
]

LUMINANCE = """(() => {
  const parts = c => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const paper = light(parts(getComputedStyle(document.body).backgroundColor));
  const contrast = c => { const l = light(parts(c)); return (Math.max(l, paper) + .05) / (Math.min(l, paper) + .05); };
  const of = (query, key) => [...document.querySelectorAll(query)].map(e => contrast(getComputedStyle(e)[key]));
  return {paper, text: Math.min(...of('p, li, td, th, caption, figcaption, summary, dd', 'color')),
          figures: Math.min(...of('svg[role=img] text', 'fill'))};
})()"""
OVERFLOWING = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser")
    runs = write_three_arms(root / "runs", seeds=2, samples=8)
    return reports.write(reports.build(runs, write_cube(root / "mini.zarr")), root / "report.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as found:
        yield found


def problems(browser: Chromium) -> list[object]:
    """Console errors, exceptions, and requests for anything but the page itself and data in it."""
    found: list[object] = [e for e in browser.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
    for event in browser.events:
        if event["method"] == "Network.requestWillBeSent":
            url = event["params"]["request"]["url"]
            found += [] if url.startswith(("file://", "data:")) else [url]
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 375, 768, 1440])
def test_the_report_fits_and_can_be_read(browser: Chromium, page: Path, width: int, dark: bool, tmp_path: Path) -> None:
    browser.open(page.as_uri(), width, dark=dark)
    assert problems(browser) == []
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate(OVERFLOWING) <= 0
    seen = browser.evaluate(LUMINANCE)
    assert (seen["paper"] < 0.1) == dark
    assert seen["text"] >= 4.5
    assert seen["figures"] >= 4.5
    browser.screenshot(tmp_path / "shot.png")
    assert (tmp_path / "shot.png").stat().st_size > 100_000


def test_without_script_everything_is_there(browser: Chromium, page: Path) -> None:
    browser.open(page.as_uri(), 768, script=False)
    shown = browser.call("DOM.getDocument")
    html = browser.call("DOM.getOuterHTML", nodeId=shown["root"]["nodeId"])["outerHTML"]
    assert html.count('role="img"') >= 12
    assert "<script" not in html


def test_pictures_load_and_figures_have_a_size(browser: Chromium, page: Path) -> None:
    browser.open(page.as_uri(), 1440)
    assert browser.evaluate("[...document.images].every(i => i.complete && i.naturalWidth === 64)")
    assert browser.evaluate("document.images.length") == 40
    assert (
        browser.evaluate("Math.min(...[...document.querySelectorAll('svg[role=img]')].map(s => s.clientWidth))") > 200
    )


def test_the_skip_link_is_the_first_stop_and_leads_to_the_report(browser: Chromium, page: Path) -> None:
    browser.open(page.as_uri(), 768)
    for kind in ("rawKeyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert browser.evaluate("document.activeElement.className") == "skip"
    assert browser.evaluate("document.activeElement.getBoundingClientRect().left") >= 0


def test_hostile_text_runs_nothing_in_a_browser(browser: Chromium, tmp_path: Path) -> None:
    prompts = ["<img src=x onerror=document.title='hit'>", "<script>document.title='hit'</script>", "</svg><b>", "'\""]
    made = [write_run(tmp_path / method, method, samples=4, prompts=prompts) for method in ("lora", "<b>method</b>")]
    path = reports.write(reports.build(made), tmp_path / "report.html")
    browser.open(path.as_uri(), 768)
    assert problems(browser) == []
    assert browser.evaluate("document.title") == "mini on style – adapter report"
    assert browser.evaluate("document.querySelectorAll('b, script').length") == 0


def test_paper_is_light_and_shows_what_is_folded(browser: Chromium, page: Path) -> None:
    browser.open(page.as_uri(), 794, dark=True)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.call("Emulation.setEmulatedMedia", media="print", features=features)
    assert browser.evaluate(LUMINANCE)["paper"] > 0.9
    assert browser.evaluate(LUMINANCE)["text"] >= 4.5
    assert (
        browser.evaluate("Math.min(...[...document.querySelectorAll('details table')].map(t => t.clientHeight))") > 20
    )
