"""How FeRA reads the latents of each class of denoiser in diffusers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import einops
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from adapt.fera.view import Call, Recipe
from spectra.errors import UserError
from spectra.families import PATCHES, TOKENS

Shape = tuple[int, ...]

# Latents that are fields already


def plain(call: Call) -> Tensor:
    """(b, c, h, w) or (b, c, t, h, w), with whatever else in further channels."""
    if isinstance(call.given, Tensor) and call.given.ndim in (4, 5):
        return call.given[:, : _channels(call, call.given.shape[1])]
    return _gridded(call)


def frames_first(call: Call) -> Tensor:
    """(b, t, c, h, w), with whatever else in further channels."""
    given = call.tensor(5)
    return given[:, :, : _channels(call, given.shape[2])].transpose(1, 2)


def channels_last(call: Call) -> Tensor:
    """(b, t, h, w, c), with a picture to start from and its mask in further channels."""
    channels = int(call.settings["out_visual_dim"])
    return call.tensor(5)[..., :channels].movedim(-1, 1)


def listed(call: Call) -> Tensor:
    """A list of (c, t, h, w), one per sample; they need one shape."""
    if not isinstance(call.given, list | tuple) or {getattr(one, "ndim", 0) for one in call.given} != {4}:
        raise UserError(f"FeRA reads the latents of {call.kind} as a list of tensors (c, t, h, w), one per sample")
    if len({one.shape for one in call.given}) > 1:
        raise UserError(f"the latents of one call of {call.kind} have different shapes: batch those of one shape")
    return torch.stack(list(call.given))


def _channels(call: Call, given: int) -> int:
    """Channels that are noisy: conditions come after them, and a predicted variance is no input."""
    into, out = call.settings.get("in_channels"), call.settings.get("out_channels")
    if not isinstance(into, int) or not isinstance(out, int) or into != given:
        return given
    if call.settings.get("encoder_hid_dim_type") in ("image_proj", "text_image_proj"):
        out = out // 2  # Kandinsky 2: noise and variance
    return min(into, out)


def _gridded(call: Call) -> Tensor:
    """Tokens (b, h w, c) of a class that is not known, on the grid that the configuration gives."""
    given, grid = call.given, call.grid
    if isinstance(given, Tensor) and given.ndim == 3 and grid is not None and given.shape[1] == grid[0] * grid[1]:
        return einops.rearrange(given, TOKENS, h=grid[0], w=grid[1])
    shape = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
    raise UserError(
        f"{call.kind} was given latents {shape}, whose layout FeRA does not know: it reads (b, c, h, w), "
        "(b, c, t, h, w) and, with FeraConfig(grid=(h, w)), tokens (b, h w, c); latent_argument names another argument"
    )


# Tokens whose grid is told by ids of their positions


def positioned(layout: str, ids: str = "img_ids") -> Callable[[Call], Tensor]:
    """Tokens (b, n, c), each with a row (kind, row, column, ...) of `ids`; noisy ones have the lowest kind."""
    return partial(_positioned, layout, ids)


def _positioned(layout: str, ids: str, call: Call) -> Tensor:
    tokens, positions = call.tensor(3), call.lookup(ids)
    if not isinstance(positions, Tensor):
        raise UserError(f"{call.kind} was called without {ids}, which tell FeRA the grid of its latents")
    start, count, h, w = _remembered(positions, tokens.shape[1], _lowest_grid, call.kind)
    out = call.settings.get("out_channels")
    channels = min(tokens.shape[2], out) if isinstance(out, int) and out > 0 else tokens.shape[2]
    if channels < tokens.shape[2] and count < tokens.shape[1]:
        raise UserError(f"{call.kind} was given pictures side by side (VisualCloze), whose latents FeRA cannot read")
    sizes = {"p": 2, "q": 2} if layout == PATCHES else {}
    return einops.rearrange(tokens[:, start : start + count, :channels], layout, h=h, w=w, **sizes)


_grids = WeakTensorKeyDictionary()


def _remembered(ids: Tensor, tokens: int, find: Callable[[NDArray[Any], int], Shape | None], kind: str) -> Shape:
    """What `find` makes of position ids; a tensor of ids is looked at once, and then waited for no more."""
    known: dict[int, Shape] = _grids.setdefault(ids, {})
    if tokens not in known:
        found = find(ids.detach().float().cpu().numpy(), tokens)
        if found is None:
            raise UserError(f"the position ids of {kind} are not those of a grid, row by row: FeRA cannot read it")
        known[tokens] = found
    return known[tokens]


def _lowest_grid(ids: NDArray[Any], tokens: int) -> Shape | None:
    """(first noisy token, how many, h, w): those of the lowest kind, in one row; text may come before all tokens."""
    rows = ids.reshape(-1, *ids.shape[-2:])[0][-tokens:]
    if len(rows) != tokens:
        return None
    noisy = np.flatnonzero(rows[:, 0] == rows[:, 0].min())
    grid = _rectangle(rows[noisy, 1], rows[noisy, 2])
    together = noisy[-1] - noisy[0] + 1 == len(noisy)
    return (int(noisy[0]), len(noisy), *grid) if grid is not None and together else None


def _rectangle(row: NDArray[Any], column: NDArray[Any]) -> tuple[int, int] | None:
    """(h, w) of positions that run through a rectangle row by row; None where they do not."""
    changes = np.flatnonzero(row != row[0])
    width = int(changes[0]) if len(changes) else len(row)
    if len(row) % width:
        return None
    row, column = row.reshape(-1, width), column.reshape(-1, width)
    straight = (row == row[:, :1]).all() and (column == column[:1]).all()
    return (len(row), width) if straight else None


# Tokens whose grid is told by other arguments


def shaped(layout: str, noisy: str = "first") -> Callable[[Call], Tensor]:
    """Tokens (b, n, c) with `img_shapes` (frames, h, w) of each picture: the noisy one is the first or the last.

    Layered models have several noisy ones, and one to start from after them.
    """
    return partial(_shaped, layout, noisy)


def _shaped(layout: str, noisy: str, call: Call) -> Tensor:
    tokens, shapes = call.tensor(3), call.lookup("img_shapes")
    if not shapes:
        raise UserError(f"{call.kind} was called without img_shapes, which tell FeRA the grid of its latents")
    pictures = shapes[0] if isinstance(shapes[0], list | tuple) and not isinstance(shapes[0][0], int) else [shapes[0]]
    layers = max(len(pictures) - 1, 1) if call.settings.get("use_layer3d_rope") else 1
    _, h, w = (int(side) for side in pictures[-1 if noisy == "last" else 0])
    count = layers * h * w
    if count > tokens.shape[1] or (len(pictures) == 1 and count != tokens.shape[1]):
        raise UserError(f"{call.kind} was given {tokens.shape[1]} tokens, but img_shapes of {count}")
    chosen = tokens[:, -count:] if noisy == "last" else tokens[:, :count]
    sizes = {"p": 2, "q": 2} if layout == PATCHES else {}
    framed = layout.replace("(h w)", "(t h w)").replace("-> b c", "-> b c t") if layers > 1 else layout
    return einops.rearrange(chosen, framed, h=h, w=w, **sizes)


def framed(call: Call) -> Tensor:
    """Tokens (b, t h w, c) of LTX, with num_frames, height and width, or with the coordinates of each in the video."""
    tokens, count = call.tensor(3), call.given.shape[1]
    sizes = [call.lookup(name) for name in ("num_frames", "height", "width")]
    coordinates = call.lookup("video_coords")
    if all(isinstance(size, int) for size in sizes):
        t, h, w = (int(size) for size in sizes)
    elif isinstance(coordinates, Tensor):
        t, h, w = _remembered(coordinates, count, _trailing_video, call.kind)
    else:
        raise UserError(f"{call.kind} was called without num_frames, height and width: FeRA needs them")
    if t * h * w > count:
        raise UserError(f"{call.kind} was given {count} tokens, but sizes of {t} x {h} x {w}")
    return einops.rearrange(tokens[:, count - t * h * w :], "b (t h w) c -> b c t h w", t=t, h=h, w=w)


def _trailing_video(coordinates: NDArray[Any], tokens: int) -> Shape | None:
    """(t, h, w): frames of a condition come first, each with its own time; those of the video rise to the end."""
    time, row, column = (coordinates[..., 0] if coordinates.ndim == 4 else coordinates)[0]
    h, w = len(np.unique(row)), len(np.unique(column))
    if tokens != len(time) or tokens % (h * w):
        return None
    falls = np.flatnonzero(np.diff(time[:: h * w]) <= 0)
    t = tokens // (h * w) - (int(falls[-1]) + 1 if len(falls) else 0)
    time, row, column = (axis[-t * h * w :].reshape(t, h, w) for axis in (time, row, column))
    straight = (time == time[:, :1, :1]).all() and (row == row[:1, :, :1]).all() and (column == column[:1, :1]).all()
    return (t, h, w) if straight else None


# What is known

FLUX: dict[str, Any] = {"per": 1e-3, "usual": (128, 128)}
_FIELDS = (
    "UNet2DModel", "UNet2DConditionModel", "UNetMotionModel", "UNet3DConditionModel", "Kandinsky3UNet",
    "GaussianDenoiser",
)  # fmt: skip
_TRANSFORMERS = (
    "SD3Transformer2DModel", "PixArtTransformer2DModel", "SanaTransformer2DModel", "HunyuanDiT2DModel",
    "CogView3PlusTransformer2DModel", "CogView4Transformer2DModel", "HunyuanImageTransformer2DModel",
    "Transformer2DModel", "DiTTransformer2DModel", "LatteTransformer3DModel", "AllegroTransformer3DModel",
    "SanaVideoTransformer3DModel",
)  # fmt: skip
_VIDEOS: dict[str, tuple[int, int]] = {
    "WanTransformer3DModel": (60, 104), "WanVACETransformer3DModel": (60, 104),
    "WanAnimateTransformer3DModel": (90, 160), "SkyReelsV2Transformer3DModel": (68, 120),
    "HunyuanVideoTransformer3DModel": (90, 160), "HunyuanVideo15Transformer3DModel": (30, 52),
    "MochiTransformer3DModel": (60, 106), "CosmosTransformer3DModel": (88, 160),
}  # fmt: skip

RECIPES: dict[str, Recipe] = {
    **{name: Recipe(plain, "sample") for name in _FIELDS},
    **{name: Recipe(plain) for name in _TRANSFORMERS},
    **{name: Recipe(plain, usual=usual) for name, usual in _VIDEOS.items()},
    "StableCascadeUNet": Recipe(plain, "sample", "timestep_ratio", usual=(24, 24)),
    "HiDreamImageTransformer2DModel": Recipe(plain, timestep="timesteps", usual=(128, 128)),
    "AuraFlowTransformer2DModel": Recipe(plain, per=1e-3),
    "LuminaNextDiT2DModel": Recipe(plain, per=-1e-3, start=1.0),
    "Lumina2Transformer2DModel": Recipe(plain, per=-1e-3, start=1.0),
    "ZImageTransformer2DModel": Recipe(listed, "x", "t", per=-1e-3, start=1.0, usual=(128, 128)),
    "UNetSpatioTemporalConditionModel": Recipe(frames_first, "sample", usual=(72, 128)),
    "CogVideoXTransformer3DModel": Recipe(frames_first, usual=(60, 90)),
    "ConsisIDTransformer3DModel": Recipe(frames_first, usual=(60, 90)),
    "Kandinsky5Transformer3DModel": Recipe(channels_last, usual=(64, 96)),
    "FluxTransformer2DModel": Recipe(positioned(PATCHES), **FLUX),
    "ChromaTransformer2DModel": Recipe(positioned(PATCHES), **FLUX),
    "OvisImageTransformer2DModel": Recipe(positioned(PATCHES), **FLUX),
    "LongCatImageTransformer2DModel": Recipe(positioned(PATCHES), **FLUX),
    "BriaTransformer2DModel": Recipe(positioned(PATCHES), usual=(128, 128)),
    "BriaFiboTransformer2DModel": Recipe(positioned(TOKENS), usual=(64, 64)),
    "Krea2Transformer2DModel": Recipe(positioned(PATCHES, "position_ids"), **FLUX),
    "Flux2Transformer2DModel": Recipe(positioned(TOKENS), per=1e-3, usual=(64, 64)),
    "Flux3Transformer2DModel": Recipe(positioned(TOKENS), per=1e-3, usual=(64, 64)),
    "QwenImageTransformer2DModel": Recipe(shaped(PATCHES), **FLUX),
    "NucleusMoEImageTransformer2DModel": Recipe(shaped(PATCHES), **FLUX),
    "QwenImage21Transformer2DModel": Recipe(shaped(TOKENS, "last"), per=1e-3, usual=(64, 64)),
    "LTXVideoTransformer3DModel": Recipe(framed, usual=(16, 22)),
    "LTX2VideoTransformer3DModel": Recipe(framed, usual=(16, 24)),
}
"""By class of denoiser, also for its subclasses."""


def recipe_of(model: nn.Module) -> Recipe | None:
    """The recipe of a denoiser's class or of a base of it; None for unknown ones."""
    return next((RECIPES[base.__name__] for base in type(model).__mro__ if base.__name__ in RECIPES), None)


def unknown(latent: str, timestep: str) -> Recipe:
    """How a class is read that no recipe is known for."""
    return Recipe(plain, latent, timestep)
