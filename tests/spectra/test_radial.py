"""Radial spectra: sums of squared coefficients by frequency."""

import numpy as np
import pytest
import torch

from spectra.bands import coefficients, radial_modes, radial_spectrum, radial_sums, radii
from spectra.errors import UserError


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(("h", "w", "bins"), [(16, 16, 16), (9, 14, 5), (4, 4, 40), (1, 1, 3)])
def test_radial_spectrum_sums_to_the_squared_norm(h: int, w: int, bins: int) -> None:
    x = noise(2, 3, h, w) + 1
    spectrum = radial_spectrum(x, bins)
    assert spectrum.shape == (2, 3, bins)
    torch.testing.assert_close(spectrum.sum(-1), x.square().sum((-2, -1)))
    torch.testing.assert_close(radial_sums(coefficients(x).square(), bins), spectrum)
    assert radial_modes(bins, h, w).sum() == h * w


def test_radial_spectrum_puts_a_cosine_into_the_bin_of_its_frequency() -> None:
    h, w, bins, k = 20, 32, 12, 9
    x = torch.cos(torch.pi * k * (2 * torch.arange(w, dtype=torch.float64) + 1) / (2 * w)).expand(h, w)
    spectrum = radial_spectrum(x, bins)
    assert spectrum.argmax() == np.abs(radii(bins, h, w) - k / (2 * w)).argmin()
    assert spectrum.max() == pytest.approx(float(x.square().sum()))


def test_radial_bins_need_a_positive_number() -> None:
    for call in (lambda: radii(0, 4, 4), lambda: radial_modes(0, 4, 4), lambda: radial_spectrum(torch.ones(4, 4), 0)):
        with pytest.raises(UserError, match="at least 1"):
            call()
