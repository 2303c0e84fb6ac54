"""What cubes cost: adding runs, opening, and summarising up to a million of them with dask.

    python -m benchmarks.cube [--most 1000000]

Synthetic runs (10 steps, 1 signal, 2 channels, 4 bands) are written with many runs per chunk, as `cube.compact` leaves
them, and their energy shares are averaged over runs: mean and standard deviation per step and band. Prints runs per
second, the peak of resident memory, and the exponent of time against the number of runs (1 is linear), all of them
medians, and writes benchmarks/results/cube.json. Each summary is made in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from parts.clock import seconds as timed

from spectra import cube
from spectra.bands import FilterBank
from spectra.schema import Header, Runs

RESULTS = Path(__file__).parent / "results" / "cube.json"
COUNTS = (10_000, 100_000, 1_000_000)
BLOCK = 16_384
REPEATS = 3
STEPS, CHANNELS, BANDS = 10, 2, 4
LEVELS = np.linspace(0, 1, STEPS)
HEADER = Header(
    signals=("latent",), bank=FilterBank.octaves(BANDS, (16, 16)), grid=(16, 16), channels=CHANNELS, frames=None,
    radial_bins=4, timestep=tuple(999 * (1 - LEVELS)), signal_level=tuple(LEVELS), noise_level=tuple(1 - LEVELS),
    facts={"model_hash": "synthetic"}, notes={"model": "synthetic"},
)  # fmt: skip
FULL = Header(
    signals=("latent", "x0", "eps", "prediction"), bank=FilterBank.octaves(4, (64, 64)), grid=(64, 64), channels=4,
    frames=None, radial_bins=64, timestep=tuple(np.linspace(999, 0, 31)), signal_level=tuple(np.linspace(0, 1, 31)),
    noise_level=tuple(np.linspace(1, 0, 31)), facts={"model_hash": "synthetic"}, notes={"model": "synthetic"},
)  # fmt: skip


def runs(header: Header, count: int, seed: int) -> Runs:
    """Runs of random energies."""
    random = np.random.default_rng(seed)
    lead = (count, header.steps, len(header.signals))

    def values(*shape: int) -> Any:
        return random.random(shape, np.float32) + np.float32(0.5)

    empty = [""] * count
    return Runs(
        energy=values(*lead, header.channels, header.bank.bands), spectrum=values(*lead, header.radial_bins),
        coherence=values(count, header.steps, header.bank.bands), prompt=[f"prompt {i % 100}" for i in range(count)],
        negative_prompt=empty, seed=list(range(count)), draw=[0] * count, guidance_scale=[1.0] * count, adapter=empty,
        adapter_detail=empty, guidance_rule=["none"] * count, split=empty,
    )  # fmt: skip


def fill(place: Path, count: int) -> float:
    """Write that many runs in blocks -> seconds."""
    start = time.perf_counter()
    cube.create(place, HEADER, cube.Layout(count, data=BLOCK, labels=BLOCK, status=1 << 20))
    writer = cube.Writer(place)
    for block, at in enumerate(range(0, count, BLOCK)):
        writer.append(runs(HEADER, min(BLOCK, count - at), block))
    writer.close()
    return time.perf_counter() - start


def summary(place: Path) -> tuple[float, float, float, float]:
    """Seconds to open, seconds to summarise, peak of resident MB, and the first mean, of one cube."""
    import resource

    import dask

    start = time.perf_counter()
    opened = cube.open_cube(place, lazy=True)
    middle = time.perf_counter()
    energy = opened.energy.sel(signal="latent").sum("channel")
    shares = energy / energy.sum("band")
    both = shares.astype("float64")
    first, second = both.mean("run"), (both**2).mean("run")
    first, second = dask.compute(first, second, scheduler="threads", num_workers=2)
    spread = np.sqrt(second - first**2)
    assert float(abs(first.sum("band") - 1).max()) < 1e-6
    assert float(spread.min()) > 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return middle - start, time.perf_counter() - middle, peak, float(first[0, 0])


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def scale(folder: Path, count: int) -> dict[str, float]:
    """All that is measured of one number of runs."""
    place = folder / f"{count}.zarr"
    written = fill(place, count)
    opening, summarising, peak, _ = np.median([apart(summary, place) for _ in range(REPEATS)], 0)
    size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) / 1e6
    row = {"runs": count, "write_s": written, "open_s": opening, "summary_s": summarising, "peak_mb": peak, "mb": size}
    return {name: round(float(value), 4) for name, value in row.items()}


def small_writes(folder: Path) -> dict[str, float]:
    """Milliseconds to add one run of 31 steps, 4 signals, 4 channels and 4 bands, and to open and compact 500."""
    place = folder / "small.zarr"
    writer = cube.Writer(place)
    writer.write(FULL, runs(FULL, 1, 0))
    batch = runs(FULL, 1, 1)
    taken = {"writer": [timed(lambda: writer.append(batch)) for _ in range(400)]}
    writer.close()
    taken["append"] = [timed(lambda: cube.append(place, batch)) for _ in range(99)]
    taken["open 500"] = [timed(lambda: cube.open_cube(place)) for _ in range(5)]
    taken["compact 500"] = [timed(lambda: cube.compact(place, folder / "compact.zarr"))]
    taken["open 500 compact"] = [timed(lambda: cube.open_cube(folder / "compact.zarr")) for _ in range(5)]
    return {name: round(1e3 * float(np.median(seconds)), 2) for name, seconds in taken.items()}


def main() -> None:
    """Measure, print, write."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    arguments.add_argument("--most", type=int, default=COUNTS[-1])
    counts = [count for count in COUNTS if count <= arguments.parse_args().most]
    with tempfile.TemporaryDirectory() as name:
        small = small_writes(Path(name))
        rows = [scale(Path(name), count) for count in counts]
    for what, milliseconds in small.items():
        print(f"{what:>18} {milliseconds:9.2f} ms")
    print(f"\n{'runs':>9} {'MB':>7} {'written/s':>10} {'open s':>7} {'summary s':>10} {'runs/s':>10} {'peak MB':>8}")
    for row in rows:
        speeds = [row["runs"] / row[key] for key in ("write_s", "summary_s")]
        print(
            f"{row['runs']:>9.0f} {row['mb']:>7.0f} {speeds[0]:>10.0f} {row['open_s']:>7.2f} "
            f"{row['summary_s']:>10.2f} {speeds[1]:>10.0f} {row['peak_mb']:>8.0f}"
        )
    result: dict[str, Any] = {"milliseconds": small, "scale": rows}
    if len(rows) > 1:
        last, before = rows[-1], rows[-2]
        ratio = math.log(last["runs"] / before["runs"])
        result["exponent"] = round(math.log(last["summary_s"] / before["summary_s"]) / ratio, 2)
        print(f"\ntime of the summary grows as runs^{result['exponent']}")
    machine = {"python": platform.python_version(), "zarr": version("zarr"), "dask": version("dask")}
    RESULTS.write_text(json.dumps(result | {"machine": machine}, indent=1) + "\n")


if __name__ == "__main__":
    main()
