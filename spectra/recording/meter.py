"""Measure the states of one pipeline call on its device, many at once, and bring the numbers home in one copy.

Each state and each prediction is transformed once. Clean samples, noise and the difference of two predictions are
linear in them, so they are made of coefficients, and nothing is transformed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectra.bands import FilterBank, coefficients, radial_sums
from spectra.schema import GUIDED, PAIRS
from spectra.signals import DERIVED, Level, Schedule, clean_and_noise

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Array = NDArray[np.float32]
MEMORY = 256 << 20  # bytes that a call may hold back unmeasured, and that the clean samples of one run may take
WORKING = 16 << 20  # bytes of float32 states that are measured at once
RADIAL_BINS = 64  # finer than the modes of small grids, so that other bands can be asked of the spectrum later


def keeps_coherence(shape: tuple[int, ...], steps: int, signals: tuple[str, ...], memory: int = MEMORY) -> bool:
    """True if the clean samples of one run of plain latents `(b, c, ...)` fit into the memory set aside for them."""
    return "x0" in signals and 4 * int(np.prod(shape[1:])) * steps <= memory


@dataclass(frozen=True)
class Plan:
    """What is measured: see `spectra.schema`. `skip` leading latent frames are left out of temporal bands."""

    bank: FilterBank
    radial_bins: int
    signals: tuple[str, ...]
    temporal: FilterBank | None = None
    skip: int = 0
    blocks: tuple[str, ...] = ()


class States(NamedTuple):
    """Consecutive calls: plain tensors, each `(calls, b, c, [t], h, w)`, and where each call stands.

    `cond` and `uncond` are None where no call has a split; calls without one hold NaN.
    """

    x: Tensor
    out: Tensor
    levels: Sequence[Level]
    cond: Tensor | None = None
    uncond: Tensor | None = None


class Measured(NamedTuple):
    """The arrays of `spectra.schema.Runs`, run first; None for parts that were not asked for."""

    energy: Array
    spectrum: Array
    coherence: Array
    agreement: Array | None
    temporal: Array | None
    block_energy: Array | None


@dataclass
class Meter:
    """Gathers the numbers of one call; they stay on the device until `finish`."""

    plan: Plan
    schedule: Schedule
    keep_clean: bool
    levels: list[Level] = field(default_factory=list)
    energies: list[Tensor] = field(default_factory=list)
    spectra: list[Tensor] = field(default_factory=list)
    clean: list[Tensor] = field(default_factory=list)
    agreements: list[Tensor] = field(default_factory=list)
    temporal: list[Tensor] = field(default_factory=list)
    blocks: list[Tensor] = field(default_factory=list)

    def measure(self, states: States) -> None:
        """Add consecutive calls."""
        import torch

        self.levels += states.levels
        X, P = coefficients(torch.stack([states.x, states.out]).float())
        fields = self._signals(X, P, states)
        square = torch.stack([fields[name] for name in self.plan.signals]).square()
        self._add(square, self._frames(states) if self.plan.temporal else None)
        if self.keep_clean:
            self.clean.append(fields["x0"])
        if GUIDED.issubset(self.plan.signals):
            self.agreements.append(self._agreement(states))

    def add_blocks(self, energies: Mapping[str, Tensor]) -> None:
        """Add one call's energies `(b, K)` of the blocks, by name."""
        import torch

        self.blocks.append(torch.stack([energies[name] for name in self.plan.blocks], 1))

    def finish(self, final: Tensor) -> Measured:
        """Add the finished sample, plain `(b, c, [t], h, w)`. All that belongs to a prediction is NaN there."""
        import torch

        self.levels.append(self.schedule.final)
        end = coefficients(final.float())
        self._last(end, final)
        # (signal, step, b, c, [t], K) -> (b, step, signal, [t], c, K)
        energy = torch.cat(self.energies, 1).movedim((2, 1), (0, 1))
        parts = [energy.transpose(3, 4) if final.ndim == 5 else energy]
        parts.append(torch.cat(self.spectra, 1).permute(2, 1, 0, 3))
        parts.append(self._coherence(end, energy))
        optional = (
            _padded(torch.cat(self.agreements).transpose(0, 1)) if self.agreements else None,
            torch.cat(self.temporal, 1).permute(2, 1, 0, 3, 4) if self.temporal else None,
            _padded(torch.stack(self.blocks, 1)) if self.blocks else None,
        )
        home = iter(_home(*parts, *(one for one in optional if one is not None)))
        first = next(home), next(home), next(home)
        return Measured(*first, *(None if one is None else next(home) for one in optional))

    def _signals(self, X: Tensor, P: Tensor, states: States) -> dict[str, Tensor]:
        """Coefficients of every signal that was asked for, each `(calls, b, c, [t], h, w)`."""
        import torch

        fields = {"latent": X, "prediction": P}
        if DERIVED.intersection(self.plan.signals):
            rule = lambda x, out, level: clean_and_noise(x, out, level, self.schedule)  # noqa: E731
            pairs = zip(("x0", "eps"), _weights(rule, states.levels, X), strict=True)
            fields |= {name: of_x * X + of_out * P for name, (of_x, of_out) in pairs if name in self.plan.signals}
        if GUIDED.intersection(self.plan.signals):
            nothing = torch.full_like(X, torch.nan)
            cond = nothing if states.cond is None else coefficients(states.cond.float())
            uncond = nothing if states.uncond is None else coefficients(states.uncond.float())
            fields |= {"cond": cond, "uncond": uncond, "guidance": cond - uncond}
        return fields

    def _add(self, square: Tensor, frames: Tensor | None) -> None:
        """Sums of squared coefficients `(signal, calls, b, c, [t], h, w)`, and temporal bands of the fields."""
        self.energies.append(self.plan.bank.weigh(square).float())
        self.spectra.append(radial_sums(square.flatten(3, -3).sum(3), self.plan.radial_bins).float())
        if frames is not None:
            self.temporal.append(frames)

    def _last(self, end: Tensor, final: Tensor) -> None:
        """The finished sample as one more call of which only the latent is known."""
        import torch

        square = torch.full((len(self.plan.signals), 1, *end.shape), torch.nan, dtype=end.dtype, device=end.device)
        square[self.plan.signals.index("latent")] = end.square()
        fields = torch.full_like(square, torch.nan)
        fields[self.plan.signals.index("latent")] = final.to(end.dtype)
        self._add(square, self._tempo(fields) if self.plan.temporal else None)

    def _frames(self, states: States) -> Tensor:
        """Temporal energies of every signal, `(signal, calls, b, L, K)`."""
        import torch

        fields = self._signals(states.x.float(), states.out.float(), states._replace(cond=None, uncond=None))
        if states.cond is not None and states.uncond is not None:
            cond, uncond = states.cond.float(), states.uncond.float()
            fields |= {"cond": cond, "uncond": uncond, "guidance": cond - uncond}
        return self._tempo(torch.stack([fields[name] for name in self.plan.signals]))

    def _tempo(self, fields: Tensor) -> Tensor:
        from spectra.temporal import temporal_energies

        assert self.plan.temporal is not None
        flat = temporal_energies(fields.flatten(0, 2), self.plan.temporal, self.plan.bank, skip=self.plan.skip)
        energies: Tensor = flat.float().unflatten(0, fields.shape[:3])
        return energies

    def _agreement(self, states: States) -> Tensor:
        """`(calls, b, pair, K)`, NaN for calls without a split: `spectra.velocity.agreement` of many states at once."""
        import torch

        from spectra.velocity import band_products, velocity

        if states.cond is None or states.uncond is None:
            shape = (*states.x.shape[:2], len(PAIRS), self.plan.bank.bands)
            return torch.full(shape, torch.nan, device=states.x.device)
        x, cond, uncond = (one.to(_exact(one)) for one in (states.x, states.cond, states.uncond))
        of_x, of_out = _weights(lambda x, out, level: (velocity(x, out, level, self.schedule),), states.levels, x)[0]
        cond, uncond = ((of_x * x + of_out * out).flatten(0, 1) for out in (cond, uncond))
        products: Tensor = band_products(cond, uncond, self.plan.bank).float().unflatten(0, states.x.shape[:2])
        return products

    def _coherence(self, end: Tensor, energy: Tensor) -> Tensor:
        """Per run, step and band; frames count as channels. `energy` is that of every signal, already summed."""
        import torch

        bank, b = self.plan.bank, len(end)
        if not self.keep_clean:
            return torch.full((b, len(self.levels), bank.bands), torch.nan, device=end.device)
        index = self.plan.signals.index("x0")
        one = energy[:, :, index].flatten(2, -2).sum(2)
        two = bank.weigh(end.square()).flatten(1, -2).sum(1, keepdim=True)
        both = torch.cat([bank.weigh((clean * end).flatten(2, -3).sum(2)) for clean in self.clean])
        tiny = torch.finfo(both.dtype).tiny
        return _cosine(_padded(both.transpose(0, 1)), one.clamp(min=tiny), two.clamp(min=tiny))


def _weights(
    rule: Callable[[Any, Any, Level], Sequence[Any]], levels: Sequence[Level], like: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Of each result of `rule(x, out, level)`, which is linear, the weights of both, `(calls, 1, ...)` each."""
    import torch

    rows = [[*rule(1.0, 0.0, level), *rule(0.0, 1.0, level)] for level in levels]
    table = torch.tensor(rows, dtype=like.dtype, device=like.device).reshape(len(rows), -1, *(1,) * (like.ndim - 1))
    columns = table.unbind(1)
    return list(zip(columns[: len(columns) // 2], columns[len(columns) // 2 :], strict=True))


def _exact(x: Tensor) -> torch.dtype:
    import torch

    return torch.float32 if x.device.type == "mps" else torch.float64


def _cosine(both: Tensor, one: Tensor, two: Tensor) -> Tensor:
    """0 where either field has no energy in the band."""
    return (both * one.rsqrt() * two.rsqrt()).clamp(-1, 1).float()


def _padded(rows: Tensor) -> Tensor:
    """`(b, calls, ...)` with one more row of NaN, for the finished sample."""
    import torch

    return torch.cat([rows, torch.full_like(rows[:, :1], torch.nan)], 1)


def _home(*tensors: Tensor) -> list[Array]:
    """Tensors -> numpy, in one copy from the device."""
    import torch

    flat = torch.cat([tensor.float().flatten() for tensor in tensors]).cpu().numpy()
    parts = np.split(flat, np.cumsum([tensor.numel() for tensor in tensors])[:-1])
    return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
