"""The loss of a step is what its words say, alone or shared by processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from adapt.coupling import coupled
from adapt.draws import Draws, draw
from adapt.fera.loss import fecl
from adapt.loop import train
from adapt.step import conditioning_of, fecl_weight, step_loss
from adapt.task import Task, prepare
from spectra.bands import FilterBank
from spectra.errors import UserError
from tests.adapt.small import config
from tests.adapt.worlds import data, embedding, task

BATCH = 6


def drawn(the: Task, step: int = 0, dropout: float = 0.0) -> Draws:
    return draw(the.config.seed, step, the.config.batch, len(the.train), the.train.shapes[0], dropout)


def test_the_loss_is_the_mean_squared_error_of_what_the_scheduler_wants() -> None:
    scheduler = DDPMScheduler(prediction_type="v_prediction")
    the = task(scheduler)
    draws = drawn(the)
    found = step_loss(the, the.denoiser, draws)
    timestep = (draws.quantiles * 1000).long()
    x0 = the.train.latents(draws.rows)
    noisy = scheduler.add_noise(x0, draws.noise, timestep)
    hidden = torch.stack([embedding(the.train.captions[row]) for row in draws.rows])
    with torch.no_grad():
        answer = the.denoiser(noisy, timestep.float(), hidden)
    error = (answer - scheduler.get_velocity(x0, draws.noise, timestep)).square().flatten(1).mean(1)
    torch.testing.assert_close(found.error, error)
    torch.testing.assert_close(found.loss, error.mean())
    assert found.parts.keys() == {"error"}
    assert torch.equal(found.quantile, draws.quantiles)
    assert found.loss.requires_grad
    assert not found.error.requires_grad


def test_errors_are_weighted_by_noise_level_and_reported_without() -> None:
    plain, weighted = (task(DDPMScheduler(), weighting=name) for name in ("none", "min_snr"))
    draws = drawn(plain)
    one, other = (step_loss(the, the.denoiser, draws) for the in (plain, weighted))
    assert torch.equal(one.error, other.error)
    snr = DDPMScheduler().alphas_cumprod[(draws.quantiles * 1000).long()]
    snr = snr / (1 - snr)
    torch.testing.assert_close(other.loss, (one.error * (5 / snr).clamp_max(1)).mean(), rtol=1e-4, atol=0)


def test_levels_follow_the_sampling_asked_for() -> None:
    the = task(FlowMatchEulerDiscreteScheduler(shift=3.0), timesteps="cosmap", shift=1.0)
    draws = drawn(the)
    found = step_loss(the, the.denoiser, draws)
    (asked,) = the.denoiser.asked
    tangent = (draws.quantiles * torch.pi / 2).tan()
    torch.testing.assert_close(asked["timestep"], 1000 * tangent / (1 + tangent))
    torch.testing.assert_close(the.objective.timestep(found.quantile), asked["timestep"])


@pytest.mark.parametrize("choice", ["first", "random"])
def test_captions_are_chosen_as_drawn_and_dropped_ones_lose_their_text_only(choice: str) -> None:
    the = task(DDPMScheduler(), data(5, captions=3, picture=True), caption_choice=choice)
    draws = drawn(the, 3, dropout=0.5)
    told = conditioning_of(the, draws)
    assert 0 < int(draws.dropped.sum()) < BATCH
    for i, row in enumerate(draws.rows):
        which = int(draws.choice[i] * 3) if choice == "random" else 0
        expected = torch.zeros(6) if draws.dropped[i] else embedding(f"subject {row} {which}")
        assert torch.equal(told["text"][i], expected)
        assert told["size"][i].tolist() == [row, row]


def test_every_caption_of_a_picture_is_used_in_the_end() -> None:
    the = task(DDPMScheduler(), data(2, captions=3))
    seen = {
        embedding.tobytes()
        for step in range(20)
        for embedding in conditioning_of(the, drawn(the, step))["text"].numpy()
    }
    assert len(seen) == 6


def fera(**changes: Any) -> Task:
    return task(DDPMScheduler(), method="fera", fecl_weight=0.3, **changes)


def test_the_consistency_loss_is_added_to_the_error() -> None:
    the = fera()
    draws = drawn(the)
    found = step_loss(the, the.denoiser, draws, 0.3)
    base, learned = the.denoiser.asked
    assert (bool(base["adapted"]), bool(learned["adapted"])) == (False, True)  # the pass that learns comes last
    assert torch.equal(base["noisy"], learned["noisy"])
    with torch.no_grad():
        hidden = learned["text"]
        prediction = the.denoiser(learned["noisy"], learned["timestep"].float(), hidden)
        with the.denoiser.base():
            before = the.denoiser(learned["noisy"], learned["timestep"].float(), hidden)
    expected = 0.3 * fecl(prediction, before, draws.noise, FilterBank((0.8, 1.6)))
    torch.testing.assert_close(found.parts["consistency"], expected)
    torch.testing.assert_close(found.loss, found.parts["error"] + expected)


def test_a_share_of_the_batch_costs_a_base_pass_of_that_share() -> None:
    the = fera(batch=8, fecl_share=0.25)
    draws = drawn(the)
    found = step_loss(the, the.denoiser, draws, 0.3)
    base, learned = the.denoiser.asked
    assert (len(base["noisy"]), len(learned["noisy"])) == (2, 8)
    chosen = (draws.lot < 0.25).nonzero()[:, 0]
    assert torch.equal(base["noisy"], learned["noisy"][chosen])
    assert torch.equal(base["text"], learned["text"][chosen])
    assert found.parts["consistency"] > 0


def test_over_steps_every_noise_level_gets_its_share_of_the_consistency_loss() -> None:
    the = fera(batch=8, fecl_share=0.25)
    counts = np.zeros(8)
    for step in range(400):
        counts += np.asarray(drawn(the, step).lot < 0.25)
    assert counts.sum() == 800
    assert (abs(counts - 100) < 35).all()


def test_without_weight_there_is_no_base_pass() -> None:
    the = fera()
    step_loss(the, the.denoiser, drawn(the), 0.0)
    assert len(the.denoiser.asked) == 1


def test_the_published_form_is_the_published_loss() -> None:
    from adapt.fera.published import consistency_loss

    the = fera(fecl_form="published")
    draws = drawn(the)
    found = step_loss(the, the.denoiser, draws, 0.3)
    _, learned = the.denoiser.asked
    with torch.no_grad():
        prediction = the.denoiser(learned["noisy"], learned["timestep"].float(), learned["text"])
        with the.denoiser.base():
            base = the.denoiser(learned["noisy"], learned["timestep"].float(), learned["text"])
    expected = consistency_loss(prediction, base, draws.noise, 3, 0.3)
    torch.testing.assert_close(found.parts["consistency"], expected)


def test_the_balance_term_and_the_methods_penalty_are_added() -> None:
    from adapt.fera.health import balance

    the = fera(balance_weight=0.5)
    gates = torch.rand(BATCH, 3, generator=torch.Generator().manual_seed(0))
    the = replace(the, method=replace(the.method, gates=lambda net: gates, penalty=lambda net: torch.tensor(0.25)))
    draws = drawn(the)
    found = step_loss(the, the.denoiser, draws)
    torch.testing.assert_close(found.parts["balance"], 0.5 * balance(gates, draws.quantiles))
    assert found.parts["penalty"] == 0.25
    torch.testing.assert_close(found.loss.detach(), torch.stack([*found.parts.values()]).sum())


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_parts_of_a_batch_give_the_loss_and_gradient_of_the_whole_by_their_mean(parts: int, share: float) -> None:
    the = fera(
        batch=12, fecl_share=share, weighting="min_snr", class_set=data(4, name="class", offset=0.3), class_weight=0.7,
        timesteps="logit_normal",
    )  # fmt: skip
    draws = drawn(the, 1, dropout=0.3)

    def gradient(loss: Tensor) -> Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*the.denoiser.parameters()])])

    whole = step_loss(the, the.denoiser, draws, 0.3)
    shared = [step_loss(the, the.denoiser, draws.part(index, parts), 0.3) for index in range(parts)]
    torch.testing.assert_close(torch.stack([one.loss for one in shared]).mean(), whole.loss)
    for name, value in whole.parts.items():
        torch.testing.assert_close(torch.stack([one.parts[name] for one in shared]).mean(), value)
    mean = torch.stack([gradient(one.loss) for one in shared]).mean(0)
    torch.testing.assert_close(mean, gradient(whole.loss), rtol=1e-4, atol=1e-6)


def test_a_part_without_a_chosen_sample_still_asks_the_base_and_adds_nothing() -> None:
    """Wrapped networks need as many calls in every process."""
    the = fera(batch=8, fecl_share=0.125)
    draws = drawn(the)
    parts = [draws.part(index, 8) for index in range(8)]
    found = [step_loss(the, the.denoiser, part, 0.3) for part in parts]
    assert len(the.denoiser.asked) == 16
    assert sum(float(one.parts["consistency"]) > 0 for one in found) == 1


@given(seed=st.integers(0, 1000), batch=st.integers(1, 9))
def test_coupling_never_costs_more_and_keeps_the_noises(seed: int, batch: int) -> None:
    x0, noise = torch.randn(2, batch, 2, 3, 3, generator=torch.Generator().manual_seed(seed))
    found = coupled(x0, noise)
    assert (found - x0).square().sum() <= (noise - x0).square().sum() + 1e-4
    rows = [sorted(map(tuple, one.flatten(1).tolist())) for one in (found, noise)]
    assert rows[0] == rows[1]
    assert torch.equal(found, coupled(x0, noise))


def test_coupling_is_the_best_of_all_pairings() -> None:
    from itertools import permutations

    x0, noise = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(4))
    best = min(float((noise[list(order)] - x0).square().sum()) for order in permutations(range(5)))
    assert float((coupled(x0, noise) - x0).square().sum()) == pytest.approx(best, rel=1e-5)


def test_a_coupled_step_trains_on_the_coupled_noise_of_its_own_part() -> None:
    the = task(FlowMatchEulerDiscreteScheduler(), ot_coupling=True)
    draws = drawn(the).part(1, 2)
    step_loss(the, the.denoiser, draws)
    x0 = the.train.latents(draws.rows)
    sigma = draws.quantiles.reshape(-1, 1, 1, 1)
    expected = (1 - sigma) * x0 + sigma * coupled(x0, draws.noise)
    torch.testing.assert_close(the.denoiser.asked[0]["noisy"], expected)


def test_the_weight_of_the_consistency_loss_rises_and_skips_steps() -> None:
    config = fera(steps=100, fecl_every=5, fecl_warmup=0.5).config
    weights = [fecl_weight(config, step) for step in range(100)]
    assert [step for step, weight in enumerate(weights) if weight > 0] == list(range(0, 100, 5))
    assert weights[::5] == sorted(weights[::5])
    assert weights[0] == pytest.approx(0.3 / 50)
    assert weights[50] == weights[95] == 0.3


def test_frames_are_one_more_axis() -> None:
    shape = (4, 3, 8, 8)
    the = task(FlowMatchEulerDiscreteScheduler(), data(3, shape=shape), method="fera", ot_coupling=True)
    found = step_loss(the, the.denoiser, drawn(the), 0.3)
    assert found.error.shape == (BATCH,)
    assert found.loss.isfinite()
    assert the.denoiser.asked[1]["noisy"].shape == (BATCH, *shape)


RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "text encoder": ("sd", {"text_encoder": True}),
    "class": ("sd", {"class_caption": "a ramp", "class_count": 2, "class_weight": 0.5, "weighting": "soft_min_snr"}),
    "flow": ("sd3", {"ot_coupling": True, "timesteps": "mode", "weighting": "cosmap", "shift": 2.0}),
    "fera": ("sd", {"method": "fera", "fecl_weight": 0.1, "fecl_share": 0.5, "balance_weight": 0.01}),
}


@pytest.mark.parametrize("name", list(RUNS))
def test_a_whole_run_lowers_the_error_under_every_kind_of_loss(name: str, tmp_path: Path) -> None:
    family, changes = RUNS[name]
    result = train(config(tmp_path / "run", family, **changes))
    assert result.error_after < result.error_before


@pytest.mark.parametrize(
    ("family", "changes", "sentence"),
    [
        ("sd", {"shift": 2.0}, "this model is a denoiser"),
        ("sd", {"ot_coupling": True}, "this model is a denoiser"),
        ("sd", {"weighting": "cosmap"}, "this model is a denoiser"),
        ("sd3", {"weighting": "min_snr"}, "trained by flow matching"),
        ("sd", {"timesteps": "prior", "method": "fera"}, "needs a prior"),
    ],
)
def test_a_loss_of_the_other_kind_of_model_is_refused_before_anything_is_encoded(
    family: str, changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        prepare(config(tmp_path / "run", family, cache=tmp_path / "cache", **changes), torch.device("cpu"))
    assert not (tmp_path / "cache").exists()
