"""From the latents that a pipeline generates to those that its decoder takes: one named rule per kind of statistics.

A rule is given plain latents `(b, c, h, w)` or `(b, c, t, h, w)` and the decoding model (None where there is none),
whose configuration or buffers hold the constants; none are kept here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def _scale_shift(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    shift: float = getattr(vae.config, "shift_factor", None) or 0.0
    return latents / float(vae.config.scaling_factor) + shift


def _scale(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    """For pipelines that leave a shift out, whether the configuration has one or not."""
    return latents / float(vae.config.scaling_factor)


def _mean_std(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    return latents * per_channel(latents, vae.config.latents_std) + per_channel(latents, vae.config.latents_mean)


def _mean_std_frame(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    """A picture is a video of one frame to this VAE: (b, c, h, w) -> (b, c, 1, h, w)."""
    return _mean_std(latents, vae).unsqueeze(2)


def _mean_std_scale(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    """The configuration decides, by carrying per-channel statistics or not (SDXL, Mochi)."""
    config = vae.config
    if getattr(config, "latents_mean", None) is None or getattr(config, "latents_std", None) is None:
        return _scale(latents, vae)
    std, mean = (per_channel(latents, values) for values in (config.latents_std, config.latents_mean))
    return latents * std / float(config.scaling_factor) + mean


def _mean_std_found(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    """Statistics of the VAE's configuration, else of its weights; a VAE without them takes latents as they are."""
    if getattr(vae.config, "latents_mean", None) is not None:
        return _mean_std(latents, vae)
    if getattr(vae, "latents_mean", None) is None:
        return latents
    return latents * per_channel(latents, vae.latents_std) + per_channel(latents, vae.latents_mean)


def _mean_std_frames(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    """Statistics of each channel and frame, of which the first ones count; none leave the latents as they are."""
    import torch

    values = (vae.config.latents_std, vae.config.latents_mean)
    if None in values:
        return latents
    frames = (torch.as_tensor(one).to(latents).reshape(1, latents.shape[1], -1, 1, 1) for one in values)
    std, mean = (one[:, :, : latents.shape[2]] for one in frames)
    return latents * std + mean


def _mean_std_buffers(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    """Statistics that are part of the VAE's weights (LTX)."""
    std, mean = (per_channel(latents, values) for values in (vae.latents_std, vae.latents_mean))
    return latents * std / float(vae.config.scaling_factor) + mean


def _batch_norm(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    """Statistics of the packed channels, four per channel of the VAE, are put back before the patches are unfolded."""
    import einops

    std = (vae.bn.running_var + vae.config.batch_norm_eps).sqrt()
    packed = latents * per_channel(latents, std) + per_channel(latents, vae.bn.running_mean)
    unfolded: torch.Tensor = einops.rearrange(packed, "b (c p q) h w -> b c (h p) (w q)", p=2, q=2)
    return unfolded


def per_channel(latents: torch.Tensor, values: Any) -> torch.Tensor:
    """One number for each channel, in the shape and type to reckon with `latents` (b, c, ...)."""
    import torch

    return torch.as_tensor(values).to(latents).reshape(1, -1, *(1,) * (latents.ndim - 2))


def _scale_factor(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    return latents * float(vae.config.scale_factor)


def _none(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    return latents


DENORMALISE: dict[str, Callable[[torch.Tensor, Any], torch.Tensor]] = {
    "scale": _scale,
    "scale_shift": _scale_shift,
    "mean_std": _mean_std,
    "mean_std_frame": _mean_std_frame,
    "mean_std_scale": _mean_std_scale,
    "mean_std_found": _mean_std_found,
    "mean_std_frames": _mean_std_frames,
    "mean_std_buffers": _mean_std_buffers,
    "batch_norm": _batch_norm,
    "scale_factor": _scale_factor,
    "none": _none,
}
