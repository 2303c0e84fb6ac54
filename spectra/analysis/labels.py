"""What analyses share: one signal of a cube, its bank and grid, views of its variables, and means with intervals.

Nothing here reads a cube that is larger than memory: results are lazy where the cube is, as `open_cube` gives it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra.analysis.statistics import Array, Interval, Method, mean_interval, method_used, within
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.schema import GUIDED

if TYPE_CHECKING:
    import xarray as xr


SETTING = ("adapter", "guidance_scale", "guidance_rule", "adapter_detail")
"""Labels of a run that say how it was made, besides its prompt and seed."""
MOST = 6  # values that a sentence lists


def select(cube: xr.Dataset, signal: str) -> xr.Dataset:
    """The cube of one signal; of cond, uncond and guidance, the runs where they could be told apart.

    Raises UserError where it was not recorded, or in no run.
    """
    names = [str(name) for name in cube.signal.values]
    if signal not in names:
        raise UserError(f"this cube has no signal {signal!r}: it recorded {', '.join(names)}")
    one = cube.isel(signal=names.index(signal))
    if signal not in GUIDED or "split" not in cube.coords or not cube.sizes["run"]:
        return one
    why = [str(reason) for reason in cube.split.values]
    if all(why):
        raise UserError(f"no run of this cube has the signal {signal!r}: {why[0]}")
    return one.isel(run=[i for i, reason in enumerate(why) if not reason])


def settings_of(cube: xr.Dataset) -> list[dict[str, Any]]:
    """The distinct settings of the runs, in order of appearance: what each has of `SETTING`.

    Runs of several settings answer different questions, and a mean over them answers none.
    """
    names = [name for name in SETTING if name in cube.coords]
    rows = zip(*(cube[name].values.tolist() for name in names), strict=True)
    found = {repr(row): row for row in rows}  # text: NaN, where there is no scale, is not itself
    return [dict(zip(names, row, strict=True)) for row in found.values()]


def settings_in_words(settings: list[dict[str, Any]]) -> list[str]:
    """Each setting by what it takes to tell it from the others, as `select_runs` understands it."""
    names: list[str] = []
    for name in settings[0] if settings else ():
        if _distinct(settings, [*names, name]) > _distinct(settings, names):
            names.append(name)
    return [" ".join(f"{name}={_brief(name, one[name])}" for name in names) for one in settings]


def _distinct(settings: list[dict[str, Any]], names: list[str]) -> int:
    return len({repr([one[name] for name in names]) for one in settings})


def _brief(name: str, value: Any) -> str:
    if name == "adapter_detail" and (hashes := re.findall(r'"hash": "(\w{8})', value)):
        return str(hashes[0])
    return f"{value:g}" if isinstance(value, float) else str(value)


def select_runs(cube: xr.Dataset, **wanted: str | float) -> xr.Dataset:
    """The runs with these labels, such as `adapter="fera"`, `guidance_scale=3` or `prompt="a dot"`.

    Numbers may be given as text. `adapter=""` means none; of `adapter_detail` any part will do, such as the beginning
    of a hash. Raises UserError for a label that runs do not have, and where no run has the value.
    """
    labels = [str(name) for name, c in cube.coords.items() if c.dims == ("run",)]
    for name, value in wanted.items():
        if name not in labels:
            raise UserError(f"runs have no label {name!r}: choose by {', '.join(labels)}")
        chosen = _equal(name, cube[name].values, value)
        if not chosen.any():
            there = dict.fromkeys(_brief(name, one) or "(none)" for one in cube[name].values.tolist())
            raise UserError(f"no run has {name}={value}: this cube has {_some(list(there))}")
        cube = cube.isel(run=np.flatnonzero(chosen))
    return cube


def _equal(name: str, values: Any, value: str | float) -> Any:
    """Which of `values` are `value`, (run,)."""
    if values.dtype.kind not in "iuf":
        inside = name == "adapter_detail" and str(value) != ""
        return np.array([str(value) in one if inside else str(value) == one for one in values.tolist()], bool)
    try:
        number = float(value)
    except ValueError:
        raise UserError(f"{name} is a number, not {value!r}") from None
    return np.isclose(values.astype(np.float64), number, rtol=1e-9, atol=0, equal_nan=True)


def _some(words: list[str]) -> str:
    return ", ".join(words[:MOST]) + (f" and {len(words) - MOST} more" if len(words) > MOST else "")


def prompts_of(data: xr.Dataset | xr.DataArray) -> list[str]:
    """The prompt of each run; without prompts each run is its own."""
    named = data.prompt.values if "prompt" in data.coords else np.arange(data.sizes["run"])
    return [str(name) for name in named]


def noises_of(data: xr.Dataset | xr.DataArray) -> list[Hashable]:
    """What tells the noise of each run from that of others: seed and draw; a run of unknown seed is its own.

    Runs of one prompt that share it are one sample, however often and under whatever settings they were recorded.
    """
    n = data.sizes["run"]
    if "seed" not in data.coords:
        return list(range(n))
    draws = data.draw.values if "draw" in data.coords else np.zeros(n, int)
    pairs = zip(data.seed.values, draws, strict=True)
    return [(int(seed), int(draw)) if seed >= 0 else i for i, (seed, draw) in enumerate(pairs)]


def bank_of(cube: xr.Dataset) -> FilterBank:
    """The bands that a cube was recorded with."""
    return FilterBank.from_dict(_described(cube, "bank"))


def grid_of(cube: xr.Dataset) -> tuple[int, int]:
    """Height and width of the latents, in latent pixels."""
    h, w = _described(cube, "grid")
    return int(h), int(w)


def fields_of(cube: xr.Dataset) -> int:
    """How many fields (channels times frames) the spectrum adds up."""
    return int(cube.sizes["channel"] * cube.sizes.get("frame", 1))


def band_coordinates(cube: xr.Dataset) -> dict[Hashable, xr.DataArray]:
    """The coordinates of the bands: their scales and frequencies."""
    return {name: c for name, c in cube.coords.items() if c.dims == ("band",)}


def summed(energy: xr.DataArray) -> xr.DataArray:
    """Energies over all channels and frames; NaN stays NaN."""
    return energy.sum([dim for dim in ("channel", "frame") if dim in energy.dims], skipna=False)


def shares(cube: xr.Dataset, signal: str = "latent") -> xr.DataArray:
    """Share of each band in the energy of a signal, (run, step, band): channels and frames summed, bands sum to 1.

    Raises UserError where the cube has no such signal.
    """
    energy = summed(select(cube, signal).energy)
    total = energy.sum("band", skipna=False)
    share: xr.DataArray = (energy / total.where(total != 0, 1)).rename("share").transpose("run", "step", "band")
    return share.assign_attrs(long_name=f"share of the energy of {signal}", units="1", valid_range=[0.0, 1.0])


def relative(cube: xr.Dataset) -> xr.DataArray:
    """Energies over those of white noise of unit variance on the same grid, in the dimensions of `energy`.

    1 in every band is the initial noise of a model whose latents start with unit variance.
    """
    floor = bank_of(cube).white_noise(*grid_of(cube)).mean * int(cube.attrs.get("fields", 1))
    # A band that is empty on this grid has nothing to be compared with.
    usable = np.where(floor > 0, floor, np.nan).astype(np.float32)
    ratio: xr.DataArray = cube.energy / cube.band.copy(data=usable)
    ratio = ratio.transpose(*cube.energy.dims).rename("relative")
    return ratio.assign_attrs(long_name="energy over that of unit white noise", units="1")


def coherence(cube: xr.Dataset) -> xr.DataArray:
    """Cosine between x0 at a step and the finished sample, (run, step, band); NaN at the last step.

    Raises UserError where the cube was recorded without x0.
    """
    if "coherence" not in cube or (cube.sizes["run"] and bool(cube.coherence.isel(run=0).isnull().all())):
        raise UserError("this cube has no coherence: record it with the signal x0")
    cosine: xr.DataArray = cube.coherence.transpose("run", "step", "band")
    return cosine.assign_attrs(long_name="coherence of x0 with the finished sample", units="1", valid_range=[-1.0, 1.0])


def mean_over_prompts(
    data: xr.DataArray, *, confidence: float = 0.95, method: Method = "auto", n: int = 2000, seed: int = 0
) -> xr.Dataset:
    """The mean of `data` (run, ...) over seeds within prompts, then over prompts: variables value, low and high (...).

    Lazy where `data` is: all runs of one block of the other dimensions are in memory at a time.  Intervals of data with
    the attribute `valid_range` (shares, coherence) are symmetric in the logit and stay inside.  What was estimated, and
    how, is in the attributes.  Raises UserError where there are no runs.
    """
    import xarray as xr

    if data.sizes["run"] == 0:
        raise UserError("this cube has no complete run to average")
    prompts, bounds = prompts_of(data), data.attrs.get("valid_range")

    def ends(values: Array) -> Interval:
        found = mean_interval(np.moveaxis(values, -1, 0).astype(np.float64), prompts, confidence, method, n, seed)
        return within(found, *bounds) if bounds is not None else found

    together = data.chunk({"run": -1}) if data.chunks is not None else data
    parts = xr.apply_ufunc(
        ends, together.drop_attrs(), input_core_dims=[["run"]], output_core_dims=[[]] * 3, dask="parallelized",
        output_dtypes=[np.float64] * 3,
    )  # fmt: skip
    found = xr.Dataset(dict(zip(("value", "low", "high"), parts, strict=True)))
    clusters = len(set(prompts))
    what = data.attrs.get("long_name", data.name or "value")
    estimand = f"mean {what} over prompts, of means over seeds"
    return found.assign_attrs(described(estimand, method_used(clusters, method, n), clusters, confidence))


def guided(cube: xr.Dataset) -> bool:
    """True where any run was guided: by its rule, or by its scale where the rule was not recorded."""
    rules = [str(r) for r in cube.guidance_rule.values] if "guidance_rule" in cube.coords else []
    known = [rule for rule in rules if rule]
    if known or "guidance_scale" not in cube.coords:
        return any(rule != "none" for rule in known)
    return bool((cube.guidance_scale.values > 1).any())


def described(estimand: str, method: str, n: int, confidence: float, **more: Any) -> dict[str, Any]:
    """Attributes that say what an interval is of."""
    return {"estimand": estimand, "method": method, "n": n, "confidence": confidence, **more}


def _described(cube: xr.Dataset, name: str) -> Any:
    try:
        return json.loads(cube.attrs[name])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"this dataset does not say its {name}, so it is no cube that spectra wrote") from None
