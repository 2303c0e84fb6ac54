"""The Gaussian oracle against Monte Carlo and against real schedulers with the analytic denoiser plugged in."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from numpy.typing import NDArray

from spectra.bands import FilterBank, coherence
from spectra.errors import UserError
from spectra.gaussian import SIGNALS, GaussianField, Guided, Levels, flow_levels, vp_levels

Array = NDArray[np.float64]

BANK = FilterBank((0.8, 1.6, 3.2))
FIELD = GaussianField.power_law((2, 12, 16), exponent=2.0, offset=0.7)


def noise(n: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((n, *FIELD.mean.shape))


def linear_levels(steps: int) -> Levels:
    return flow_levels(np.linspace(1, 0, steps + 1))


def test_samples_have_the_expected_band_energies() -> None:
    E = BANK.energies(torch.tensor(FIELD.sample(4000, seed=1))).numpy()
    error = E.std(0) / np.sqrt(len(E))
    assert (abs(E.mean(0) - FIELD.expected(BANK, "latent", 1.0, 0.0)) < 4.5 * error).all()


@pytest.mark.parametrize(("a", "b"), [(0.1, 0.9), (0.5, 0.5), (0.9, 0.1), (0.6, 0.8)])
def test_forward_marginals_have_the_stated_energies(a: float, b: float) -> None:
    x0, eps = FIELD.sample(4000, seed=2), noise(4000, seed=3)
    x = torch.tensor(a * x0 + b * eps)
    for name in SIGNALS:
        guess = x if name == "latent" else FIELD.predict(x, name, a, b)
        E = BANK.energies(guess).numpy()
        assert (abs(E.mean(0) - FIELD.expected(BANK, name, a, b)) < 4.5 * E.std(0) / np.sqrt(len(E))).all(), name
    E = BANK.energies(torch.tensor(x0) - FIELD.predict(x, "x0", a, b)).numpy()
    assert (abs(E.mean(0) - FIELD.error(BANK, a, b)) < 4.5 * E.std(0) / np.sqrt(len(E))).all()


def test_what_the_denoiser_misses_is_what_it_does_not_say() -> None:
    """Orthogonality: E||x0 - x0_hat||^2 = E||x0||^2 - E||x0_hat||^2 in every band."""
    for a, b in ((0.2, 0.8), (0.8, 0.6), (0.0, 1.0)):
        kept = FIELD.expected(BANK, "latent", 1.0, 0.0) - FIELD.expected(BANK, "x0", a, b)
        np.testing.assert_allclose(FIELD.error(BANK, a, b), kept, rtol=1e-10, atol=1e-10)


def test_predictions_are_consistent_with_each_other() -> None:
    a, b, x = 0.6, 0.8, torch.tensor(noise(3))
    x0, eps, flow, v = (FIELD.predict(x, name, a, b) for name in ("x0", "eps", "flow", "v"))
    torch.testing.assert_close(a * x0 + b * eps, x)
    torch.testing.assert_close(flow, eps - x0)
    torch.testing.assert_close(v, a * eps - b * x0)


def test_predictions_at_the_ends_are_the_mean_and_the_data() -> None:
    x = torch.tensor(FIELD.sample(2, seed=5))
    torch.testing.assert_close(FIELD.predict(x, "x0", 1.0, 0.0), x)
    torch.testing.assert_close(FIELD.predict(x, "x0", 0.0, 1.0), torch.full_like(x, 0.7))


def run_flow(steps: int, x: torch.Tensor) -> tuple[Levels, list[torch.Tensor], list[torch.Tensor]]:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps)
    latents, guesses = [x], []
    for t, s in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        guesses.append(FIELD.predict(x, "x0", 1 - float(s), float(s)))
        x = scheduler.step(FIELD.predict(x, "flow", 1 - float(s), float(s)), t, x).prev_sample
        latents.append(x)
    return flow_levels(scheduler.sigmas), latents, guesses


def run_ddim(
    steps: int, x: torch.Tensor, kind: str, eta: float = 0.0
) -> tuple[Levels, list[torch.Tensor], list[torch.Tensor]]:
    name = {"v_prediction": "v", "epsilon": "eps", "sample": "x0"}[kind]
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", prediction_type=kind, timestep_spacing="trailing", clip_sample=False
    )
    scheduler.set_timesteps(steps)
    alphas = scheduler.alphas_cumprod.double()
    levels = vp_levels([*alphas[scheduler.timesteps], float(scheduler.final_alpha_cumprod)])
    latents, guesses, generator = [x], [], torch.Generator().manual_seed(0)
    for t, a, b in zip(scheduler.timesteps, *levels, strict=False):
        guesses.append(FIELD.predict(x, "x0", a, b))
        x = scheduler.step(FIELD.predict(x, name, a, b), t, x, eta=eta, generator=generator).prev_sample
        latents.append(x)
    return levels, latents, guesses


@pytest.mark.parametrize("kind", ["flow", "v_prediction", "epsilon"])
@pytest.mark.parametrize("steps", [4, 25])
def test_each_run_of_a_real_scheduler_has_the_exact_energies(kind: str, steps: int) -> None:
    z = torch.tensor(noise(6)).float()
    levels, latents, guesses = run_flow(steps, z) if kind == "flow" else run_ddim(steps, z, kind)
    exact = {name: FIELD.energies(BANK, levels, z.double().numpy(), name) for name in ("latent", "x0")}
    near = {"rtol": 1e-4 if kind == "epsilon" else 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(BANK.energies(torch.stack(latents)), exact["latent"], **near)
    np.testing.assert_allclose(BANK.energies(torch.stack(guesses)), exact["x0"][:-1], **near)
    assert np.isnan(exact["x0"][-1]).all()
    cosine = coherence(torch.stack(guesses), latents[-1], BANK)[1:]
    np.testing.assert_allclose(cosine, FIELD.coherence(BANK, levels, z.double().numpy())[1:-1], atol=1e-5)


def test_ancestral_sampling_has_the_expected_energies() -> None:
    levels, latents, _ = run_ddim(8, torch.tensor(noise(3000)), "v_prediction", eta=1.0)
    E = BANK.energies(torch.stack(latents)).numpy()
    expected = FIELD.expected_energies(BANK, levels, "latent", eta=1.0)
    assert (abs(E.mean(1) - expected) < 4.5 * E.std(1) / np.sqrt(E.shape[1])).all()
    assert (abs(E.mean(1) - FIELD.expected_energies(BANK, levels, "latent")) > 4.5 * E.std(1) / 50).any()


def test_expected_energies_are_the_mean_over_seeds() -> None:
    levels = linear_levels(6)
    for name in SIGNALS:
        E = FIELD.energies(BANK, levels, noise(4000, seed=8), name)[:-1]
        expected = FIELD.expected_energies(BANK, levels, name)[:-1]
        assert (abs(E.mean(1) - expected) <= 4.5 * E.std(1) / np.sqrt(E.shape[1]) + 1e-9).all(), name


def test_more_steps_lose_less_energy() -> None:
    """Euler's discretisation alone takes energy from every band; a report must not read it as an adapter's doing."""
    field = GaussianField.power_law((1, 24, 32))
    truth = field.expected(BANK, "latent", 1.0, 0.0)
    kept = [field.expected_energies(BANK, linear_levels(n), "latent")[-1] / truth for n in (5, 20, 80, 1000)]
    assert all((a < b).all() for a, b in pairwise(kept))
    assert (kept[1] < 0.92).all()
    assert (abs(kept[-1] - 1) < 0.01).all()


def test_low_bands_of_x0_fill_first_where_power_falls_with_frequency() -> None:
    def first(field: GaussianField) -> Array:
        E = field.expected_energies(BANK, linear_levels(60), "x0")[:-1].sum(1)
        return (0.5 * E[-1] <= E).argmax(0)

    assert (np.diff(first(GaussianField.power_law((2, 12, 16)))) > 0).all()
    assert (np.diff(first(GaussianField(np.zeros((2, 12, 16)), np.ones((2, 12, 16))))) == 0).all()


def test_without_fresh_noise_a_gaussian_sample_is_decided_at_once() -> None:
    cosine = GaussianField.power_law((2, 12, 16)).coherence(BANK, linear_levels(30), noise(16))
    assert cosine[0].max() == 0  # x0 is still the mean, which is zero
    assert cosine[1:-1].min() > 0.8
    assert np.isnan(cosine[-1]).all()


def test_impossible_fields_and_signals_are_refused() -> None:
    with pytest.raises(UserError, match="variance"):
        GaussianField(np.zeros((1, 4, 4)), -np.ones((1, 4, 4)))
    with pytest.raises(UserError, match="unknown signal 'noise'"):
        FIELD.signal("noise", 0.5, 0.5)


def test_guidance_moves_every_prediction_of_x0_by_the_same_amount() -> None:
    """x0_w = x0_u + w (1 - a K) (m_c - m_u), K = a S / (a^2 S + b^2), where both have one spectrum."""
    a, b, w, empty = 0.6, 0.4, 3.0, GaussianField(np.zeros_like(FIELD.mean), FIELD.variance)
    guided = Guided.of(FIELD, empty, w).signal("x0", a, b)
    K = a * FIELD.variance / (a * a * FIELD.variance + b * b)
    plain = empty.signal("x0", a, b)
    np.testing.assert_allclose(guided.slope, plain.slope)
    np.testing.assert_allclose(guided.offset, plain.offset + w * (1 - a * K) * FIELD.mean)


def test_guidance_at_one_is_none() -> None:
    other = GaussianField(FIELD.mean + 1, 2 * FIELD.variance)
    levels = linear_levels(5)
    for name in SIGNALS:
        one = Guided.of(FIELD, other, 1.0).energies(BANK, levels, noise(2), name)
        np.testing.assert_allclose(one, FIELD.energies(BANK, levels, noise(2), name), rtol=1e-9)


def test_a_flow_keeps_the_mean_and_denoising_from_zero_mean_noise_loses_part_of_it() -> None:
    """Noise without a mean stands for a_T x0 + b_T eps, whose mean is a_T m: what is missing decays with the gain."""
    flow = linear_levels(7)
    np.testing.assert_allclose(FIELD.path(flow).mean, flow.a[:, None, None, None] * FIELD.mean, atol=1e-12)
    levels = vp_levels([0.005, 0.1, 0.5, 0.9, 1.0])
    path = FIELD.path(levels)
    missing = path.mean - levels.a[:, None, None, None] * FIELD.mean
    np.testing.assert_allclose(missing, -path.gain * levels.a[0] * FIELD.mean, atol=1e-12)
    assert abs(missing[-1, :, 0, 0]).max() > 0.1


def test_a_variance_exploding_state_is_a_preserving_one_scaled() -> None:
    sigmas = np.array([10.0, 3.0, 1.0, 0.2, 0.0])
    size = np.hypot(1, sigmas)[:, None, None, None]
    exploding = FIELD.path(Levels(np.ones(5), sigmas), start=float(size[0].item()))
    preserving = FIELD.path(Levels(1 / np.hypot(1, sigmas), sigmas / np.hypot(1, sigmas)))
    np.testing.assert_allclose(exploding.mean, preserving.mean * size)
    np.testing.assert_allclose(exploding.gain, preserving.gain * size)
