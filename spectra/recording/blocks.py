"""Band energies inside the denoiser: what each of its blocks puts out, by forward hooks.

Blocks of a UNet put out fields, those of a transformer tokens in raster order. A band means the same frequencies
everywhere: on a grid that is n times coarser than the latents', scales are n times smaller.  With classifier-free
guidance only the half with the prompt counts; which one it is, the denoiser's own output tells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.families import Family
from spectra.recording.split import denoisers

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spectra.recording.split import Split

ROUNDING = 1e-2  # that a prediction may have lost on its way to the scheduler, in half precision
STACKS = ("transformer_blocks", "single_transformer_blocks", "blocks", "layers", "temporal_transformer_blocks")


@dataclass
class BlockWatcher:
    """Watch one call of a pipeline: `watching` around it, `take` at each scheduler step."""

    pipe: Any
    family: Family
    outputs: dict[str, list[Any]] = field(default_factory=dict, init=False)
    predictions: list[Any] = field(default_factory=list, init=False)
    half: int | None = field(default=None, init=False)

    @contextmanager
    def watching(self) -> Iterator[BlockWatcher]:
        """Hook the blocks for the length of a `with`. Raises UserError where hooks cannot fire.

        Networks that take turns (Wan 2.2) have the same blocks, which are one each.
        """
        self.family.denoiser(self.pipe)
        with ExitStack() as stack:
            for denoiser in denoisers(self.pipe, self.family):
                for name, block in blocks_of(denoiser).items():
                    hook = _keep(self.outputs.setdefault(name, []))
                    stack.callback(block.register_forward_hook(hook).remove)
                stack.callback(denoiser.register_forward_hook(_keep(self.predictions)).remove)
            yield self

    def take(self, shape: tuple[int, ...], split: Split | str, bank: FilterBank) -> dict[str, Tensor]:
        """Energies `(b, K)` of each block since the last step, channels and frames summed.

        `shape` is that of the plain latents, `(b, c, [t], h, w)`, and `bank` is meant for their grid. Raises UserError
        where an output has no grid, or cond and uncond cannot be told apart.
        """
        try:
            return {name: self._energy(name, shape, split, bank) for name in self.outputs}
        finally:
            self.predictions.clear()
            for outputs in self.outputs.values():
                outputs.clear()

    def _energy(self, name: str, shape: tuple[int, ...], split: Split | str, bank: FilterBank) -> Tensor:
        import torch

        outputs = self.outputs[name]
        if not outputs or len(outputs) != len(self.predictions):
            raise UserError(f"the block {name} did not run once in each call of the denoiser, so it cannot be recorded")
        fields = torch.cat([field_of(name, output, shape) for output in outputs])
        frames = shape[2] if len(shape) == 5 and fields.ndim == 4 and len(fields) % (shape[0] * shape[2]) == 0 else 1
        halves = fields.unflatten(0, (-1, shape[0], frames))
        if len(halves) > 1:
            halves = halves[self._conditional(len(halves), split) :]
        energy = _scaled(bank, shape[-1] / fields.shape[-1]).energies(halves[0].float())
        return energy.flatten(1, -2).sum(1)

    def _conditional(self, count: int, split: Split | str) -> int:
        """Which part of the batches is made with the prompt: the one whose prediction is `cond`."""
        import torch

        if isinstance(split, str):
            raise UserError(f"blocks are recorded with the prompt only, but {split}")
        if self.half is None:
            parts = torch.cat(self.predictions).unflatten(0, (count, -1))
            parts = parts[(slice(None), *(slice(size) for size in split.cond.shape))]
            misses = [_miss(part, split.cond) for part in parts]
            nearest = misses.index(min(misses))
            if misses[nearest] > ROUNDING:
                raise UserError("blocks are recorded with the prompt only, and which part that is cannot be told")
            if misses.count(misses[nearest]) > 1:  # alike, so either will do, this time
                return nearest
            self.half = nearest
        return self.half


def blocks_of(denoiser: nn.Module) -> dict[str, nn.Module]:
    """The blocks of a denoiser by name. Raises UserError where there are none, or where hooks on them cannot fire."""
    found = {}
    for stack in ("down_blocks", "mid_block", "up_blocks") if hasattr(denoiser, "down_blocks") else STACKS:
        part = getattr(denoiser, stack, None)
        blocks = {stack: part} if stack == "mid_block" else {f"{stack}.{i}": one for i, one in enumerate(part or ())}
        found.update({name: block for name, block in blocks.items() if block is not None})
    name = type(denoiser).__name__
    if not found:
        raise UserError(f"{name} has no blocks that are known, so their energies cannot be recorded")
    if any(_compiled(module) for module in (denoiser, *found.values())):
        raise UserError(f"{name} is compiled, and hooks on blocks do not fire there: record it without torch.compile")
    return found


def _compiled(module: Any) -> bool:
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def _keep(outputs: list[Any]) -> Callable[..., None]:
    def hook(module: Any, args: Any, output: Any) -> None:
        outputs.append(output if isinstance(output, tuple) else getattr(output, "sample", output))
        if len(outputs[-1]) == 1 and isinstance(outputs[-1], tuple):
            outputs[-1] = outputs[-1][0]

    return hook


def field_of(name: str, output: Any, shape: tuple[int, ...]) -> Tensor:
    """The output of a block as fields `(rows, c, [t], h, w)`. Raises UserError if it has no grid."""
    import torch

    parts = [one for one in (output if isinstance(output, tuple) else (output,)) if isinstance(one, torch.Tensor)]
    if parts and parts[0].ndim in (4, 5):
        return parts[0]
    frames, (h, w) = (shape[2] if len(shape) == 5 else 1), shape[-2:]
    grids = [(one, grid) for one in parts if one.ndim == 3 and (grid := _grid(one.shape[1], frames, h, w))]
    if len(grids) != 1:
        sizes = ", ".join(str(tuple(one.shape)) for one in parts)
        raise UserError(f"the block {name} puts out {sizes}, of which the grid of the picture cannot be told")
    tokens, grid = grids[0]
    grid_of_tokens: Tensor = tokens.detach().transpose(1, 2).unflatten(2, grid if frames > 1 else grid[1:])
    return grid_of_tokens


def _grid(tokens: int, frames: int, h: int, w: int) -> tuple[int, int, int] | None:
    """Frames, rows and columns of tokens that stand for square patches of every frame; None if they do not."""
    patch = math.isqrt(frames * h * w // tokens) if tokens else 0
    fits = patch > 0 and patch * patch * tokens == frames * h * w and h % patch == 0 and w % patch == 0
    return (frames, h // patch, w // patch) if fits else None


def _scaled(bank: FilterBank, factor: float) -> FilterBank:
    """`bank` for a grid that is `factor` times coarser."""
    return bank if factor == 1 else FilterBank(scale / factor for scale in bank.scales)


def _miss(part: Tensor, cond: Tensor) -> float:
    """How far a part is from `cond`, up to the sign, relative to it."""
    part, cond = part.float(), cond.float()
    miss = min(float((sign * part - cond).norm()) for sign in (1, -1))
    return miss / max(float(cond.norm()), 1e-30)
