"""`cube.spectra`: the analyses of a cube as methods of its dataset; registered with xarray when this is imported.

    cube = spectra.open_cube("probe.zarr")
    cube.spectra.emergence()
    tuned.spectra.compare(base)

Each method is the function of the same name in `spectra.analysis`, where the formulas are described.  xarray keeps one
accessor per dataset object, so what it found out about a dataset is found out once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from spectra import analysis
from spectra.analysis.labels import bank_of, grid_of
from spectra.errors import UserError

if TYPE_CHECKING:
    from spectra.analysis import By
    from spectra.analysis.comparison import Of
    from spectra.bands import FilterBank


@xr.register_dataset_accessor("spectra")  # type: ignore[no-untyped-call]
class Spectra:
    """Analyses of a cube; a UserError says what is missing where the dataset is none.

    `interval` stands for the options that all intervals have: confidence=0.95, method="auto" (or "t", "bootstrap",
    "percentile"), n=2000 draws and seed=0.
    """

    def __init__(self, cube: xr.Dataset) -> None:
        if "energy" not in cube.variables:
            raise UserError("this dataset has no energy(run, step, ...), so it is no cube: open one with open_cube")
        self._cube = cube
        self.bank: FilterBank = bank_of(cube)
        self.grid: tuple[int, int] = grid_of(cube)

    def __repr__(self) -> str:
        """One line: runs, steps and bands, and what can be asked."""
        sizes = ", ".join(f"{self._cube.sizes.get(dim, 0)} {dim}s" for dim in ("run", "step", "signal", "band"))
        return f"<spectra of a cube: {sizes}; {', '.join(name for name in dir(type(self)) if name[0] != '_')}>"

    def shares(self, signal: str = "latent") -> xr.DataArray:
        """Share of each band in the energy of a signal, (run, step, band); see `spectra.analysis.labels.shares`."""
        return analysis.shares(self._cube, signal)

    def mean_shares(self, signal: str = "latent", **interval: Any) -> xr.Dataset:
        """Mean share over seeds, then prompts: value, low, high (step, band); see `mean`."""
        return self.mean(self.shares(signal), **interval)

    def coherence(self) -> xr.DataArray:
        """Cosine of x0 with the finished sample, (run, step, band); see `spectra.analysis.labels.coherence`."""
        return analysis.coherence(self._cube)

    def mean_coherence(self, **interval: Any) -> xr.Dataset:
        """Mean coherence over seeds, then prompts: value, low, high (step, band)."""
        return self.mean(self.coherence(), **interval)

    def relative(self) -> xr.DataArray:
        """Energies over those of unit white noise, dimensions as `energy`; see `spectra.analysis.labels.relative`."""
        return analysis.relative(self._cube)

    def mean(self, data: xr.DataArray, **interval: Any) -> xr.Dataset:
        """Mean of any (run, ...) of this cube over seeds, then prompts, with its interval: value, low, high (...)."""
        return analysis.mean_over_prompts(data, **interval)

    def emergence(self, threshold: float | None = None, by: By = "coherence", **interval: Any) -> xr.Dataset:
        """When each band is decided, in steps, noise levels and log SNR; see `spectra.analysis.emergence`."""
        return analysis.emergence(self._cube, threshold, by=by, **interval)

    def slope(
        self, signal: str | None = None, fit_range: tuple[float, float] | None = None, **interval: Any
    ) -> xr.Dataset:
        """Spectral exponent per step and signal; see `spectra.analysis.spectrum.slope`."""
        return analysis.slope(self._cube, signal, fit_range=fit_range, **interval)

    def discretisation(self) -> xr.Dataset:
        """Energy that a perfect model keeps at these steps; see `spectra.analysis.discretisation.discretisation`."""
        return analysis.discretisation(self._cube)

    def compare(self, other: xr.Dataset, of: Of = "ratios", **interval: Any) -> xr.Dataset:
        """Log ratio of this cube's energies over another's, paired; see `spectra.analysis.comparison.compare`."""
        return analysis.compare(self._cube, other, of=of, **interval)

    def reband(self, bank: FilterBank) -> xr.Dataset:
        """Energies of other bands, with bounds; see `spectra.analysis.spectrum.reband`."""
        return analysis.reband(self._cube, bank)
