"""Generate pictures and clips with a trained adapter."""

from __future__ import annotations

import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from adapt.generating import (
    FRAME_RATE,
    animates,
    first_frames,
    frame_rate,
    generate,
    pictures,
    save_png,
    sizes_of_run,
)
from adapt.methods import find_adapter, open_adapter
from adapt.task import Progress, silent
from spectra.errors import UserError
from spectra.models import check_steps
from spectra.prompts import warn_cut

__all__ = ["file_name", "find_adapter", "read_facts", "sample"]

LONGEST = 40
"""Letters of a prompt that a file name keeps."""
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
OWN_NAME = re.compile(r"\d{4,}-[a-z0-9-]+-seed\d+\.png")
FACTS: dict[str, Callable[[str], Any]] = {
    "prompt": str, "seed": int, "steps": int, "guidance": float, "adapter": str,
}  # fmt: skip
"""What the text metadata of a picture says, and how to read it."""


def sample(
    run_or_adapter: Path | str,
    prompts: Sequence[str],
    seeds: Sequence[int],
    out: Path | str,
    *,
    model: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    batch: int = 8,
    overwrite: bool = False,
    device: str | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write one PNG for each prompt and seed, `0000-a-red-circle-seed0.png` and so on, into the folder `out`.

    Models of videos give animated PNGs. Sizes are those that the adapter was trained at. Each picture says in its text
    metadata how it was made; `read_facts` reads it back.

    Args:
        run_or_adapter: a run directory, the adapter folder inside it, or an adapter folder on its own (give `model`).
        prompts: what to draw; every seed for every prompt. Models that animate pictures are given their paths.
        model: the model to draw with; default: that of the run.
        steps, guidance: default: those of the run's own pictures, else 20 and 3.
        overwrite: replace the pictures that an earlier call left in `out`; without it, a folder with pictures is
            refused.
        device: such as "cuda:1"; default: the accelerator that is there, else the CPU.

    Raises:
        UserError: no adapter there, one that belongs to another model, nothing to draw, nowhere to write or to compute,
            or pictures in `out` that may not be replaced.
    """
    prompts, seeds = list(prompts), list(seeds)
    _check_request(prompts, seeds, steps, guidance)
    adapter, record = find_adapter(Path(run_or_adapter))
    old = _replaceable(Path(out), overwrite)
    settings: dict[str, Any] = record.get("config", {}) if record else {}
    pipe = open_adapter(adapter, record, model, device=device)
    steps = steps or int(settings.get("sample_steps", 20))
    check_steps(pipe, steps)
    folder = _writable(Path(out))
    for path in old:
        path.unlink(missing_ok=True)
    return _draw(
        pipe, prompts, seeds, folder, batch, progress or silent, steps=steps, sizes=sizes_of_run(pipe, settings),
        guidance=float(settings.get("guidance", 3.0) if guidance is None else guidance),
        adapter=str(record["name"]) if record else adapter.resolve().name,
    )  # fmt: skip


def file_name(index: int, prompt: str, seed: int) -> str:
    """A name that is safe on every file system, whatever the prompt says."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:LONGEST].strip("-")
    return f"{index:04d}-{words or 'picture'}-seed{seed}.png"


def read_facts(picture: Path) -> dict[str, Any]:
    """Prompt, seed, steps, guidance and adapter of a picture that `sample` wrote, from its text metadata."""
    with Image.open(picture) as image:
        image.load()
        return {name: kind(image.info[name]) for name, kind in FACTS.items()}


def _replaceable(out: Path, overwrite: bool) -> list[Path]:
    """The pictures of an earlier call that may be replaced; UserError for pictures that may not."""
    found = sorted(path for path in out.iterdir() if path.suffix.lower() in PICTURES) if out.is_dir() else []
    if found and not overwrite:
        raise UserError(
            f"the folder {out} holds pictures already, such as {found[0].name}; choose another or give --overwrite"
        )
    for path in found:
        if not OWN_NAME.fullmatch(path.name):
            raise UserError(f"{path} was not written by `adapt sample`, so {out} is left alone; choose another folder")
    return found


def _check_request(prompts: list[str], seeds: list[int], steps: int | None, guidance: float | None) -> None:
    if not prompts or not seeds:
        raise UserError("nothing to draw; give at least one prompt and one seed")
    if any(seed < 0 or seed >= 2**63 for seed in seeds):
        raise UserError("a seed is a whole number from 0 to 2^63 - 1")
    if steps is not None and steps < 1:
        raise UserError(f"the number of sampler steps should be at least 1, got {steps}")
    if guidance is not None and not 0 <= guidance < float("inf"):
        raise UserError(f"the guidance scale should be a number of at least 0, got {guidance}")


def _draw(
    pipe: Any,
    prompts: list[str],
    seeds: list[int],
    out: Path,
    batch: int,
    progress: Progress,
    *,
    steps: int,
    sizes: dict[str, int],
    guidance: float,
    adapter: str,
) -> list[Path]:
    warn_cut(pipe, prompts, "prompt")
    begins = dict(zip(prompts, first_frames(prompts), strict=True)) if animates(pipe) else {}
    pairs = [(prompt, seed) for prompt in prompts for seed in seeds]
    written: list[Path] = []
    for start in range(0, len(pairs), batch):
        texts, chosen = (list(part) for part in zip(*pairs[start : start + batch], strict=True))
        images = [begins[text] for text in texts] if begins else None
        latents = generate(
            pipe, texts, chosen, steps=steps, guidance=guidance, sizes=sizes, images=images, batch=batch
        )  # fmt: skip
        for (prompt, seed), picture in zip(pairs[start : start + batch], pictures(pipe, latents), strict=True):
            facts = {"prompt": prompt, "seed": seed, "steps": steps, "guidance": guidance, "adapter": adapter}
            written.append(_write(picture, out / file_name(len(written), prompt, seed), facts, frame_rate(pipe)))
        progress("sample", len(written), len(pairs))
    return written


def _writable(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            return out
    except OSError as error:
        raise UserError(f"cannot write pictures to {out}: {error.strerror}") from None


def _write(picture: NDArray[np.uint8], path: Path, facts: dict[str, Any], rate: float = FRAME_RATE) -> Path:
    """A PNG with its facts as text, whole or not at all."""
    text = PngInfo()
    for name, value in facts.items():
        text.add_itxt(name, str(value).encode("utf-8", "replace").decode())
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_png(picture, unfinished, rate, text)
        unfinished.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        unfinished.unlink(missing_ok=True)
    return path
