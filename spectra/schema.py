"""The schema of a cube: what was recorded, as labelled arrays.

    energy(run, step, signal, [frame], channel, band)   ||B_k x||^2 of each band of each channel, float32
    spectrum(run, step, signal, radius)                 squared DCT coefficients by radius, over channels and frames
    coherence(run, step, band)                          cosine of x0 at a step with the finished sample
    status(run)                                         1 where the run is complete

Step 0 is the initial noise and the last step the finished sample, and there is one step more than scheduler calls.
Signals of the prediction belong to the state that they were made from and are NaN at the last step.

A run is one chunk of each variable. Its data are written first and its status last, in one atomic replacement, so a run
that was cut short does not exist for `open_cube`, and the next writer takes its place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra.bands import FilterBank, radii

FORMAT = "spectra-cube"
VERSION = 1


@dataclass(frozen=True)
class Header:
    """All that the runs of one cube have in common.

    `facts` are compared when a cube is resumed (model_hash, scheduler, family, dtype, ...), `notes` are only kept
    (model, command, versions). Both are text; structured values are JSON. `signal_level` and `noise_level` are the
    weights of x0 and noise in the state at each step, (steps,).
    """

    signals: tuple[str, ...]
    bank: FilterBank
    grid: tuple[int, int]
    channels: int
    frames: int | None
    radial_bins: int
    timestep: tuple[float, ...]
    signal_level: tuple[float, ...]
    noise_level: tuple[float, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Calls of the scheduler, plus one for the finished sample."""
        return len(self.timestep)

    @property
    def log_snr(self) -> tuple[float, ...]:
        """2 ln(signal / noise); infinite where one of them vanishes."""
        return tuple(_log_snr(a, b) for a, b in zip(self.signal_level, self.noise_level, strict=True))

    def identity(self) -> dict[str, Any]:
        """What must be equal for runs to share a cube, apart from the levels."""
        shape = {"grid": list(self.grid), "channels": self.channels, "frames": self.frames, "steps": self.steps}
        measured = {"signals": list(self.signals), "bank": self.bank.to_dict(), "radial_bins": self.radial_bins}
        return {name: _parsed(text) for name, text in self.facts.items()} | shape | measured


@dataclass(frozen=True)
class Runs:
    """Complete runs, one row each: arrays as in the cube, and what tells the runs apart.

    `seed` is -1 where the noise did not come from a fresh seeded generator; `draw` counts the samples that one
    generator gave in one call, 0 where each sample has its own.
    """

    energy: NDArray[np.float32]
    spectrum: NDArray[np.float32]
    coherence: NDArray[np.float32]
    prompt: list[str]
    negative_prompt: list[str]
    seed: list[int]
    draw: list[int]
    guidance_scale: list[float]
    adapter: list[str]


@dataclass(frozen=True)
class Variable:
    """One array of the schema."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    long_name: str
    units: str = "1"
    fill: Any = math.nan
    frames_only: bool = False

    def dimensions(self, frames: int | None) -> tuple[str, ...]:
        """The dimensions, without `frame` where there are no frames."""
        return tuple(dim for dim in self.dims if dim != "frame" or frames is not None)


SCHEMA: tuple[Variable, ...] = (
    Variable("energy", ("run", "step", "signal", "frame", "channel", "band"), "float32", "energy of a band"),
    Variable("spectrum", ("run", "step", "signal", "radius"), "float32", "energy by radial frequency"),
    Variable("coherence", ("run", "step", "band"), "float32", "cosine of x0 with the finished sample"),
    Variable("status", ("run",), "uint8", "1 = complete", fill=0),
    Variable("prompt", ("run",), "string", "prompt", fill=""),
    Variable("negative_prompt", ("run",), "string", "negative prompt", fill=""),
    Variable("seed", ("run",), "int64", "seed of the initial noise, -1 if unknown", fill=-1),
    Variable("draw", ("run",), "int32", "place among the samples of one generator", fill=0),
    Variable("guidance_scale", ("run",), "float64", "guidance scale of the call"),
    Variable("adapter", ("run",), "string", "active adapters", fill=""),
    Variable("step", ("step",), "int64", "scheduler call", fill=0),
    Variable("timestep", ("step",), "float64", "timestep of the scheduler"),
    Variable("noise_level", ("step",), "float64", "weight of the noise in the state (sigma)"),
    Variable("signal_level", ("step",), "float64", "weight of the clean sample in the state"),
    Variable("log_snr", ("step",), "float64", "log of the squared ratio of signal and noise level"),
    Variable("signal", ("signal",), "string", "what is measured", fill=""),
    Variable("frame", ("frame",), "int64", "latent frame", fill=0, frames_only=True),
    Variable("channel", ("channel",), "int64", "latent channel", fill=0),
    Variable("band", ("band",), "int64", "frequency band, 0 = lowest", fill=0),
    Variable("scale_low", ("band",), "float64", "scale of the wider Gaussian", "latent pixels"),
    Variable("scale_high", ("band",), "float64", "scale of the narrower Gaussian", "latent pixels"),
    Variable("frequency", ("band",), "float64", "peak of the band", "cycles per latent pixel"),
    Variable("radius", ("radius",), "float64", "centre of a radial bin", "cycles per latent pixel"),
)
FACTS = ("model_hash", "scheduler", "num_inference_steps", "family", "state_space", "prediction_type", "dtype")
RESERVED = frozenset({*FACTS, "signals", "bank", "grid", "facts", "notes", "format", "format_version", "coordinates"})
DATA = ("energy", "spectrum", "coherence", "status")
ROWS = tuple(variable.name for variable in SCHEMA if variable.dims[0] == "run" and variable.name != "status")


def _log_snr(signal: float, noise: float) -> float:
    if signal > 0 and noise > 0:
        return 2 * math.log(signal / noise)
    return math.inf if signal > 0 else -math.inf if noise > 0 else math.nan


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def variables(frames: int | None) -> list[Variable]:
    """The schema of a cube with or without frames."""
    return [variable for variable in SCHEMA if frames is not None or not variable.frames_only]


def sizes(header: Header) -> dict[str, int]:
    """Lengths of the dimensions of a new cube."""
    counts = {"run": 0, "step": header.steps, "signal": len(header.signals), "channel": header.channels}
    return counts | {"band": header.bank.bands, "radius": header.radial_bins, "frame": header.frames or 0}


def fixed_values(header: Header) -> dict[str, Any]:
    """Values of the coordinates that do not grow with runs."""
    counts = {name: np.arange(size) for name, size in sizes(header).items()}
    levels = {name: getattr(header, name) for name in ("timestep", "signal_level", "noise_level", "log_snr")}
    bands = {name: getattr(header.bank, name) for name in ("scale_low", "scale_high", "frequency")}
    names = np.array(header.signals, dtype=object)
    return counts | levels | bands | {"signal": names, "radius": radii(header.radial_bins, *header.grid)}


def attributes(header: Header) -> dict[str, str | int]:
    """Attributes of the store. `coordinates` is what tells xarray which variables are coordinates."""
    coordinates = " ".join(variable.name for variable in variables(header.frames) if variable.name not in DATA)
    described = {"signals": header.signals, "bank": header.bank.to_dict(), "grid": header.grid}
    kept = {"facts": list(header.facts), "notes": list(header.notes)}
    texts = {name: json.dumps(value) for name, value in (described | kept).items()}
    own: dict[str, str | int] = {"format": FORMAT, "format_version": VERSION, "coordinates": coordinates}
    return {**header.notes, **header.facts, **texts, **own}
