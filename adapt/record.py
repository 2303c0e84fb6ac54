"""What a run leaves behind in numbers: `run.json` and `metrics.zarr`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from adapt.config import learning_rate
from adapt.task import Task
from adapt.validate import Validation
from spectra.recording.provenance import versions

ROUTER = "fera."
"""Names of the router's weights begin so; they are trained, and are no part of the low-rank update."""


def describe(task: Task, seconds_train: float) -> dict[str, Any]:
    """The record of a run, but for the time at which it is finished."""
    config = task.config
    trainable = {name: p.numel() for name, p in task.denoiser.named_parameters() if p.requires_grad}
    total = sum(p.numel() for p in task.denoiser.parameters())
    return {
        "name": config.out.name,
        "method": config.method,
        "prior": None if task.prior is None else {"path": str(config.prior), **task.prior.provenance},
        "model": config.model,
        "model_hash": task.model_hash,
        "data": str(config.data),
        "seed": config.seed,
        "steps": config.steps,
        "config": config.record() | {"lr": config.lr or learning_rate(config.method, total), "targets": task.targets},
        "objective": task.objective.name,
        "training_pictures": len(task.train),
        "cache": {"hits": task.train.hits + task.heldout.hits, "misses": task.train.misses + task.heldout.misses},
        "trainable_parameters": sum(trainable.values()),
        "adapter_parameters": sum(count for name, count in trainable.items() if not name.startswith(ROUTER)),
        "seconds_train": seconds_train,
        "peak_memory_mib": peak_memory(task.device),
        "device": str(task.device),
        "versions": versions(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def metrics(task: Task, losses: Tensor, validations: Mapping[int, Validation]) -> xr.Dataset:
    """Training loss by step, and the measurements on the validation grid."""
    from adapt.validate import make_grid

    level = task.objective.noise_level(make_grid(task).timesteps).double()
    found = list(validations.values())
    data: dict[str, Any] = {
        "train_loss": ("step", losses.float().cpu().numpy()),
        "validation_error": (
            ("eval_step", "level", "sample", "draw"), torch.stack([one.error for one in found]).float().numpy()
        ),
    }  # fmt: skip
    gates = [one.gates for one in found if one.gates is not None]
    if gates:
        data["gates"] = (("eval_step", "level", "sample", "expert"), torch.stack(gates).numpy())
    coords = {
        "step": np.arange(1, len(losses) + 1),
        "eval_step": np.array(list(validations)),
        "noise_level": ("level", task.objective.noise_weight(level).numpy()),
        "log_snr": ("level", task.objective.log_snr(level).numpy()),
    }
    return xr.Dataset(data, coords=coords, attrs={"objective": task.objective.name})


def peak_memory(device: torch.device) -> float:
    """Most memory in use so far, MiB: on the accelerator where there is one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss counts bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
