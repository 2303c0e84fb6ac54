"""The pages of docs/: their commands and Python run, or are read by the real programs; what they name exists."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from adapt.config import TrainConfig
from tests.docs.pages import DOCS, PAGES, ROOT, hooks, name_of, runner

SAID = {
    "tour.md": ("Decided at step", "is trained.", "The report is in", "pytorch_lora_weights.safetensors"),
    "howto/probe.md": ("step",),
    "howto/prior.md": ("Learned from 16 samples of mini", "emerge from the noise", "is trained."),
    "howto/train.md": ("Memory on the device", "is trained."),
    "howto/use.md": ("Played by ScheduledLoras", "of the effect, at noise level"),
    "howto/sdxl.md": ("(6.4, 12.8, 25.6)", "(0.8, 1.6, 3.2)"),
    "howto/method.md": ("every layer asked for is adapted", "fera Method"),
    "howto/compare.md": ("holds the base and 2 adapters", "The report is in"),
    "howto/ci.md": ("The report is in",),
    "concepts/bands.md": ("(0.8, 1.6, 3.2) True",),
    "concepts/signals.md": ("'latent', 'x0', 'eps', 'prediction'",),
    "concepts/experts.md": ("[[2.01 0.87 0.12]",),
}
"""Page -> words that a run of it prints."""
RUNNABLE = [page for page in PAGES if any(language in ("sh", "python") for language, _ in runner.blocks(page))]
SLOW = {
    "tour.md",
    "howto/probe.md",
    "howto/prior.md",
    "howto/train.md",
    "howto/use.md",
    "howto/compare.md",
    "howto/ci.md",
}
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
CODE = re.compile(r"`((?:spectra|adapt|reports|datasets_cache|cli|benchmarks|tests)/[\w./-]+)`")
APPS = hooks.applications()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_is_one_that_the_programs_read(page: Path) -> None:
    for program, sub, *words in runner.commands(page):
        context = APPS[program].commands[sub].make_context(sub, list(words))
        assert not context.args


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_the_text_name_only_options_that_exist(page: Path) -> None:
    for program, sub, *words in runner.mentions(page):
        assert sub in APPS[program].commands, (program, sub)
        known = {name for param in APPS[program].commands[sub].params for name in param.opts} | {"--help"}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, (program, sub, words)


def test_an_invented_option_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```bash\naccelerate launch -m cli adapt train a.toml --stepz 3\n```\n")
    ((program, sub, *words),) = runner.commands(page)
    with pytest.raises(Exception, match="stepz"):
        APPS[program].commands[sub].make_context(sub, words)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"--set '?(?!NAME)(\w+)=", text) + re.findall(r"`([a-z]\w*) = [^`(]+`", text)
    named += [name for name in re.findall(r"^\| `(\w+)`", text, re.MULTILINE) if page.name == "experts.md"]
    assert set(named) <= TrainConfig.model_fields.keys()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_of_python_can_be_read(page: Path) -> None:
    for language, code in runner.blocks(page):
        if language in ("python", "py"):
            ast.parse(code)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_name_that_a_page_imports_exists(page: Path) -> None:
    blocks = [ast.parse(code) for language, code in runner.blocks(page) if language in ("python", "py")]
    for found in (node for block in blocks for node in ast.walk(block)):
        if isinstance(found, ast.ImportFrom) and (found.module or "").split(".")[0] in ("spectra", "adapt", "reports"):
            module = importlib.import_module(found.module or "")
            assert all(hasattr(module, alias.name) for alias in found.names), ast.unparse(found)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_test_and_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for file, test in TEST.findall(text):
        assert (ROOT / file).is_file(), file
        assert not test or f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"
    assert all((ROOT / file).exists() for file in CODE.findall(text)), CODE.findall(text)


def test_every_number_names_a_test() -> None:
    text = (DOCS / "numbers.md").read_text(encoding="utf-8")
    parts = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert len(parts) > 20
    assert [part.splitlines()[0] for part in parts if not TEST.search(part) or "*Held against*" not in part] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pictures_of_a_page_are_there_and_say_what_they_show(page: Path) -> None:
    assert all((DOCS / "images" / name).stat().st_size > 10_000 for name in runner.pictures(page))
    assert "![](" not in page.read_text(encoding="utf-8")


def test_every_picture_is_made_by_a_page_or_by_the_figures() -> None:
    figures = (DOCS / "figures.py").read_text(encoding="utf-8")
    own = {name for page in PAGES for name in runner.made(page)}
    shown = {name for page in PAGES for name in runner.pictures(page)} - own
    drawn = {name for name in shown if f"def {name.removeprefix('concept-').removesuffix('.png')}(" in figures}
    others = {"mini-bands.png"}  # of the model's card, by spectra.zoo.recipes.card; benchmarks.quality draws its own
    assert {name for name in shown - drawn if not name.startswith("quality-")} <= others


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_begins_with_what_the_reader_will_be_able_to_do(page: Path) -> None:
    text = re.sub(r"\A<!--.*?-->\s*", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    title, first = re.split(r"\n\n+", text, maxsplit=2)[:2]
    assert title.startswith("# ")
    if page.parent.name in ("howto", "concepts") or page.name in ("index.md", "tour.md", "numbers.md"):
        assert "you" in first.split("\n\n")[0]


@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=pytest.mark.slow) if name_of(p) in SLOW else p for p in RUNNABLE], ids=name_of
)
def test_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRA_CACHE", str(tmp_path / "cache"))
    said = runner.run(page, tmp_path)
    assert [words for words in SAID.get(name_of(page), ()) if words not in said] == []
    assert all((tmp_path / name).stat().st_size > 10_000 for name in runner.made(page))


def test_pages_that_run_have_words_to_look_for() -> None:
    assert set(SAID) <= {name_of(page) for page in RUNNABLE}
