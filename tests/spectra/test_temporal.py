"""Temporal bands: Gaussian filters along the frames, and the convention for the first frame of causal autoencoders."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.temporal import temporal_energies, temporal_white_noise
from spectra.testing import DTYPES, banks, fields
from tests.properties.laws import close, scipy_bands

TIME, SPACE = FilterBank((0.8, 2.0)), FilterBank((0.8, 1.6, 3.2))
videos = fields(leading=(2, 3, 7))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_scipy(x: Tensor, time: FilterBank, space: FilterBank) -> Tensor:
    """Filters along frames, then along rows and columns; squares, summed over all but batch and bands."""
    smooth = [gaussian_filter1d(x.numpy(), s, axis=2, mode="reflect") for s in reversed(time.scales)]
    tempos = np.diff(np.stack([np.zeros_like(x), *smooth, x.numpy()]), axis=0)
    bands = torch.stack([scipy_bands(space, torch.tensor(tempo)) for tempo in tempos], 1)  # (b, L, c, t, K, h, w)
    return bands.square().sum((2, 3, 5, 6))


@settings(max_examples=40)
@given(banks(max_bands=4), banks(max_bands=4), videos)
def test_energies_are_those_of_filters_along_frames_rows_and_columns(
    time: FilterBank, space: FilterBank, x: Tensor
) -> None:
    close(temporal_energies(x, time, space), by_scipy(x, time, space), x.square().sum((1, 2, 3, 4)))


@settings(max_examples=40)
@given(banks(), videos)
def test_a_bank_of_one_band_along_frames_leaves_the_spatial_energies(space: FilterBank, x: Tensor) -> None:
    expected = space.energies(x).sum((1, 2))
    close(temporal_energies(x, FilterBank(()), space)[:, 0], expected, x.square().sum((1, 2, 3, 4)))


@settings(max_examples=40)
@given(banks(), fields(leading=(2, 3)), st.integers(1, 9))
def test_a_still_video_is_in_the_slowest_band(time: FilterBank, picture: Tensor, frames: int) -> None:
    x = picture.unsqueeze(2).expand(2, 3, frames, *picture.shape[-2:])
    E = temporal_energies(x, time, SPACE)
    total = x.square().sum((1, 2, 3, 4))
    close(E[:, 0], frames * SPACE.energies(picture).sum(1), total)
    close(E[:, 1:], torch.tensor(0.0), total, 1e-28)


def test_time_reversal_changes_nothing_and_a_video_played_back_and_forth_has_twice_the_energies() -> None:
    x = noise(2, 3, 6, 5, 4).cumsum(2)
    E = temporal_energies(x, TIME, SPACE)
    torch.testing.assert_close(temporal_energies(x.flip(2), TIME, SPACE), E)
    torch.testing.assert_close(temporal_energies(torch.cat([x, x.flip(2)], 2), TIME, SPACE), 2 * E)


@settings(max_examples=40)
@given(fields(leading=(1, 2, 6), dtypes=DTYPES), st.integers(0, 5))
def test_skipped_frames_do_not_count_and_types_are_those_of_energies(x: Tensor, skip: int) -> None:
    E = temporal_energies(x, TIME, SPACE, skip=skip)
    assert E.dtype == SPACE.energies(x).dtype
    assert torch.equal(E, temporal_energies(x[:, :, skip:].clone(memory_format=torch.preserve_format), TIME, SPACE))
    exact = temporal_energies(x.double(), TIME, SPACE, skip=skip)
    close(E, exact, x.double().square().sum((1, 2, 3, 4)), 1e-6)


def test_the_first_frame_of_a_causal_autoencoder_is_left_out_with_skip() -> None:
    x = noise(1, 2, 9, 6, 6)
    before = temporal_energies(x, TIME, SPACE, skip=1)
    x[:, :, 0] = 1e6
    assert torch.equal(temporal_energies(x, TIME, SPACE, skip=1), before)


def test_slow_and_fast_motion_land_in_their_bands() -> None:
    t = torch.arange(32, dtype=torch.float64) + 0.5
    slow, fast = (torch.cos(torch.pi * k * t / 32).view(1, 1, 32, 1, 1) * noise(1, 1, 1, 8, 8) for k in (2, 28))
    bank = FilterBank((1.0, 3.0))
    assert temporal_energies(slow, bank, SPACE).sum(-1).argmax() == 0
    assert temporal_energies(fast, bank, SPACE).sum(-1).argmax() == 2


def test_white_noise_has_the_stated_energies() -> None:
    E = temporal_energies(noise(3000, 2, 5, 6, 4), TIME, SPACE).numpy() / 2
    floor = temporal_white_noise(5, 6, 4, TIME, SPACE)
    assert floor.shape == (3, 4)
    assert (abs(E.mean(0) - floor) < 4 * E.std(0) / np.sqrt(len(E))).all()


def test_gradients_pass_and_samples_are_independent() -> None:
    x = noise(2, 1, 3, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: temporal_energies(v, TIME, SPACE), x)
    (gradient,) = torch.autograd.grad(temporal_energies(x, TIME, SPACE)[0].sum(), x)
    assert (gradient[1] == 0).all()


def test_nothing_waits_for_the_device_and_autocast_does_not_lower_the_precision() -> None:
    assert temporal_energies(torch.empty(2, 16, 21, 60, 104, device="meta"), TIME, SPACE).shape == (2, 3, 4)
    x = noise(1, 2, 5, 8, 8).float()
    plain = temporal_energies(x, TIME, SPACE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(temporal_energies(x, TIME, SPACE), plain)


@pytest.mark.parametrize(("shape", "skip"), [((2, 3, 8, 8), 0), ((1, 2, 3, 4, 4), 3), ((1, 2, 3, 4, 4), -1)])
def test_what_is_not_a_video_is_refused(shape: tuple[int, ...], skip: int) -> None:
    with pytest.raises(UserError, match=r"a video is a tensor|temporal bands of"):
        temporal_energies(torch.zeros(shape), TIME, SPACE, skip)
