"""The figure and the sentences say what the prior holds, and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapt import Prior
from adapt.prior.figure import band_names
from adapt.prior.parts import Number
from adapt.prior.words import noise_level
from spectra.plots.style import save
from tests.adapt.prior.worlds import BANK, both, chosen, cube, cube_of, data_cube, gaussian


@pytest.fixture(scope="module")
def prior() -> Prior:
    return chosen()


def words(prior: Prior) -> str:
    return " ".join(prior.explain())


def panels(prior: Prior) -> list[Any]:
    return prior.figure().axes


def test_it_has_a_panel_for_each_thing_that_a_prior_decides(prior: Prior) -> None:
    titles = [ax.get_title(loc="left") for ax in panels(prior)]
    assert len(titles) == 4
    for word in ("energy by band", "first gates", "timesteps", "Why these bands"):
        assert any(word in title for title in titles)


def test_lines_are_the_gates_and_noise_is_on_the_left(prior: Prior) -> None:
    gates = panels(prior)[1]
    drawn = np.array([line.get_ydata() for line in gates.lines])
    np.testing.assert_allclose(drawn, np.array(prior.gates).T)
    np.testing.assert_allclose(gates.lines[0].get_xdata(), prior.timestep)
    left, right = gates.get_xlim()
    assert left > right


def test_every_sampler_step_has_a_mark(prior: Prior) -> None:
    marks = [line for line in panels(prior)[2].lines if line.get_marker() == "|"]
    np.testing.assert_allclose(marks[0].get_xdata(), prior.timestep)


def test_scores_are_drawn_with_their_intervals_and_the_prior_s_own_is_marked(prior: Prior) -> None:
    ax = panels(prior)[3]
    dots = [float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == "o"]
    expected = {score.total.value for score in (*prior.bank.best, prior.bank.default) if score is not None}
    assert set(dots) == expected
    bold = [text.get_text() for text in ax.texts if text.get_fontweight() == "bold"]
    assert len(bold) == 1
    assert f"{prior.scales[0]:.3g}" in bold[0]


@pytest.mark.parametrize("made", [
    lambda: Prior.from_cube(cube().isel(run=slice(2)), experts=1),
    lambda: Prior.from_cube(data_cube(), scales=BANK.scales),
    lambda: Prior.from_cube(cube(), experts=6, bands=6, data=data_cube()),
])  # fmt: skip
def test_priors_of_all_kinds_can_be_drawn_and_told(made: Any, tmp_path: Path) -> None:
    prior = made()
    assert save(prior.figure(), tmp_path / "prior.png", dpi=40).stat().st_size > 5000
    sentences = prior.explain()
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in sentences)
    assert not {"nan", "None", "inf"} & set(words(prior).replace(",", " ").split())


def test_bands_are_named_by_their_scales(prior: Prior) -> None:
    assert band_names(replace(prior, scales=(0.8, 3.2))) == ["> 3.2 px", "0.8–3.2 px", "< 0.8 px"]


def test_the_sentences_say_why_these_bands(prior: Prior) -> None:
    assert prior.bank.gain is not None
    assert "choosing among" in words(prior)
    assert f"{prior.bank.gain.value:.2f}" in words(prior)
    assert "estimated from the recorded radial spectrum" in words(prior)
    kept = Prior.from_cube(cube_of(*gaussian(8, 6, seed=30)))
    assert "These are the default octaves, because" in words(kept)
    assert "exact" in words(kept)
    assert "asked for" in words(Prior.from_cube(cube(), scales=(1.0, 3.0)))
    assert "too few samples" in words(Prior.from_cube(cube().isel(run=slice(2))))


def test_the_sentences_say_where_to_train_and_how_many_experts(prior: Prior) -> None:
    told = words(prior)
    assert f"{prior.density.given:.0%} of this density" in told
    assert f"{prior.density.visited:.0%} of the sampler steps" in told
    advised = prior.experts_advised
    assert advised is not None
    assert f"speak for {advised} expert" in told
    assert f"{prior.advice.sure[advised - 1].value:.0%}" in told
    assert "0.123" not in told
    assert "12.3%" in words(replace(prior, gate_error=0.123))


def test_a_gain_that_may_be_none_is_not_called_information(prior: Prior) -> None:
    assert "Their log shares hold" in words(prior)
    assert prior.bank.chosen is not None
    doubtful = replace(prior.bank.chosen, total=Number(-0.71, -3.57, 2.14))
    told = words(replace(prior, bank=replace(prior.bank, chosen=doubtful)))
    assert "not beyond doubt: -0.71 (-3.57 to 2.14) nats" in told
    assert "below 0 they mislead" in told
    assert "hold" not in told
    assert "does not gainsay the nats above" in told
    assert "gainsay" not in words(prior)


def test_bands_that_emerge_beyond_the_probed_levels_are_said_to(prior: Prior) -> None:
    beyond = ((prior.log_snr[0] - 1, prior.log_snr[3], prior.log_snr[-1] + 1),)
    told = words(replace(prior, density=replace(prior.density, emergence=beyond)))
    first, last = prior.noise_level[0], prior.noise_level[-1]
    assert f"at noise levels above {first:.2g}, {prior.noise_level[3]:.2g}, below {last:.2g}." in told


@pytest.mark.parametrize("log_snr", [-1.0, 3.0, 6.0])
def test_the_noise_level_of_a_log_snr_between_few_steps_is_that_of_the_schedule(prior: Prior, log_snr: float) -> None:
    level = np.array([0.99, 0.7, 0.4, 0.1, 0.003])
    path = replace(prior, noise_level=tuple(level), log_snr=tuple(2 * np.log((1 - level) / level)))
    assert float(noise_level(path, log_snr)) == pytest.approx(1 / (1 + math.exp(log_snr / 2)), rel=0.1)


def test_what_it_was_learned_from_is_said() -> None:
    assert "24 samples of mini (12 prompts), 12 denoising steps each" in words(chosen())
    assert "24 latents of 24 pictures as mini is trained" in words(Prior.from_cube(data_cube(), scales=BANK.scales))
    assert "12 denoising steps each, and 24 latents of 24 pictures under noise" in words(both())
