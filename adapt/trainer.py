"""What moves while an adapter trains, as one thing that can take a step, be measured, saved and restored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from adapt import processes
from adapt.checkpoint_tree import copy_into, whole
from adapt.config import TrainConfig
from adapt.draws import Draws, draw, rows_of_shapes
from adapt.ema import Ema
from adapt.history import History, Tally
from adapt.methods import NAME
from adapt.methods.text_encoders import adapted, save_text_encoders, text_groups
from adapt.optimisers import make_optimizer, optimizer_state, peak_rate, rate, restore_optimizer
from adapt.preservation import class_rows
from adapt.step import fecl_weight, step_loss
from adapt.task import Task
from adapt.validate import Grid, validate
from spectra.errors import UserError


@dataclass
class Trainer:
    """A task in training; `step` counts the steps done."""

    task: Task
    accelerator: Accelerator
    denoiser: Any
    """As accelerate wrapped it."""
    optimizer: Any
    parameters: dict[str, Tensor]
    """Everything that learns, by name."""
    peaks: list[float]
    """Peak learning rate of each group."""
    ema: Ema | None
    history: History
    step: int = 0
    encoders: dict[str, Any] = field(default_factory=dict)
    """Text encoders that learn too."""
    tau: float | None = None
    """Temperature of the gates at the start, where it changes."""
    learning: bool | None = None
    """Mode that the modules were last put in."""

    @classmethod
    def of(cls, task: Task, accelerator: Accelerator) -> Trainer:
        """A trainer at step 0."""
        config = task.config
        _prepare_denoiser(task)
        peak = peak_rate(config, sum(p.numel() for p in task.denoiser.parameters()))
        encoders = dict(adapted(task.pipe)) if config.text_encoder else {}
        groups = task.method.groups(task.denoiser, peak, config) + text_groups(encoders, peak, config)
        peaks = [float(group["lr"]) for group in groups]
        optimizer = make_optimizer(config, groups, accelerator.device)
        denoiser, optimizer = accelerator.prepare(task.denoiser, optimizer)
        parameters = trainable(task.denoiser, encoders)
        ema = None if config.ema is None else Ema(parameters, config.ema)
        history = History.empty(config.steps, accelerator.device)
        tau = None if config.tau_end is None else float(task.denoiser.peft_config[NAME].tau)
        return cls(task, accelerator, denoiser, optimizer, parameters, peaks, ema, history, 0, encoders, tau)

    def advance(self) -> None:
        """Take one step."""
        config, method = self.task.config, self.task.method
        share = rate(self.step, config.steps, config.warmup, config.lr_schedule)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * share
        self._anneal(self.step)
        self._mode(learning=True)
        with processes.chance(config, self.step, self.accelerator):
            tally = self._backward()
        norm = self.accelerator.clip_grad_norm_(list(self.parameters.values()), config.clip)
        self.optimizer.step()
        if not self.optimizer.step_was_skipped:
            method.after_step(self.task.denoiser, self.step, config.steps)
            if self.ema is not None:
                self.ema.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.history.note(self.step, tally, whole(norm), self.peaks[0] * share)
        self.step += 1

    def _backward(self) -> Tally:
        """Gradients of the step's batch, in as many parts as are asked for."""
        config, tally = self.task.config, Tally.empty(self.accelerator.device)
        mine, parts = draws_of(self.task, self.step, self.accelerator), config.accumulate
        read_ahead(self.task, self.step + 1, self.accelerator)
        for index in range(parts):
            with processes.no_sync(self.accelerator, self.denoiser, last=index == parts - 1):
                found = step_loss(self.task, self.denoiser, mine.part(index, parts), fecl_weight(config, self.step))
                self.accelerator.backward(found.loss / parts)
            tally.add(found, 1 / parts)
        self._share_encoder_gradients()
        return tally.together(self.accelerator)

    def _share_encoder_gradients(self) -> None:
        """The mean over processes, which the wrapped denoiser takes by itself."""
        if self.accelerator.num_processes == 1:
            return
        for encoder in self.encoders.values():
            for parameter in encoder.parameters():
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, "mean")

    def _anneal(self, step: int) -> None:
        """Bring the gates' temperature from its start to `tau_end` in equal ratios; that of step `step` is set."""
        config = self.task.config
        if self.tau is None or config.tau_end is None:
            return
        from adapt.fera.router import set_temperature

        done = step / max(1, config.steps - 1)
        set_temperature(self.task.denoiser, self.tau ** (1 - done) * config.tau_end**done, NAME)

    def _mode(self, learning: bool) -> None:
        """For training or measuring; asked in every step, and thousands of modules are told only when it changes."""
        if learning == self.learning:
            return
        for module in (self.task.denoiser, *self.encoders.values()):
            module.train(learning)
        self.learning = learning

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model is what is measured and saved: with averaged weights if the run keeps an average."""
        self._mode(learning=False)
        own: AbstractContextManager[None] = nullcontext() if self.ema is None else self.ema.in_place()
        with own:
            yield

    def measure(self, grid: Grid) -> None:
        """Measure on the validation grid."""
        with self.averaged():
            self.history.validations[self.step] = validate(self.task, grid)

    def snapshot(self) -> dict[str, Any]:
        """The whole state as a tree; every process has to call this.

        Weights are copies, as averaged ones may take their place before the tree is written.
        """
        scaler = self.accelerator.scaler
        return {
            "step": self.step,
            "horizon": {"steps": self.task.config.steps, "warmup": self.task.config.warmup, "peaks": self.peaks},
            "seed": self.task.config.seed,
            "weights": {name: whole(p.detach()).to("cpu", copy=True) for name, p in self.parameters.items()},
            "optimizer": optimizer_state(self.optimizer),
            "method": self.task.method.state(self.task.denoiser),
            "ema": None if self.ema is None else self.ema.state(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "history": self.history.state(self.step),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from a snapshot; UserError where it is another run's."""
        if saved["weights"].keys() != self.parameters.keys() or saved["horizon"]["peaks"] != self.peaks:
            raise UserError("the saved state is another adapter's; begin it anew (--set resume=false --overwrite)")
        self.step = saved["step"]
        for name, value in saved["weights"].items():
            copy_into(self.parameters[name], value)
        restore_optimizer(self.optimizer, saved["optimizer"])
        self.task.method.restore(self.task.denoiser, saved["method"])
        if self.ema is not None:
            self.ema.restore(saved["ema"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(saved["scaler"])
        self.history.restore(self.step, saved["history"])
        self._anneal(self.step - 1)

    def finish(self) -> None:
        """Leave the task's model as what is measured and saved, without accelerate's wrappers."""
        if self.ema is not None:
            self.ema.put()
        self._mode(learning=False)
        self.accelerator.unwrap_model(self.denoiser, keep_fp32_wrapper=False)


def trainable(denoiser: Any, encoders: dict[str, Any]) -> dict[str, Tensor]:
    """Parameters that learn, by name."""
    named = [("", denoiser), *((f"{name}.", encoder) for name, encoder in encoders.items())]
    return {
        prefix + name: parameter
        for prefix, module in named for name, parameter in module.named_parameters() if parameter.requires_grad
    }  # fmt: skip


def save_adapter(task: Task, folder: Path) -> None:
    """Write the adapter as it is now, with that of the text encoders if they learn."""
    task.method.save(task.denoiser, folder)
    if task.config.text_encoder:
        save_text_encoders(task.pipe, folder)


def draws_of(task: Task, step: int, accelerator: Accelerator) -> Draws:
    """This process's part of what chance decides in a step."""
    config = task.config
    whole = draw(
        config.seed, step, config.batch, len(task.train), task.shape, config.caption_dropout, task.train.shapes
    )
    return whole.part(accelerator.process_index, accelerator.num_processes)


def read_ahead(task: Task, step: int, accelerator: Accelerator) -> None:
    """Begin to read this process's pictures of a step in the background, while the step before it is computed."""
    rows = rows_of_shapes(task.config.seed, step, task.config.batch, len(task.train), task.train.shapes)
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    task.train.prefetch(rows[mine])
    if task.class_data is not None:
        task.class_data.prefetch(class_rows(task, task.class_data, task.train.shapes[rows[0]], step)[mine])


def _prepare_denoiser(task: Task) -> None:
    """Recompute activations and compile blocks where that is asked for."""
    denoiser, config = task.denoiser, task.config
    check_denoiser(config, denoiser)
    if config.checkpointing:
        denoiser.enable_gradient_checkpointing(gradient_checkpointing_func=_checkpointing(task))
    if config.compile:
        for block in _repeated(denoiser):
            block.compile()  # as diffusers' compile_repeated_blocks, which knows fewer models


def check_denoiser(config: TrainConfig, denoiser: Any) -> None:
    """UserError where a denoiser cannot recompute its activations or be compiled, and is to."""
    kind = type(denoiser).__name__
    if config.checkpointing and not denoiser._supports_gradient_checkpointing:
        raise UserError(f"{kind} cannot recompute activations; leave checkpointing out")
    if config.compile and not _repeated(denoiser):
        raise UserError(f"{kind} does not say which of its blocks repeat; leave compile out")


def _repeated(denoiser: Any) -> list[Any]:
    """The blocks of which a denoiser is made."""
    names = denoiser._repeated_blocks or denoiser._no_split_modules or ()
    return [module for module in denoiser.modules() if type(module).__name__ in names]


def _checkpointing(task: Task) -> Any:
    """How activations are recomputed: FeRA's way puts the gates of the pass back; None is diffusers' own."""
    if task.config.method != "fera":
        return None
    from adapt.fera import cell_of, checkpointing_function

    return checkpointing_function(cell_of(task.denoiser))
