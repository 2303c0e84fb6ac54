"""Keeps the checkpoints of a run: finds the one to go on from, saves new ones, and removes what is not needed."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from adapt import checkpoint
from adapt.checkpoint_tree import load_tree, save_tree
from adapt.processes import gathered
from adapt.state import ADAPTER, Home
from adapt.trainer import Trainer, save_adapter


@dataclass
class Keeper:
    """The first process writes; all read the same state."""

    home: Home
    accelerator: Accelerator
    keep: int
    """How many checkpoints are kept."""
    kept: Path | None = None
    """The newest complete one."""
    step: int = 0
    """Its step."""
    begun: float = 0.0
    """When the run began, by this process's clock: after an interruption, as if there had been none."""

    @classmethod
    def open(cls, home: Home, accelerator: Accelerator, keep: int, begun: float) -> Keeper:
        """A keeper that knows the newest complete checkpoint; warns of newer ones that are torn.

        `begun` is when this process began, by `time.perf_counter`.

        UserError where there is one under another name: it would be passed over, and training begin again.
        """
        found = checkpoint.Found(None, 0, ())
        if accelerator.is_main_process:
            checkpoint.check_names(home.states)
            found = checkpoint.newest(home.states)
            if found.torn:
                place = f"step {found.step}" if found.path else "the beginning"
                warnings.warn(f"{'; '.join(found.torn)}: training goes on from {place}", UserWarning, stacklevel=2)
        path, step = broadcast_object_list([found.path, found.step])
        return cls(home, accelerator, keep, path, step, begun)

    @property
    def seconds(self) -> float:
        """Time that the run has taken: of earlier processes, up to the checkpoint that this one went on from."""
        return time.perf_counter() - self.begun

    def restore(self, trainer: Trainer) -> None:
        """Bring a trainer to the newest complete checkpoint, if there is one."""
        if self.kept is not None:
            saved = load_tree(self.kept)
            trainer.restore(saved)
            self.begun -= saved.get("seconds", trainer.history.seconds)  # earlier versions kept the steps' time alone

    def save(self, trainer: Trainer) -> None:
        """Keep the trainer's state, if it is a new one; only when it is safe are older ones removed."""
        if trainer.step == self.step:  # nothing has happened since, or ever
            return
        tree, step = trainer.snapshot() | {"seconds": self.seconds}, trainer.step

        def fill(folder: Path) -> None:
            save_adapter(trainer.task, folder / ADAPTER)
            save_tree(tree, folder)

        with trainer.averaged(), gathered(trainer.task.denoiser):
            if self.accelerator.is_main_process:
                checkpoint.write(self.home.states, step, fill)
                checkpoint.prune(self.home.states, step, self.keep)
        self.accelerator.wait_for_everyone()
        self.kept, self.step = self.home.states / checkpoint.name_of(step), step
