"""Probe data instead of samples: the latents of pictures under the forward process that a model is trained with.

At a noise level, training shows the network `a x0 + b eps`. A cube of it has the schema of any other: a run is a
picture with a seed, a step is a noise level, from noise to the clean latents. Its x0 and eps are the true ones; they do
not change along the steps. A network is asked only where a way to ask it is given.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from spectra import cube
from spectra.bands import DEFAULT_BANDS, FilterBank, radial_spectrum
from spectra.devices import opened
from spectra.errors import UserError
from spectra.families import family_of
from spectra.pictures import Picture, digest, find_pictures, latents, native_size, pixels
from spectra.process import Noise, forward_levels
from spectra.recording import provenance
from spectra.recording.meter import RADIAL_BINS
from spectra.schema import Header, Runs
from spectra.storage import stores

if TYPE_CHECKING:
    import xarray as xr
    from torch import Tensor

SIGNALS = ("latent", "x0", "eps")
SAMPLER = "forward"
Progress = Callable[[int, int], None]
Pairs = Sequence[tuple["Tensor", str]]
Predict = Callable[["Tensor", float, list[str]], "Tensor"]
"""A network: states (b, c, [t], h, w), the timestep and the captions -> its predictions, of the states' shape."""


@dataclass(frozen=True)
class Clean:
    """The data: `load(i, j)` are plain latents (j - i, c, [t], h, w); `draw` tells items of one caption apart."""

    captions: list[str]
    load: Callable[[int, int], Tensor]
    identity: str

    @property
    def draw(self) -> list[int]:
        """For each item, how many before it have its caption."""
        seen: Counter[str] = Counter()
        numbers = []
        for caption in self.captions:
            numbers.append(seen[caption])
            seen[caption] += 1
        return numbers


def probe_data(
    model: str | Path | Any,
    data: str | Path | Pairs,
    out: stores.StoreLike,
    *,
    levels: int | Sequence[float] = 20,
    seeds: Sequence[int] = (0,),
    bank: FilterBank | int | None = None,
    size: tuple[int, int] | None = None,
    batch: int = 8,
    radial_bins: int | None = None,
    predict: Predict | None = None,
    device: str | None = None,
    resume: cube.Resume = "allow",
    progress: Progress | None = None,
) -> xr.Dataset:
    """Record a data set as the training of `model` sees it, and return the cube at `out` with at least these runs.

    `data` is a folder of pictures, encoded by the model's VAE at `size` = (height, width) or the model's own, or pairs
    of plain latents (c, [t], h, w) and captions. `levels` are noise levels, largest first, or how many, evenly spread
    over the model's timesteps; the clean data come last by themselves. A level is the weight of the noise, and where
    training knows but a table of them, the nearest one is taken. Each seed gives all pictures the same noise. With
    `predict`, what the network says of each state is recorded as the signal prediction. `device`, such as "cuda:1", is
    where a model is opened, by default the accelerator if there is one. Runs that `out` holds already are left out.
    Coherence is not recorded: x0 is the picture itself.

    Raises UserError for arguments that make no sense, pictures and models that cannot be opened or do not go together,
    and a cube of another kind at `out`.
    """
    cube.check_resume(out, resume)
    stores.check_writable(out)
    if not seeds or min(seeds) < 0 or batch < 1:
        raise UserError("a probe needs at least one seed, seeds of 0 or more, and batches of at least 1")
    found = find_pictures(data) if isinstance(data, str | Path) else None
    pipe = opened(model, device)
    steps = forward_levels(pipe.scheduler, levels)
    items = _pictures(pipe, found, size) if found is not None else _pairs(cast("Pairs", data))
    signals = SIGNALS if predict is None else (*SIGNALS, "prediction")
    header = _header(out, pipe, signals, steps, items, bank, radial_bins)
    header = replace(header, notes={"model": _name(model), **header.notes})
    if stores.exists(out):
        cube.resume(out, header)
    tell = progress or (lambda done, total: None)
    _record(out, header, items, list(dict.fromkeys(seeds)), batch, predict, tell)
    return cube.open_cube(out)


def _name(model: Any) -> str:
    return str(model if isinstance(model, str | Path) else getattr(model, "name_or_path", "") or type(model).__name__)


def _pictures(pipe: Any, found: list[Picture], size: tuple[int, int] | None) -> Clean:
    if getattr(pipe, "vae", None) is None:
        raise UserError(
            f"{type(pipe).__name__} has no VAE, so pictures are not its data; give (latents, caption) pairs"
        )
    family = family_of(pipe)
    grid = size or native_size(pipe, family)

    def load(start: int, stop: int) -> Tensor:
        batch = np.stack([pixels(picture.path, grid) for picture in found[start:stop]])
        return latents(pipe, family, batch)

    return Clean([picture.caption for picture in found], load, digest(found))


def _pairs(pairs: Pairs) -> Clean:
    import torch

    fields = [torch.as_tensor(field).float() for field, _ in pairs]
    shapes = {tuple(field.shape) for field in fields}
    if len(shapes) != 1 or len(next(iter(shapes))) not in (3, 4):
        raise UserError(
            "data are a folder, or pairs of plain latents (c, h, w) or (c, t, h, w) of one shape and captions"
        )
    everything = torch.stack(fields)
    captions = [str(caption) for _, caption in pairs]
    found = sha256(everything.cpu().numpy().tobytes() + json.dumps(captions).encode())
    return Clean(captions, lambda start, stop: everything[start:stop], found.hexdigest()[:32])


def _header(
    out: stores.StoreLike, pipe: Any, signals: tuple[str, ...], steps: Noise, items: Clean,
    bank: FilterBank | int | None, radial_bins: int | None,
) -> Header:  # fmt: skip
    from spectra.models import model_hash

    first = items.load(0, 1)
    stored = cube.read_header(out) if stores.exists(out) else None
    grid = (first.shape[-2], first.shape[-1])
    if not isinstance(bank, FilterBank):
        bank = (
            stored.bank
            if stored and bank in (None, stored.bank.bands)
            else FilterBank.octaves(bank or DEFAULT_BANDS, grid)
        )
    radial_bins = radial_bins or (stored.radial_bins if stored else RADIAL_BINS)
    facts = {
        "model_hash": model_hash(pipe),
        "scheduler": json.dumps({"class": SAMPLER}),
        "num_inference_steps": json.dumps(len(steps.noise) - 1),
        "family": family_of(pipe).name,
        "state_space": steps.space,
        "prediction_type": "none",
        "dtype": "float32",
        "sampler": SAMPLER,
        "data": items.identity,
    }
    notes = {"versions": json.dumps(provenance.versions()), "command": provenance.command()}
    notes["coherence_off"] = "x0 is the data"
    frames = first.shape[2] if first.ndim == 5 else None
    return Header(
        signals, bank, grid, first.shape[1], frames, radial_bins,
        steps.timestep, steps.signal, steps.noise, facts, notes,
    )  # fmt: skip


def _record(
    out: stores.StoreLike, header: Header, items: Clean, seeds: list[int], batch: int,
    predict: Predict | None, progress: Progress,
) -> None:  # fmt: skip
    """Append what is missing, some pictures with one seed at a time."""
    done, labels = _complete(out), list(zip(items.captions, items.draw, strict=True))
    total = len(labels) * len(seeds)
    count = sum((*label, seed) in done for label in labels for seed in seeds)
    progress(count, total)
    with cube.Writer(out) as writer:
        for start, stop in _spans(len(labels), batch):
            missing = {seed: [i for i in range(start, stop) if (*labels[i], seed) not in done] for seed in seeds}
            clean = items.load(start, stop) if any(missing.values()) else None
            for seed, rows in missing.items():
                if rows and clean is not None:
                    some = clean[[i - start for i in rows]]
                    writer.write(header, _runs(header, some, seed, [labels[i] for i in rows], predict))
                    count += len(rows)
                    progress(count, total)


def _spans(count: int, batch: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + batch, count)) for start in range(0, count, batch))


def _complete(out: stores.StoreLike) -> set[tuple[str, int, int]]:
    """Caption, draw and seed of the runs that are there."""
    if not stores.exists(out):
        return set()
    runs = cube.open_cube(out)
    return set(zip(*(runs[name].values.tolist() for name in ("prompt", "draw", "seed")), strict=True))


def _runs(header: Header, x0: Tensor, seed: int, labels: list[tuple[str, int]], predict: Predict | None) -> Runs:
    """The runs of some items with one noise."""
    captions = [caption for caption, _ in labels]
    ask = None if predict is None else lambda x, timestep: predict(x, timestep, captions)
    energy, spectrum = measure(header, x0, unit_noise(tuple(x0.shape[1:]), seed).to(x0.device), ask)
    n, nothing = len(x0), [""] * len(x0)
    coherence = np.full((n, header.steps, header.bank.bands), np.nan, np.float32)
    return Runs(
        energy, spectrum, coherence,
        prompt=captions, negative_prompt=nothing, seed=[seed] * n,
        draw=[number for _, number in labels], guidance_scale=[math.nan] * n, adapter=nothing, adapter_detail=nothing,
        guidance_rule=["none"] * n, split=nothing,
    )  # fmt: skip


def unit_noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """The noise of a seed, as a pipeline would draw it for one sample of this shape."""
    import torch

    return torch.randn((1, *shape), generator=torch.Generator("cpu").manual_seed(seed))[0]


def measure(
    header: Header, x0: Tensor, eps: Tensor, ask: Callable[[Tensor, float], Tensor] | None = None
) -> tuple[Any, Any]:
    """Energies (b, step, signal, [t], c, K) and spectra (b, step, signal, R) of x0 (b, c, [t], h, w) with noise `eps`.

    `ask(x, timestep)` is the network. Signals other than the latents are NaN at the last step, as in every cube.
    """
    import torch

    energies, spectra = [], []
    for timestep, a, b in zip(header.timestep, header.signal_level, header.noise_level, strict=True):
        x = a * x0 + b * eps
        fields = torch.stack([x, x0, eps.expand_as(x0), *([] if ask is None else [_asked(ask, x, timestep, b)])])
        if b == 0:
            fields[1:] = torch.nan
        energies.append(header.bank.energies(fields))
        spectrum = radial_spectrum(fields, header.radial_bins)
        spectra.append(spectrum.sum(tuple(range(2, spectrum.ndim - 1))))
    energy = torch.stack(energies).movedim(2, 0)
    energy = energy.transpose(3, 4) if x0.ndim == 5 else energy
    return energy.cpu().numpy(), torch.stack(spectra).movedim(2, 0).cpu().numpy()


def _asked(ask: Callable[[Tensor, float], Tensor], x: Tensor, timestep: float, noise: float) -> Tensor:
    """The network's prediction; clean data are not among what it is trained on, so there it is not asked."""
    import torch

    if noise == 0:
        return x
    with torch.no_grad():
        said = ask(x, timestep)
    if said.shape != x.shape:
        raise UserError(f"predict gave {tuple(said.shape)} for states of shape {tuple(x.shape)}; both have to be alike")
    return said.float()
