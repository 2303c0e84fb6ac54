"""The panels of the base model show what the cube holds, and nothing hides anything else."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from reports import Report, panels_base
from reports.base import Base
from reports.panels.panel import made
from reports.sections import Panel
from reports.training_words import about_bands
from spectra.plots import energy_per_mode


@pytest.fixture
def base(report: Report) -> Base:
    assert report.base is not None
    return report.base


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures on their way into panels."""
    kept: list[Figure] = []

    def keep(name: str, title: str, text: str, figure: Figure, note: str = "") -> Panel:
        kept.append(figure)
        return made(name, title, text, figure, note)

    monkeypatch.setattr(panels_base, "made", keep)
    return kept


def test_the_interval_of_coherence_is_over_prompts(base: Base) -> None:
    values = base.cube.coherence.groupby("prompt").mean("run").transpose("prompt", "step", "band").values[:, :-1]
    np.testing.assert_allclose(base.coherence[:-1], values.mean(0), rtol=1e-5)
    half = 2.5706 * values.std(0, ddof=1) / np.sqrt(6)
    np.testing.assert_allclose(base.coherence_high[:-1] - base.coherence[:-1], half, rtol=1e-3, atol=1e-6)


def test_bands_decided_at_one_step_do_not_hide_each_other(base: Base, drawn: list[Figure]) -> None:
    together = replace(base, decided=tuple(replace(band, step=4.0) for band in base.decided))
    panels_base.coherence(together)
    dots = [line for line in drawn[0].axes[0].lines if line.get_marker() == "o"]
    heights = sorted(float(np.ravel(line.get_ydata())[0]) for line in dots)
    assert len(heights) == 4
    points = drawn[0].axes[0].transData.transform([(4, y) for y in heights])[:, 1] * 72 / drawn[0].dpi
    assert np.diff(points).min() >= 5.5


def test_bands_decided_at_one_step_are_no_order(base: Base) -> None:
    def at(*steps: float) -> Base:
        return replace(base, decided=tuple(replace(b, step=s) for b, s in zip(base.decided, steps, strict=True)))

    assert at(0, 1, 2, 3).low_to_high
    assert not at(0, 0, 0, 2).low_to_high
    claim = "The base model decides bands 0, 1 and 2 at the same step, which is no order: at steps 0, 0, 0 and 2 of 30"
    assert about_bands(at(0, 0, 0, 2)).claim == claim
    assert "bands 0 and 1 and bands 2 and 3 at" in about_bands(at(1, 1, 3, 3)).claim
    assert "from low to high frequency: at steps 0, 1, 2 and 3" in about_bands(at(0, 1, 2, 3)).claim
    never = float("inf")
    assert "not strictly from low to high frequency" in about_bands(at(0, 1, never, never)).claim


def test_the_spectrum_is_that_of_the_figures_of_a_cube(base: Base, drawn: list[Figure]) -> None:
    expected = energy_per_mode(base.cube)
    assert expected is not None
    panel = panels_base.radial(base)
    axes = drawn[0].axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    np.testing.assert_allclose(np.asarray(axes.lines[0].get_ydata()), expected[1][0])
    assert "energy per mode" in panel.svg


@pytest.mark.parametrize("flat", [False, True])
def test_labels_of_steps_do_not_overlap(base: Base, drawn: list[Figure], flat: bool) -> None:
    assert base.spectrum is not None
    radius, power = base.spectrum
    panels_base.radial(replace(base, spectrum=(radius, np.ones_like(power))) if flat else base)
    boxes = [text.get_window_extent() for text in drawn[0].axes[0].texts]
    assert len(boxes) == 5
    assert all(Bbox.intersection(a, b) is None for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_cube_without_its_grid_has_no_radial_panel(report: Report, base: Base) -> None:
    bare = replace(report, base=replace(base, spectrum=None))
    assert re.search('id="radial-title"', report.to_html())
    assert not re.search('id="radial-title"', bare.to_html())


def test_one_prompt_has_no_band(base: Base, drawn: list[Figure]) -> None:
    endless = np.full_like(base.coherence, np.inf)
    panels_base.coherence(replace(base, coherence_low=-endless, coherence_high=endless))
    assert not drawn[0].axes[0].collections
