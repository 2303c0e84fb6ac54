"""Probe a model: generate every prompt with every seed, and record the cube."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from spectra import cube, setting
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.families import family_of
from spectra.prompts import quiet_cuts, warn_cut
from spectra.record import record
from spectra.recording import provenance
from spectra.recording.attached import Attached
from spectra.storage import sharing, stores

if TYPE_CHECKING:
    import xarray as xr

    from spectra.guidance import GuidanceRule

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
    guidance: str | GuidanceRule | None = None,
    scheduler: str | None = None,
    adapter: str | Path | None = None,
    prepare: Callable[[Any], object] | None = None,
    bank: FilterBank | int | None = None,
    batch: int = 8,
    signals: Sequence[str] = ("latent", "x0", "eps", "prediction"),
    layout: str | None = None,
    radial_bins: int | None = None,
    label: str | None = None,
    resume: cube.Resume = "allow",
    progress: Progress | None = None,
) -> xr.Dataset:
    """Generate `prompts` x `seeds` in `steps` steps and return the cube at `out` with at least these runs.

    `model` is a bundled name, alias, folder or hub id, opened on the accelerator if there is one, or a pipeline, used
    where it is. Each sample has its own generator on the CPU, so its noise depends on nothing but its seed. Guidance is
    off by default, and at a scale of 1: with it, the energy of early clean samples overshoots. `guidance` is a rule of
    `spectra.guidance` in place of the pipeline's own: "cfg", "cfg-zero-star", ... `scheduler` names one of diffusers,
    set up as the model's own. `adapter` is a LoRA or PEFT folder or safetensors file; `prepare(pipe)` may attach
    anything else. `label` names runs, by default after the adapters that act.

    Runs that `out` holds already are not generated again, so a probe that was killed can be repeated to finish it.
    Several processes, as `accelerate launch` starts them, share the work and fill the cube that one would have filled.
    `progress(done, total)` is called at the start and after each batch, of this process's share.

    Raises UserError, before anything is generated, for arguments that make no sense, a model that cannot be opened, a
    place that cannot be written, and a cube of another kind at that place.
    """
    tasks = _tasks(prompts, seeds, steps, batch)
    crew = sharing.crew()
    cube.check_resume(out, resume)
    stores.check_writable(out)
    if stores.exists(out):
        cube.read_header(out)
    pipe = _pipeline(model, crew)
    if adapter is not None:
        setting.load_adapter(pipe, adapter)
    if prepare is not None:
        prepare(pipe)
    named = {} if pipe is model else {"model": str(model)}
    with setting.scheduled(pipe, scheduler):
        arguments = _call_arguments(pipe, steps, guidance_scale)
        done = _complete(out, pipe, arguments, label, guidance)
        batches, place = sharing.share(out, _batches(tasks, done, batch), crew)
        with (
            sharing.meeting(place, crew),
            record(
                pipe, place, bank=bank, signals=signals, layout=layout, radial_bins=radial_bins, adapter=label,
                attrs=named, guidance=guidance,
            ) as recorder,
        ):  # fmt: skip
            recorder.check_call(arguments)
            warn_cut(pipe, list(dict.fromkeys(prompts)), "prompt")
            _generate(pipe, batches, len(done.intersection(tasks)), arguments, progress or (lambda done, total: None))
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


def _pipeline(model: Any, crew: sharing.Crew) -> Any:
    from spectra.models import load_pipeline, usable_device

    if not isinstance(model, str | Path):
        return model
    return load_pipeline(model).to(usable_device() if crew.device is None else crew.device)


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


def _complete(
    out: stores.StoreLike, pipe: Any, arguments: dict[str, Any], label: str | None, rule: str | GuidanceRule | None
) -> set[Task]:
    """Runs that the cube holds already under this guidance and adapter."""
    if not stores.exists(out):
        return set()
    names, detail = Attached(pipe).look()
    scale = repr(provenance.guidance(_defaults(pipe) | arguments))  # text: NaN, where there is no scale, is not itself
    wanted = (scale, names if label is None else label, detail)
    runs = cube.open_cube(out)
    columns = ("prompt", "seed", "draw", "guidance_scale", "adapter", "adapter_detail", "guidance_rule")
    found = zip(*(runs[name].values.tolist() for name in columns), strict=True)
    return {
        Task(prompt, seed)
        for prompt, seed, draw, scale, adapter, detail, combined in found
        if draw == 0 and (repr(scale), adapter, detail) == wanted and _by_rule(combined, rule)
    }


def _by_rule(combined: str, rule: str | GuidanceRule | None) -> bool:
    """True if runs that were guided so are what `rule` asks for; without one, the pipeline guided by itself."""
    from spectra.guidance import RULES

    if rule is None:
        return combined.partition("(")[0] not in RULES.keys() - {"cfg"}
    return combined == str(rule)


def _defaults(pipe: Any) -> dict[str, Any]:
    """Defaults of the pipeline's arguments."""
    parameters = inspect.signature(type(pipe).__call__).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not one.empty}


def _generate(pipe: Any, batches: list[list[Task]], count: int, arguments: dict[str, Any], progress: Progress) -> None:
    from spectra.models import one_line

    total = count + sum(map(len, batches))
    progress(count, total)
    for group in batches:
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
        progress(count, total)


def _batches(tasks: list[Task], done: set[Task], batch: int) -> list[list[Task]]:
    """Batches are cut from all tasks, done or not, so a probe that goes on makes the batches it would have made."""
    groups = [[task for task in tasks[at : at + batch] if task not in done] for at in range(0, len(tasks), batch)]
    return [group for group in groups if group]


def _generator(seed: int) -> Any:
    import torch

    return torch.Generator("cpu").manual_seed(seed)
