from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

import spectra
from spectra.record import record
from tests.spectra.witness import ALL, BANK, CALL, STEPS, Witness, energies, scipy_energies, seeded
from tests.tiny import tiny_sd, tiny_sd3


@pytest.mark.parametrize("make", [tiny_sd, tiny_sd3])
def test_latent_energies_are_scipys_on_what_the_callback_sees(make: Callable[[], Any], tmp_path: Path) -> None:
    pipe = make()
    after: list[torch.Tensor] = []

    def keep(pipe: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        after.append(tensors["latents"])
        return {}

    with record(pipe, tmp_path / "c.zarr", bank=BANK):
        pipe(["a", "b"], generator=seeded(3, 4), callback_on_step_end=keep, **CALL)
    noise = torch.cat([torch.randn(1, 4, 16, 16, generator=generator) for generator in seeded(3, 4)])
    cube = spectra.open_cube(tmp_path / "c.zarr")
    assert cube.sizes["step"] == STEPS + 1
    expected = np.stack([scipy_energies(x) for x in (noise, *after)], 1)
    np.testing.assert_allclose(energies(cube, "latent"), expected, rtol=2e-5)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_sd_predictions_are_those_by_hand(kind: str, tmp_path: Path) -> None:
    pipe = tiny_sd(kind)
    witness = Witness(pipe)
    with record(pipe, tmp_path / "c.zarr", bank=BANK, signals=ALL):
        pipe("a", generator=seeded(1), **CALL | {"guidance_scale": 3.0})
    cube = spectra.open_cube(tmp_path / "c.zarr")
    for i, (x, out, t) in enumerate(zip(witness.states, witness.outputs, witness.times, strict=True)):
        x, out, square = x.double(), out.double(), pipe.scheduler.alphas_cumprod[t].double()
        a, b = square.sqrt(), (1 - square).sqrt()
        noise = {"epsilon": out, "v_prediction": a * out + b * x}[kind]
        clean = (x - b * noise) / a
        for signal, field in (("x0", clean), ("eps", noise), ("prediction", out)):
            np.testing.assert_allclose(energies(cube, signal)[:, i], scipy_energies(field), rtol=1e-3)
        assert cube.timestep.values[i] == t
        assert cube.noise_level.values[i] == pytest.approx(float(b))
        assert cube.log_snr.values[i] == pytest.approx(float((square / (1 - square)).log()))
    assert np.isnan(cube.energy.sel(signal=["x0", "eps", "prediction"]).isel(step=-1)).all()


def test_sd3_predictions_are_those_by_hand(tmp_path: Path) -> None:
    pipe = tiny_sd3()
    witness = Witness(pipe)
    with record(pipe, tmp_path / "c.zarr", bank=BANK, signals=ALL):
        pipe("a", generator=seeded(1), **CALL)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    sigmas = pipe.scheduler.sigmas.double()
    np.testing.assert_allclose(cube.noise_level, sigmas)
    for i, (x, v) in enumerate(zip(witness.states, witness.outputs, strict=True)):
        for signal, field in (("x0", x - sigmas[i] * v), ("eps", x + (1 - sigmas[i]) * v), ("prediction", v)):
            np.testing.assert_allclose(energies(cube, signal)[:, i], scipy_energies(field), rtol=1e-4)
    assert cube.attrs["state_space"] == "flow"


def test_coherence_is_the_cosine_of_each_band_with_the_finished_sample(tmp_path: Path) -> None:
    pipe = tiny_sd3()
    witness = Witness(pipe)
    with record(pipe, tmp_path / "c.zarr", bank=BANK):
        pipe(["a", "b"], generator=seeded(1, 2), **CALL)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    end = BANK.split(witness.latents()[-1].double())
    for i, (x, v) in enumerate(zip(witness.states, witness.outputs, strict=True)):
        clean = BANK.split((x - pipe.scheduler.sigmas[i] * v).double())
        dots = (clean * end).sum((1, 3, 4)) / (clean.square().sum((1, 3, 4)) * end.square().sum((1, 3, 4))).sqrt()
        np.testing.assert_allclose(cube.coherence.isel(step=i), dots, atol=1e-5)
    assert np.isnan(cube.coherence.isel(step=-1)).all()


def test_spectrum_and_power_both_sum_to_the_squared_norm(tmp_path: Path) -> None:
    pipe = tiny_sd()
    witness = Witness(pipe)
    with record(pipe, tmp_path / "c.zarr", radial_bins=9):
        pipe("a", generator=seeded(1), **CALL)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    norms = [float(x.double().square().sum()) for x in witness.latents()]
    np.testing.assert_allclose(cube.spectrum.sel(signal="latent").sum("radius").isel(run=0), norms, rtol=1e-5)
    assert cube.sizes["radius"] == 9


class GaussianVelocity:
    """The exact velocity for white Gaussian data of variance S: E[x0 | x] = K x with K = a S / (a^2 S + b^2)."""

    variance = 0.3

    def clean(self, a: float, b: float) -> float:
        return a * self.variance / (a * a * self.variance + b * b)

    def gain(self, levels: list[tuple[float, float]]) -> list[float]:
        """phi with x_i = phi_i z along the deterministic sampler through these (a, b)."""
        gains = [1.0]
        for (a, b), (a2, b2) in itertools.pairwise(levels):
            gains.append(gains[-1] * (b2 / b + (a2 - b2 * a / b) * self.clean(a, b)))
        return gains


def test_the_exact_model_of_a_gaussian_follows_its_closed_form_with_ddim(tmp_path: Path) -> None:
    pipe, exact = tiny_sd("v_prediction"), GaussianVelocity()
    table = pipe.scheduler.alphas_cumprod.double()

    def velocity(x: torch.Tensor, t: Any, *args: Any, **kwargs: Any) -> tuple[torch.Tensor]:
        a, b = float(table[t].sqrt()), float((1 - table[t]).sqrt())
        return (((1 - a * exact.clean(a, b)) / b * a - b * exact.clean(a, b)) * x,)

    pipe.unet.forward = velocity
    closed_form(pipe, exact, lambda t: (float(table[int(t)].sqrt()), float((1 - table[int(t)]).sqrt())), tmp_path)


def test_the_exact_model_of_a_gaussian_follows_its_closed_form_with_flow_matching(tmp_path: Path) -> None:
    pipe, exact = tiny_sd3(), GaussianVelocity()

    def velocity(hidden_states: torch.Tensor, timestep: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor]:
        b = float(timestep[0]) / 1000
        return ((hidden_states - exact.clean(1 - b, b) * hidden_states) / b,)

    pipe.transformer.forward = velocity
    closed_form(pipe, exact, lambda t: (1 - float(t) / 1000, float(t) / 1000), tmp_path)


def closed_form(
    pipe: Any, exact: GaussianVelocity, level: Callable[[Any], tuple[float, float]], tmp_path: Path
) -> None:
    with record(pipe, tmp_path / "c.zarr", bank=BANK, signals=ALL):
        pipe(["", ""], generator=seeded(0, 1), **CALL | {"num_inference_steps": 10})
    cube = spectra.open_cube(tmp_path / "c.zarr")
    levels = [*map(level, pipe.scheduler.timesteps), (1.0, 0.0)]
    noise = scipy_energies(torch.cat([torch.randn(1, 4, 16, 16, generator=generator) for generator in seeded(0, 1)]))
    gains = exact.gain(levels)
    for i, (phi, (a, b)) in enumerate(zip(gains, levels, strict=True)):
        np.testing.assert_allclose(energies(cube, "latent")[:, i], phi**2 * noise, rtol=1e-4)
        if i + 1 < len(levels):
            clean, error = exact.clean(a, b), (1 - a * exact.clean(a, b)) / b
            np.testing.assert_allclose(energies(cube, "x0")[:, i], (clean * phi) ** 2 * noise, rtol=1e-3, atol=1e-9)
            np.testing.assert_allclose(energies(cube, "eps")[:, i], (error * phi) ** 2 * noise, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(cube.coherence.isel(step=slice(1, -1)), 1, atol=1e-5)


def test_velocity_without_any_signal_gives_finite_clean_samples(tmp_path: Path) -> None:
    pipe = tiny_sd("v_prediction")
    pipe.scheduler = diffusers.DDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False
    )
    with record(pipe, tmp_path / "c.zarr"):
        pipe("a", generator=seeded(1), **CALL)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    assert (cube.signal_level.values[0], cube.noise_level.values[0], cube.log_snr.values[0]) == (0, 1, -math.inf)
    assert np.isfinite(cube.energy.sel(signal="x0").isel(step=slice(-1))).all()


@pytest.mark.parametrize(
    ("name", "space"),
    [("DDPMScheduler", "vp"), ("EulerDiscreteScheduler", "ve"), ("DPMSolverMultistepScheduler", "vp"),
     ("HeunDiscreteScheduler", "ve"), ("PNDMScheduler", "vp"), ("UniPCMultistepScheduler", "vp")],
)  # fmt: skip
def test_state_and_noise_always_make_up_the_latent(name: str, space: str, tmp_path: Path) -> None:
    pipe = tiny_sd("epsilon")
    options = {"clip_sample": False, "skip_prk_steps": True, "set_alpha_to_one": True}
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **options)
    witness = Witness(pipe)
    with record(pipe, tmp_path / "c.zarr", bank=BANK, signals=ALL):
        pipe("a", generator=seeded(1), **CALL)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    assert cube.sizes["step"] == len(witness.states) + 1
    assert cube.attrs["state_space"] == space
    for i, (x, eps) in enumerate(zip(witness.states, witness.outputs, strict=True)):
        a, b = float(cube.signal_level[i]), float(cube.noise_level[i])
        assert (a * a + b * b == pytest.approx(1)) if space == "vp" else a == 1
        np.testing.assert_allclose(energies(cube, "latent")[:, i], scipy_energies(x), rtol=1e-4)
        np.testing.assert_allclose(energies(cube, "x0")[:, i], scipy_energies((x - b * eps) / a), rtol=1e-3)
    assert cube.noise_level.values[-1] == pytest.approx(0, abs=1e-6)


def test_calls_of_second_order_schedulers_carry_their_own_levels(tmp_path: Path) -> None:
    pipe = tiny_sd("epsilon")
    pipe.scheduler = diffusers.HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    witness = Witness(pipe)
    with record(pipe, tmp_path / "c.zarr", bank=BANK):
        pipe("a", generator=seeded(1), **CALL)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    assert cube.sizes["step"] == 2 * STEPS
    for i, result in enumerate(witness.results):
        np.testing.assert_allclose(energies(cube, "x0")[:, i], scipy_energies(result[1]), rtol=1e-3)


def test_half_precision_is_measured_in_full_precision(tmp_path: Path) -> None:
    pipe = tiny_sd().to(torch.bfloat16)
    witness = Witness(pipe)
    with record(pipe, tmp_path / "c.zarr", bank=BANK), torch.autocast("cpu", torch.bfloat16):
        pipe("a", generator=seeded(1), **CALL)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    assert cube.attrs["dtype"] == "bfloat16"
    expected = np.stack([scipy_energies(x) for x in witness.latents()], 1)
    np.testing.assert_allclose(energies(cube, "latent"), expected, rtol=1e-5)
