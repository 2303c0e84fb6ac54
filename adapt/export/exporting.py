"""`adapt.export.export`: a trained adapter in a form that others read, with what the change of form costs."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapt.card import write_card
from adapt.export import factors as lowrank
from adapt.export.factors import RANK, Factors
from adapt.export.files import FACTS_FILE, LORA_FILE, check_free, fresh_folder, write_facts, write_file, write_lora
from adapt.export.kohya import family_of_kohya, kohya_tensors
from adapt.export.scheduled import GATES_FILE, ScheduledLoras, load_lora, stepwise, write_scheduled
from adapt.export.source import Source, call_of, open_source, run_pipeline
from adapt.export.watching import Watched, answers, differences, forced, watching
from adapt.methods import CONFIG_FILE, METHODS, NAME, WEIGHTS_FILE, remove_adapters
from spectra.errors import UserError

FORMATS = ("peft", "static-lora", "scheduled-loras", "kohya")
EXACT = ("lora", "dora")
"""Methods whose updates are LoRAs already."""


@dataclass(frozen=True)
class Measured:
    """One run of the pipeline with the adapter, and what denoiser and base answered."""

    seen: Watched
    own: list[Tensor]
    base: list[Tensor]


def export(
    run_or_adapter: Path | str,
    out: Path | str,
    format: str,
    model: str | None = None,
    *,
    prompts: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    steps: int | None = None,
    guidance: float | None = None,
    rank: int = RANK,
    pipe: Any = None,
    call: Mapping[str, Any] | None = None,
    device: str | None = None,
) -> Path:
    """Write an adapter as a folder `out` that holds files, `export.json` with measured errors, and a model card.

    `peft` copies the adapter.  `static-lora` writes a LoRA for `pipe.load_lora_weights`, FeRA's at its mean gates;
    `kohya` the same for ComfyUI and A1111; `scheduled-loras` one LoRA per expert of FeRA and a schedule of gates, to be
    played by `ScheduledLoras`.  Gates are those of latents that the pipeline generates here, averaged over samples and
    steps, so the steps of inference weigh them.  What was written is read back by diffusers, and its predictions on the
    same latents are compared with the adapter's own.

    Args:
        run_or_adapter: a run directory, or an adapter folder (give `model`).
        prompts, seeds, steps, guidance: what is generated; default: the run's captions and settings, else the empty
            prompt, 20 steps and a scale of 3.
        rank: largest rank where an update is no LoRA and only comes near one.
        pipe: an opened pipeline without adapters, in place of `model`; it is given back without any.
        call: further arguments of its call, such as `prompt_embeds`.
        device: where a model is opened, such as "cuda:1"; default: the accelerator that is there, else the CPU.

    Raises:
        UserError: an unknown format, a method or family that the format cannot hold, another model, a device that is
            not here, no space, or an `out` that exists.
    """
    out = Path(out)
    _check_format(format)
    check_free(out)
    source = open_source(Path(run_or_adapter), model, pipe, rank, device)
    try:
        _check_method(source, format)
        _check_prompts(source, format, call or {})
        source.call.update(call_of(source, prompts, seeds, steps, guidance, call or {}))
        with fresh_folder(out) as folder:
            facts = {"format": format, "method": source.method, "name": source.name, **WRITERS[format](source, folder)}
            write_facts(folder, facts)
            write_card(folder, card_of(source, facts))
    finally:
        remove_adapters(source.pipe)
    return out


def _check_format(format: str) -> None:
    if format not in FORMATS:
        near = difflib.get_close_matches(format, FORMATS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"unknown export format {format!r}; known formats: {', '.join(FORMATS)}{hint}")


def _check_method(source: Source, format: str) -> None:
    if format == "scheduled-loras" and source.method != "fera":
        other = "peft" if source.method == "full" else "static-lora"
        raise UserError(f"scheduled-loras needs gates, and those of method {source.method} have none; export {other}")
    if format != "peft" and source.method == "full":
        raise UserError(f"full training changes more than a LoRA can hold, so {format} is not offered; export peft")
    if format == "kohya":
        family_of_kohya(source.pipe)
    if format != "peft" and not hasattr(source.pipe, "load_lora_weights"):
        raise UserError(f"diffusers loads no LoRA into a {type(source.pipe).__name__}, so export peft")


def _check_prompts(source: Source, format: str, call: Mapping[str, Any]) -> None:
    from adapt.generating import animates

    if format != "peft" and animates(source.pipe) and not {"image", "prompt_embeds"} & call.keys():
        kind = type(source.pipe).__name__
        raise UserError(f"a {kind} animates pictures, and exports are measured on prompts alone; export peft")


def measure(source: Source) -> Measured:
    """Watch the adapter generate, and answer the kept calls with it and without it."""
    method = METHODS[source.method]
    with watching(source.pipe, source.denoiser, source.call.get("num_inference_steps", 20), method.gates) as seen:
        run_pipeline(source)
    own = answers(source.denoiser, seen.calls)
    with method.base(source.denoiser):
        base = answers(source.denoiser, seen.calls)
    return Measured(seen, own, base)


def _factors(source: Source, measured: Measured) -> tuple[dict[str, Factors], dict[str, Any]]:
    """The adapter as one LoRA, and how that was made."""
    if source.method in EXACT:
        return lowrank.of_lora(source.denoiser), {"how": "the adapter's own factors"}
    if source.method == "fera":
        gates = measured.seen.mean_gates.mean(0)
        words = "FeRA at its mean gates, averaged over generated latents and the steps of inference"
        if source.denoiser.peft_config[NAME].expert not in ("lora", "loha"):
            words += f", as {_nearest_words(source)}"
        return lowrank.of_fera(source.denoiser, gates, source.rank), {"how": words, "mean_gates": gates.tolist()}
    return lowrank.nearest(source.denoiser, source.rank), {"how": _nearest_words(source)}


def _nearest_words(source: Source) -> str:
    """How updates that are no LoRAs are made ones, and what is lost whatever the rank."""
    scales = source.method == "ia3" or getattr(source.denoiser.peft_config[NAME], "expert", "") == "ia3"
    lost = "; what it does to biases is lost, as a LoRA has none" if scales else ""
    return f"the nearest update of rank {source.rank} or less, layer by layer, by singular values{lost}"


def _write_peft(source: Source, folder: Path) -> dict[str, Any]:
    """A copy; that it loads was seen when the source was opened."""
    for path in sorted(source.folder.rglob("*")):
        if path.name in (CONFIG_FILE, WEIGHTS_FILE):
            target = folder / path.relative_to(source.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return {"how": "a copy"}


def _write_static(source: Source, folder: Path) -> dict[str, Any]:
    measured = measure(source)
    found, how = _factors(source, measured)
    texts = lowrank.text_factors(source.pipe)
    write_lora(folder / LORA_FILE, {source.component: found, **texts})
    return how | _read_back(source, measured, folder / LORA_FILE, {source.component: set(found), **_names(texts)})


def _write_kohya(source: Source, folder: Path) -> dict[str, Any]:
    measured = measure(source)
    found, how = _factors(source, measured)
    if any(one.magnitude is not None for one in found.values()):
        found = lowrank.nearest(source.denoiser, source.rank)
        how = {"how": f"DoRA's update as the nearest one of rank {source.rank} or less, layer by layer"}
    texts = lowrank.text_factors(source.pipe)
    tensors = kohya_tensors(source.pipe, source.denoiser, found, texts)
    path = folder / f"{_file_name(source.name)}.safetensors"
    write_file(path, tensors, {"ss_network_module": "networks.lora", "ss_output_name": source.name})
    layers = {source.component: set(found), **_names(texts)}
    return how | {"file": path.name} | _read_back(source, measured, path, layers)


def _names(texts: Mapping[str, Mapping[str, Factors]]) -> dict[str, set[str]]:
    return {part: set(factors) for part, factors in texts.items()}


def _write_scheduled(source: Source, folder: Path) -> dict[str, Any]:
    measured = measure(source)
    parts = lowrank.by_expert(source.denoiser)
    write_scheduled(folder, source.component, parts, measured.seen, lowrank.text_factors(source.pipe))
    gates = stepwise(measured.seen)
    routed = run_pipeline(source)[0]
    with forced(source.denoiser, gates) as advance:
        forcibly = run_pipeline(source, **_each_step(source.pipe, advance))[0]
    remove_adapters(source.pipe)
    player = ScheduledLoras.load(source.pipe, folder)
    played = run_pipeline(source, callback_on_step_end=player)[0]
    return {
        "how": "one LoRA per expert; gates averaged over generated latents, step by step", "schedule": GATES_FILE,
        "relative_to_fera_with_these_gates": _relative(played, forcibly),
        "relative_to_fera": _relative(played, routed),
    }  # fmt: skip


def _each_step(pipe: Any, advance: Callable[[], None]) -> dict[str, Any]:
    def callback(pipe: Any, step: int, timestep: Any, arguments: dict[str, Any]) -> dict[str, Any]:
        advance()
        return arguments

    return {"callback_on_step_end": callback}


def _relative(found: Any, expected: Any) -> float:
    """Norm of the difference of final latents, over that of the expected ones."""
    found, expected = torch.as_tensor(found).float(), torch.as_tensor(expected).float()
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))


def _read_back(source: Source, measured: Measured, path: Path, layers: dict[str, set[str]]) -> dict[str, Any]:
    """Load the file with diffusers in place of the adapter and compare predictions, level by level."""
    remove_adapters(source.pipe)
    try:
        load_lora(source.pipe, path, "exported")
    except (AssertionError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"diffusers cannot read the file that was to be exported: {error}") from error
    for part, names in layers.items():
        lost = names - set(lowrank.layer_names(getattr(source.pipe, part)))
        if lost:
            raise UserError(
                f"diffusers drops {len(lost)} of the {len(names)} layers of this file, {min(lost)} among them"
            )
    found = answers(source.denoiser, measured.seen.calls)
    return {
        "layers": sum(map(len, layers.values())), "steps": len(measured.seen.timesteps),
        "samples": len(source.call["generator"]),
        "error": differences(measured.seen, measured.own, measured.base, found),
    }  # fmt: skip


def _file_name(name: str) -> str:
    """A name that is safe on every file system."""
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "-" for letter in name)
    return plain.strip("-") or "adapter"


def card_of(source: Source, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the model card of an export is made from."""
    known = dict(source.record or {})
    named = {"method": source.method, "name": source.name, "model": source.model}
    return known | named | {"export": dict(facts)}


WRITERS: dict[str, Callable[[Source, Path], dict[str, Any]]] = {
    "peft": _write_peft,
    "static-lora": _write_static,
    "scheduled-loras": _write_scheduled,
    "kohya": _write_kohya,
}
"""By format: (source, folder) -> facts for `export.json`."""

__all__ = ["FACTS_FILE", "FORMATS", "Source", "export"]
