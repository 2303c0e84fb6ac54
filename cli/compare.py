"""What `spectra compare` prints and writes: the table, the figure, the gate and its JUnit file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from cli.common import count, printable
from spectra.errors import UserError

if TYPE_CHECKING:
    import xarray as xr
    from rich.table import Table


def compared_cubes(a: str, b: str, signals: list[str], only_a: list[str], only_b: list[str]) -> xr.Dataset:
    """The comparison of two cubes on disk, a over b, with these signals, or without any all that both have.

    `only_a` and `only_b` choose runs, as `--only` does.
    """
    from cli.show import chosen
    from spectra.analysis import compare

    one, other = chosen(a, only_a, "--only-a"), chosen(b, only_b, "--only-b")
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
    facts, left = compared.attrs, alone(compared)
    words = f"{count(facts['paired'], 'pair')} of runs, {count(facts['n'], 'prompt')}, paired by prompt and seed"
    return words + (f"; {left} without a partner left out" if left else "")


def alone(compared: xr.Dataset) -> int:
    """How many runs have no partner in the other cube."""
    return int(compared.attrs["unpaired_here"] + compared.attrs["unpaired_there"])


def lonely(compared: xr.Dataset) -> str:
    """The same as a clause; empty where all have one."""
    facts = compared.attrs
    if not alone(compared):
        return ""
    where = f"{facts['unpaired_here']} of A, {facts['unpaired_there']} of B"
    return f"runs without a partner in the other cube: {where}; record the same prompts and seeds for both"


@dataclass(frozen=True)
class Worst:
    """An entry along `step` of a band of a signal that differs much, as a log ratio.

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
    """The largest difference of each band of each signal, infinite ones too; bands without any value are left out.

    Raises UserError where no band has a value.
    """
    found = [_largest(cells) for cells in _bands(compared)]
    if not found:
        raise UserError("nothing was compared: no band of any signal has energy in all runs of both cubes")
    return found


def telling(compared: xr.Dataset) -> list[Worst]:
    """The same among the differences that are sure; where no step has one, the largest of all."""
    return [_largest([cell for cell in cells if cell.sure] or cells) for cells in _bands(compared)]


def _largest(cells: list[Worst]) -> Worst:
    return max(cells, key=lambda cell: abs(cell.value))


def _bands(compared: xr.Dataset) -> Iterator[list[Worst]]:
    """The entries along `step` that have a value, of each band of each signal that has any."""
    for signal in np.atleast_1d(compared.signal.values):
        part = compared.sel(signal=signal) if "signal" in compared.dims else compared
        values = [part[name].transpose("step", "band").values for name in ("value", "low_all", "high_all")]
        for band in range(part.sizes["band"]):
            steps = np.flatnonzero(~np.isnan(values[0][:, band]))
            if len(steps):
                yield [Worst(str(signal), band, int(i), *(float(v[i, band]) for v in values)) for i in steps]


def percent(log_ratio: float) -> str:
    """A log ratio as a change in per cent, and as a factor where it doubles."""
    from spectra.plots.heatmap import ratio

    change = 100 * math.expm1(min(log_ratio, 700.0))
    if not math.isfinite(log_ratio):
        return "unbounded"
    return "0 %" if abs(change) < 0.005 else f"{change:+.2f} %" if abs(change) < 100 else ratio(log_ratio)


def failures(rows: list[Worst], limit: float | None) -> list[Worst]:
    """The rows whose difference is larger than `limit`, as an absolute log ratio."""
    return [] if limit is None else [row for row in rows if not abs(row.value) <= limit]


def table(compared: xr.Dataset, rows: list[Worst], title: str) -> Table:
    """The rows for people."""
    from rich.markup import escape
    from rich.table import Table

    from spectra.plots import band_labels

    caption = (
        f"{about(compared)}.\nShown: {compared.attrs['estimand']}; 95 % intervals that hold for all cells together.\n"
        "Per band, the largest difference whose interval excludes none; where there is no such step, the largest."
    )
    found = Table(title=escape(title), caption=escape(caption), title_justify="left", caption_justify="left")
    for name in ("Signal", "Band", "Scales", "A over B", "Interval", "At step"):
        found.add_column(name, justify="left" if name == "Signal" else "right")
    labels = band_labels(compared)
    for row in rows:
        bounds = f"{percent(row.low)} to {percent(row.high)}" + ("" if row.sure else "  (includes none)")
        found.add_row(
            escape(printable(row.signal)), str(row.band), labels[row.band], percent(row.value), bounds, str(row.step)
        )
    return found


def document(compared: xr.Dataset, rows: list[Worst], limit: float | None) -> dict[str, Any]:
    """The comparison for scripts."""
    names = ("estimand", "method", "n", "confidence", "resolution", "paired", "unpaired_here", "unpaired_there")
    facts = {name: compared.attrs.get(name) for name in names}
    failed = failures(rows, limit)
    cells = [{**_cell(row), "failed": row in failed} for row in rows]
    sure = [_cell(row) for row in telling(compared) if row.sure]
    pairing = limit is not None and alone(compared) > 0
    gate = {"fail_above": limit, "failed": len(failed), "pairing_failed": pairing}
    return {**facts, **gate, "largest": cells, "largest_sure": sure}


def _cell(row: Worst) -> dict[str, Any]:
    return {**vars(row), "percent": 100 * math.expm1(row.value)}


def write_junit(path: Path, rows: list[Worst], limit: float, seconds: float, unpaired: str = "") -> None:
    """One test case per signal and band, and one for the pairing, in the format that continuous integration reads.

    `unpaired` says which runs have no partner; empty if all have one.
    """
    failed = failures(rows, limit)
    why = [(printable(row.signal), f"band {row.band}", _why(row, limit) if row in failed else "") for row in rows]
    why.append(("runs", "pairing", unpaired))
    number = sum(bool(words) for _, _, words in why)
    counts = {"tests": str(len(why)), "failures": str(number), "errors": "0", "time": f"{seconds:.3f}"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "spectra compare", **counts})
    for group, name, words in why:
        case = ElementTree.SubElement(suite, "testcase", {"classname": group, "name": name})
        if words:
            ElementTree.SubElement(case, "failure", {"message": printable(words)})
    scratch = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        ElementTree.ElementTree(root).write(scratch, encoding="utf-8", xml_declaration=True)
        scratch.replace(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {path}: {reason}; choose another place with --junit") from error
    finally:
        with suppress(OSError):
            scratch.unlink()


def _why(row: Worst, limit: float) -> str:
    return (
        f"energy differs by {percent(row.value)} at step {row.step} ({percent(row.low)} to {percent(row.high)}), "
        f"more than {percent(limit)}"
    )
