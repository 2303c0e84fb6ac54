"""One LoRA per expert and a schedule of gates, and the callback that plays it in a stock diffusers pipeline."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapt.export.factors import Factors
from adapt.export.faults import FORMAT, faults
from adapt.export.files import write_lora
from adapt.export.watching import Watched, log_snr
from spectra.errors import UserError
from spectra.signals import schedule_of

GATES_FILE = "gates.json"


class ScheduledLoras:
    """Plays the gates of an exported FeRA adapter, step by step, with diffusers' own `set_adapters`.

    >>> player = ScheduledLoras.load(pipe, "exported")
    >>> pipe(prompt, num_inference_steps=20, callback_on_step_end=player)

    The gates follow the noise level of the coming step and are the same for every sample of a batch.  Weights for the
    first step are set when it is made and after each last step, so one player serves one call after another.
    """

    def __init__(self, names: list[str], log_snrs: list[float], gates: list[list[float]], shared: list[str]) -> None:
        order = np.argsort(log_snrs, kind="stable")
        self.names, self.shared = names, shared
        self._log_snr: NDArray[np.float64] = np.asarray(log_snrs, np.float64)[order]
        self._gates: NDArray[np.float64] = np.asarray(gates, np.float64)[order]

    @classmethod
    def load(cls, pipe: Any, folder: str | Path) -> ScheduledLoras:
        """Load the LoRAs of an export into a pipeline and set the weights of the first step.

        Raises:
            UserError: no schedule there, a file that is missing or unreadable, or LoRAs of another kind of model.
        """
        saved = read_schedule(Path(folder))
        for name, file in saved["adapters"].items():
            try:
                load_lora(pipe, Path(folder) / file, name)
            except (OSError, ValueError) as error:
                raise UserError(f"{Path(folder) / file} cannot be loaded: {error}") from None
        made = cls(saved["experts"], saved["log_snr"], saved["gates"], saved["shared"])
        try:
            made.play(pipe, float(made._log_snr[0]))
        except ValueError:  # diffusers knows none of these names
            raise UserError(
                f"{folder} was exported from another kind of model: this {type(pipe).__name__} has no layer that its "
                "experts adapt"
            ) from None
        return made

    def gates(self, log_snr: float) -> list[float]:
        """Gates (experts,) at a noise level: linear in the log-SNR, and constant beyond the ends of the schedule."""
        return [float(np.interp(log_snr, self._log_snr, column)) for column in self._gates.T]

    def play(self, pipe: Any, log_snr: float) -> None:
        """Set the weights for a noise level."""
        weights = self.gates(log_snr) + [1.0] * len(self.shared)
        pipe.set_adapters([*self.names, *self.shared], adapter_weights=weights)

    def __call__(self, pipe: Any, step: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Set the weights for the step after this one; diffusers calls this at the end of each step."""
        times = pipe.scheduler.timesteps
        if step + 1 < len(times):
            self.play(pipe, level_of(pipe.scheduler, times[step + 1], step + 1))
        else:
            self.play(pipe, float(self._log_snr[0]))
        return callback_kwargs


def load_lora(pipe: Any, path: Path, name: str) -> None:
    """diffusers' own `load_lora_weights`, without notes on components that a file holds nothing for and on others."""
    noisy = [logging.getLogger(f"diffusers.loaders.{part}") for part in ("peft", "lora_base", "lora_pipeline")]
    before = [logger.level for logger in noisy]
    for logger in noisy:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several at once are meant
            pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name)
    finally:
        for logger, level in zip(noisy, before, strict=True):
            logger.setLevel(level)


def level_of(scheduler: Any, timestep: Any, index: int) -> float:
    """log-SNR at a timestep of a scheduler whose timesteps are set."""
    level = schedule_of(scheduler, ("latent",)).at(timestep, index)
    return log_snr(level.signal, level.noise)


def write_scheduled(
    folder: Path, component: str, parts: Mapping[str, Mapping[str, Factors]], seen: Watched,
    texts: Mapping[str, Mapping[str, Factors]],
) -> None:  # fmt: skip
    """Write one LoRA file per expert, one of what is always on, and the schedule."""
    experts = [name for name in parts if name != "shared"]
    always = {component: parts["shared"]} if "shared" in parts else {}
    files = {name: {component: parts[name]} for name in experts}
    if always or texts:
        files["shared"] = {**always, **texts}
    for name, held in files.items():
        write_lora(folder / f"{name}.safetensors", held)
    schedule = {
        "format": FORMAT,
        "experts": experts,
        "shared": [name for name in files if name not in experts],
        "adapters": {name: f"{name}.safetensors" for name in files},
        "timestep": seen.timesteps,
        "noise_level": seen.noise_level,
        "log_snr": seen.log_snr,
        "gates": seen.mean_gates.tolist(),
    }
    (folder / GATES_FILE).write_text(json.dumps(schedule, indent=2) + "\n", encoding="utf-8")


def read_schedule(folder: Path) -> dict[str, Any]:
    """The schedule of an export.

    Raises:
        UserError: there is none, or one that does not hold together: what is wrong with it, in a sentence.
    """
    path = folder / GATES_FILE
    try:
        saved: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        wrong = next(faults(saved), None)
    except OSError as error:
        wrong = str(error.strerror or error)
    except (ValueError, RecursionError):
        wrong = "it is no JSON"
    if wrong:
        raise UserError(f"{path} cannot be read as a schedule of gates: {wrong}; export the adapter again")
    return saved


def stepwise(seen: Watched) -> Callable[[int], Tensor]:
    """step -> gates (experts,): what the schedule gives in a run of the same steps, for comparing."""
    player = ScheduledLoras([], seen.log_snr, seen.mean_gates.tolist(), [])
    levels = seen.log_snr

    def at(step: int) -> Tensor:
        return torch.tensor(player.gates(levels[step]))

    return at
