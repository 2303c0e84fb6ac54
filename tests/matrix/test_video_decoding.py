"""Latents of videos on their way to the decoder."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from spectra.families import family_of
from tests.matrix.videos import built


def test_cosmos_is_denormalised_by_the_first_frames_of_its_statistics() -> None:
    values = torch.arange(1.0, 9.0)  # two channels of four frames
    config = SimpleNamespace(latents_mean=values.tolist(), latents_std=(2 * values).tolist())
    family, x = family_of(built("cosmos")), torch.randn(1, 2, 3, 4, 5)
    pipe = SimpleNamespace(
        vae=SimpleNamespace(config=config), scheduler=SimpleNamespace(config=SimpleNamespace(sigma_data=0.5))
    )
    found = family.to_vae(x, pipe)
    torch.testing.assert_close(found[0, 1, 2], x[0, 1, 2] * 14 / 0.5 + 7)
    pipe.vae.config = SimpleNamespace(latents_mean=None, latents_std=None)
    torch.testing.assert_close(family.to_vae(x, pipe), x / 0.5)


def test_ltx_is_denormalised_by_the_statistics_in_its_vae() -> None:
    pipe = built("ltx")
    std, mean = torch.tensor([0.5, 2.0, 3.0]), torch.tensor([1.0, -1.0, 0.0])
    vae = SimpleNamespace(latents_std=std, latents_mean=mean, config=SimpleNamespace(scaling_factor=2.0))
    latents = torch.randn(1, 3, 2, 4, 5)
    found = family_of(pipe).to_vae(latents, SimpleNamespace(vae=vae))
    torch.testing.assert_close(found, pipe._denormalize_latents(latents, mean, std, 2.0))


@pytest.mark.parametrize("place", ["configuration", "weights", "nowhere"])
def test_statistics_of_sana_are_where_its_vae_has_them(place: str) -> None:
    kept = {"latents_mean": torch.tensor([1.0, -1.0]), "latents_std": torch.tensor([0.5, 2.0])}
    there: dict[str, Any] = {"configuration": {}, "weights": kept, "nowhere": {}}[place]
    config = SimpleNamespace(
        **({name: value.tolist() for name, value in kept.items()} if place == "configuration" else {})
    )
    vae, x = SimpleNamespace(config=config, **there), torch.randn(1, 2, 3, 4, 5)
    found = family_of(built("sana-video")).to_vae(x, SimpleNamespace(vae=vae))
    expected = x if place == "nowhere" else torch.stack([x[:, 0] / 2 + 1, x[:, 1] * 2 - 1], 1)
    torch.testing.assert_close(found, expected)
