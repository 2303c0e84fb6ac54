"""Levels of flow matching in diffusers' convention: sigma from 0 (data) to 1 (noise).

The network is told `sigma * steps`, and log-SNR = 2 log((1 - sigma) / sigma).  The shift is that of Esser et al.,
2403.03206, section 5.3.2; two shifts in a row multiply.  Sigmas and timesteps are (batch,).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def shifted(quantile: Tensor, shift: float) -> Tensor:
    """Move noise levels towards noise: sigma = shift q / (1 + (shift - 1) q).  Inverse: the shift 1 / shift."""
    return shift * quantile / (1 + (shift - 1) * quantile)


def timestep_of(sigma: Tensor, steps: int) -> Tensor:
    """What the network is told for a noise level."""
    return sigma * steps


def noise_level(timestep: Tensor, steps: int) -> Tensor:
    """sigma of a timestep; inverse of `timestep_of`."""
    return timestep / steps


def own_shift(settings: Mapping[str, Any], tokens: int | None) -> float:
    """The shift that a scheduler's settings ask for; with dynamic shifting it is exp(mu), or mu itself."""
    if not settings.get("use_dynamic_shifting"):
        return float(settings.get("flow_shift") or settings.get("shift") or 1.0)
    own = mu(settings, tokens)
    return own if settings.get("time_shift_type") == "linear" else math.exp(own)


def mu(settings: Mapping[str, Any], tokens: int | None) -> float:
    """What dynamic shifting is told of the size of a picture.

    A straight line in the number of `tokens` through (base_image_seq_len, base_shift) and (max_image_seq_len,
    max_shift); without `tokens` it is that of the smaller size.  FLUX.2's pipeline lets it depend on the number of
    sampler steps too: at 200 steps it is this line, with fewer it is larger.
    """
    fewest, most = (int(settings.get(name, default)) for name, default in _LENGTHS.items())
    low, high = (float(settings.get(name, default)) for name, default in _SHIFTS.items())
    return low + (high - low) * ((fewest if tokens is None else tokens) - fewest) / (most - fewest)


_LENGTHS = {"base_image_seq_len": 256, "max_image_seq_len": 4096}
_SHIFTS = {"base_shift": 0.5, "max_shift": 1.15}
"""What pipelines assume where a scheduler's configuration is silent."""
