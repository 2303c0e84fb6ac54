"""Latents and pictures are measured in one way, whatever lies before their channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adapt.octaves import BANDS, coordinates, measured, octaves, stills
from spectra.bands import FilterBank


def test_energies_of_pictures_are_those_of_the_octaves() -> None:
    latents = torch.randn(3, 4, 8, 12)
    wanted = FilterBank.octaves(BANDS, (8, 12)).energies(latents)
    np.testing.assert_allclose(measured(latents)["energy"], wanted.numpy(), rtol=1e-6)


def test_a_clip_is_the_mean_of_its_frames() -> None:
    clip = torch.randn(2, 4, 5, 8, 8)
    frames = [measured(clip[:, :, i]) for i in range(5)]
    for name, values in measured(clip).items():
        np.testing.assert_allclose(values, np.mean([one[name] for one in frames], axis=0), rtol=1e-5)


@pytest.mark.parametrize("frames", [(), (3,)])
def test_dimensions_before_the_channels_change_nothing(frames: tuple[int, ...]) -> None:
    latents = torch.randn(2, 3, 4, *frames, 8, 8)
    flat = measured(latents.flatten(0, 1))
    for name, values in measured(latents, lead=2).items():
        np.testing.assert_allclose(values.reshape(6, *values.shape[2:]), flat[name], rtol=1e-6)


def test_the_spectrum_sums_to_the_energy_of_all_channels() -> None:
    latents = torch.randn(2, 4, 8, 8)
    np.testing.assert_allclose(measured(latents)["spectrum"].sum(1), latents.square().sum((1, 2, 3)), rtol=1e-5)


def test_every_band_and_radius_has_its_coordinate() -> None:
    latents = torch.randn(1, 4, 8, 12)
    found, named = measured(latents), coordinates(latents)
    assert {len(values) for dims, values in named.values() if dims == ("band",)} == {found["energy"].shape[-1]}
    assert named["radius"][1].shape == found["spectrum"].shape[1:]
    np.testing.assert_array_equal(named["scale_low"][1], octaves(latents).scale_low)


def test_of_a_clip_the_middle_frame_is_shown_and_a_picture_is_itself() -> None:
    clips = np.arange(2 * 5 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 5, 2, 2, 3)
    np.testing.assert_array_equal(stills(clips), clips[:, 2])
    np.testing.assert_array_equal(stills(clips[0], lead=0), clips[0, 2])
    np.testing.assert_array_equal(stills(clips[:, 2]), clips[:, 2])
