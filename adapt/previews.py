"""Pictures of the adapter as it is while it learns, at prompts and seeds that stay."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from adapt import state
from adapt.checkpoint import name_of
from adapt.generating import animates, first_frames, frame_rate, generate, pictures, save_png
from adapt.task import Task
from datasets_cache.families import call_sizes

COUNT = 4
"""Held-out captions that previews show where no prompts are given."""


def draw_previews(task: Task, step: int, folder: Path | None) -> None:
    """Write `step-000120/0.png ...` and `prompts.json` into `folder`; chance is that of the run's first sample seed.

    Without a folder, pictures are drawn and not written: processes that hold a part of the model have to take part.
    """
    prompts, images = shown(task)
    seeds = [task.config.sample_seeds[0]] * len(prompts)
    task.denoiser.eval()
    with torch.no_grad():
        latents = generate(
            task.pipe, prompts, seeds, steps=task.config.sample_steps, guidance=task.config.guidance,
            sizes=call_sizes(task.pipe, task.heldout.shapes[0]), images=images,
        )  # fmt: skip
        drawn = pictures(task.pipe, latents)

    def write(partial: Path) -> None:
        partial.mkdir()
        for index, pixels in enumerate(drawn):
            save_png(pixels, partial / f"{index}.png", frame_rate(task.pipe))
        state.write_json(partial / "prompts.json", {"step": step, "prompts": prompts, "seeds": seeds})

    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        state.place(folder, name_of(step), write)


def shown(task: Task) -> tuple[list[str], list[Image.Image] | None]:
    """What previews show: the prompts asked for, or the first held-out captions; for models that animate, pictures."""
    given, moving = task.config.preview_prompts, animates(task.pipe)
    if given:
        return given, first_frames(given) if moving else None
    rows = range(min(COUNT, len(task.heldout)))
    images = [Image.fromarray(task.heldout.picture(row)[0]) for row in rows] if moving else None
    return [task.heldout.captions[row] for row in rows], images
