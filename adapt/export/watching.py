"""An adapter watched while its pipeline generates: gates and calls, and the same calls answered again.

Works for every family, because calls of the denoiser are kept as they are and repeated as they were.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spectra.errors import UserError
from spectra.signals import Schedule, schedule_of

KEPT = 6
"""Steps whose calls are kept for comparing; spread evenly over a run."""
SURE = 20.0
"""Largest size of a log-SNR: pure noise and finished samples are given this one."""


class Call(NamedTuple):
    """One call of the denoiser, on the CPU."""

    step: int
    arguments: tuple[Any, ...]
    named: dict[str, Any]


@dataclass
class Watched:
    """What was seen in one or more runs of equal steps."""

    timesteps: list[float] = field(default_factory=list)
    """(steps,)"""
    log_snr: list[float] = field(default_factory=list)
    """(steps,)"""
    noise_level: list[float] = field(default_factory=list)
    """(steps,): weight of the noise in the latent."""
    gates: dict[int, list[Tensor]] = field(default_factory=dict)
    """step -> gates (batch, experts) of its calls"""
    calls: list[Call] = field(default_factory=list)

    @property
    def mean_gates(self) -> Tensor:
        """Gates (steps, experts), averaged over latents."""
        return torch.stack([torch.cat(self.gates[step]).mean(0) for step in sorted(self.gates)])


@contextmanager
def watching(pipe: Any, denoiser: Any, steps: int, gates: Callable[[Any], Tensor | None]) -> Iterator[Watched]:
    """Inside, calls of the denoiser and steps of the scheduler are noted."""
    seen = Watched()
    wanted = {round(i * (steps - 1) / max(1, KEPT - 1)) for i in range(KEPT)} if steps > KEPT else set(range(steps))
    state: dict[str, Any] = {"step": 0, "schedule": None}

    def called(module: Any, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        step = state["step"]
        found = gates(module)
        if found is not None:
            seen.gates.setdefault(step, []).append(found.detach().float().cpu())
        if step in wanted:
            seen.calls.append(Call(step, _moved(arguments, "cpu"), _moved(named, "cpu")))

    scheduler, advance = pipe.scheduler, pipe.scheduler.step

    @functools.wraps(advance)  # pipelines read its signature
    def stepped(model_output: Any, timestep: Any, *rest: Any, **options: Any) -> Any:
        state["schedule"] = state["schedule"] or schedule_of(scheduler, ("latent",))
        if len(seen.timesteps) <= state["step"]:
            _note(seen, state["schedule"], timestep, getattr(scheduler, "step_index", None))
        state["step"] += 1
        return advance(model_output, timestep, *rest, **options)

    hook = denoiser.register_forward_hook(called, with_kwargs=True)
    scheduler.step = stepped
    try:
        yield seen
    finally:
        hook.remove()
        del scheduler.step


def _note(seen: Watched, schedule: Schedule, timestep: Any, index: int | None) -> None:
    level = schedule.at(timestep, index or 0)
    seen.timesteps.append(float(timestep))
    seen.noise_level.append(level.noise)
    seen.log_snr.append(log_snr(level.signal, level.noise))


def log_snr(signal: float, noise: float) -> float:
    """2 log(signal / noise), kept finite."""
    if not (math.isfinite(signal) and math.isfinite(noise)):
        raise UserError("this scheduler does not say its noise levels, and a schedule of gates needs them")
    return max(-SURE, min(SURE, 2 * math.log(max(signal, 1e-12) / max(noise, 1e-12))))


@torch.no_grad()
def answers(denoiser: Any, calls: list[Call]) -> list[Tensor]:
    """What the denoiser, as it is now, answers to each call, float32 on the CPU."""
    device = next(denoiser.parameters()).device
    made = (denoiser(*_moved(call.arguments, device), **_moved(call.named, device)) for call in calls)
    return [output[0].float().cpu() for output in made]


@contextmanager
def forced(denoiser: Any, gates: Callable[[int], Tensor]) -> Iterator[Callable[[], None]]:
    """Inside, FeRA's gates are gates(step) (experts,) whatever the latent is; call what is yielded after each step."""
    from adapt.fera import cell_of
    from adapt.methods import NAME

    cell, state = cell_of(denoiser), {"step": 0}

    def put(module: Any, arguments: Any, named: Any) -> None:
        if cell.gates and not cell.bypassed:
            own = cell.gates[NAME]
            cell.gates = {NAME: gates(state["step"]).to(own).expand_as(own)}

    def advance() -> None:
        state["step"] += 1

    hook = denoiser.register_forward_pre_hook(put, with_kwargs=True)  # runs after the router's, which came first
    try:
        yield advance
    finally:
        hook.remove()


def differences(seen: Watched, own: list[Tensor], base: list[Tensor], exported: list[Tensor]) -> list[dict[str, float]]:
    """For each kept step, how far the exported adapter's predictions are from the adapter's own.

    `relative`: norm of the difference over that of the prediction; `of_effect`: over the norm of what the adapter
    changes in the base's prediction.
    """
    found = []
    for step in sorted({call.step for call in seen.calls}):
        rows = [i for i, call in enumerate(seen.calls) if call.step == step]
        routed, plain, other = (torch.cat([part[i].flatten() for i in rows]) for part in (own, base, exported))
        off = float((other - routed).norm())
        found.append({
            "timestep": seen.timesteps[step], "noise_level": seen.noise_level[step],
            "relative": off / max(float(routed.norm()), 1e-30),
            "of_effect": off / max(float((routed - plain).norm()), 1e-30),
        })  # fmt: skip
    return found


def _moved(value: Any, device: Any) -> Any:
    """Tensors inside tuples, lists and dictionaries, copied to a device."""
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, dict):
        return {key: _moved(part, device) for key, part in value.items()}
    return type(value)(_moved(part, device) for part in value) if type(value) in (tuple, list) else value
