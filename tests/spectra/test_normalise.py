"""Every rule that takes latents to a VAE has its inverse."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from spectra.denormalise import DENORMALISE
from spectra.normalise import NORMALISE

CHANNELS = 4
MEAN, STD = [0.3, -0.4, 0.1, 0.8], [0.6, 1.4, 0.9, 2.0]


def vae(**config: Any) -> SimpleNamespace:
    """A VAE with every constant that a rule may ask for."""
    known = {"scaling_factor": 0.7, "shift_factor": 0.2, "scale_factor": 0.3, "batch_norm_eps": 1e-4} | config
    norm = SimpleNamespace(running_mean=torch.linspace(-1, 1, 16), running_var=torch.linspace(0.2, 3, 16))
    return SimpleNamespace(
        config=SimpleNamespace(**known), bn=norm, latents_mean=torch.tensor(MEAN), latents_std=torch.tensor(STD)
    )


STATISTICS = {"latents_mean": MEAN, "latents_std": STD}
FRAMES = {name: torch.linspace(0.2, 1, CHANNELS * 5).tolist() for name in STATISTICS}
CASES: list[tuple[str, SimpleNamespace, tuple[int, ...]]] = [
    ("scale", vae(), (2, CHANNELS, 6, 8)),
    ("scale_shift", vae(), (2, CHANNELS, 6, 8)),
    ("scale_shift", vae(shift_factor=None), (2, CHANNELS, 3, 6, 8)),
    ("mean_std", vae(**STATISTICS), (2, CHANNELS, 3, 6, 8)),
    ("mean_std_frame", vae(**STATISTICS), (2, CHANNELS, 6, 8)),
    ("mean_std_scale", vae(**STATISTICS), (2, CHANNELS, 6, 8)),
    ("mean_std_scale", vae(), (2, CHANNELS, 6, 8)),
    ("mean_std_found", vae(**STATISTICS), (2, CHANNELS, 3, 6, 8)),
    ("mean_std_found", vae(), (2, CHANNELS, 3, 6, 8)),
    ("mean_std_frames", vae(**FRAMES), (2, CHANNELS, 3, 6, 8)),
    ("mean_std_frames", vae(latents_mean=None, latents_std=None), (2, CHANNELS, 3, 6, 8)),
    ("mean_std_buffers", vae(), (2, CHANNELS, 3, 6, 8)),
    ("batch_norm", vae(), (2, 4 * CHANNELS, 3, 4)),
    ("scale_factor", vae(), (2, CHANNELS, 6, 8)),
    ("none", vae(), (2, CHANNELS, 6, 8)),
]


def test_there_is_an_inverse_of_every_rule_and_each_is_tried() -> None:
    assert set(NORMALISE) == set(DENORMALISE) == {rule for rule, _, _ in CASES}


@pytest.mark.parametrize(("rule", "model", "shape"), CASES)
def test_there_and_back_is_where_it_began(rule: str, model: SimpleNamespace, shape: tuple[int, ...]) -> None:
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    raw = DENORMALISE[rule](latents, model)
    back = NORMALISE[rule](raw, model)
    torch.testing.assert_close(back, latents, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(DENORMALISE[rule](back, model), raw, rtol=1e-9, atol=1e-9)
