"""A dry run: everything that can be known of a training before the first step, in words and numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from adapt.config import TrainConfig, learning_rate
from adapt.fera import Coverage
from adapt.methods import METHODS
from adapt.plan import memory
from adapt.plan.data import look_at_data
from adapt.plan.example import example
from adapt.plan.levels import Levels, levels_of
from adapt.prior import Prior
from adapt.targets import resolve_targets
from adapt.task import Progress, check_objective, load_prior, objective_for, silent
from spectra.errors import UserError

Array = NDArray[np.float64]
FEW_PICTURES, MANY_EPOCHS = 8, 400


@dataclass(frozen=True)
class Plan:
    """What a configuration means for this model and these pictures."""

    config: TrainConfig
    model: str
    """Name, classes, size and hash."""
    targets: list[str]
    coverage: Coverage | None
    """What the adapter reaches; None where every weight is trained."""
    rate: float
    memory: memory.Memory
    data: dict[str, Any]
    """pictures, heldout, encoded, missing, reason."""
    levels: Levels
    objective: str
    prior: list[str]
    """What the prior says, in sentences."""
    bands: tuple[Array, Array] | None
    """Timesteps (steps,) and shares (steps, bands) of the probed latents."""
    pictures: list[tuple[str, NDArray[np.uint8]]]
    """What a training picture looks like to the model, and what the model draws for its caption, with titles."""

    @property
    def epochs(self) -> float:
        """How often each picture is seen."""
        pictures: int = self.data["pictures"]
        return self.config.steps * self.config.batch / max(1, pictures)

    def warnings(self) -> list[str]:
        """What a person should know before spending time."""
        found = [self.coverage.warning] if self.coverage and self.coverage.warning else []
        if self.data["pictures"] < FEW_PICTURES:
            found.append(f"{self.data['pictures']} training pictures are few: the adapter will learn them by heart")
        if self.epochs > MANY_EPOCHS:
            found.append(f"each picture is seen {self.epochs:.0f} times; fewer steps may do")
        neglected = self.levels.neglected()
        if neglected > 0.1:
            found.append(
                f"{neglected:.0%} of the sampler's steps are at noise levels that training hardly visits; "
                "set timesteps or shift, see the figure"
            )
        return found

    def sections(self) -> list[tuple[str, list[str]]]:
        """Titles and lines, for a terminal."""
        warned = self.warnings()
        whole = [
            ("Model", [self.model, f"Objective: {self.objective}"]),
            ("Adapter", self._adapter()),
            ("Data", self._data()),
            ("Training", self._training()),
            ("Memory on the device, MiB", self._memory()),
            *([("Prior", self.prior)] if self.prior else []),
        ]
        return [*whole, ("Read this first", warned)] if warned else whole

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values."""
        return {
            "config": self.config.record() | {"lr": self.rate, "targets": self.targets},
            "model": self.model, "objective": self.objective,
            "coverage": None if self.coverage is None else self.coverage._asdict(),
            "memory_mib": asdict(self.memory) | {"total": self.memory.total}, "data": self.data, "epochs": self.epochs,
            "levels": {
                "timestep_edges": self.levels.edges.tolist(), "training_density": self.levels.training.tolist(),
                "sampler_timestep": self.levels.sampler.tolist(), "neglected": self.levels.neglected(),
            },
            "prior": self.prior, "warnings": self.warnings(),
        }  # fmt: skip

    def _adapter(self) -> list[str]:
        config = self.config
        words = f"{config.method}, rank {config.rank}"
        if config.method == "fera":
            each = (config.rank - config.shared_rank) // config.experts
            words += f" ({config.experts} experts of rank {each}{_shared(config)}), router: {config.router}"
        if self.coverage is None:
            return ["every weight of the denoiser is trained"]
        rows = [
            f"{modules:>5} layers, {weights:>13,} weights: {name}" for name, modules, weights in self.coverage.table()
        ]
        return [words, str(self.coverage), *rows]

    def _data(self) -> list[str]:
        data = self.data
        lines = [f"{data['pictures']} training pictures, {data['heldout']} to measure on"]
        cached = f"{data['encoded']} encoded already, {data['missing']} to encode"
        lines.append(cached + (f" (first: {data['reason']})" if data["reason"] else ""))
        lines.append(f"Sizes: {', '.join(data['sizes'][:12])}")
        return [*lines, data["note"]] if data["note"] else lines

    def _training(self) -> list[str]:
        config = self.config
        return [
            f"{config.steps} steps of {config.batch} pictures: each is seen {self.epochs:.3g} times",
            f"{config.optimizer}, learning rate {self.rate:g} ({config.lr_schedule}, {config.warmup:.0%} warm-up)",
            f"Measured every {config.validate_every} steps; state saved every "
            f"{config.checkpoint_every or config.validate_every} steps",
        ]

    def _memory(self) -> list[str]:
        parts = asdict(self.memory)
        known = [f"{name}: {mib:,.0f}" for name, mib in parts.items() if mib is not None]
        unknown = [f"{name}: not known for this model" for name, mib in parts.items() if mib is None]
        return [*known, *unknown, f"in all: about {self.memory.total:,.0f}, and some 10 to 20 % of passing buffers"]


def make_plan(config: TrainConfig, *, preview: bool = False, progress: Progress = silent) -> Plan:
    """Plan a training without doing any of it; with `preview` one picture is drawn by the model as it is.

    Raises:
        UserError: whatever the training itself would refuse before its first step.
    """
    from spectra.families import family_of
    from spectra.models import check_steps, load_pipeline, model_hash, usable_device

    pipe: Any = load_pipeline(config.model)
    check_steps(pipe, config.sample_steps)
    identity, denoiser = model_hash(pipe), cast(Any, family_of(pipe).denoiser(pipe))
    prior, targets = load_prior(config, identity), resolve_targets(denoiser, config.targets)
    check_objective(config, pipe.scheduler, prior)
    progress("encode", 0, 1)
    looked = look_at_data(config, pipe)
    twin = adapted_twin(denoiser, config, targets, prior, pipe)
    pipe.to(usable_device())
    one = example(config, pipe, looked)
    shape = tuple(one.latent.shape[1:])
    objective = objective_for(config, pipe, shape)
    size = sum(p.numel() for p in denoiser.parameters())
    progress("sample", 0, 1)
    return Plan(
        config=config,
        model=f"{config.model}: {type(pipe).__name__}, {type(denoiser).__name__} of {size:,} parameters, "
        f"hash {identity[:12]}",
        targets=targets,
        coverage=None if config.method == "full" else one.coverage(twin),
        rate=config.lr or learning_rate(config.method, size),
        memory=one.memory(denoiser, twin),
        data=looked.facts(),
        levels=levels_of(config, pipe, objective, prior, shape),
        objective=objective.name,
        prior=[] if prior is None else prior.explain(),
        bands=None if prior is None else (np.array(prior.timestep), np.array(prior.shares)),
        pictures=one.pictures() if preview else [],
    )


def adapted_twin(denoiser: Any, config: TrainConfig, targets: list[str], prior: Prior | None, pipe: Any) -> Any:
    """The denoiser as it will be trained, on the meta device."""
    twin = memory.meta_twin(denoiser)
    if config.method == "full":  # to attach it would copy the weights, and there are none
        return twin.requires_grad_(True)
    METHODS[config.method].attach(twin, config, targets, prior, pipe)
    return twin


def explain_prior(path: Path, experts: int, figure: Path | None = None) -> list[str]:
    """The sentences of a saved prior, or of the one that a cube makes; with `figure` its picture is written."""
    if not path.exists():
        raise UserError(f"the prior {path} does not exist; give a cube (.zarr) or a saved prior (.json)")
    prior = Prior.load(path) if path.suffix == ".json" else Prior.from_cube(path, experts=experts)
    if figure is not None:
        from spectra.plots.style import save

        save(prior.figure(), figure)
    return prior.explain()


def _shared(config: TrainConfig) -> str:
    return f" and {config.shared_rank} always on" if config.shared_rank else ""
