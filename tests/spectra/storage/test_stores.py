from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from spectra.bands import FilterBank
from spectra.cube import Writer, append, compact, create, open_cube, read_header, resume, validate
from spectra.errors import UserError
from spectra.schema import GUIDED, PAIRS, SCHEMA, Runs, Variable
from spectra.storage import creation, folders, stores, transactions
from tests.spectra.test_cube import HEADER, assert_holds, runs

FULL = replace(
    HEADER, frames=4, signals=("latent", "x0", *sorted(GUIDED)), temporal=FilterBank((1.0,)), blocks=("mid", "up.0")
)


def full_runs(count: int) -> Runs:
    plain = runs(count, header=FULL)
    random = np.random.default_rng(1)
    first, bands = (count, FULL.steps), FULL.bank.bands
    shapes = {"agreement": (len(PAIRS),), "temporal": (len(FULL.signals), 2), "block_energy": (2,)}
    more = {name: random.random((*first, *shape, bands), np.float32) for name, shape in shapes.items()}
    return replace(plain, **more)


def test_all_parts_of_the_schema_are_written_and_read(tmp_path: Path) -> None:
    with Writer(tmp_path / "c.zarr") as writer:
        writer.write(FULL, full_runs(3))
    cube = open_cube(tmp_path / "c.zarr")
    assert_holds(cube, runs(3, header=FULL))
    for name in ("agreement", "temporal", "block_energy"):
        np.testing.assert_array_equal(cube[name].values, getattr(full_runs(3), name))
    assert cube.pair.values.tolist() == list(PAIRS)
    assert cube.block.values.tolist() == ["mid", "up.0"]
    assert read_header(tmp_path / "c.zarr") == FULL
    for change, message in (
        ({"blocks": ("mid",)}, "blocks was"),
        ({"temporal": None}, "temporal was"),
        ({"signals": ("latent", "x0")}, "signals was"),
    ):
        with pytest.raises(UserError, match=message):
            resume(tmp_path / "c.zarr", replace(FULL, **change))


def test_variables_say_what_they_are_and_where_the_cube_comes_from(tmp_path: Path) -> None:
    create(tmp_path / "c.zarr", FULL)
    cube = open_cube(tmp_path / "c.zarr")
    assert cube.attrs["Conventions"].startswith("CF-")
    assert cube.attrs["source"] == "samples of mini"
    assert "spectra probe" in cube.attrs["history"]
    for name, variable in cube.variables.items():
        assert variable.attrs["long_name"], name
        assert variable.attrs["units"], name


def test_compacting_keeps_everything_but_the_size_of_chunks(tmp_path: Path) -> None:
    place, out = tmp_path / "c.zarr", tmp_path / "packed.zarr"
    with Writer(place) as writer:
        writer.write(FULL, full_runs(5))
    zarr.open_group(place, mode="r+")["status"][2] = 0
    compact(place, out)
    xr.testing.assert_identical(open_cube(out), open_cube(place))
    assert zarr.open_group(out, mode="r")["energy"].chunks[0] > 4
    assert validate(out) == 4
    append(out, full_runs(1))
    assert open_cube(out).seed.values.tolist() == [0, 1, 3, 4, 0]
    with pytest.raises(UserError, match="exists already"):
        compact(place, out)
    (place / "energy" / "c.0.0.0.0.0.0").write_bytes(b"torn")
    with pytest.raises(UserError, match="damaged cube"):
        compact(place, tmp_path / "other.zarr")
    assert not (tmp_path / "other.zarr").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube with all parts; do not change it."""
    place = tmp_path_factory.mktemp("whole") / "c.zarr"
    with Writer(place) as writer:
        writer.write(FULL, full_runs(2))
    validate(place)
    return place


@pytest.mark.parametrize("variable", [one for one in SCHEMA if one.name != "status"], ids=lambda one: one.name)
def test_a_chunk_that_is_gone_is_missed_whatever_the_variable(variable: Variable, whole: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(whole, tmp_path / "c.zarr"))
    next((place / variable.name).glob("c.*.0" if len(variable.dims) > 1 else "c.0")).unlink()
    with pytest.raises(UserError, match=f"damaged cube: {variable.name} .*(lost|not what its description says)"):
        open_cube(place)
    if variable.dims[0] == "run":
        with pytest.raises(UserError, match=f"damaged cube: {variable.name} of run . is lost; probe again"):
            compact(place, tmp_path / "packed.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["c.zarr"]


@pytest.mark.parametrize("name", ["zarr.json", "seed/zarr.json", "energy/c.0.0.0.0.0.0"])
def test_a_cube_that_may_not_be_read_is_not_called_damaged(
    name: str, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = zarr.storage.LocalStore.get

    async def guarded(self: Any, key: str, *args: Any, **more: Any) -> Any:
        if key == name:
            raise PermissionError(errno.EACCES, "Permission denied", name)
        return await original(self, key, *args, **more)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", guarded)
    with pytest.raises(UserError, match=r"c\.zarr may not be read: permission is denied"):
        open_cube(whole)


def metadata(*names: str, **change: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        file = path.joinpath(*names, "zarr.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | change))

    return damage


def attribute(**change: Any) -> Callable[[Path], None]:
    return lambda path: zarr.open_group(path, mode="r+").attrs.update(change)


def chunked(rows: int) -> dict[str, Any]:
    return {"name": "regular", "configuration": {"chunk_shape": [rows]}}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (metadata("status", shape=[10**12]), "status claims 1000000000000 runs"),
        (metadata("prompt", shape=[10**12]), "prompt claims 1000000000000 runs"),
        (metadata("noise_level", shape=[10**12]), "noise_level claims 1000000000000 entries along step"),
        (metadata("status", chunk_grid=chunked(10**12)), "status claims chunks of 1000000000000 bytes"),
        (metadata("energy", shape=[2, 3, 2, 2, 10**12]), "energy claims 1000000000000 entries along band"),
        (metadata("energy", shape=[2, 3, 2, 2, 4]), "coherence has 3 entries along band, and energy 4"),
        (metadata("energy", dimension_names=["run", "step", "signal", "band", "channel"]), "energy has the dimensions"),
        (metadata("energy", dimension_names=None), "energy has the dimensions None"),
        (metadata("energy", data_type="float64"), "energy holds float64, not float32"),
        (metadata("seed", data_type="int8", fill_value=0), "seed holds int8, not int64"),
        (metadata("energy", shape=[1, 3, 2, 2, 3]), "energy has 1 runs, and run 1 is complete"),
        (attribute(parts='["wings"]'), "unknown parts"),
        (attribute(parts='["blocks"]'), "it has no block, block_energy"),
        (attribute(parts="x"), "an array cannot be read"),
        (attribute(signals='["latent"]'), "signal has 2 entries, not 1"),
        (attribute(bank='{"scales": [-1]}'), "its description cannot be read"),
        (attribute(grid="[8]"), "its description cannot be read"),
        (attribute(grid="[8, 1e12]"), "its description cannot be read"),
        (attribute(facts="[[1]]"), "its description cannot be read"),
        (attribute(format_version=1), "format 1, and this spectra reads format 2: record it again"),
        (attribute(format_version="x"), "format x, and .*: update spectra"),
    ],
)
def test_what_contradicts_the_schema_is_refused_in_one_sentence_at_once(
    damage: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    place = tmp_path / "c.zarr"
    create(place, HEADER)
    append(place, runs(2))
    damage(place)
    start = time.monotonic()
    with pytest.raises(UserError, match=message) as error:
        open_cube(place)
    assert time.monotonic() - start < 2
    assert str(error.value).startswith(str(place))
    assert "\n" not in str(error.value)


KILLED = """
import os, signal, sys
from spectra.storage import creation
from spectra.cube import create
from tests.spectra.test_cube import HEADER
original, left = creation.create_array, [5]

def deadly(*args):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    original(*args)

creation.create_array = deadly
create(sys.argv[1], HEADER)
"""


def test_what_a_writer_killed_at_creation_leaves_is_swept_by_the_next(tmp_path: Path) -> None:
    place = tmp_path / "c.zarr"
    done = subprocess.run([sys.executable, "-c", KILLED, str(place)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    create(place, HEADER)
    assert list(tmp_path.iterdir()) == [place]


def test_drafts_of_the_living_and_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".other.zarr.x.partial").mkdir()
    with folders.beside(tmp_path / "c.zarr") as mine:
        mine.mkdir()
        assert folders.sweep(tmp_path / "c.zarr") == []
        assert mine.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == [".other.zarr.x.partial"]


def test_of_two_creators_one_is_told_that_the_other_was_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, original, first = tmp_path / "c.zarr", creation.create_array, [True]

    def meanwhile(*args: Any) -> None:
        if first:
            first.clear()
            create(place, HEADER)
            append(place, runs(1))
        original(*args)

    monkeypatch.setattr(creation, "create_array", meanwhile)
    with pytest.raises(UserError, match=r"c\.zarr exists already"):
        create(place, HEADER)
    assert open_cube(place).sizes["run"] == 1


@pytest.fixture
def ice(tmp_path: Path) -> str:
    return f"icechunk://{tmp_path}/c.ice"


def test_a_cube_in_icechunk_is_a_history_of_commits(ice: str) -> None:
    import icechunk

    assert not stores.exists(ice)
    stores.check_writable(ice)
    with Writer(ice) as writer:
        writer.write(HEADER, runs(2, 0))
        writer.append(runs(1, 1))
    append(ice, runs(1, 2))
    assert_holds(open_cube(ice), runs(2, 0), runs(1, 1), runs(1, 2))
    resume(ice, HEADER)
    assert validate(ice) == 4
    with pytest.raises(UserError, match="exists already"):
        create(ice, HEADER)
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(ice.removeprefix("icechunk://")))
    messages = [commit.message for commit in repository.ancestry(branch="main")]
    assert messages.count("spectra: add runs") >= 3


def test_a_write_to_icechunk_that_fails_never_was(ice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create(ice, HEADER)
    append(ice, runs(1))

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("spectra.storage.writer._Table._put_labels", full)
        with pytest.raises(UserError, match="No space left on device"):
            append(ice, runs(1, 1))
    append(ice, runs(1, 2))
    assert_holds(open_cube(ice), runs(1), runs(1, 2))


def test_a_commit_that_somebody_else_was_faster_with_is_repeated_and_then_refused(
    ice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(ice, HEADER)
    original, rivals = transactions.lock, [2]

    def unlocked(path: Path) -> Any:
        return os.scandir("/dev/fd")  # a context that holds nothing

    def interfere(table: Any, rows: Any, values: Any) -> None:
        if rivals[0]:
            rivals[0] -= 1
            append(ice, runs(1, 50 + rivals[0]))
        put(table, rows, values)

    from spectra.storage.writer import _Table

    put = _Table.put
    monkeypatch.setattr(transactions, "lock", unlocked)
    monkeypatch.setattr(_Table, "put", interfere)
    append(ice, runs(1, 1))
    assert open_cube(ice).sizes["run"] == 3
    rivals[0] = 1000
    monkeypatch.setattr("spectra.storage.writer.ATTEMPTS", 1)
    monkeypatch.setattr(_Table, "put", lambda table, rows, values: (_rival(ice, put), put(table, rows, values)))
    with pytest.raises(UserError, match=r"another writer changed icechunk://.* repeat the command"):
        append(ice, runs(1, 1))
    monkeypatch.setattr(transactions, "lock", original)


def _rival(ice: str, put: Any) -> None:
    with stores.writing(ice) as group:
        assert group is not None
        group.attrs["rival"] = time.time()
        group["status"].resize((99,))


@pytest.mark.parametrize("place", ["icechunk://", "icechunk://s3://bucket/x"])
def test_icechunk_wants_a_folder(place: str) -> None:
    with pytest.raises(UserError, match="has to name a folder"):
        open_cube(place)


def test_a_folder_that_is_no_repository_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="no icechunk repository"):
        create(f"icechunk://{tmp_path}", HEADER)


@pytest.mark.parametrize(
    ("library", "place", "package"), [("icechunk", "icechunk:///tmp/x", "icechunk"), ("s3fs", "s3://bucket/x", "s3fs")]
)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    library: str, place: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = importlib.import_module("fsspec.registry")
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(registry._registry, "s3", raising=False)
    with pytest.raises(UserError, match=f"pip install {package}"):
        create(place, HEADER)


WITHOUT_TORCH = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "diffusers", "transformers", "accelerate", "peft"):
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, Blocked())
import spectra
from spectra import analysis
from cli.spectra_app import app
from typer.testing import CliRunner

cube = spectra.open_cube(sys.argv[1])
assert cube.sizes["run"] == 3 and spectra.validate(sys.argv[1]) == 3
spectra.cube.compact(sys.argv[1], sys.argv[1] + ".packed")
analysis.shares(cube)
analysis.emergence(cube)
shown = CliRunner().invoke(app, ["show", sys.argv[1], "--json"])
assert shown.exit_code == 0, (shown.output, shown.exception)
assert "torch" not in sys.modules
"""


def test_cubes_are_opened_shown_and_analysed_where_torch_is_not_installed(tmp_path: Path) -> None:
    place = tmp_path / "c.zarr"
    with Writer(place) as writer:
        writer.write(HEADER, runs(3))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(place)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
