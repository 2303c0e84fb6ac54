"""From a VAE's own latents to those that a pipeline generates; each rule undoes its namesake in `denormalise`.

Rules go by the names of `DENORMALISE` and are given the VAE's latents `(b, c, h, w)` or `(b, c, t, h, w)` and the VAE,
whose configuration or buffers hold the constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from spectra.denormalise import per_channel

if TYPE_CHECKING:
    from torch import Tensor


def _scale_shift(raw: Tensor, vae: Any) -> Tensor:
    shift = float(getattr(vae.config, "shift_factor", None) or 0.0)
    return (raw - shift) * float(vae.config.scaling_factor)


def _scale(raw: Tensor, vae: Any) -> Tensor:
    return raw * float(vae.config.scaling_factor)


def _mean_std(raw: Tensor, vae: Any) -> Tensor:
    return _standard(raw, vae.config.latents_mean, vae.config.latents_std)


def _mean_std_frame(raw: Tensor, vae: Any) -> Tensor:
    """A picture is a video of one frame to this VAE: (b, c, 1, h, w) -> (b, c, h, w)."""
    return _mean_std(raw, vae).squeeze(2)


def _mean_std_scale(raw: Tensor, vae: Any) -> Tensor:
    mean, std = (getattr(vae.config, name, None) for name in ("latents_mean", "latents_std"))
    if mean is None or std is None:
        return _scale(raw, vae)
    return _standard(raw, mean, std) * float(vae.config.scaling_factor)


def _mean_std_found(raw: Tensor, vae: Any) -> Tensor:
    if getattr(vae.config, "latents_mean", None) is not None:
        return _mean_std(raw, vae)
    if getattr(vae, "latents_mean", None) is None:
        return raw
    return _standard(raw, vae.latents_mean, vae.latents_std)


def _mean_std_frames(raw: Tensor, vae: Any) -> Tensor:
    values = (vae.config.latents_mean, vae.config.latents_std)
    if None in values:
        return raw
    import torch

    frames = (torch.as_tensor(one).to(raw).reshape(1, raw.shape[1], -1, 1, 1) for one in values)
    mean, std = (one[:, :, : raw.shape[2]] for one in frames)
    return (raw - mean) / std


def _mean_std_buffers(raw: Tensor, vae: Any) -> Tensor:
    return _standard(raw, vae.latents_mean, vae.latents_std) * float(vae.config.scaling_factor)


def _batch_norm(raw: Tensor, vae: Any) -> Tensor:
    import einops

    packed: Tensor = einops.rearrange(raw, "b c (h p) (w q) -> b (c p q) h w", p=2, q=2)
    std = (vae.bn.running_var + vae.config.batch_norm_eps).sqrt()
    return _standard(packed, vae.bn.running_mean, std)


def _scale_factor(raw: Tensor, vae: Any) -> Tensor:
    return raw / float(vae.config.scale_factor)


def _none(raw: Tensor, vae: Any) -> Tensor:
    return raw


def _standard(raw: Tensor, mean: Any, std: Any) -> Tensor:
    return (raw - per_channel(raw, mean)) / per_channel(raw, std)


NORMALISE: dict[str, Callable[[Tensor, Any], Tensor]] = {
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
