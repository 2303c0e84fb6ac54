"""The page: one file, equal bytes, hostile text harmless, and a structure that people and screen readers can follow."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import reports
from reports import Report
from reports.pictures import encode
from spectra.errors import UserError
from tests.reports.fixtures import write_run, write_three_arms

VOID = {"meta", "link", "img", "br", "hr", "input", "rect", "path", "use", "polygon", "line", "circle"}


class Outline(HTMLParser):
    """Every element with its attributes, in order, and whether tags are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def every(self, *tags: str) -> list[tuple[str, dict[str, str | None]]]:
        return [(tag, attrs) for tag, attrs in self.found if tag in tags]


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return report.to_html()


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    return Outline(page)


ALONE = """
import sys, reports
sys.stdout.buffer.write(reports.build(sys.argv[2:], sys.argv[1]).to_html().encode())
assert "torch" not in sys.modules
"""


def test_another_process_makes_equal_bytes_without_torch(three_arms: list[Path], cube: Path, page: str) -> None:
    command = [sys.executable, "-c", ALONE, str(cube), *map(str, three_arms[::-1])]
    assert subprocess.run(command, capture_output=True, check=True).stdout == page.encode()


def test_the_page_is_one_small_file_that_asks_for_nothing(page: str, outline: Outline) -> None:
    assert len(page.encode()) <= 3_000_000
    assert len(outline.every("script")) == 1
    assert not outline.every("link", "iframe", "object", "embed", "audio", "video", "form")
    for tag, attrs in outline.found:
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            target = attrs.get(name) or "#"
            assert target.startswith(("#", "data:image/")), (tag, target)
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)
    policy = next(attrs for _, attrs in outline.every("meta") if attrs.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy["content"])


def test_every_element_is_closed_and_every_id_is_unique(outline: Outline) -> None:
    assert not outline.open
    ids = Counter(attrs["id"] for _, attrs in outline.found if "id" in attrs)
    assert [name for name, count in ids.items() if count > 1] == []
    named = {str(attrs.get("href"))[1:] for _, attrs in outline.every("a")} | {
        name for _, attrs in outline.found for name in str(attrs.get("aria-labelledby", "")).split()
    }
    assert named <= set(ids)


def test_headings_go_down_one_level_at_a_time(outline: Outline) -> None:
    levels = [int(tag[1]) for tag, _ in outline.every("h1", "h2", "h3", "h4")]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_pictures_figures_and_tables_speak(outline: Outline, page: str) -> None:
    assert all(attrs.get("alt") for _, attrs in outline.every("img"))
    figures = [attrs for _, attrs in outline.every("svg") if attrs.get("role") == "img"]
    assert len(figures) >= 12
    assert all(attrs.get("aria-labelledby") for attrs in figures)
    tables = outline.every("table")
    assert len(outline.every("caption")) == len(tables) >= 7
    assert {attrs.get("scope") for _, attrs in outline.every("th")} == {"row", "col"}
    assert '<html lang="en">' in page
    assert 'class="skip" href="#main"' in page


def test_text_in_figures_stays_text_and_takes_the_colours_of_the_page(page: str) -> None:
    figures = re.findall(r'<svg role="img".*?</svg>', page, flags=re.S)
    assert all("<text" in figure for figure in figures)
    assert not re.findall(r"#000[1-4][0-9a-f]{2}|#00010\d", page)
    assert all("var(--" in figure for figure in figures)
    assert "font-family" not in "".join(figures)
    used = set(re.findall(r"var\((--[\w-]+)\)", page))
    assert used <= set(re.findall(r"(--[\w-]+):", page))


def test_pictures_of_the_model_are_shown_pixel_by_pixel(outline: Outline) -> None:
    pictures = [attrs for _, attrs in outline.every("img")]
    assert len(pictures) == 8 * 5
    assert {attrs["class"] for attrs in pictures} == {"pixels"}
    assert {attrs["width"] for attrs in pictures} == {"64"}


def test_large_pictures_are_made_smaller() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (512, 768, 3), dtype=np.uint8)
    uri, width, height = encode(noise)
    assert uri.startswith("data:image/webp;base64,")
    assert (width, height) == (256, 171)
    assert len(uri) < 120_000


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "' onmouseover='alert(3)",
    "{{ 7 * 7 }}{% raw %}",
    "]]></desc></svg><script>alert(4)</script>",
    "$\\frac{1}{",
    "&lt;b&gt; ünï 日本",
    "\u202e right to left \x00\x07",
)


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    prompts = [text.replace("\x00", "") for text in HOSTILE]
    name = '<svg onload="alert(5)">$\\frac{'
    record = {
        "name": name, "data": name, "model": name, "command": ["adapt", name], "finished": name,
        "versions": {name: name}, "config": {"lr": 1.0, name: name},
    }  # fmt: skip
    made = [
        write_run(tmp_path / "a", samples=8, prompts=prompts, record=record),
        write_run(
            tmp_path / "b", name, samples=8, prompts=prompts, record={**record, "config": {"lr": 2.0, "x": name}}
        ),
    ]
    page = reports.build(made).to_html()
    outline = Outline(page)
    assert not outline.open
    assert len(outline.every("script")) == 1  # the page's own
    assert not outline.every("b")
    assert all(not attribute.startswith("on") for _, attrs in outline.found for attribute in attrs)
    assert len(outline.every("img")) == 8 * 4
    shown = "".join(outline.text)
    for text in prompts[:-1]:
        assert text in shown
    assert name in shown


def test_a_page_without_cube_without_lora_without_fera(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"{prior}", "fera", prior, samples=4) for prior in (True, False)]
    without = reports.build(runs).to_html()
    assert 'id="base"' not in without
    assert 'id="gates"' in without
    only = reports.build([write_run(tmp_path / "lora", samples=4)]).to_html()
    assert 'id="gates"' not in only
    assert not Outline(only).open


def test_a_report_is_written_whole_or_not_at_all(report: Report, tmp_path: Path) -> None:
    path = reports.write(report, tmp_path / "new" / "report.html")
    assert path.read_text(encoding="utf-8") == report.to_html()
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    with pytest.raises(UserError, match="cannot write"):
        reports.write(report, tmp_path / "new" / "report.html" / "under-a-file.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        reports.write(report, tmp_path / "folder")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "new"]


def test_a_notebook_shows_the_page_in_a_frame(report: Report) -> None:
    frame = Outline(report._repr_html_())
    ((_, attrs),) = frame.every("iframe")
    assert attrs["srcdoc"] == report.to_html()


@pytest.mark.slow
def test_sixty_runs_take_seconds(tmp_path: Path) -> None:
    runs = write_three_arms(tmp_path / "runs", seeds=20, samples=16)
    started = time.process_time()
    page = reports.build(runs).to_html()
    assert time.process_time() - started < 10
    assert len(page.encode()) <= 3_000_000
