"""What `spectra compare` prints and writes: the table, the figure, the gate and its JUnit file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from cli.common import count
from spectra.errors import UserError

if TYPE_CHECKING:
    import xarray as xr
    from rich.table import Table


def compared_cubes(a: str, b: str, signals: list[str] | None) -> xr.Dataset:
    """The comparison of two cubes on disk, a over b, with some of the signals or all that both have."""
    from spectra.analysis import compare
    from spectra.cube import open_cube

    one, other = (open_cube(store) for store in (a, b))
    if signals:
        one, other = _only(one, a, signals), _only(other, b, signals)
    return compare(one, other)


def _only(cube: xr.Dataset, store: str, signals: list[str]) -> xr.Dataset:
    there = [str(name) for name in cube.signal.values]
    for name in signals:
        if name not in there:
            raise UserError(f"{store} has no signal {name!r}: it recorded {', '.join(there)}")
    return cube.isel(signal=[there.index(name) for name in signals])


def about(compared: xr.Dataset) -> str:
    """What was paired, in a line."""
    facts = compared.attrs
    left = facts["unpaired_here"] + facts["unpaired_there"]
    words = f"{count(facts['paired'], 'pair')} of runs, {count(facts['n'], 'prompt')}, paired by prompt and seed"
    return words + (f"; {left} without a partner left out" if left else "")


@dataclass(frozen=True)
class Worst:
    """The entry along `step` where a band of a signal differs most, as a log ratio.

    Its interval holds for all cells together, because it was chosen among them.
    """

    signal: str
    band: int
    step: int
    value: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """True where the interval excludes no difference."""
        return self.low > 0 or self.high < 0


def worst(compared: xr.Dataset) -> list[Worst]:
    """The largest difference of each band of each signal; bands without any finite value are left out."""
    found = []
    for signal in np.atleast_1d(compared.signal.values):
        part = compared.sel(signal=signal) if "signal" in compared.dims else compared
        values = {name: part[name].transpose("step", "band").values for name in ("value", "low_all", "high_all")}
        for band in range(part.sizes["band"]):
            column = values["value"][:, band]
            if np.isfinite(column).any():
                step = int(np.nanargmax(np.abs(column)))
                found.append(Worst(str(signal), band, step, *(float(v[step, band]) for v in values.values())))
    return found


def percent(log_ratio: float) -> str:
    """A log ratio as a change in per cent."""
    change = 100 * math.expm1(min(log_ratio, 700.0))
    if not math.isfinite(log_ratio):
        return "unbounded"
    return "0 %" if abs(change) < 0.005 else f"{change:+.2f} %" if abs(change) < 100 else f"{change:+.3g} %"


def failures(rows: list[Worst], limit: float | None) -> list[Worst]:
    """The rows whose difference is larger than `limit`, as an absolute log ratio."""
    return [] if limit is None else [row for row in rows if not abs(row.value) <= limit]


def table(compared: xr.Dataset, rows: list[Worst], title: str) -> Table:
    """The rows for people."""
    from rich.markup import escape
    from rich.table import Table

    from spectra.plots import band_labels

    caption = f"{about(compared)}. {compared.attrs['estimand']}; 95 % intervals that hold for all cells together."
    found = Table(title=escape(title), caption=escape(caption))
    for name in ("Signal", "Band", "Scales", "Largest difference", "Interval", "At step"):
        found.add_column(name, justify="left" if name == "Signal" else "right")
    labels = band_labels(compared)
    for row in rows:
        bounds = f"{percent(row.low)} to {percent(row.high)}" + ("" if row.sure else "  (includes none)")
        found.add_row(row.signal, str(row.band), labels[row.band], percent(row.value), bounds, str(row.step))
    return found


def document(compared: xr.Dataset, rows: list[Worst], limit: float | None) -> dict[str, Any]:
    """The comparison for scripts."""
    names = ("estimand", "method", "n", "confidence", "paired", "unpaired_here", "unpaired_there")
    facts = {name: compared.attrs.get(name) for name in names}
    failed = failures(rows, limit)
    cells = [{**vars(row), "percent": 100 * math.expm1(row.value), "failed": row in failed} for row in rows]
    return {**facts, "fail_above": limit, "failed": len(failed), "largest": cells}


def write_junit(path: Path, rows: list[Worst], limit: float, seconds: float) -> None:
    """One test case per signal and band, in the format that continuous integration reads."""
    failed = failures(rows, limit)
    counts = {"tests": str(len(rows)), "failures": str(len(failed)), "errors": "0", "time": f"{seconds:.3f}"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "spectra compare", **counts})
    for row in rows:
        case = ElementTree.SubElement(suite, "testcase", {"classname": row.signal, "name": f"band {row.band}"})
        if row in failed:
            ElementTree.SubElement(case, "failure", {"message": _why(row, limit)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another place with --junit") from error


def _why(row: Worst, limit: float) -> str:
    return (
        f"energy differs by {percent(row.value)} at step {row.step} ({percent(row.low)} to {percent(row.high)}), "
        f"more than {percent(limit)}"
    )
