"""Marks of an evaluation's figures: each model has its own, and so has each pair of models."""

from __future__ import annotations

import re
from functools import cache
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

import reports
from reports.arms import STYLES
from reports.evaluated import BASE, Evaluation
from reports.evaluation_marks import pair_styles
from reports.evaluation_sections import spectrum_section
from reports.figures import MARKERS
from reports.sections import Key, Panel
from tests.reports.metrics.fixtures import evaluation, write_evaluation


@cache
def found(adapters: int) -> Evaluation:
    """A small evaluation of so many adapters, all different."""
    strength = (0.0, 1.0, 0.7, 0.9, 0.5, 0.3)[: adapters + 1]
    data = evaluation(
        prompts=4, seeds=1, unrelated=0, heldout=10, train=0, strength=strength, attributes=False, networks=()
    )
    with TemporaryDirectory() as folder:
        return reports.build([write_evaluation(Path(folder) / "e.zarr", data)]).evaluations[0]


@cache
def panel(adapters: int) -> Panel:
    """The figure of one adapter over another."""
    section = spectrum_section(found(adapters), "")
    assert section is not None
    return next(one for one in section.panels if "one adapter over another" in one.title)


def shapes(svg: str) -> dict[str, np.ndarray]:
    """The outline of every marker of a figure, by its colour; two outlines of one colour are an error."""
    kept: dict[str, np.ndarray] = {}
    for name, outline in re.findall(r'<path id="([^"]+)" d="([^"]+)"', svg):
        for colour in set(re.findall(rf'href="#{name}"[^>]*stroke: (var\(--arm-\d\))', svg)):
            points = np.array(re.findall(r"-?[\d.]+", outline), np.float64)
            assert np.array_equal(kept.setdefault(colour, points), points)
    return kept


@pytest.mark.parametrize(("adapters", "pairs"), [(2, 1), (3, 3), (4, 6), (5, 4)])
def test_no_two_pairs_share_a_mark_and_the_key_has_them_all(adapters: int, pairs: int) -> None:
    keys = panel(adapters).keys
    assert [key.label for key in keys] == [f"{a} over {b}" for a, b in found(adapters).pairs]
    assert len(keys) == len({key.marker for key in keys}) == len({key.colour for key in keys}) == pairs
    drawn = shapes(panel(adapters).svg)
    assert set(drawn) == {key.colour for key in keys}
    for one, other in combinations(drawn.values(), 2):
        assert one.shape != other.shape or np.abs(one - other).max() > 0.5


def test_a_pair_has_the_mark_of_its_first_adapter_or_one_that_no_adapter_has() -> None:
    four = found(4)
    styles = pair_styles(four, four.pairs)
    own = [style for (a, _), style in zip(four.pairs, styles, strict=True) if style == four.styles[a]]
    assert len(own) == 3
    assert not {style for style in styles if style not in own} & set(four.styles.values())


def test_so_many_pairs_as_there_are_marks_differ_and_more_are_still_drawn() -> None:
    four = found(4)
    labels = [label for label in four.labels if label != BASE]
    several = [(a, b) for a in labels for b in labels if a != b]
    assert sorted(pair_styles(four, several[:STYLES])) == list(range(STYLES))
    assert len(pair_styles(four, several)) == len(several) > STYLES == len(MARKERS)


def test_the_page_draws_the_key_inside_its_figure() -> None:
    with TemporaryDirectory() as folder:
        data = evaluation(prompts=4, seeds=1, unrelated=0, heldout=10, train=0, strength=(0, 1, 0.7), networks=())
        page = reports.build([write_evaluation(Path(folder) / "e.zarr", data)]).to_html()
    figure = next(one for one in re.findall(r"<figure.*?</figure>", page, flags=re.S) if "one adapter over" in one)
    key: Key = panel(2).keys[0]
    assert key.label in figure
    assert key.marker in figure[: figure.index('role="img"')]
