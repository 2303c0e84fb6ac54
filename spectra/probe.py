"""Probe a model: generate every prompt with every seed, and record the cube."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from spectra import cube, stores
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.families import family_of
from spectra.prompts import quiet_cuts, warn_cut
from spectra.provenance import guidance
from spectra.record import record

if TYPE_CHECKING:
    import xarray as xr

Progress = Callable[[int, int], None]


class Task(NamedTuple):
    """One sample to generate."""

    prompt: str
    seed: int


def probe(
    model: str | Path | Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    out: stores.StoreLike,
    *,
    guidance_scale: float = 1.0,
    bank: FilterBank | None = None,
    batch: int = 8,
    signals: Sequence[str] = ("latent", "x0", "eps", "prediction"),
    layout: str | None = None,
    radial_bins: int | None = None,
    adapter: str | None = None,
    resume: cube.Resume = "allow",
    progress: Progress | None = None,
) -> xr.Dataset:
    """Generate `prompts` x `seeds` in `steps` steps and return the cube at `out` with at least these runs.

    `model` is a bundled name, alias, folder or hub id, opened on the accelerator if there is one, or a pipeline, used
    where it is. Each sample has its own generator on the CPU, so its noise depends on nothing but its seed. Guidance is
    off by default, and at a scale of 1: with it, the energy of early clean samples overshoots. Runs that `out` holds
    already are not generated again, so a probe that was killed can be repeated to finish it. `progress(done, total)` is
    called at the start and after each batch.

    Raises UserError, before anything is generated, for arguments that make no sense, a model that cannot be opened, a
    place that cannot be written, and a cube of another kind at that place.
    """
    tasks = _tasks(prompts, seeds, steps, batch)
    cube.check_resume(out, resume)
    stores.check_writable(out)
    if stores.exists(out):
        cube.read_header(out)
    pipe = _pipeline(model)
    arguments = _call_arguments(pipe, steps, guidance_scale)
    named = {} if pipe is model else {"model": str(model)}
    with record(
        pipe, out, bank=bank, signals=signals, layout=layout, radial_bins=radial_bins, adapter=adapter, attrs=named
    ) as recorder:
        recorder.check_call(arguments)
        done = _complete(out, guidance(recorder.arguments_of(arguments)), recorder.active_adapter())
        warn_cut(pipe, list(dict.fromkeys(prompts)), "prompt")
        _generate(pipe, tasks, done, batch, arguments, progress or (lambda done, total: None))
    return cube.open_cube(out)


def _tasks(prompts: Sequence[str], seeds: Sequence[int], steps: int, batch: int) -> list[Task]:
    """Every prompt with every seed, prompts outermost, repetitions left out."""
    if isinstance(prompts, str) or not prompts:
        raise UserError("a probe needs a list of at least one prompt")
    if not seeds or min(seeds) < 0:
        raise UserError("a probe needs at least one seed, and seeds are 0 or more")
    if steps < 1 or batch < 1:
        raise UserError(f"a probe needs at least 1 step and batches of at least 1, got {steps} and {batch}")
    return list(dict.fromkeys(Task(prompt, int(seed)) for prompt in prompts for seed in seeds))


def _pipeline(model: Any) -> Any:
    from spectra.models import load_pipeline, usable_device

    return load_pipeline(model).to(usable_device()) if isinstance(model, str | Path) else model


def _call_arguments(pipe: Any, steps: int, guidance_scale: float) -> dict[str, Any]:
    """What the pipeline is called with besides prompts and generators; no picture is decoded if it need not be."""
    from spectra.models import call_defaults, check_steps

    known = inspect.signature(type(pipe).__call__).parameters
    if "prompt" not in known:
        raise UserError(f"{type(pipe).__name__} takes no prompt; use spectra.record around your own call")
    check_steps(pipe, steps)
    # A default of None marks an argument that only distilled versions read (Qwen-Image guides by another one).
    guided = "guidance_scale" in known and known["guidance_scale"].default is not None
    if guidance_scale != 1 and not guided:
        raise UserError(f"{type(pipe).__name__} takes no guidance scale; leave it at 1")
    scale = family_of(pipe).guidance_off if guidance_scale == 1 else guidance_scale
    wanted = {"num_inference_steps": steps, "guidance_scale": scale, "output_type": "latent"}
    return {name: value for name, value in wanted.items() if name in known} | call_defaults(pipe)


def _complete(out: stores.StoreLike, guidance_scale: float, adapter: str) -> set[Task]:
    """Runs that the cube holds already under this guidance and adapter."""
    if not stores.exists(out):
        return set()
    runs = cube.open_cube(out)
    columns = (runs[name].values.tolist() for name in ("prompt", "seed", "draw", "guidance_scale", "adapter"))
    same = (0, repr(guidance_scale), adapter)  # as text, because NaN, of a pipeline without guidance, is not itself
    rows = zip(*columns, strict=True)
    return {Task(prompt, seed) for prompt, seed, draw, scale, name in rows if (draw, repr(scale), name) == same}


def _generate(
    pipe: Any, tasks: list[Task], done: set[Task], batch: int, arguments: dict[str, Any], progress: Progress
) -> None:
    """Batches are cut from all tasks, done or not, so a probe that goes on makes the batches it would have made."""
    from spectra.models import one_line

    count = len(done.intersection(tasks))
    progress(count, len(tasks))
    for group in _batches(tasks, done, batch):
        own = {"prompt": [task.prompt for task in group], "generator": [_generator(task.seed) for task in group]}
        try:
            with quiet_cuts():
                pipe(**own, **arguments)
        except UserError:
            raise
        except (TypeError, ValueError) as error:  # what pipelines raise for arguments that do not suit them
            name = type(pipe).__name__
            raise UserError(f"{name} does not generate from a prompt alone: {one_line(error)}") from error
        count += len(group)
        progress(count, len(tasks))


def _batches(tasks: list[Task], done: set[Task], batch: int) -> Iterator[list[Task]]:
    for start in range(0, len(tasks), batch):
        group = [task for task in tasks[start : start + batch] if task not in done]
        if group:
            yield group


def _generator(seed: int) -> Any:
    import torch

    return torch.Generator("cpu").manual_seed(seed)
