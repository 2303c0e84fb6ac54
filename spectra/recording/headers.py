"""What the runs of one call are labelled with, and whether they are fit to be kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra.errors import UserError
from spectra.recording import provenance
from spectra.recording.meter import Measured
from spectra.schema import GUIDED, RESERVED, Header
from spectra.signals import SIGNALS, Level

if TYPE_CHECKING:
    from spectra.record import Recorder
    from spectra.recording.call import Call

MEASURABLE = tuple(dict.fromkeys((*SIGNALS, "cond", "uncond", "guidance")))


def header_of(call: Call, steps: int, levels: list[Level], coherent: bool) -> Header:
    """The header of this call; levels that are not known yet are left at the last one."""
    assert call.plan is not None
    assert call.schedule is not None
    plan, schedule, recorder = call.plan, call.schedule, call.recorder
    timestep, signal_level, noise_level = zip(*(levels + [schedule.final] * steps)[:steps], strict=True)
    calls = schedule.steps_of(steps - 1)
    facts = {
        "model_hash": recorder.model_hash,
        **asked(recorder, call.scheduler, call.arguments),
        "family": recorder.family.name,
        "state_space": schedule.space,
        "prediction_type": schedule.prediction_type,
        "dtype": call.dtype,
    }
    reason = f"x0 is not recorded, or would take over {recorder.memory} bytes per run"
    off = {} if coherent else {"coherence_off": reason}
    return Header(
        plan.signals, plan.bank, (call.shape[-2], call.shape[-1]), call.shape[1],
        call.shape[2] if len(call.shape) == 5 else None, plan.radial_bins,
        timestep, signal_level, noise_level, facts, recorder.notes | off,
        (*calls, calls[-1] + 1), plan.temporal, plan.blocks,
    )  # fmt: skip


def asked(recorder: Recorder, scheduler: Any, arguments: Mapping[str, Any]) -> dict[str, str]:
    """Facts that a call has from its start: the scheduler, and the steps that were asked for (it may make more)."""
    own = next((arguments[name] for name in ("timesteps", "sigmas") if arguments.get(name) is not None), None)
    steps = arguments.get("num_inference_steps") if own is None else len(own)
    return {"scheduler": recorder.described(scheduler), "num_inference_steps": json.dumps(steps)}


def proven(measured: Measured, verdict: str, reasons: Sequence[str], recorder: Recorder) -> tuple[Measured, str]:
    """The numbers, without splits that turned out to be wrong, and why there are none (empty if there are).

    `verdict` says what is wrong with splits that were taken on trust, `reasons` why single calls have none. Raises
    UserError where a guidance rule steered by wrong ones.
    """
    if verdict and recorder.rule is not None:
        raise UserError(
            f"the guidance rule {recorder.rule.name} steered by predictions that it mistook: {verdict}; "
            "nothing was recorded"
        )
    if not GUIDED.issubset(recorder.signals):
        return measured, ""
    if not verdict:
        return measured, split_reason(reasons)
    rows = [recorder.signals.index(name) for name in sorted(GUIDED)]
    for values in (measured.energy, measured.spectrum, measured.temporal):
        if values is not None:
            values[:, :, rows] = np.nan
    if measured.agreement is not None:
        measured.agreement[...] = np.nan
    return measured, verdict


def split_reason(reasons: Sequence[str]) -> str:
    """Why there are no splits: of all calls, or of how many."""
    missing = [reason for reason in reasons if reason]
    if not missing or len(missing) == len(reasons):
        return missing[0] if missing else ""
    return f"in {len(missing)} of {len(reasons)} calls {missing[0]}"


def check_finite(latents: Any, name: str) -> None:
    """Raise UserError if energies of latents (run, step, ...) are not finite."""
    if not np.isfinite(latents).all():
        step = int(np.argmax(~np.isfinite(latents).reshape(*latents.shape[:2], -1).all((0, 2))))
        raise UserError(f"latents of {name} are not finite from step {step} on: not recorded; try torch_dtype=float32")


def known_signals(signals: Sequence[str]) -> tuple[str, ...]:
    """Signals in their usual order. Raises UserError for unknown ones and without `latent`, which every cube has."""
    unknown = sorted(set(signals) - set(MEASURABLE) - {"blocks"})
    if unknown or isinstance(signals, str):
        known = ", ".join((*MEASURABLE, "blocks"))
        raise UserError(f"signals are some of {known}, not {unknown[0] if unknown else signals!r}")
    if "latent" not in signals:
        raise UserError('signals have to hold "latent", which every cube is checked by')
    wanted = set(signals) | (GUIDED if GUIDED.intersection(signals) else set())
    return tuple(name for name in MEASURABLE if name in wanted)


def notes_of(pipe: Any, attrs: Mapping[str, Any] | None) -> dict[str, str]:
    """What is kept of where a cube comes from, and the user's own attributes as text."""
    own = {name: value if isinstance(value, str) else json.dumps(value) for name, value in (attrs or {}).items()}
    taken = sorted(RESERVED.intersection(own))
    if taken:
        raise UserError(f"the attribute {taken[0]!r} belongs to the cube itself; choose another name")
    model = str(getattr(pipe, "name_or_path", "") or type(pipe).__name__)
    return {"model": model, "versions": json.dumps(provenance.versions()), "command": provenance.command(), **own}
