from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from spectra import cube
from spectra.cube import Writer, append, create, open_cube
from spectra.errors import UserError
from spectra.storage import sharing, stores
from spectra.storage.sharing import Crew, share
from tests.spectra.test_cube import HEADER, assert_holds, runs

ROWS = ("energy", "spectrum", "coherence", "prompt", "seed", "guidance_scale", "noise_level")


def single(batch: Any, at: int) -> Any:
    """One run of a batch."""
    return replace(batch, **{name: value[at : at + 1] for name, value in vars(batch).items() if value is not None})


def prompts_of(place: Any) -> list[str]:
    return [str(text).split()[1] for text in open_cube(place).prompt.values]


def test_a_writer_adds_what_append_adds_and_leaves_no_empty_rows_behind(tmp_path: Path) -> None:
    one, other = tmp_path / "one.zarr", tmp_path / "other.zarr"
    create(other, HEADER)
    with Writer(one) as writer:
        for seed in range(4):
            writer.write(HEADER, runs(2, seed))
            append(other, runs(2, seed))
            assert open_cube(one).sizes["run"] == 2 * seed + 2
        assert zarr.open_group(one, mode="r")["status"].shape == (256,)
    assert zarr.open_group(one, mode="r")["status"].shape == (8,)
    xr.testing.assert_identical(open_cube(one).drop_attrs(), open_cube(other).drop_attrs())
    plain = xr.open_zarr(one, consolidated=False)
    assert plain.status.values.tolist() == [1] * 8
    assert plain.adapter.values.tolist() == ["style"] * 8


def test_a_writer_may_be_left_open_and_used_again(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "c.zarr")
    writer.write(HEADER, runs(1, 0))
    writer.close()
    writer.write(HEADER, runs(1, 1))
    Writer(tmp_path / "c.zarr").write(HEADER, runs(1, 2))
    writer.write(HEADER, runs(1, 3))
    assert_holds(open_cube(tmp_path / "c.zarr"), *(runs(1, seed) for seed in range(4)))


def test_a_writer_refuses_runs_of_another_kind_or_shape(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "c.zarr")
    writer.write(HEADER, runs(1))
    with pytest.raises(UserError, match="grid was"):
        writer.write(replace(HEADER, grid=(6, 8)), runs(1))
    batch = runs(2)
    with pytest.raises(UserError, match=r"energy has the shape \(1, .* and the cube wants \(2, "):
        writer.append(replace(batch, energy=batch.energy[:1]))
    with pytest.raises(UserError, match="cannot add to"):
        writer.append(replace(batch, coherence=None))
    assert open_cube(tmp_path / "c.zarr").sizes["run"] == 1


def test_more_runs_than_fit_into_a_chunk_of_labels(tmp_path: Path) -> None:
    create(tmp_path / "c.zarr", HEADER, cube.Layout(labels=3, status=6, data=2))
    with Writer(tmp_path / "c.zarr", reserve=5) as writer:
        for seed, count in enumerate((4, 1, 7, 2)):
            writer.append(runs(count, seed))
    assert_holds(open_cube(tmp_path / "c.zarr"), *(runs(n, seed) for seed, n in enumerate((4, 1, 7, 2))))


def test_the_first_free_rows_are_filled_first(tmp_path: Path) -> None:
    """What a killed writer of a part leaves open is filled in its place by whoever comes next."""
    place = tmp_path / "c.zarr"
    create(place, HEADER, cube.Layout(rows=6))
    group = zarr.open_group(place, mode="r+")
    append(place, runs(6))
    group["status"][[1, 4]] = 0
    assert open_cube(place).seed.values.tolist() == [0, 2, 3, 5]
    append(place, single(runs(6), 1))
    append(place, runs(3, 7))
    cubes = open_cube(place)
    assert cubes.seed.values.tolist() == [0, 1, 2, 3, 0, 5, 1, 2]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("existing", [None, "local", "memory"])
def test_shares_are_disjoint_complete_and_in_order(count: int, existing: str | None, tmp_path: Path) -> None:
    place = f"memory://{tmp_path.name}/c.zarr" if existing == "memory" else tmp_path / "c.zarr"
    if existing:
        create(place, HEADER, cube.Layout(labels=4, status=4))
        append(place, runs(3))
    batches = [[f"{i}.{j}" for j in range(2 if i < 6 else 1)] for i in range(7)]
    parts = [share(place, batches, Crew(rank, count, None, lambda: None)) for rank in range(count)]
    if count == 1:
        assert parts[0] == (batches, place)
        return
    assert [batch for mine, _ in parts for batch in mine] == batches
    start = 3 if existing else 0
    assert np.concatenate([region.rows for _, region in parts]).tolist() == [*range(start, start + 13)]
    assert all(region.total == start + 13 for _, region in parts)
    chunk = 4 if existing == "memory" else None if existing else parts[0][1].block
    if chunk:
        owners = [{int(row) // chunk for row in region.rows} for _, region in parts]
        assert sum(map(len, owners)) == len(set().union(*owners)), "no chunk has two writers"
    if not existing:
        assert len(parts[0][0]) == -(-len(batches) // count)


def crews(count: int) -> list[Crew]:
    barrier = threading.Barrier(count)
    return [Crew(rank, count, None, barrier.wait) for rank in range(count)]


def fill(place: Any, crew: Crew, seeds: list[int], stop: int | None = None) -> None:
    """What a probe does, without a model: a batch is a seed, `stop` of them are written."""
    mine, region = share(place, [[(seed, i) for i in range(2)] for seed in seeds], crew)
    with sharing.meeting(region, crew):
        for batch in mine[:stop]:
            if stores.exists(region):
                cube.resume(region, HEADER)
            else:
                create(region, HEADER)
            append(region, runs(2, batch[0][0]))


def together(place: Any, seeds: list[int], stops: tuple[int | None, ...]) -> None:
    members = crews(len(stops))
    threads = [
        threading.Thread(target=fill, args=(place, crew, seeds, stop))
        for crew, stop in zip(members, stops, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


@pytest.mark.parametrize("kind", ["local", "memory", "icechunk"])
def test_writers_together_fill_the_cube_that_one_would_have_filled(kind: str, tmp_path: Path) -> None:
    """Two stop early, as if killed; three others, and one alone, go on."""
    prefix = {"local": "", "memory": "memory://", "icechunk": "icechunk://"}[kind]
    places = [f"{prefix}{tmp_path}/{name}" for name in ("serial", "whole", "three", "alone")]
    seeds = list(range(7))
    fill(places[0], Crew(0, 1, None, lambda: None), seeds)
    together(places[1], seeds, (None, None, None))
    for place in places[2:]:
        together(place, seeds, (1, 2))
        there = [int(text.split(".")[0]) for text in prompts_of(place)[::2]]
        assert there == [0, 4, 5]
        left = [seed for seed in seeds if seed not in there]
        if place == places[2]:
            together(place, left, (None, None, None))
        else:
            fill(place, Crew(0, 1, None, lambda: None), left)
    serial = open_cube(places[0])
    assert prompts_of(places[0]) == [f"{seed}.{i}" for seed in seeds for i in range(2)]
    together(places[1], [], (None, None))  # the same command again: all is there
    for place in places[1:]:
        xr.testing.assert_identical(open_cube(place).drop_attrs(), serial.drop_attrs())


def test_a_row_that_somebody_else_took_is_left_to_them(tmp_path: Path) -> None:
    place = tmp_path / "c.zarr"
    create(place, HEADER)
    region = stores.Region(place, np.arange(2), 4, 2, True, lambda: None)
    append(place, runs(1, 9))
    append(region, runs(2, 1))
    assert_holds(open_cube(place), runs(1, 9), runs(2, 1))


UNCOORDINATED = """
import sys
from spectra.cube import Writer, append
from tests.spectra.test_cube import HEADER, runs
place, who = sys.argv[1], int(sys.argv[2])
writer = Writer(place)
for i in range(12):
    writer.append(runs(1, 100 * who + i)) if i % 3 else append(place, runs(1, 100 * who + i))
    if i == 6:
        writer.flush()
writer.close()
"""


def test_processes_that_know_nothing_of_each_other_lose_nothing(tmp_path: Path) -> None:
    place = tmp_path / "c.zarr"
    create(place, HEADER)
    started = [
        subprocess.Popen([sys.executable, "-c", UNCOORDINATED, str(place), str(who)], env=os.environ) for who in (1, 2)
    ]
    seen = 0
    while any(one.poll() is None for one in started):
        now = open_cube(place).sizes["run"]
        assert now >= seen, "complete runs never vanish"
        seen = now
    assert [one.returncode for one in started] == [0, 0]
    found = open_cube(place)
    assert sorted(prompts_of(place)) == sorted(f"{100 * who + i}.0" for who in (1, 2) for i in range(12))
    for row, text in enumerate(prompts_of(place)):
        np.testing.assert_array_equal(found.energy.values[row], runs(1, int(text.split(".")[0])).energy[0])


PROBE = """
import os, pathlib, sys
import spectra
pathlib.Path(f"{sys.argv[1]}.{os.environ.get('RANK', 0)}").touch()
spectra.probe("mini", ["a red circle", "a blue square", "a green line"], range(3), 2, sys.argv[1], batch=2)
"""


def launch(count: int, place: str, accelerate: bool) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    base = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    if accelerate:
        script = Path(place).parent / "probe.py"
        script.write_text(PROBE)
        # With --cpu accelerate starts one process, whatever the number; with --multi_gpu, several even without a GPU.
        command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(count),
                   "--num_machines", "1", "--main_process_port", port, "--mixed_precision", "no",
                   "--dynamo_backend", "no", str(script), place]  # fmt: skip
        subprocess.run(command, env=base, check=True, timeout=240)
        assert len(list(Path(place).parent.glob(f"{Path(place).name}.?"))) == count
        return
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)} for rank in range(count)]
    started = [subprocess.Popen([sys.executable, "-c", PROBE, place], env={**base, **rank}) for rank in ranks]
    assert [one.wait(240) for one in started] == [0] * count


@pytest.mark.slow
@pytest.mark.parametrize("accelerate", [True, False])
def test_two_processes_probe_the_cube_that_one_probes(accelerate: bool, tmp_path: Path) -> None:
    launch(1, str(tmp_path / "serial.zarr"), accelerate=False)
    serial = open_cube(tmp_path / "serial.zarr")
    place = tmp_path / "shared.zarr"
    launch(2, str(place), accelerate)
    shared = open_cube(place)
    for name in ROWS:
        np.testing.assert_array_equal(shared[name].values, serial[name].values)
    group = zarr.open_group(place, mode="r+")
    group["status"][[2, 3, 8]] = 0  # whole batches, as killed writers lose them
    assert open_cube(place).sizes["run"] == 6
    launch(2 if accelerate else 1, str(place), accelerate)
    for name in ROWS:
        np.testing.assert_array_equal(open_cube(place)[name].values, serial[name].values)
