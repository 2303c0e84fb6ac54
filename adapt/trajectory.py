"""The path of the latents through frequency space, read from a probed cube.

Energies of any filter bank come from the recorded radial spectrum, with bounds (`spectra.reband`); those of the bank
that the cube was recorded with are the recorded ones, which are exact.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from spectra.bands import FilterBank
from spectra.errors import UserError

if TYPE_CHECKING:
    import xarray as xr

    from spectra.reband import Rebanded

Array = NDArray[np.float64]

SIGNAL = "latent"
SMALLEST_SHARE = 1e-8  # below it a band counts as empty, here and for the router, and its logarithm stays finite
MOST_LOG_SNR = 14.0  # beyond it a state counts as pure noise, or as clean, here and for the router
FEWEST = 4  # prompts; with fewer, each run counts as a unit of its own


@dataclass(frozen=True)
class Trajectory:
    """Latents as the denoiser was given them, the noisiest step first; the finished sample, which it never sees, apart.

    `noise_level`, `log_snr` and `timestep` (steps,); `recorded` (runs, steps, K) and `recorded_end` (runs, K) are
    energies in the cube's own `bank`, channels and frames summed, `spectrum` (runs, steps, R) and `finished` (runs, R)
    radial spectra with bins at `radius` (R,); `fields` counts channels times frames.  `unit` (runs,) names what counts
    as one independent observation, of a `kind`: a prompt, of data a picture, and with fewer than 4 of them a run.
    """

    source: Literal["generation", "data"]
    noise_level: Array
    log_snr: Array
    timestep: Array
    recorded: Array
    recorded_end: Array
    spectrum: Array
    finished: Array
    radius: Array
    bank: FilterBank
    grid: tuple[int, int]
    fields: int
    unit: tuple[str, ...]
    kind: str
    scheduler: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def runs(self) -> int:
        """Number of complete runs."""
        return len(self.recorded)

    @property
    def position(self) -> Array:
        """Quantile of each step among the noise levels, from 0 (noise) to 1 (finished), (steps,); ties share one."""
        noisier = (self.log_snr[:, None] > self.log_snr).sum(1)
        equal = (self.log_snr[:, None] == self.log_snr).sum(1)
        position: Array = (noisier + equal / 2) / len(self.log_snr)
        return position

    def thinned(self, most: int) -> Trajectory:
        """The same with at most so many runs, evenly spread over all."""
        kept = np.unique(np.linspace(0, self.runs - 1, min(most, self.runs)).round().astype(int))
        some = {name: getattr(self, name)[kept] for name in ("recorded", "recorded_end", "spectrum", "finished")}
        return replace(self, **some, unit=tuple(self.unit[i] for i in kept))

    def rebanded(self, bank: FilterBank) -> Rebanded:
        """Energies of `bank` from the radial spectrum, with the least and the largest that it allows."""
        from spectra.reband import reband

        return reband(self.spectrum, self.radius, self.grid, bank)

    def energy(self, bank: FilterBank) -> Array:
        """Energies (runs, steps, bands) of the latents: recorded ones where they are, else from the spectrum."""
        return self.recorded if bank == self.bank else self.rebanded(bank).value

    def clean_energy(self, bank: FilterBank) -> Array:
        """The same of the finished samples, or of clean data, (runs, bands)."""
        from spectra.reband import reband

        return self.recorded_end if bank == self.bank else reband(self.finished, self.radius, self.grid, bank).value

    def feature(self, name: str, bank: FilterBank) -> Array:
        """What a router of these bands reads before it is standardised, by name, (runs, steps, width).

        `shares`: log E_b / sum E.  `snr`: log of E_b over what the noise alone has there, noise_level^2 fields sum
        D_b^2; a factor on the whole state cancels, so it is the same in the space of any sampler.  `log_snr`: the
        step's own.
        """
        energy = self.energy(bank)
        if name == "shares":
            return log_shares(energy)
        if name == "snr":
            return self._over_noise(energy, bank)
        level = np.clip(self.log_snr, -MOST_LOG_SNR, MOST_LOG_SNR)
        return np.broadcast_to(level[:, None], (*energy.shape[:2], 1)).copy()

    def _over_noise(self, energy: Array, bank: FilterBank) -> Array:
        """Log of energies over those expected of the noise; 0 in bands that the grid lacks."""
        white = bank.white_noise(*self.grid).mean
        there = white > 1e-12 * self.grid[0] * self.grid[1]
        least = np.exp(np.maximum(self.log_snr - MOST_LOG_SNR, 0))  # below it noise counts as so much
        noise = self.fields * (self.noise_level**2 * least)[:, None] * np.where(there, white, 1.0)
        found: Array = np.log(np.maximum(np.where(there, energy / noise, 1.0), SMALLEST_SHARE))
        return found


def log_shares(energy: Array) -> Array:
    """Logarithm of each band's share of energies (..., bands)."""
    found: Array = np.log(np.maximum(energy / energy.sum(-1, keepdims=True), SMALLEST_SHARE))
    return found


def read_trajectory(cube: xr.Dataset | str | Path) -> Trajectory:
    """The trajectory of a cube, or of the cube at a path.  Raises UserError where the cube lacks what is needed."""
    opened = _open(cube)
    _refuse_mixed(opened)
    energy, spectrum = _summed(opened, "energy", "band"), _summed(opened, "spectrum", "radius")
    whole = _whole(energy) & _whole(spectrum)
    if not whole.any() or energy.shape[1] < 3:
        raise UserError("this cube has no complete run of two or more steps: probe again, to the end")
    levels = {name: _level(opened, name) for name in ("noise_level", "log_snr", "timestep")}
    bank, grid, energy, spectrum = _bank(opened), _grid(opened), energy[whole], spectrum[whole]
    if energy.shape[2] != bank.bands:
        raise UserError(f"this cube has {energy.shape[2]} bands, but its filter bank has {bank.bands}: it is damaged")
    order = np.argsort(levels["log_snr"], kind="stable")
    data = opened.attrs.get("sampler") == "forward"
    unit, kind = _units(opened, whole, data)
    return Trajectory(
        source="data" if data else "generation", **{name: level[order] for name, level in levels.items()},
        recorded=energy[:, order], recorded_end=energy[:, -1], spectrum=spectrum[:, order], finished=spectrum[:, -1],
        radius=opened.radius.to_numpy().astype(np.float64),
        bank=bank, grid=grid, fields=opened.sizes["channel"] * opened.sizes.get("frame", 1), unit=unit, kind=kind,
        scheduler=_scheduler(opened), provenance=_provenance(opened, "" if opened is cube else str(cube), len(unit)),
    )  # fmt: skip


def _refuse_mixed(cube: xr.Dataset) -> None:
    """A mean over runs of the base model, of adapters and of several guidance scales is the trajectory of none."""
    from spectra.analysis.labels import settings_in_words, settings_of

    if len(settings := settings_of(cube)) > 1:
        raise UserError(
            f"this cube holds runs of {len(settings)} settings ({'; '.join(settings_in_words(settings)[:4])}): learn "
            "from one of them, such as spectra.analysis.labels.select_runs(cube, adapter=''), or probe to a new cube"
        )


def _open(cube: xr.Dataset | str | Path) -> xr.Dataset:
    if isinstance(cube, str | Path):
        from spectra.cube import open_cube

        return open_cube(str(cube))
    return cube


def _summed(cube: xr.Dataset, name: str, last: str) -> Array:
    """A variable of the latent over channels and frames, (runs, steps and the finished sample, ...)."""
    if name not in cube.variables:
        raise UserError(f"this cube has no {name}: record it with `spectra probe`")
    if "signal" not in cube.coords or SIGNAL not in cube["signal"].values:
        raise UserError(f"this cube has no signal {SIGNAL!r}: a prior needs it, so probe again with it")
    found = cube[name].sel(signal=SIGNAL)
    found = found.sum([d for d in found.dims if d not in ("run", "step", last)], skipna=False, dtype=np.float64)
    values: Array = found.transpose("run", "step", last).to_numpy().astype(np.float64)
    return values


def _whole(values: Array) -> NDArray[np.bool_]:
    """Runs whose every step is there and holds energy, (runs,)."""
    whole: NDArray[np.bool_] = np.isfinite(values).all((1, 2)) & (values.sum(2) > 0).all(1)
    return whole


def _level(cube: xr.Dataset, name: str) -> Array:
    """A coordinate of the denoiser's calls, (steps,); log SNR may be infinite where there is noise alone."""
    missing = name not in cube.variables or np.isnan(cube[name].values[:-1]).any()
    if missing or (name == "noise_level" and not (cube[name].values[:-1] > 0).all()):
        raise UserError(
            f"this cube does not say the {name.replace('_', ' ')} of each step: a prior needs it, so probe again"
        )
    level: Array = cube[name].to_numpy().astype(np.float64)[:-1]
    return level


def _units(cube: xr.Dataset, whole: NDArray[np.bool_], data: bool) -> tuple[tuple[str, ...], str]:
    """The independent unit that each complete run belongs to, and what such a unit is called."""
    from spectra.analysis.labels import prompts_of

    names = prompts_of(cube)
    if data and "draw" in cube.coords:
        names = [f"{name} #{draw}" for name, draw in zip(names, cube.draw.values, strict=True)]
    kept = tuple(name for name, there in zip(names, whole, strict=True) if there)
    if len(set(kept)) >= FEWEST:
        return kept, "picture" if data else "prompt"
    return tuple(f"run {i}" for i in range(len(kept))), "run"


def _bank(cube: xr.Dataset) -> FilterBank:
    saved = _attribute(cube, "bank")
    try:
        return FilterBank.from_dict(json.loads(saved) if isinstance(saved, str) else saved)
    except (ValueError, TypeError) as error:
        raise UserError(f"this cube's filter bank cannot be read: {error}") from error


def _grid(cube: xr.Dataset) -> tuple[int, int]:
    saved = _attribute(cube, "grid")
    try:
        h, w = json.loads(saved) if isinstance(saved, str) else saved
        return int(h), int(w)
    except (ValueError, TypeError) as error:
        raise UserError(f"this cube's grid cannot be read: {error}") from error


def _scheduler(cube: xr.Dataset) -> dict[str, Any]:
    """What the cube says of its scheduler; empty where it says nothing that can be read."""
    try:
        saved = json.loads(cube.attrs.get("scheduler", "{}"))
    except (ValueError, TypeError):
        return {}
    return saved if isinstance(saved, dict) else {}


def _provenance(cube: xr.Dataset, source: str, runs: int) -> dict[str, Any]:
    texts = {name: str(cube.attrs.get(name, "")) for name in ("model", "family")}
    return {**texts, "model_hash": str(_attribute(cube, "model_hash")), "cube": source, "signal": SIGNAL, "runs": runs}


def _attribute(cube: xr.Dataset, name: str) -> Any:
    if name not in cube.attrs:
        raise UserError(f"this cube does not say its {name}: record it with `spectra probe`")
    return cube.attrs[name]
