"""Whole reports in a real browser: runs, a cube and an evaluation of six adapters, and runs with hostile names."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

import reports
from tests.browser.chromium import opened, violations
from tests.reports.fixtures import write_cube, write_run, write_three_arms
from tests.reports.metrics.fixtures import evaluation, write_evaluation

pytestmark = pytest.mark.slow

OVERFLOWING = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
BROKEN = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    runs = write_three_arms(root / "runs", seeds=2, samples=8)
    store = write_evaluation(root / "six.zarr", evaluation(adapters=6, prompts=4))
    found = reports.build([*runs, store], write_cube(root / "mini.zarr"))
    return reports.write(found, root / "report.html")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [375, 1440])
def test_a_whole_report_opens_and_fits(report: Path, browser: Browser, width: int, dark: bool) -> None:
    with opened(browser, report, width, dark) as found:
        found.page.evaluate("for (const image of document.images) image.loading = 'eager'")
        found.page.wait_for_function(f"{BROKEN} === 0")
        assert found.page.evaluate(OVERFLOWING) <= 0
        assert found.page.locator(".toolbar").count() >= 1
        assert found.page.locator("svg[role=img]").count() >= 20
        assert found.problems == []


def test_six_adapters_and_three_arms_fit_into_three_megabytes(report: Path) -> None:
    assert report.stat().st_size <= 3_000_000


def test_axe_finds_nothing_in_a_whole_report(report: Path, browser: Browser) -> None:
    with opened(browser, report, 1440, bypass_csp=True) as found:
        found.page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
        assert violations(found.page) == []


def test_runs_with_hostile_names_run_nothing(browser: Browser, tmp_path: Path) -> None:
    name = "<img src=x onerror=document.title='hit'><script>document.title='hit'</script><b id=hit>"
    prompts = [name, "</svg></figure><b id=hit>", "'\" autofocus onfocus=document.title='hit'", "{{ 7 * 7 }}"]
    record = {"name": name, "data": name, "command": ["adapt", name], "versions": {name: name}, "config": {name: name}}
    runs = [
        write_run(tmp_path / kind, kind, samples=4, prompts=prompts, record=record) for kind in ("lora", "<b id=hit>x")
    ]
    path = reports.write(reports.build(runs), tmp_path / "report.html")
    with opened(browser, path) as found:
        assert found.problems == []
        assert "hit" not in found.page.title().split("–")[0].partition(" on ")[0]
        assert found.page.locator("#hit, [onerror], [onfocus]").count() == 0
        assert found.page.locator("script").count() == 1
        assert name in str(found.page.evaluate("document.body.textContent"))
