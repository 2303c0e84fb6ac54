"""What a run leaves behind in numbers: `run.json` and `metrics.zarr`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from adapt.fera.ablation import Ablation, ablate
from adapt.fera.coverage import coverage
from adapt.fera.health import usage
from adapt.history import PARTS, History
from adapt.methods.text_encoders import adapted
from adapt.optimisers import peak_rate
from adapt.task import Task
from adapt.trainer import trainable as trained
from adapt.validate import levels_of, make_grid, numbers
from spectra.recording.provenance import versions

ROUTER = "fera."
"""Names of the router's weights begin so; they are trained, and are no part of the low-rank update."""


def describe(task: Task, history: History) -> dict[str, Any]:
    """The record of a run, but for the time at which it is finished."""
    config = task.config
    encoders = dict(adapted(task.pipe)) if config.text_encoder else {}
    trainable = {name: p.numel() for name, p in trained(task.denoiser, encoders).items()}
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
        "config": config.record() | {"lr": peak_rate(config, total), "targets": task.targets},
        "objective": task.objective.name,
        "coverage": None if config.method == "full" else str(coverage(task.denoiser)),
        "left_out": str(task.reach) if task.reach and task.reach.left_out else None,
        "validation": validated(history),
        "training_pictures": len(task.train),
        "set_aside": set_aside(task),
        "cache": {"hits": task.train.hits + task.heldout.hits, "misses": task.train.misses + task.heldout.misses},
        "trainable_parameters": sum(trainable.values()),
        "adapter_parameters": sum(count for name, count in trainable.items() if not name.startswith(ROUTER)),
        "seconds_train": history.seconds,
        "resumed": history.resumed,
        "peak_memory_mib": peak_memory(task.device),
        "device": str(task.device),
        "versions": versions(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def validated(history: History) -> dict[str, Any] | None:
    """Mean errors on the validation grid before and after training, and how many cells each is a mean of."""
    if not history.validations:
        return None
    every = list(history.validations.values())
    first, last = every[0], every[-1]
    return {"before": float(first.error.mean()), "after": float(last.error.mean()), "cells": last.error.numel()}


def unused_experts(history: History) -> str:
    """A sentence where the gates of the last measurement leave experts out at every noise level; else empty."""
    gates = [one.gates for one in history.validations.values()][-1:]
    if not gates or gates[0] is None or not gates[0].isfinite().all():
        return ""
    return usage(gates[0]).warning


def set_aside(task: Task) -> int:
    """How many pictures were held out of the training data because there was no held-out folder; 0 with one."""
    folders = [{Path(path).parent for path in data.paths} for data in (task.train, task.heldout)]
    return len(task.heldout) if task.config.heldout is None and folders[0] & folders[1] else 0


def ablated(task: Task) -> Ablation | None:
    """What each expert of the finished adapter does; None for methods without experts, or where it is not asked for."""
    if task.config.method != "fera" or not task.config.ablate:
        return None
    return ablate(task, make_grid(task))


def metrics(task: Task, history: History, experts: Ablation | None = None) -> xr.Dataset:
    """Numbers of every training step, the measurements on the validation grid, and what experts do at the end."""
    found = list(history.validations.values())
    data: dict[str, Any] = {
        "train_loss": ("step", numbers(history.losses)),
        "noise_loss": (("step", "noise_part"), numbers(history.noise_losses)),
        "gradient_norm": ("step", numbers(history.gradient_norms)),
        "learning_rate": ("step", numbers(history.learning_rates)),
    }
    cell = ("eval_step", "level", "sample")
    for name, field, last in (("validation_error", "error", ("draw",)), ("gates", "gates", ("expert",)),
                              ("band_error", "band_error", ("draw", "band"))):  # fmt: skip
        rows = [getattr(one, field) for one in found]
        if all(row is not None for row in rows):
            data[name] = ((*cell, *last), numbers(torch.stack(rows)))
    if experts is not None:
        whole = ("level", "sample", "expert")
        data["expert_effect"] = ((*whole, "band"), numbers(experts.effect))
        data["expert_error"] = ((*whole, "band"), numbers(experts.error))
        data["expert_total"] = (whole, numbers(experts.total))
    coords = {
        "step": np.arange(1, len(history.losses) + 1),
        "eval_step": np.array(list(history.validations)),
        "noise_part": (np.arange(PARTS) + 0.5) / PARTS,
        **levels_of(task, make_grid(task)),
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
