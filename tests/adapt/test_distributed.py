"""Two processes train what one trains; only the first one writes; shards are gathered and restored."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file

from adapt.state import read_record
from tests.adapt import small, together

CONFIGS = Path(__file__).parents[2] / "adapt" / "accelerate"


@cache
def folder() -> Path:
    """A folder with a model, data, a cache and runs by one process."""
    place = Path(mkdtemp())
    shutil.copytree(small.model("sd"), place / "model")
    shutil.copytree(small.data(), place / "data")
    together.run(place, "one")
    return place


def two_processes(what: str, place: Path) -> None:
    """Run `tests.adapt.together` in two processes on the CPU."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    launch = ["torch.distributed.run", "--nproc_per_node", "2", "--standalone", "--local_addr", "127.0.0.1"]
    done = subprocess.run(
        [sys.executable, "-m", *launch, "-m", "tests.adapt.together", what, str(place)],
        env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@cache
def trained_together() -> None:
    """Two processes train what `folder` has of one."""
    two_processes("train", folder())


@pytest.mark.slow
@pytest.mark.parametrize("case", together.CASES)
def test_two_processes_train_what_one_trains(case: str) -> None:
    trained_together()
    runs = [folder() / f"{count}-{case}" for count in ("one", "two")]
    one, two = (xr.open_zarr(run / "metrics.zarr", consolidated=False).load() for run in runs)
    for name in ("train_loss", "noise_loss", "gradient_norm", "validation_error"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-6)
    files = [path.relative_to(runs[0]) for path in runs[0].glob("adapter/**/*.safetensors")]
    assert len(files) == 1 + (case == "text")
    for path in files:
        adapters = [load_file(run / path) for run in runs]
        for name, value in adapters[0].items():
            torch.testing.assert_close(adapters[1][name], value, rtol=1e-4, atol=1e-5)
    assert not list(folder().glob("two-*/state"))


@pytest.mark.slow
def test_processes_stop_together_and_go_on_together() -> None:
    two_processes("resume", folder())
    assert read_record(folder() / "resumed")["resumed"] == 1
    metrics = xr.open_zarr(folder() / "resumed" / "metrics.zarr", consolidated=False)
    assert np.isfinite(metrics.train_loss).all()
    assert metrics.sizes["step"] == 12


@pytest.mark.slow
def test_the_weights_of_a_sharded_model_are_gathered_and_restored(tmp_path: Path) -> None:
    two_processes("shard", tmp_path)


@pytest.mark.parametrize("name", ["ddp", "fsdp", "cpu"])
def test_shipped_configurations_are_what_accelerate_reads(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    found = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    kinds = {"ddp": "MULTI_GPU", "fsdp": "FSDP", "cpu": "MULTI_CPU"}
    assert str(found.distributed_type).endswith(kinds[name])
    assert str(found.mixed_precision) == "no"  # a setting of the run
    assert name != "fsdp" or found.fsdp_config["fsdp_version"] == 2
