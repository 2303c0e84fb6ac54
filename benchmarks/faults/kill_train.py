"""Kill a training of the bundled model again and again, at random moments, and hold what it ends with against one that
nobody disturbed.

    python -m benchmarks.faults.kill_train [--kills 50]

Every life is a fork of this process and repeats one and the same training.  Half of the lives end after a random time,
half when a file is about to be pushed to the disk, by SIGKILL.  After each, the newest complete checkpoint may not be
older than before.  A run that is finished before all kills are spent is compared, and the next one begun; at the end
one life is left undisturbed.  Adapters, numbers of every step, measurements and pictures have to be those of the
undisturbed run, to the bit.  Prints a summary and writes benchmarks/results/kill_train.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults.lives import answer, live

RESULTS = Path(__file__).parents[1] / "results" / "kill_train.json"
PICTURES, HELDOUT = 8, 2
SETTINGS: dict[str, Any] = {
    "model": "mini", "method": "fera", "steps": 12, "batch": 2, "eval_samples": 2, "eval_draws": 1, "eval_levels": 2,
    "eval_every": 6, "checkpoint_every": 2, "preview_every": 6, "preview_prompts": ["a red circle"],
    "sample_prompts": 1, "sample_steps": 2, "dropout": 0.1, "ema": 0.9, "tau_end": 0.4, "fecl_weight": 0.1,
    "threads": 1,
}  # fmt: skip


@dataclass
class Tally:
    """What happened."""

    lives: int = 0
    killed: int = 0
    killed_at_a_write: int = 0
    runs: int = 0
    went_on_from_a_checkpoint: int = 0
    left_half_written: int = 0
    seconds: float = 0.0
    equal: bool = True


def write_pictures(folder: Path) -> Path:
    """Captioned ramps in `train` and `heldout`."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for part, count in (("train", PICTURES), ("heldout", HELDOUT)):
        (folder / part).mkdir(parents=True)
        for i in range(count):
            ramp = np.linspace(rng.uniform(0, 255, 3), rng.uniform(0, 255, 3), 64).astype(np.uint8)
            Image.fromarray(np.repeat(ramp[:, None], 64, axis=1)).save(folder / part / f"{i}.png")
            (folder / part / f"{i}.txt").write_text(f"a ramp {i}\n")
    return folder


def train(out: Path, folder: Path) -> None:
    """The training that is repeated."""
    from adapt.config import TrainConfig
    from adapt.loop import train as run

    run(TrainConfig(data=folder / "data" / "train", cache=folder / "cache", out=out, **SETTINGS))


def at_each_write(then: Callable[[], None]) -> None:
    """From now on, something is done before this process pushes a file to the disk."""
    real = os.fsync

    def fsync(handle: Any) -> None:
        then()
        real(handle)

    os.fsync = fsync  # type: ignore[assignment]


def train_until_write(write: int, out: Path, folder: Path) -> None:
    """The training, in a process that dies when it pushes the file of that number to the disk."""
    left = [write]

    def die_at_last() -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    at_each_write(die_at_last)
    train(out, folder)


def writes_of(out: Path, folder: Path) -> int:
    """Files that an undisturbed training pushes to the disk."""
    count: list[None] = []
    at_each_write(lambda: count.append(None))
    train(out, folder)
    return len(count)


def saved(out: Path) -> int:
    """Step of the newest complete checkpoint; the last one for a finished run."""
    from adapt import checkpoint, state

    return int(SETTINGS["steps"]) if state.is_finished(out) else checkpoint.newest(out / state.STATE).step


def half_written(out: Path) -> bool:
    """True if a file or folder was being written when the process died."""
    return any(out.rglob("*.partial"))


def contents(out: Path) -> dict[str, str]:
    """Everything of a finished run that has to be equal, as digests by name; its card has the name of the run."""
    import xarray as xr

    inside = [path for part in ("adapter", "previews") for path in (out / part).rglob("*") if path.is_file()]
    files = [path for path in inside if path.name != "README.md"]
    found = {str(path.relative_to(out)): path.read_bytes() for path in files}
    for name in ("metrics.zarr", "evaluation.zarr"):
        cube = xr.open_zarr(out / name, consolidated=False).load()
        found |= {f"{name}/{one}": bits(cube[one].values) for one in (*cube.data_vars, *cube.coords)}
    return {name: hashlib.sha256(value).hexdigest() for name, value in found.items()}


def bits(values: Any) -> bytes:
    """Numbers as bytes, texts as they are written."""
    whole = (values.shape, str(values.dtype), values.tobytes() if values.dtype.kind in "biuf" else values.tolist())
    return repr(whole).encode()


def torment(kills: int, folder: Path, seed: int = 0) -> Tally:
    """So many kills, in a folder. What is imported here need not be imported in every life."""
    import xarray  # noqa: F401
    import zarr  # noqa: F401

    import adapt.fera
    import adapt.loop  # noqa: F401
    from spectra.models import load_pipeline

    load_pipeline("mini")
    write_pictures(folder / "data")
    tally, chance, begin = Tally(), random.Random(seed), time.monotonic()
    whole = folder / "undisturbed"
    writes = answer(lambda: writes_of(whole, folder))
    expected = answer(lambda: contents(whole))
    start = time.monotonic()
    assert live(lambda: train(folder / "timed", folder)) == 0
    usual = time.monotonic() - start
    assert answer(lambda: contents(folder / "timed")) == expected, "two undisturbed runs differ"
    out, known = folder / "run-0", 0
    while tally.killed < kills:
        tally.went_on_from_a_checkpoint += known > 0
        code = end_somewhere(out, folder, chance, usual, writes, tally)
        assert code in (0, -signal.SIGKILL), f"the training failed with exit code {code}"
        tally.lives += 1
        tally.killed += code != 0
        tally.left_half_written += half_written(out)
        now = saved(out)
        assert now >= known, f"the state of step {known} was lost, {now} is left"
        known = now
        if code == 0 or finished(out):
            settle(out, expected, tally)
            out, known = folder / f"run-{tally.runs}", 0
    if out.exists():
        assert live(lambda: train(out, folder)) == 0
        settle(out, expected, tally)
    tally.seconds = round(time.monotonic() - begin, 1)
    return tally


def finished(out: Path) -> bool:
    """True if the run was finished before the process died."""
    from adapt.state import is_finished

    return is_finished(out)


def end_somewhere(out: Path, folder: Path, chance: random.Random, usual: float, writes: int, tally: Tally) -> int:
    """One life, ended at a random moment or when a random file is pushed to the disk -> its exit code."""
    if chance.random() < 0.5:
        return live(lambda: train(out, folder), chance.uniform(0, usual))
    last = chance.randrange(writes)
    code = live(lambda: train_until_write(last, out, folder))
    tally.killed_at_a_write += code != 0
    return code


def settle(out: Path, expected: Any, tally: Tally) -> None:
    """Compare a finished run."""
    tally.runs += 1
    found = answer(lambda: contents(out))
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    tally.equal &= not wrong
    if wrong:
        print(f"{out.name} differs in {', '.join(wrong)}")


def main() -> None:
    """Torment, print, write."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    arguments.add_argument("--kills", type=int, default=50)
    arguments.add_argument("--out", type=Path, default=RESULTS)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = torment(given.kills, Path(folder))
    print(
        f"{tally.killed} of {tally.lives} lives ended by SIGKILL, {tally.killed_at_a_write} of them at a write; "
        f"{tally.left_half_written} times a file or folder was left half written, "
        f"{tally.went_on_from_a_checkpoint} lives went on from a checkpoint"
    )
    verdict = "bit for bit what" if tally.equal else "NOT what"
    print(f"{tally.runs} finished runs are {verdict} an undisturbed training writes ({tally.seconds} s)")
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(asdict(tally), indent=1) + "\n")
    raise SystemExit(0 if tally.equal else 1)


if __name__ == "__main__":
    main()
