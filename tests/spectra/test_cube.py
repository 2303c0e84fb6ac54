from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra import cube as cubes
from spectra.bands import FilterBank
from spectra.cube import append, create, open_cube, read_header, resume, validate
from spectra.errors import UserError
from spectra.schema import Header, Runs
from spectra.storage import creation

HEADER = Header(
    signals=("latent", "x0"),
    bank=FilterBank((0.8, 1.6)),
    grid=(8, 6),
    channels=2,
    frames=None,
    radial_bins=5,
    timestep=(999.0, 500.0, 0.0),
    signal_level=(0.0, 0.6, 1.0),
    noise_level=(1.0, 0.8, 0.0),
    facts={"model_hash": "abc", "scheduler": json.dumps({"class": "DDIMScheduler", "beta_end": 0.02})},
    notes={"model": "mini", "command": "spectra probe"},
)


def runs(count: int, seed: int = 0, header: Header = HEADER) -> Runs:
    random = np.random.default_rng(seed)
    frames = () if header.frames is None else (header.frames,)
    shape = (count, header.steps, len(header.signals))

    def values(*shape: int) -> Any:
        return random.random(shape, dtype=np.float32)

    return Runs(
        energy=values(*shape, *frames, header.channels, header.bank.bands),
        spectrum=values(*shape, header.radial_bins),
        coherence=values(count, header.steps, header.bank.bands),
        prompt=[f"prompt {seed}.{i} " + "é" * i for i in range(count)],
        negative_prompt=[""] * count,
        seed=list(range(count)),
        draw=[0] * count,
        guidance_scale=[1.5] * count,
        adapter=["style"] * count,
        adapter_detail=[""] * count,
        guidance_rule=["none"] * count,
        split=[""] * count,
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "c.zarr"
    create(path, HEADER)
    return path


def assert_holds(cube: xr.Dataset, *batches: Runs) -> None:
    assert cube.sizes["run"] == sum(len(batch.prompt) for batch in batches)
    for name in ("energy", "spectrum", "coherence", "prompt", "seed", "guidance_scale", "adapter"):
        written = np.concatenate([np.asarray(getattr(batch, name)) for batch in batches])
        np.testing.assert_array_equal(cube[name].values, written)


def test_what_was_appended_is_what_is_opened(store: Path) -> None:
    assert open_cube(store).sizes["run"] == 0
    batches = runs(3, 1), runs(2, 2)
    for batch in batches:
        append(store, batch)
    cube = open_cube(store)
    assert_holds(cube, *batches)
    assert cube.energy.dims == ("run", "step", "signal", "channel", "band")
    assert cube.spectrum.dims == ("run", "step", "signal", "radius")
    assert cube.coherence.dims == ("run", "step", "band")
    assert cube.energy.sel(signal="x0", band=0).dims == ("run", "step", "channel")
    assert cube.scale_low.values.tolist() == [np.inf, 1.6, 0.8]
    assert cube.scale_high.values.tolist() == [1.6, 0.8, 0]
    assert cube.log_snr.values.tolist() == pytest.approx([-np.inf, 2 * np.log(0.75), np.inf])
    assert cube.attrs["grid"] == "[8, 6]"
    assert cube.attrs["model"] == "mini"
    assert validate(store) == 5


def test_a_plain_xarray_reads_the_same(store: Path) -> None:
    append(store, runs(3))
    plain = xr.open_zarr(store, consolidated=False)
    ours = open_cube(store)
    assert set(plain.data_vars) == {"energy", "spectrum", "coherence", "status"}
    assert set(plain.coords) == set(ours.coords)
    for name in plain.variables:
        np.testing.assert_array_equal(plain[name].values.astype(object), ours[name].values.astype(object))
    assert plain.attrs == ours.attrs


def test_video_has_frames(tmp_path: Path) -> None:
    header = replace(HEADER, frames=4)
    create(tmp_path / "c.zarr", header)
    append(tmp_path / "c.zarr", runs(2, header=header))
    cube = open_cube(tmp_path / "c.zarr")
    assert cube.energy.dims == ("run", "step", "signal", "frame", "channel", "band")
    assert read_header(tmp_path / "c.zarr") == header


def test_a_run_is_one_chunk_and_coordinates_are_one_big_one(store: Path) -> None:
    append(store, runs(3))
    group = zarr.open_group(store, mode="r")
    for name in ("energy", "spectrum", "coherence"):
        array = group[name]
        assert array.chunks == (1, *array.shape[1:])
        assert sum(path.is_file() for path in (store / name).glob("c.*")) == 3
    for name in ("prompt", "seed", "status"):
        assert sum(path.is_file() for path in (store / name).glob("c.*")) == 1
    assert all(array.metadata.dimension_names for _, array in group.arrays())
    assert group.metadata.consolidated_metadata is None


def test_the_header_comes_back(store: Path) -> None:
    assert read_header(store) == HEADER
    resume(store, HEADER)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bank": FilterBank((0.8,))}, r"bank.scales was \[0.8, 1.6\], is \[0.8\]"),
        ({"facts": {"model_hash": "xyz"}}, 'model_hash was "abc", is "xyz"'),
        (
            {"facts": {"scheduler": '{"class": "DDIMScheduler", "beta_end": 0.5}'}},
            "scheduler.beta_end was 0.02, is 0.5",
        ),
        ({"facts": {"scheduler": '{"class": "DDIMScheduler"}'}}, "scheduler.beta_end was 0.02, is null"),
        ({"timestep": (1.0,), "signal_level": (1.0,), "noise_level": (0.0,)}, "steps was 3, is 1"),
        ({"noise_level": (1.0, 0.7, 0.0)}, "noise_level differs"),
        ({"grid": (6, 8), "channels": 3}, r"grid was \[8, 6\], is \[6, 8\]; channels was 2, is 3"),
    ],
)
def test_resuming_refuses_runs_of_another_kind_and_names_each_difference(
    store: Path, change: Any, message: str
) -> None:
    with pytest.raises(
        UserError, match=f"^cannot add to .*c.zarr, which was recorded otherwise: {message}.*place$"
    ) as error:
        resume(store, replace(HEADER, **change))
    assert "\n" not in str(error.value)


def test_notes_may_differ(store: Path) -> None:
    resume(store, replace(HEADER, notes={"command": "another"}))


def test_an_existing_cube_is_never_created_over(store: Path) -> None:
    append(store, runs(1))
    with pytest.raises(UserError, match="exists already"):
        create(store, HEADER)
    assert open_cube(store).sizes["run"] == 1


def test_a_cube_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(8))
    original = creation.create_array

    def fail(*args: Any) -> None:
        if next(calls) == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(*args)

    monkeypatch.setattr(creation, "create_array", fail)
    with pytest.raises(UserError, match=r"cannot write .*c\.zarr: No space left on device"):
        create(tmp_path / "c.zarr", HEADER)
    assert list(tmp_path.iterdir()) == []


class CutError(BaseException):
    """Stands for the end of the process."""


def cut_after(monkeypatch: pytest.MonkeyPatch, operations: int) -> None:
    """Let only so many metadata and chunk writes of zarr through."""
    left = [operations]
    for name in ("resize", "__setitem__"):
        original = getattr(zarr.Array, name)

        def limited(self: Any, *args: Any, original: Any = original) -> Any:
            if left[0] == 0:
                raise CutError
            left[0] -= 1
            return original(self, *args)

        monkeypatch.setattr(zarr.Array, name, limited)


@settings(max_examples=10, deadline=None)
@given(plan=st.lists(st.tuples(st.integers(1, 3), st.one_of(st.none(), st.integers(0, 19))), max_size=4))
def test_appends_that_are_cut_anywhere_never_existed(plan: list[tuple[int, int | None]], tmp_path_factory: Any) -> None:
    store = tmp_path_factory.mktemp("cut") / "c.zarr"
    create(store, HEADER)
    kept: list[Runs] = []
    for seed, (count, cut) in enumerate(plan):
        batch = runs(count, seed)
        with pytest.MonkeyPatch.context() as monkeypatch:
            if cut is None:
                append(store, batch)
                kept.append(batch)
            else:
                cut_after(monkeypatch, cut)
                with pytest.raises(CutError):
                    append(store, batch)
        cube = open_cube(store)
        assert cube.sizes["run"] == sum(len(one.prompt) for one in kept)
        if kept:
            assert_holds(cube, *kept)
    validate(store)


def test_a_full_disk_is_one_sentence_and_keeps_what_was_there(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(store, runs(2))

    def full(self: Any, *args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Array, "__setitem__", full)
        with pytest.raises(UserError, match=r"No space left on device; the runs that were complete before are kept"):
            append(store, runs(1, 5))
    assert_holds(open_cube(store), runs(2))


def test_writers_wait_for_each_other(store: Path) -> None:
    threads = [
        threading.Thread(target=lambda i=i: [append(store, runs(1, 10 * i + j)) for j in range(3)]) for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(open_cube(store).prompt.values) == sorted(
        f"prompt {10 * i + j}.0 " for i in range(3) for j in range(3)
    )


def test_a_cube_in_memory_works_too() -> None:
    store = zarr.storage.MemoryStore()
    create(store, HEADER)
    append(store, runs(2))
    assert_holds(open_cube(store), runs(2))
    with pytest.raises(UserError, match="exists already"):
        create(store, HEADER)


def foreign(path: Path) -> None:
    shutil.rmtree(path)
    xr.Dataset({"a": ("x", [1.0])}).to_zarr(path, zarr_format=3, consolidated=False)


def newer(path: Path) -> None:
    zarr.open_group(path, mode="r+").attrs["format_version"] = 3


def as_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("no folder")


def truncated(*names: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        file = path.joinpath(*names)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return damage


def without(*names: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        target = path.joinpath(*names)
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "there is no cube at"),
        (as_file, "it is a file"),
        (foreign, "not a cube that spectra wrote"),
        (newer, "has cube format 3, and this spectra reads format 2"),
        (without("zarr.json"), "it holds no zarr group"),
        (truncated("zarr.json"), "metadata is damaged"),
        (truncated("energy", "zarr.json"), "damaged cube"),
        (without("coherence"), "damaged cube: it has no coherence"),
        (truncated("energy", "c.1.0.0.0.0"), "damaged cube: its values cannot be read"),
        (without("energy", "c.1.0.0.0.0"), "damaged cube: energy of run 1 is lost"),
        (without("spectrum", "c.0.0.0.0"), "damaged cube: spectrum of run 0 is lost"),
        (truncated("prompt", "c.0"), "damaged cube"),
        (truncated("status", "c.0"), "damaged cube"),
    ],
)
def test_what_is_no_whole_cube_ends_with_one_sentence(
    store: Path, damage: Callable[[Path], None], message: str
) -> None:
    append(store, runs(2))
    damage(store)
    with pytest.raises(UserError, match=message) as error:
        open_cube(store)
    assert str(store) in str(error.value)


@pytest.mark.parametrize("damage", [truncated("noise_level", "c.0"), truncated("band", "zarr.json"), newer, foreign])
def test_what_is_no_whole_cube_is_not_resumed(store: Path, damage: Callable[[Path], None]) -> None:
    damage(store)
    with pytest.raises(UserError):
        resume(store, HEADER)


def test_a_large_cube_is_read_lazily_and_validated_run_by_run(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cubes, "CHECKED_BYTES", 10)
    append(store, runs(2))
    cube = open_cube(store)
    assert not cube.energy.variable._in_memory
    assert_holds(cube, runs(2))
    without("energy", "c.1.0.0.0.0")(store)
    open_cube(store)
    with pytest.raises(UserError, match="is lost"):
        validate(store)


def test_a_cube_is_opened_and_analysed_without_torch(store: Path) -> None:
    append(store, runs(1))
    code = f"""
import sys, spectra
assert sorted(sys.modules) and "numpy" not in sys.modules, "import spectra is lazy"
cube = spectra.open_cube({str(store)!r})
spectra.FilterBank((1.0,)).transfer(8, 8)
assert cube.sizes["run"] == 1 and "torch" not in sys.modules and "diffusers" not in sys.modules
import spectra.record
assert callable(spectra.record) and callable(spectra.probe) and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
