"""All instruments on one finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from adapt.fera.ablation import ablate
from adapt.instruments.gradients import cosines, level_gradients, norms_of_experts
from adapt.instruments.opening import learned, open_run
from adapt.instruments.routing import GATINGS, SOURCES, effect_cosines, routing, variance_split, worth_of_gates
from adapt.instruments.updates import effective_rank, experts_of, inner_products, mixed, owners
from adapt.task import Progress, Task, silent
from adapt.validate import Grid, levels_of, make_grid, validate

Data = dict[str, tuple[tuple[str, ...], Any]]


def examine(run: Path | str, progress: Progress = silent, **changes: Any) -> xr.Dataset:
    """Look into a finished run of any method: where its gradients are, what was learned, what its gates are worth.

    It opens the run's model, data and adapter (`open_run`, which has the arguments) and measures on the validation
    grid, with two noise draws for each picture at least.  Parts that a method lacks are left out: `expert` and `gating`
    are FeRA's, weights are looked at where they are products of two factors.

        validation_error(level)             mean squared error
        gradient_energy(level, band)        of the loss with respect to the prediction, times the number of elements
        gradient_norm(level)                of the mean loss with respect to what was trained, the router left out
        gradient_cosine(level, level2)      of these gradients, as they are
        gradient_agreement(level, level2)   the same, free of their noise: 1 where levels ask for the same; an estimate
                                            that may pass 1 or be unknown (NaN) where `gradient_share` is small
        gradient_share(level)               of the squared norm that two halves of the pictures agree on
        band_agreement(level, band, band2)  between what the bands of the error ask for, free of noise
        expert_gradient(level, expert)      norm on an expert's parameters
        expert_effect, expert_error, expert_total    by switching experts off (`adapt.fera.ablation`), over samples too
        effect_cosine(level, expert, expert2)        of what experts do to the prediction
        expert_norm, expert_spectral, expert_rank    (layer, expert): of B A: Frobenius and spectral norm, and rank
        expert_cosine(expert, expert2)      of the experts' updates, all layers together
        update_norm, update_spectral, update_rank    (layer, [level]): of the gated sum at the level's mean gates
        update_cosine(level, level2)        how alike the adapted network's weights are at two levels
        gates(level, expert), gate_variance(source, expert), feature_variance(source, feature)
        error_by_gates(gating, level, sample)

    Raises:
        UserError: no finished run there, or its model or data are gone or others.
    """
    draws = changes.pop("eval_draws", None)
    task = open_run(run, progress, eval_draws=draws or 2, **changes)
    return examine_task(task)


def examine_task(task: Task, grid: Grid | None = None) -> xr.Dataset:
    """The same for a task with its adapter in place, trained or not, on a grid (default: that of its validation)."""
    grid = make_grid(task) if grid is None else grid
    routed = task.config.method == "fera"
    found: Data = {"validation_error": (("level",), validate(task, grid).error.mean((1, 2)))}
    found |= _gradients(task, grid)
    gates: Tensor | None = None
    if routed:
        seen = routing(task, grid)
        gates = seen.gates.mean((1, 2))
        found |= _routing(task, grid, seen.features, seen.gates)
    layers = experts_of(task.denoiser)
    found |= _updates(layers, gates)
    coords: dict[str, Any] = dict(levels_of(task, grid))
    coords |= {"source": list(SOURCES), "gating": list(GATINGS)} if routed else {}
    coords |= {"layer": list(layers)} if layers else {}
    attrs = {"method": task.config.method, "model": task.config.model, "objective": task.objective.name}
    data = {name: (dims, torch.as_tensor(values).numpy()) for name, (dims, values) in found.items()}
    return xr.Dataset(data, coords=coords, attrs=attrs)


def _gradients(task: Task, grid: Grid) -> Data:
    parameters = learned(task.denoiser)
    found = level_gradients(task, grid, parameters)
    whole = found.whole
    norm = torch.linalg.vector_norm(whole, dim=1)
    data: Data = {
        "gradient_energy": (("level", "band"), found.energy),
        "gradient_norm": (("level",), norm),
        "gradient_cosine": (("level", "level2"), cosines(whole @ whole.T)),
        "gradient_agreement": (("level", "level2"), cosines(found.inner)),
        "gradient_share": (("level",), found.inner.diagonal() / norm.square()),
        "band_agreement": (("level", "band", "band2"), cosines(found.bands)),
    }
    if task.config.method == "fera":
        whose = owners(task.denoiser, parameters)
        experts = int(whose.max()) + 1
        data["expert_gradient"] = (("level", "expert"), norms_of_experts(whole, whose, experts))
    return data


def _routing(task: Task, grid: Grid, features: Tensor | None, gates: Tensor) -> Data:
    experts = ablate(task, grid)
    each = ("level", "sample", "expert")
    data: Data = {
        "expert_effect": ((*each, "band"), experts.effect),
        "expert_error": ((*each, "band"), experts.error),
        "expert_total": (each, experts.total),
        "effect_cosine": (("level", "expert", "expert2"), effect_cosines(task, grid)),
        "gates": (("level", "expert"), gates.mean((1, 2))),
        "gate_variance": (("source", "expert"), variance_split(gates)),
        "error_by_gates": (("gating", "level", "sample"), worth_of_gates(task, grid, gates)),
    }
    if features is not None:
        data["feature_variance"] = (("source", "feature"), variance_split(features))
    return data


def _updates(layers: dict[str, list[Any]], gates: Tensor | None) -> Data:
    """Of the experts, and of the sums that gates (level, expert) make of them; of one sum where there are no gates."""
    if not layers:
        return {}
    weights = torch.ones(1, 1) if gates is None else gates
    sums = [[mixed(parts, row) for row in weights] for parts in layers.values()]
    summed = _sizes(sums)
    if gates is None:
        return {f"update_{name}": (("layer",), values[:, 0]) for name, values in summed.items()}
    data: Data = {f"update_{name}": (("layer", "level"), values) for name, values in summed.items()}
    data["update_cosine"] = (("level", "level2"), cosines(inner_products(sums)))
    routed = [parts[: gates.shape[1]] for parts in layers.values()]
    data |= {f"expert_{name}": (("layer", "expert"), values) for name, values in _sizes(routed).items()}
    data["expert_cosine"] = (("expert", "expert2"), cosines(inner_products(routed)))
    return data


def _sizes(updates: list[list[Any]]) -> dict[str, Tensor]:
    """Frobenius norm, spectral norm and effective rank of updates [layer][update], each (layer, update)."""
    values = [[one.singular_values() for one in layer] for layer in updates]
    return {
        "norm": torch.stack([torch.stack([torch.linalg.vector_norm(s) for s in row]) for row in values]),
        "spectral": torch.stack([torch.stack([s[0] for s in row]) for row in values]),
        "rank": torch.stack([torch.stack([effective_rank(s) for s in row]) for row in values]),
    }
