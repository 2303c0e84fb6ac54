"""Kill a probe of the bundled model again and again, at random moments, and hold what it ends with against one that
nobody disturbed.

    python -m benchmarks.faults.kill_probe [--kills 100]

Every life is a fork of this process, which has the model in memory, and repeats one and the same probe. Half of the
lives end after a random time, half at a random write to the store, by SIGKILL. After each, the cube has to open, with
no run less than before. A cube that is finished before all kills are spent is compared, and the next one begun. At the
end one life is left undisturbed. Prints a summary and writes benchmarks/results/kill_probe.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults.lives import answer, live

RESULTS = Path(__file__).parents[1] / "results" / "kill_probe.json"
PROMPTS = ("a red circle", "a blue square")
SEEDS, STEPS, BATCH = 4, 2, 1


@dataclass
class Tally:
    """What happened."""

    lives: int = 0
    killed: int = 0
    killed_at_a_write: int = 0
    cubes: int = 0
    runs: int = 0
    left_half_written: int = 0
    seconds: float = 0.0
    equal: bool = True


def probe(pipe: Any, place: Path) -> None:
    """The probe that is repeated."""
    import spectra

    spectra.probe(pipe, PROMPTS, range(SEEDS), STEPS, place, batch=BATCH)


def deadly(write: int) -> None:
    """From now on, this process dies when it begins the write of that number."""
    from zarr.storage import LocalStore

    original, left = LocalStore.set, [write]

    async def set_or_die(self: Any, *args: Any, **kwargs: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        await original(self, *args, **kwargs)

    LocalStore.set = set_or_die


def runs_of(place: Path) -> int:
    """Complete runs of the cube at a place, all of whose values are read."""
    import spectra

    return spectra.validate(place) if place.exists() else 0


def same(one: Path, other: Path) -> bool:
    """True if two cubes hold the same bits."""
    import spectra

    a, b = spectra.open_cube(one), spectra.open_cube(other)
    names = [*a.data_vars, *a.coords]
    return names == [*b.data_vars, *b.coords] and all(bits(a[name].values) == bits(b[name].values) for name in names)


def bits(values: Any) -> Any:
    """Numbers as bytes, texts as a list."""
    return values.tolist() if values.dtype == object else (values.shape, values.dtype, values.tobytes())


def half_written(place: Path) -> int:
    """Drafts of cubes and files that were cut short, at and beside a place."""
    return sum(1 for _ in place.parent.rglob("*.partial"))


def writes_of(pipe: Any, place: Path) -> int:
    """Writes to the store that an undisturbed probe makes."""
    from zarr.storage import LocalStore

    original, count = LocalStore.set, [0]

    async def counted(self: Any, *args: Any, **kwargs: Any) -> None:
        count[0] += 1
        await original(self, *args, **kwargs)

    LocalStore.set = counted
    probe(pipe, place)
    return count[0]


def torment(kills: int, folder: Path, seed: int = 0) -> Tally:
    """So many kills, in a folder. What is imported here need not be imported in every life."""
    import xarray  # noqa: F401
    import zarr  # noqa: F401

    import spectra.probe  # noqa: F401
    from spectra.models import load_pipeline

    pipe, tally, chance = load_pipeline("mini"), Tally(), random.Random(seed)
    pipe.set_progress_bar_config(disable=True)
    begin = time.monotonic()
    whole = folder / "undisturbed" / "c.zarr"
    writes = answer(lambda: writes_of(pipe, whole))
    start = time.monotonic()
    live(lambda: probe(pipe, folder / "timed" / "c.zarr"))
    usual = time.monotonic() - start
    place, known = folder / "0" / "c.zarr", 0
    while tally.killed < kills:
        code = end_somewhere(pipe, place, chance, usual, writes, tally)
        assert code in (0, -signal.SIGKILL), f"the probe failed with exit code {code}"
        tally.lives += 1
        tally.killed += code != 0
        tally.left_half_written += half_written(place) > 0
        now = answer(lambda at=place: runs_of(at))
        assert now >= known, f"{known - now} complete runs were lost"
        known = now
        if code == 0:
            settle(place, whole, tally)
            place, known = folder / str(tally.cubes) / "c.zarr", 0
    assert live(lambda: probe(pipe, place)) == 0
    settle(place, whole, tally)
    tally.seconds = round(time.monotonic() - begin, 1)
    return tally


def end_somewhere(pipe: Any, place: Path, chance: random.Random, usual: float, writes: int, tally: Tally) -> int:
    """One life, ended at a random moment or at a random write -> its exit code."""
    if chance.random() < 0.5:
        return live(lambda: probe(pipe, place), chance.uniform(0, usual))
    last = chance.randrange(writes)
    code = live(lambda: (deadly(last), probe(pipe, place))[1])
    tally.killed_at_a_write += code != 0
    return code


def settle(place: Path, whole: Path, tally: Tally) -> None:
    """Compare a finished cube, and see that nothing is left beside its runs."""
    tally.cubes += 1
    tally.runs += answer(lambda: runs_of(place))
    tally.equal &= answer(lambda: same(place, whole))
    assert half_written(place) == 0, "drafts of killed probes are still there"


def main() -> None:
    """Torment, print, write."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    arguments.add_argument("--kills", type=int, default=100)
    arguments.add_argument("--out", type=Path, default=RESULTS)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = torment(given.kills, Path(folder))
    print(
        f"{tally.killed} of {tally.lives} lives ended by SIGKILL, {tally.killed_at_a_write} of them at a write; "
        f"{tally.left_half_written} times a file or folder was left half written"
    )
    verdict = "bit for bit what" if tally.equal else "NOT what"
    print(f"{tally.cubes} cubes of {tally.runs} runs are {verdict} an undisturbed probe records ({tally.seconds} s)")
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(asdict(tally), indent=1) + "\n")
    raise SystemExit(0 if tally.equal else 1)


if __name__ == "__main__":
    main()
