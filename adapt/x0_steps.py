"""The finished sample as a network foresees it on the way, step by step: what a scrubber of a report shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from PIL import Image
from torch import Tensor

from adapt.generating import Sizes, generate, pictures
from adapt.octaves import measured, stills
from spectra.errors import UserError
from spectra.families import family_of
from spectra.recording.entry import Entry, index_of, levels_of, positional, states_of, without_variance
from spectra.recording.tap import tap
from spectra.signals import clean_and_noise, output_for, schedule_of

COUNT = 9
"""Steps that are kept, evenly spread over a generation, its first and last included."""


@dataclass(frozen=True)
class Foreseen:
    """Predictions of x0 in the course of one generation; row i of everything is one step."""

    step: Tensor
    """(steps,) numbers of sampler steps, from 0."""
    noise_level: Tensor
    """(steps,) weight of the noise in the state that each was made from (sigma)."""
    latents: Tensor
    """(steps, c, [t], h, w) float32, on the CPU, guidance included."""


def foresee(
    pipe: Any,
    prompt: str,
    seed: int,
    *,
    steps: int,
    guidance: float,
    sizes: Sizes | None = None,
    image: Image.Image | None = None,
    count: int = COUNT,
) -> Foreseen:
    """Generate one sample as `adapt.generating.generate` does, and keep what x0 is predicted to be at `count` steps.

    The same x0 as that of `spectra.record`: no clipping or thresholding, and of solvers that ask the network twice in a
    step the first answer.  Steps at which the state holds no signal, so that a predicted noise says nothing of x0, are
    left out.

    Raises:
        UserError: the scheduler has no known rule for x0, or it is not the pipeline's own scheduler that steps.
    """
    call: dict[str, Any] = {}
    with family_of(pipe).resolving(pipe, call), _heard(pipe) as entries:
        generate(
            pipe, [prompt], [seed], steps=steps, guidance=guidance, sizes=sizes,
            images=None if image is None else [image],
        )  # fmt: skip
    if not entries:
        raise UserError(f"{type(pipe).__name__} ended without calling step of its scheduler (of a copy?)")
    return _chosen(_clean(pipe, entries, call), count)


@contextmanager
def _heard(pipe: Any) -> Iterator[list[Entry]]:
    """Inside, what the pipeline's scheduler is given at each of its calls."""
    entries: list[Entry] = []
    kind: Any = type(pipe.scheduler)

    def step(original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = dict(zip(positional(kind), args, strict=False)) | kwargs
        x = given["sample"]
        kept = x.detach().clone(), without_variance(x, _output(pipe.scheduler, given)).detach().clone()
        result = original(*args, **kwargs)
        after = getattr(pipe.scheduler, "step_index", None)
        index = None if after is None else after - 1
        if entries and index is not None and entries[-1].index == index:  # the pipeline rewound
            entries.pop()
        entries.append(Entry(*kept, given["timestep"], index))
        return result

    with tap(pipe.scheduler, "step", step):
        yield entries


def _output(scheduler: Any, given: Mapping[str, Any]) -> Tensor:
    """What the network predicts; where `step` is given a clean sample beside it (Cosmos), what would lead to that."""
    out: Tensor = given["model_output"]
    if given.get("pred_original_sample") is None:
        return out
    schedule = schedule_of(scheduler, ("latent", "x0"))
    level = schedule.at(given["timestep"], index_of(scheduler, given["timestep"]))
    return output_for(given["sample"], given["pred_original_sample"], level, schedule)


def _clean(pipe: Any, entries: list[Entry], call: Mapping[str, Any]) -> Foreseen:
    """x0 at every sampler step that determines it."""
    schedule, family = schedule_of(pipe.scheduler, ("latent", "x0")), family_of(pipe)
    levels = levels_of(entries, schedule)
    states = states_of(entries, levels, lambda raw: family.plain(raw, pipe, call), guided=False)
    numbers = list(schedule.steps_of(len(entries)))
    first = [numbers.index(number) for number in dict.fromkeys(numbers)]
    clean = torch.stack([
        clean_and_noise(states.x[i, 0].float(), states.out[i, 0].float(), levels[i], schedule)[0] for i in first
    ]).cpu()  # fmt: skip
    noise = torch.tensor([levels[i].noise for i in first], dtype=torch.float64)
    known = clean.isfinite().flatten(1).all(1)
    if not known.any():
        raise UserError(f"no step of {type(pipe.scheduler).__name__} tells x0 in finite numbers")
    return Foreseen(torch.tensor([numbers[i] for i in first])[known], noise[known], clean[known])


def _chosen(every: Foreseen, count: int) -> Foreseen:
    rows = torch.linspace(0, len(every.step) - 1, min(count, len(every.step))).round().long()
    return Foreseen(every.step[rows], every.noise_level[rows], every.latents[rows])


def labelled(pipe: Any, foreseen: Mapping[str, Foreseen]) -> xr.Dataset:
    """Decode and measure predictions of one prompt and seed, by the name of who made them; the steps must agree.

    Returns x0_image(x0_source, x0_step, y, x, rgb) uint8, of clips the middle frame, and x0_energy(x0_source, x0_step,
    band) of the plain latents in four octaves, sums over channels and means over frames, with x0_noise_level(x0_step).
    """
    one, *others = foreseen.values()
    assert all(torch.equal(one.step, other.step) for other in others)
    drawn = stills(np.stack([pictures(pipe, each.latents) for each in foreseen.values()]), lead=2)
    energy = measured(torch.stack([each.latents for each in foreseen.values()]), lead=2)["energy"].sum(2)
    return xr.Dataset(
        {
            "x0_image": (("x0_source", "x0_step", "y", "x", "rgb"), drawn),
            "x0_energy": (("x0_source", "x0_step", "band"), energy),
        },
        coords={
            "x0_source": np.array(list(foreseen), dtype=np.dtypes.StringDType()),
            "x0_step": one.step.numpy(),
            "x0_noise_level": ("x0_step", one.noise_level.numpy()),
        },
    )
