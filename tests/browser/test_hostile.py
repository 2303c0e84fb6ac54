"""Prompts, captions, names and metadata are other people's text: the browser shows it and does nothing with it."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import opened
from tests.browser.synthetic import write

HOSTILE = (
    "<script>document.title='hit'</script>",
    '"><img src=x onerror=document.title="hit">',
    "' onmouseover='document.title=`hit`' autofocus onfocus='document.title=`hit`",
    "</title></style></desc></svg></script><b id=hit>bold</b>",
    "{{ 7 * 7 }}{% raw %}<!-- ]]>",
    "javascript:document.title='hit'",
    "$\\frac{1}{ &lt;b&gt; \u202e ünï 日本 %",
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    following = cycle(HOSTILE)
    return write(
        tmp_path_factory.mktemp("hostile") / 'a "page" <b> & more.html', lambda text: f"{text} {next(following)}"
    )


@pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])
def test_hostile_text_runs_nothing_and_makes_no_element(
    browser: Browser, hostile: Path, page: Path, script: bool
) -> None:
    counts = []
    for path in (page, hostile):
        with opened(browser, path, script=script) as found:
            assert found.problems == []
            counts.append({
                tag: found.page.locator(tag).count() for tag in ("*", "script", "img", "b", "svg", "a", "section", "th")
            })  # fmt: skip
            assert found.page.title().startswith("mini on style")
            assert found.page.locator("[onerror], [onmouseover], [onfocus], #hit, iframe, object").count() == 0
    different = {tag for tag in counts[0] if counts[0][tag] != counts[1][tag]} - {"*"}
    assert different == set()


def test_hostile_text_is_shown_as_it_is(browser: Browser, hostile: Path) -> None:
    with opened(browser, hostile, 375) as found:
        told = str(found.page.evaluate("document.body.textContent")).replace("\u202f", " ")
        for text in HOSTILE:
            assert text in told
        alts = " ".join(image.get_attribute("alt") or "" for image in found.page.locator("img").all())
        assert "<script>" in alts or "<b id=hit>" in alts or "onerror" in alts
        assert found.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


def test_equal_input_gives_equal_bytes(page: Path, tmp_path: Path) -> None:
    assert write(tmp_path / "again.html").read_bytes() == page.read_bytes()
