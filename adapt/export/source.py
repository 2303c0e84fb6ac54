"""An adapter that is to be exported: in place in its pipeline, with the call on which it is measured."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adapt.methods import find_adapter, kind_of, open_adapter
from spectra.errors import UserError

PROMPTS = 4
"""Prompts that gates and errors are measured on, where the run has more."""


@dataclass(frozen=True)
class Source:
    """An adapter in place in its pipeline, and what is known of its training."""

    folder: Path
    record: dict[str, Any] | None
    model: str | None
    method: str
    pipe: Any
    denoiser: Any
    component: str
    """Name of the denoiser in the pipeline."""
    call: dict[str, Any]
    """Arguments of the pipeline's call on which gates and errors are measured."""
    rank: int

    @property
    def name(self) -> str:
        """Of the run, or of the adapter's folder."""
        return str(self.record["name"]) if self.record else self.folder.resolve().name


def open_source(path: Path, model: str | None, pipe: Any, rank: int, device: str | None = None) -> Source:
    """The adapter of a run or folder in its pipeline, opened where none is given, ready to generate.

    Raises:
        UserError: no adapter there, one that does not fit, a rank below 1, or a device that is not here.
    """
    from spectra.families import family_of

    if rank < 1:
        raise UserError(f"the rank of an export should be at least 1, got {rank}")
    folder, record = find_adapter(path)
    opened = open_adapter(folder, record, model, pipe, device)
    family = family_of(opened)
    denoiser: Any = family.denoiser(opened)
    denoiser.eval()
    named = model or (record or {}).get("model")
    return Source(folder, record, named, kind_of(folder), opened, denoiser, _component(opened, denoiser), {}, rank)


def _component(pipe: Any, denoiser: Any) -> str:
    return next(str(name) for name, part in pipe.components.items() if part is denoiser)


def call_of(
    source: Source,
    prompts: Sequence[str] | None,
    seeds: Sequence[int],
    steps: int | None,
    guidance: float | None,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """Arguments of the call that is watched: of the sizes that the run was trained at, guided as its pictures were."""
    from adapt.generating import call_of_sizes, guided, sizes_of_run
    from datasets_cache.families.text import cleaning
    from spectra.models import call_defaults, check_steps

    pipe, settings = source.pipe, source.record.get("config", {}) if source.record else {}
    chosen = list(prompts) if prompts is not None else _captions(source)[:PROMPTS]
    if not chosen or not seeds:
        raise UserError("nothing to measure gates on; give at least one prompt and one seed")
    steps = steps or int(settings.get("sample_steps", 20))
    check_steps(pipe, steps)
    scale = float(settings.get("guidance", 3.0) if guidance is None else guidance)
    rows = len(more["prompt_embeds"]) if "prompt_embeds" in more else len(chosen) * len(seeds)
    accepted = inspect.signature(type(pipe).__call__).parameters
    usual = call_of_sizes(pipe, sizes_of_run(pipe, settings)) | guided(pipe, scale, rows) | call_defaults(pipe)
    usual |= cleaning(pipe) | {"num_inference_steps": steps, "output_type": "latent"}
    call: dict[str, Any] = {name: value for name, value in usual.items() if name in accepted} | dict(more)
    if "prompt_embeds" in call:
        call.pop("negative_prompt", None)
    else:
        call["prompt"] = [prompt for prompt in chosen for _ in seeds]
    call["generator"] = [seeds[row % len(seeds)] for row in range(rows)]
    return call


def _captions(source: Source) -> list[str]:
    """Held-out captions that the run drew pictures for; the empty prompt where there is no run."""
    import xarray as xr

    drawn = source.folder.resolve().parent / "evaluation.zarr"
    if source.record is None or not drawn.exists():
        return [""]
    with xr.open_zarr(drawn, consolidated=False) as found:
        return list(dict.fromkeys(str(prompt) for prompt in found["prompt"].values))


def run_pipeline(source: Source, **more: Any) -> Any:
    """Generate as the source's call says; the noise of each sample belongs to its seed alone."""
    noise = [torch.Generator().manual_seed(int(seed)) for seed in source.call["generator"]]
    with torch.no_grad():
        return source.pipe(**{**source.call, "generator": noise, **more})
