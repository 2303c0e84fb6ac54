"""A cube without a model: ancestral sampling of Gaussian fields, one mean picture per prompt."""

import json
from itertools import pairwise

import numpy as np
import torch
import xarray as xr

from spectra.analysis.kernels import band_sums
from spectra.bands import FilterBank, coherence, radial_spectrum, radii
from spectra.gaussian import GaussianField, Levels, flow_levels
from spectra.radial import radial_bin

SIGNALS = ("latent", "x0", "eps", "prediction")


def synthetic_cube(
    prompts: int = 4, seeds: int = 4, steps: int = 30, shape: tuple[int, int, int] = (4, 16, 16), bins: int = 16,
    bank: FilterBank | None = None, tilt: float = 0.0,
) -> xr.Dataset:  # fmt: skip
    """As `open_cube` gives it; `tilt` adds that much to the log amplitude of the top half of the frequencies."""
    bank = bank or FilterBank.octaves(4, shape[1:])
    levels = flow_levels(np.linspace(1, 0, steps + 1))
    fields = [_field(shape, p, tilt) for p in range(prompts)]
    runs = [_run(field, levels, bank, bins, 100 * p + s) for p, field in enumerate(fields) for s in range(seeds)]
    energy, spectrum, cosine = (np.stack(parts).astype(np.float32) for parts in zip(*runs, strict=True))
    a, b = levels
    with np.errstate(divide="ignore"):
        log_snr = 2 * (np.log(a) - np.log(b))
    names = np.repeat([f"a picture, number {p}" for p in range(prompts)], seeds).astype(object)
    return xr.Dataset(
        {
            "energy": (("run", "step", "signal", "channel", "band"), energy),
            "spectrum": (("run", "step", "signal", "radius"), spectrum),
            "coherence": (("run", "step", "band"), cosine),
            "status": ("run", np.ones(len(runs), np.uint8)),
        },
        {
            "prompt": ("run", names), "seed": ("run", np.tile(np.arange(seeds), prompts)),
            "guidance_scale": ("run", np.ones(len(runs))), "adapter": ("run", np.full(len(runs), "", object)),
            "guidance_rule": ("run", np.full(len(runs), "none", object)), "call": ("step", np.arange(steps + 1)),
            "step": np.arange(steps + 1), "timestep": ("step", 1000 * b), "noise_level": ("step", b),
            "signal_level": ("step", a), "log_snr": ("step", log_snr),
            "signal": np.array(SIGNALS, object), "channel": np.arange(shape[0]), "band": np.arange(bank.bands),
            "scale_low": ("band", np.array(bank.scale_low)), "scale_high": ("band", np.array(bank.scale_high)),
            "frequency": ("band", np.array(bank.frequency)), "radius": radii(bins, *shape[1:]),
        },
        {"model": "synthetic", "bank": json.dumps(bank.to_dict()), "grid": json.dumps(shape[1:])},
    )  # fmt: skip


def gaussian_cube(
    field: GaussianField, levels: Levels, *, bank: FilterBank, runs: int = 8, bins: int = 24, eta: float = 0.0,
    scheduler: str = "FlowMatchEulerDiscreteScheduler", seed: int = 0, **config: object,
) -> xr.Dataset:  # fmt: skip
    """Latent and x0 of a perfect denoiser's runs, exact at each step; with eta, noise is right step by step."""
    rng, (c, h, w) = np.random.default_rng(seed), field.mean.shape
    path = field.path(levels, eta)
    Z, fresh = rng.standard_normal((2, runs, c, h, w))
    X = path.mean[:, None] + path.gain[:, None] * Z + np.sqrt(path.variance)[:, None] * fresh
    x0 = np.stack(
        [
            o + s * x
            for (o, s), x in zip((field.signal("x0", a, b) for a, b in zip(*levels, strict=True)), X, strict=True)
        ]
    )
    x0[-1] = np.nan
    square = np.stack([X, x0]).transpose(2, 1, 0, 3, 4, 5) ** 2
    member = radial_bin(bins, h, w)[None] == np.arange(bins)[:, None, None]
    both, one, two = (band_sums(x.sum(2), bank) for x in (x0 * X[-1:], x0**2, X[-1:] ** 2))
    a, b = levels
    with np.errstate(divide="ignore", invalid="ignore"):
        log_snr, cosine = 2 * (np.log(a) - np.log(b)), both / np.sqrt(one * two)
    cosine[:-1] = np.nan_to_num(cosine[:-1])  # as recorded where x0 has no energy: from pure noise, with mean zero
    step = np.arange(len(a))
    return xr.Dataset(
        {
            "energy": (("run", "step", "signal", "channel", "band"), band_sums(square, bank)),
            "spectrum": (("run", "step", "signal", "radius"), np.einsum("rsgcjk,bjk->rsgb", square, member)),
            "coherence": (("run", "step", "band"), cosine.transpose(1, 0, 2)),
            "status": ("run", np.ones(runs, np.uint8)),
        },
        {
            "prompt": ("run", np.array([f"prompt {i}" for i in range(runs)], object)), "seed": ("run", np.arange(runs)),
            "draw": ("run", np.zeros(runs, int)), "guidance_scale": ("run", np.ones(runs)),
            "guidance_rule": ("run", np.full(runs, "none", object)), "step": step, "call": ("step", step),
            "timestep": ("step", 1000 * b), "noise_level": ("step", b), "signal_level": ("step", a),
            "log_snr": ("step", log_snr), "signal": np.array(["latent", "x0"], object), "channel": np.arange(c),
            "band": np.arange(bank.bands), "frequency": ("band", np.array(bank.frequency)),
            "scale_low": ("band", np.array(bank.scale_low)), "scale_high": ("band", np.array(bank.scale_high)),
            "radius": radii(bins, h, w),
        },
        {"model": "gaussian", "bank": json.dumps(bank.to_dict()), "grid": json.dumps([h, w]),
         "scheduler": json.dumps({"class": scheduler, **config})},
    )  # fmt: skip


def _field(shape: tuple[int, int, int], prompt: int, tilt: float) -> GaussianField:
    """Half of the power is the prompt's mean, half varies."""
    base = GaussianField.power_law(shape, exponent=2.0 + 0.2 * (prompt % 3))
    rng = np.random.default_rng(1000 + prompt)
    mean = rng.standard_normal(shape) * np.sqrt(base.variance / 2)
    gain = np.exp(tilt * (base.variance < np.median(base.variance)))
    return GaussianField(mean * gain, base.variance / 2 * gain**2)


def _run(field: GaussianField, levels: tuple, bank: FilterBank, bins: int, seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    x = torch.tensor(rng.standard_normal(field.mean.shape))
    states = []
    pairs = list(zip(*levels, strict=True))
    for (a, b), (a_next, b_next) in pairwise(pairs):
        x0, eps = field.predict(x, "x0", a, b), field.predict(x, "eps", a, b)
        states.append(torch.stack([x, x0, eps, eps - x0]))
        fresh = 0.5 * b_next  # part of the noise is drawn anew, so that something remains to be decided
        z = torch.tensor(rng.standard_normal(field.mean.shape))
        x = a_next * x0 + np.sqrt(b_next**2 - fresh**2) * eps + fresh * z
    states.append(torch.stack([x, *[torch.full_like(x, torch.nan)] * 3]))
    stack = torch.stack(states)
    cosine = coherence(stack[:, 1], x, bank)
    cosine[-1] = torch.nan
    return bank.energies(stack).numpy(), radial_spectrum(stack, bins).sum(2).numpy(), cosine.numpy()
