"""Probe a model: generate every prompt with every seed, and record the cube."""

from __future__ import annotations

import difflib
import inspect
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from spectra import cube, setting
from spectra.bands import FilterBank
from spectra.devices import opened
from spectra.errors import UserError
from spectra.families import family_of
from spectra.guidance import RULES, GuidanceRule, rule
from spectra.prompts import check_readers, quiet_cuts, warn_cut
from spectra.record import record
from spectra.recording import provenance
from spectra.recording.arguments import defaults_of, names_of
from spectra.recording.attached import Attached
from spectra.schema import GUIDED
from spectra.storage import sharing, stores
from spectra.storage.stored import LONGEST

if TYPE_CHECKING:
    import xarray as xr

Progress = Callable[[int, int], None]
CALL = "call_arguments"  # the attribute of a cube that holds them
DTYPES = ("float32", "bfloat16", "float16")
SET = {"num_inference_steps", "guidance_scale", "output_type", "max_sequence_length"}  # by the probe, in every call
TAKEN = (
    "prompt", "generator", "num_inference_steps", "guidance_scale", "output_type", "num_images_per_prompt",
    "num_videos_per_prompt", "return_dict", "latents", "prompt_embeds", "callback_on_step_end",
)  # fmt: skip


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
    call: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    device: str | None = None,
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
    `call` are more arguments of the pipeline's call, such as height, width or negative_prompt, which the runs of a cube
    share. `dtype` is that of the weights of a model that is opened here: float32 (default), bfloat16 or float16;
    `device`, such as "cuda:1" or "cpu", is where it is opened instead.

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
    own = _plain(call or {})
    _refuse_other_call(out, own)
    pipe = _pipeline(model, crew, dtype, device)
    check_readers(pipe)
    if adapter is not None:
        setting.load_adapter(pipe, adapter)
    if prepare is not None:
        prepare(pipe)
    guidance = rule(guidance) if isinstance(guidance, str) else guidance
    named = ({} if pipe is model else {"model": str(model)}) | ({CALL: json.dumps(own)} if own else {})
    with setting.scheduled(pipe, scheduler):
        arguments = _call_arguments(pipe, steps, guidance_scale) | _checked_call(pipe, own)
        _check_guided(pipe, arguments, signals)
        done = _complete(out, pipe, arguments, label, guidance)
        batches, place = sharing.share(out, _batches(tasks, done, batch), crew)
        with (
            sharing.meeting(place, crew),
            record(
                pipe, place, bank=bank, signals=signals, layout=layout, radial_bins=radial_bins, adapter=label,
                attrs=named, guidance=guidance,
            ) as recorder,
        ):  # fmt: skip
            recorder.expects_runs = bool(batches)
            recorder.check_call(arguments)
            warn_cut(pipe, list(dict.fromkeys(prompts)), "prompt")
            _generate(pipe, batches, len(done.intersection(tasks)), arguments, progress or (lambda done, total: None))
    found = cube.open_cube(out)
    if crew.leads:
        _warn_unsplit(found, signals)
    return found


def _plain(call: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a call as JSON holds them, in which form a cube keeps them."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(call), default=str, sort_keys=True))
    return plain


def _refuse_other_call(out: stores.StoreLike, own: dict[str, Any]) -> None:
    """UserError if the runs that a cube holds were generated with other arguments."""
    if stores.exists(out):
        kept = json.loads(cube.read_header(out).notes.get(CALL, "{}"))
        cube.refuse(out, cube.differences({"call": kept}, {"call": own}))


def _checked_call(pipe: Any, own: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the user's own, which the pipeline has to take and the probe must not set itself."""
    kind: Any = type(pipe)
    known = names_of(kind)
    if len({"height", "width"}.intersection(own)) == 1:
        raise UserError("give height and width together: some pipelines do not heed one without the other")
    for name in own:
        if name in TAKEN:
            raise UserError(f"{name} is set by the probe itself, so it cannot be given as an argument of the call")
        if name not in known:
            near = difflib.get_close_matches(name, known, 3, 0.5) or [one for one in known if one not in TAKEN]
            raise UserError(f"{kind.__name__} is not called with {name!r}; what it takes: {', '.join(near)}")
    return own


def _check_guided(pipe: Any, arguments: Mapping[str, Any], signals: Sequence[str]) -> None:
    """UserError if cond, uncond and guidance are wanted of a pipeline whose guidance is off."""
    wanted, family = [name for name in signals if name in GUIDED], family_of(pipe)
    if not wanted or "true_cfg_scale" in arguments or family.embedded:
        return
    if arguments.get("guidance_scale") == family.guidance_off:
        raise UserError(
            f"the signals {', '.join(wanted)} need guidance, which is off: give a guidance scale above 1, such as "
            "--guidance-scale 5"
        )


def _warn_unsplit(found: xr.Dataset, signals: Sequence[str]) -> None:
    """Warn if the predictions with and without the prompt were told apart in no run."""
    why = [str(reason) for reason in found.split.values] if GUIDED.intersection(signals) else []
    if why and all(why):
        warnings.warn(f"cond, uncond and guidance could not be recorded in any run: {why[-1]}", stacklevel=3)


def _tasks(prompts: Sequence[str], seeds: Sequence[int], steps: int, batch: int) -> list[Task]:
    """Every prompt with every seed, prompts outermost, repetitions left out."""
    if isinstance(prompts, str) or not prompts:
        raise UserError("a probe needs a list of at least one prompt")
    if not seeds or min(seeds) < 0:
        raise UserError("a probe needs at least one seed, and seeds are 0 or more")
    if steps < 1 or batch < 1:
        raise UserError(f"a probe needs at least 1 step and batches of at least 1, got {steps} and {batch}")
    if steps >= LONGEST:
        raise UserError(f"{steps} steps are more than a cube holds: give fewer than {LONGEST}")
    return list(dict.fromkeys(Task(prompt, int(seed)) for prompt in prompts for seed in seeds))


def _pipeline(model: Any, crew: sharing.Crew, dtype: str | None, device: str | None) -> Any:
    if device is not None and crew.size > 1:
        raise UserError(f"each of the {crew.size} processes has a device of its own already; leave the device out")
    if not isinstance(model, str | Path):
        if dtype is not None:
            raise UserError("dtype is for models that are opened here; a pipeline has its own")
        return opened(model, device)
    weights = {} if dtype is None else {"dtype": _dtype(dtype)}
    return opened(model, crew.device if device is None else device, **weights)


def _dtype(name: str) -> Any:
    import torch

    if name not in DTYPES:
        raise UserError(f"weights are opened in {', '.join(DTYPES)}, not in {name!r}")
    return getattr(torch, name)


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
    out: stores.StoreLike, pipe: Any, arguments: dict[str, Any], label: str | None, guidance: GuidanceRule | None
) -> set[Task]:
    """Runs that the cube holds already under this guidance and adapter."""
    if not stores.exists(out):
        return set()
    names, detail = Attached(pipe).look()
    known = defaults_of(type(pipe)) | arguments
    scale = repr(provenance.guidance(known, guidance))  # text: NaN, where there is no scale, is not itself
    wanted = (scale, names if label is None else label, detail)
    runs = cube.open_cube(out)
    columns = ("prompt", "seed", "draw", "guidance_scale", "adapter", "adapter_detail", "guidance_rule")
    found = zip(*(runs[name].values.tolist() for name in columns), strict=True)
    return {
        Task(prompt, seed)
        for prompt, seed, draw, scale, adapter, detail, combined in found
        if draw == 0 and (repr(scale), adapter, detail) == wanted and _by_rule(combined, guidance)
    }


def _by_rule(combined: str, wanted: GuidanceRule | None) -> bool:
    """True if runs that were guided so are what `wanted` says; without it, the pipeline guided by itself."""
    if wanted is None:
        return combined.partition("(")[0] not in RULES.keys() - {"cfg"}
    return combined == str(wanted)


def _generate(pipe: Any, batches: list[list[Task]], count: int, arguments: dict[str, Any], progress: Progress) -> None:
    from spectra.models import one_line

    total = count + sum(map(len, batches))
    progress(count, total)
    for group in batches:
        own = {"prompt": [task.prompt for task in group], "generator": [_generator(task.seed) for task in group]}
        # Where prompts are a list, pipelines want negative ones to be a list too.
        own |= {
            name: [text] * len(group)
            for name, text in arguments.items()
            if name.startswith("negative_prompt") and isinstance(text, str)
        }
        try:
            with quiet_cuts():
                pipe(**arguments | own)
        except UserError:
            raise
        except (TypeError, ValueError) as error:  # what pipelines raise for arguments that do not suit them
            name = type(pipe).__name__
            extra = sorted(arguments.keys() - SET)
            alone = f"with {', '.join(extra)}" if extra else "from a prompt alone"
            raise UserError(f"{name} does not generate {alone}: {one_line(error)}") from error
        count += len(group)
        progress(count, total)


def _batches(tasks: list[Task], done: set[Task], batch: int) -> list[list[Task]]:
    """Batches are cut from all tasks, done or not, so a probe that goes on makes the batches it would have made."""
    groups = [[task for task in tasks[at : at + batch] if task not in done] for at in range(0, len(tasks), batch)]
    return [group for group in groups if group]


def _generator(seed: int) -> Any:
    import torch

    return torch.Generator("cpu").manual_seed(seed)
