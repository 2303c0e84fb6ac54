"""A dry run: everything that can be known of a training before the first step, in words and numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapt.config import TrainConfig
from adapt.fera import Coverage
from adapt.methods import Reach
from adapt.plan.levels import Levels
from adapt.plan.memory import Memory

Array = NDArray[np.float64]
FEW_PICTURES, FEW_HELDOUT, MANY_EPOCHS = 8, 4, 400


@dataclass(frozen=True)
class Plan:
    """What a configuration means for this model and these pictures."""

    config: TrainConfig
    model: str
    """Name, classes, size and hash."""
    targets: list[str]
    coverage: Coverage | None
    """What the adapter reaches; None where every weight is trained."""
    reach: Reach | None
    """Which of the targets the adapter leaves out, and why."""
    encoders: dict[str, int]
    """Trained numbers of each text encoder that learns too."""
    rate: float
    memory: Memory
    data: dict[str, Any]
    """What `adapt.plan.data.Looked.facts` says."""
    levels: Levels
    objective: str
    prior: list[str]
    """What the prior says, in sentences."""
    bands: tuple[Array, Array] | None
    """Timesteps (steps,) and shares (steps, bands) of the probed latents."""
    pictures: list[tuple[str, NDArray[np.uint8]]]
    """What a training picture looks like to the model, and what the model draws for its caption, with titles."""
    place: str
    """What stands at the place of the run already; empty where the place is free."""

    @property
    def epochs(self) -> float:
        """How often each picture is seen."""
        pictures: int = self.data["pictures"]
        return self.config.steps * self.config.batch / max(1, pictures)

    def warnings(self) -> list[str]:
        """What a person should know before spending time."""
        found = [*([self.place] if self.place else []), *self.config.unused()]
        found += [self.coverage.warning] if self.coverage and self.coverage.warning else []
        found += [str(self.reach)] if self.reach and self.reach.left_out else []
        if self.data["pictures"] < FEW_PICTURES:
            found.append(f"{self.data['pictures']} training pictures are few: the adapter will learn them by heart")
        if self.epochs > MANY_EPOCHS:
            found.append(f"each picture is seen {self.epochs:.0f} times; fewer steps or a smaller batch may do")
        if self.data["heldout"] < FEW_HELDOUT:
            number = self.data["heldout"]
            found.append(f"errors are measured on {number} picture{'s' * (number != 1)} alone; hold more out (heldout)")
        if shared := self.data["shared"]:
            found.append(
                f"{len(shared)} held-out pictures are trained on, too, such as {shared[0]}: errors say too little"
            )
        if self.config.buckets and len(self.data["sizes"]) == 1:
            found.append(
                f"buckets has no effect: all pictures become {self.data['sizes'][0]} pixels; "
                f"a smaller bucket_step than {self.config.bucket_step} allows more shapes"
            )
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
            "left_out": self.reach.left_out if self.reach else [], "text_encoders": self.encoders,
            "memory_mib": asdict(self.memory) | {"total": self.memory.total}, "data": self.data, "epochs": self.epochs,
            "levels": {
                "timestep_edges": self.levels.edges.tolist(), "training_density": self.levels.training.tolist(),
                "sampler_timestep": self.levels.sampler.tolist(), "neglected": self.levels.neglected(),
            },
            "prior": self.prior, "warnings": self.warnings(),
        }  # fmt: skip

    def _adapter(self) -> list[str]:
        texts = [f"{name}: {count:,} weights trained too" for name, count in self.encoders.items()]
        if self.coverage is None:
            return ["every weight of the denoiser is trained", *texts]
        rows = [
            f"{modules:>5} layers, {weights:>13,} weights: {name}" for name, modules, weights in self.coverage.table()
        ]
        out = [str(self.reach)] if self.reach and self.reach.left_out else []
        return [adapter_words(self.config), str(self.coverage), *out, *rows, *texts]

    def _data(self) -> list[str]:
        data = self.data
        clips = f"clips of {self.config.frames} frames" if self.config.frames > 1 else "pictures"
        lines = [f"{data['pictures']} training {clips}, {data['heldout']} to measure on"]
        if data["class_pictures"]:
            lines.append(f"{data['class_pictures']} pictures of the class: one beside each training picture of a step")
        if data["to_draw"] is not None:
            left = f"{data['to_draw']} of which are still to be drawn"
            lines.append(f"{self.config.class_count} pictures of the class, {left}")
        cached = f"{data['encoded']} encoded already, {data['missing']} to encode"
        lines.append(cached + (f" (first: {data['reason']})" if data["reason"] else ""))
        lines.append(f"Sizes: {', '.join(data['sizes'][:12])}")
        return [*lines, *data["notes"]]

    def _training(self) -> list[str]:
        config = self.config
        parts = f", in {config.accumulate} parts" if config.accumulate > 1 else ""
        return [
            f"{config.steps} steps of {config.batch} pictures{parts}: each is seen {self.epochs:.3g} times",
            f"{config.optimizer}, learning rate {self.rate:g} ({config.lr_schedule}, {config.warmup:.0%} warm-up)",
            f"Measured every {config.validate_every} steps; state saved every "
            f"{config.checkpoint_every or config.validate_every} steps",
        ]

    def _memory(self) -> list[str]:
        parts = asdict(self.memory)
        known = [f"{name}: {_mib(mib)}" for name, mib in parts.items() if mib is not None]
        unknown = [f"{name}: not known for this model" for name, mib in parts.items() if mib is None]
        mixed = self.config.precision != "no" and self.memory.activations is not None
        less = [f"activations are counted in float32; with {self.config.precision} most take half"] if mixed else []
        return [
            *known,
            *unknown,
            *less,
            f"in all: about {_mib(self.memory.total)}, and some 10 to 20 % of passing buffers",
        ]


def adapter_words(config: TrainConfig) -> str:
    """Method and rank, as far as the method has one."""
    words: dict[str, Callable[[], str]] = {
        "fera": lambda: _fera_words(config),
        "adalora": lambda: f"adalora, rank {config.rank} on average at the end of training, half as much more before",
        "oft": lambda: f"oft, blocks of {config.rank} (or the nearest divisor of a layer's width)",
        "ia3": lambda: "ia3: a factor for each output",
    }
    return words.get(config.method, lambda: f"{config.method}, rank {config.rank}")()


def _fera_words(config: TrainConfig) -> str:
    each = (config.rank - config.shared_rank) // config.experts
    shared = f" and {config.shared_rank} always on" if config.shared_rank else ""
    kind = f"{config.experts} experts of kind ia3" if config.expert == "ia3" else (
        f"rank {config.rank} ({config.experts} experts of rank {each}{shared})"
        + (f" of kind {config.expert}" if config.expert != "lora" else "")
    )  # fmt: skip
    mode = ", published mode" if config.fera_mode == "published" else ""
    return f"fera, {kind}, router: {config.router}{mode}"


def _mib(number: float) -> str:
    """MiB in words, with a decimal where it matters."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.1f}"
