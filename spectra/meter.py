"""Measure the states of one pipeline call on its device, and bring the numbers home in one copy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spectra.bands import FilterBank, coherence, radial_spectrum
from spectra.signals import DERIVED, Level, Schedule, clean_and_noise

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float32]
COHERENCE_BYTES = 256 << 20  # of clean samples kept per run; beyond it coherence is not recorded


def default_radial_bins(grid: tuple[int, int]) -> int:
    """Bins no finer than the modes along the longer side, at most 64."""
    return min(max(grid), 64)


def keeps_coherence(shape: tuple[int, ...], steps: int, signals: tuple[str, ...]) -> bool:
    """True if the clean samples of one run of plain latents `(b, c, ...)` fit into memory set aside for them."""
    return "x0" in signals and 4 * int(np.prod(shape[1:])) * steps <= COHERENCE_BYTES


@dataclass
class Meter:
    """Band energies and radial spectra of each step of a call; plain latents `(b, c, [t], h, w)` go in."""

    bank: FilterBank
    radial_bins: int
    signals: tuple[str, ...]
    schedule: Schedule
    keep_clean: bool
    levels: list[Level] = field(default_factory=list)
    energies: list[torch.Tensor] = field(default_factory=list)
    spectra: list[torch.Tensor] = field(default_factory=list)
    clean: list[torch.Tensor] = field(default_factory=list)

    def observe(self, x: torch.Tensor, out: torch.Tensor, level: Level) -> None:
        """One scheduler call: its state, the prediction that it was given, and where it stands."""
        fields = self._fields(x.float(), out.float(), level)
        self._measure(fields, level)
        if self.keep_clean:
            self.clean.append(fields[self.signals.index("x0")])

    def forget_last(self) -> None:
        """Drop the last call, for a pipeline that takes it back."""
        for rows in (self.levels, self.energies, self.spectra, self.clean):
            del rows[-1:]

    def finish(self, final: torch.Tensor) -> tuple[Array, Array, Array]:
        """Add the finished sample -> energy (b, step, signal, [t], c, K), spectrum (b, step, signal, R), coherence.

        Coherence is (b, step, K). Signals of the prediction, and coherence, are NaN at the last step; coherence is NaN
        throughout where clean samples are not kept.
        """
        import torch

        final = final.float()
        nothing = torch.full_like(final, torch.nan)
        self._measure(
            torch.stack([final if name == "latent" else nothing for name in self.signals]), self.schedule.final
        )
        energy = torch.stack(self.energies).movedim(
            2, 0
        )  # (step, signal, b, c, [t], K) -> (b, step, signal, c, [t], K)
        if final.ndim == 5:
            energy = energy.transpose(3, 4)
        home = _home(energy, torch.stack(self.spectra).movedim(2, 0), self._coherence(final))
        return home[0], home[1], home[2]

    def _fields(self, x: torch.Tensor, out: torch.Tensor, level: Level) -> torch.Tensor:
        import torch

        fields = {"latent": x, "prediction": out}
        if DERIVED.intersection(self.signals):
            fields["x0"], fields["eps"] = clean_and_noise(x, out, level, self.schedule)
        return torch.stack([fields[name] for name in self.signals])

    def _measure(self, fields: torch.Tensor, level: Level) -> None:
        self.levels.append(level)
        self.energies.append(self.bank.energies(fields))
        spectrum = radial_spectrum(fields, self.radial_bins)
        self.spectra.append(spectrum.sum(tuple(range(2, spectrum.ndim - 1))))

    def _coherence(self, final: torch.Tensor) -> torch.Tensor:
        """Per run, step and band; frames count as channels."""
        import torch

        off = final.new_full((len(final), self.bank.bands), torch.nan)
        if not self.keep_clean:
            return torch.stack([off] * len(self.levels), 1)
        end = final.flatten(1, -3)
        return torch.stack([*(coherence(x0.flatten(1, -3), end, self.bank) for x0 in self.clean), off], 1)


def _home(*tensors: torch.Tensor) -> list[Array]:
    """Tensors -> numpy, in one copy from the device."""
    import torch

    flat = torch.cat([tensor.float().flatten() for tensor in tensors]).cpu().numpy()
    parts = np.split(flat, np.cumsum([tensor.numel() for tensor in tensors])[:-1])
    return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
