"""Band energies of latents, as every measurement of a run and of an evaluation takes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spectra.bands import FilterBank, radial_spectrum, radii

BANDS = 4
"""Octaves into which latents and errors are split."""
BAND_COORDINATES = ("scale_low", "scale_high", "frequency")

Floats = NDArray[np.floating]
Named = dict[str, tuple[tuple[str, ...], Floats]]
"""Name -> dimensions and values."""


def octaves(latents: Tensor) -> FilterBank:
    """The bands of latents (..., h, w)."""
    return FilterBank.octaves(BANDS, (latents.shape[-2], latents.shape[-1]))


def measured(latents: Tensor, lead: int = 1) -> dict[str, Floats]:
    """energy (*lead, channel, band) and spectrum (*lead, radius) of latents (*lead, c, [t], h, w).

    `lead` is the number of dimensions before the channels.  Means over frames; the spectrum is the sum over channels.
    """
    frames = latents if latents.ndim == lead + 4 else latents.unsqueeze(lead + 1)
    energy = octaves(latents).energies(frames).mean(-2)
    spectrum = radial_spectrum(frames, min(latents.shape[-2:])).mean(-2).sum(-2)
    return {"energy": energy.float().numpy(), "spectrum": spectrum.float().numpy()}


def coordinates(latents: Tensor) -> Named:
    """Coordinates of what `measured` returns for latents (..., h, w): scales and frequencies of bands, and radii."""
    bank, (height, width) = octaves(latents), latents.shape[-2:]
    named: Named = {name: (("band",), np.array(getattr(bank, name))) for name in BAND_COORDINATES}
    return named | {"radius": (("radius",), np.asarray(radii(min(height, width), height, width)))}


def stills(images: NDArray[np.uint8], lead: int = 1) -> NDArray[np.uint8]:
    """Pictures (*lead, h, w, 3) as they are, and of clips (*lead, t, h, w, 3) the middle frame."""
    return images if images.ndim == lead + 3 else images.take(images.shape[lead] // 2, axis=lead)
