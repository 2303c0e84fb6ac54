"""The path of the latents through band space, read from a probed cube."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectra.bands import FilterBank
from spectra.errors import UserError

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]

SIGNAL = "latent"
SMALLEST_SHARE = 1e-8  # below it a band counts as empty, here and for the router, and its logarithm stays finite


@dataclass(frozen=True)
class Trajectory:
    """Latents as the denoiser was given them, the noisiest step first.

    `noise_level` (steps,), `shares` (runs, steps, bands); the finished sample is left out, because no denoiser sees it.
    """

    noise_level: Array
    shares: Array
    bank: FilterBank
    grid: tuple[int, int]
    provenance: dict[str, Any]

    @property
    def log_shares(self) -> Array:
        """What a router reads, before it is standardised: (runs, steps, bands)."""
        logs: Array = np.log(np.maximum(self.shares, SMALLEST_SHARE))
        return logs

    @property
    def position(self) -> Array:
        """Quantile of each step among the noise levels, from 0 (noise) to 1 (finished), (steps,); ties share one."""
        noisier = (self.noise_level[:, None] < self.noise_level).sum(1)
        equal = (self.noise_level[:, None] == self.noise_level).sum(1)
        position: Array = (noisier + equal / 2) / len(self.noise_level)
        return position


def read_trajectory(cube: xr.Dataset | str | Path) -> Trajectory:
    """The trajectory of a cube, or of the cube at a path.  Raises UserError where the cube lacks what is needed."""
    opened = _open(cube)
    _refuse_mixed(opened)
    energy, noise_level = _energy(opened), _noise_level(opened)
    whole = np.isfinite(energy).all((1, 2)) & (energy.sum(2) > 0).all(1)
    if not whole.any() or energy.shape[1] < 2:
        raise UserError("this cube has no complete run of two or more steps: probe again, to the end")
    bank, energy = _bank(opened), energy[whole]
    if energy.shape[2] != bank.bands:
        raise UserError(f"this cube has {energy.shape[2]} bands, but its filter bank has {bank.bands}: it is damaged")
    order = np.argsort(-noise_level, kind="stable")
    shares = energy / energy.sum(2, keepdims=True)
    provenance = _provenance(opened, "" if opened is cube else str(cube), len(energy))
    return Trajectory(noise_level[order], shares[:, order], bank, _grid(opened), provenance)


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


def _energy(cube: xr.Dataset) -> Array:
    """Band energies over channels and frames, (runs, steps, bands), without the finished sample."""
    if "energy" not in cube.variables:
        raise UserError("this cube has no energy: record it with `spectra probe`")
    if "signal" not in cube.coords or SIGNAL not in cube["signal"].values:
        raise UserError(f"this cube has no signal {SIGNAL!r}: a prior needs it, so probe again with it")
    energy = cube["energy"].sel(signal=SIGNAL)
    energy = energy.sum([d for d in energy.dims if d not in ("run", "step", "band")], skipna=False, dtype=np.float64)
    values: Array = energy.transpose("run", "step", "band").to_numpy()
    return values[:, :-1]


def _noise_level(cube: xr.Dataset) -> Array:
    if "noise_level" not in cube.variables or not np.isfinite(cube["noise_level"].values[:-1]).all():
        raise UserError("this cube does not say the noise level of each step: a prior needs it, so probe again")
    levels: Array = cube["noise_level"].to_numpy().astype(np.float64)
    return levels[:-1]


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


def _provenance(cube: xr.Dataset, source: str, runs: int) -> dict[str, Any]:
    texts = {name: str(cube.attrs.get(name, "")) for name in ("model", "family")}
    return {**texts, "model_hash": str(_attribute(cube, "model_hash")), "cube": source, "signal": SIGNAL, "runs": runs}


def _attribute(cube: xr.Dataset, name: str) -> Any:
    if name not in cube.attrs:
        raise UserError(f"this cube does not say its {name}: record it with `spectra probe`")
    return cube.attrs[name]
