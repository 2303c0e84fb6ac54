"""Seconds around training: encoding pictures for the first time and again, saving and loading adapters."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from parts.clock import seconds

PICTURES = 32


def cold_start(repeats: int) -> dict[str, Any]:
    """Medians for the bundled `mini`: seconds a picture, and seconds to save and load FeRA and LoRA of one rank."""
    from adapt.config import TrainConfig
    from adapt.methods import METHODS, load_adapter
    from adapt.targets import default_targets
    from spectra.models import load_pipeline
    from spectra.zoo.tasks import write_task

    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_task("style", folder / "task")
        pictures = _some(folder / "task" / "train", folder / "some")
        pipe: Any = load_pipeline("mini")
        for turn in range(repeats):
            for state in ("cold", "cached"):
                spent = seconds(partial(_encoded, pictures, pipe, folder / f"cache{turn}"))
                note(f"encode {state}", spent / PICTURES)
            for method in ("fera", "lora"):
                config = TrainConfig(model="mini", data="-", out="-", method=method, rank=12)
                trained: Any = load_pipeline("mini")
                METHODS[method].attach(trained.unet, config, default_targets(trained.unet), None, trained)
                place = folder / f"{method}{turn}"
                note(f"save {method}", seconds(partial(METHODS[method].save, trained.unet, place)))
                fresh: Any = load_pipeline("mini")
                note(f"load {method}", seconds(partial(load_adapter, fresh.unet, place)))
    return {name: float(np.median(values)) for name, values in found.items()}


def _encoded(pictures: Path, pipe: Any, cache: Path) -> object:
    """Every latent and embedding, as training asks for them."""
    from datasets_cache import encode

    data = encode(pictures, pipe, cache)
    return data.latents(range(len(data))), data.conditioning(range(len(data)))


def _some(source: Path, target: Path) -> Path:
    target.mkdir()
    for path in sorted(source.glob("*.png"))[:PICTURES]:
        for file in (path, path.with_suffix(".txt")):
            (target / file.name).write_bytes(file.read_bytes())
    return target
