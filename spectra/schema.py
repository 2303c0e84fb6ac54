"""The schema of a cube: what was recorded, as labelled arrays.

    energy(run, step, signal, [frame], channel, band)   ||B_k x||^2 of each band of each channel, float32
    spectrum(run, step, signal, radius)                 squared DCT coefficients by radius, over channels and frames
    coherence(run, step, band)                          cosine of x0 at a step with the finished sample
    status(run)                                         1 where the run is complete

and, in cubes that were asked for them,

    agreement(run, step, pair, band)    <u, B_b v> of the velocities with and without the prompt: the additive form
    temporal(run, step, signal, tempo, band)   energy of a temporal and a spatial band, channels summed
    block_energy(run, step, block, band)       energy of the outputs of the denoiser's blocks, channels summed

Along the dimension `step`, the coordinate `call` counts the scheduler's calls and `step` the steps that they belong to:
solvers of second order and warm-up phases call more than once a step.  Step 0 is the initial noise and the last step
the finished sample, and there is one entry more than scheduler calls.  Signals of the prediction belong to the state
that they were made from and are NaN at the last step.

A run is one chunk of each variable. Its data are written first and its status last, in one atomic replacement, so a run
that was cut short does not exist for `open_cube`, and the next writer takes its place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra.bands import FilterBank, radii

FORMAT = "spectra-cube"
GUIDED = frozenset({"cond", "uncond", "guidance"})
PAIRS = ("cond cond", "cond uncond", "uncond uncond")
VERSION = 2


@dataclass(frozen=True)
class Header:
    """All that the runs of one cube have in common.

    `facts` are compared when a cube is resumed (model_hash, scheduler, family, dtype, ...), `notes` are only kept
    (model, command, versions). Both are text; structured values are JSON. `signal_level` and `noise_level` are the
    weights of x0 and noise in the state at each step, (steps,), and `step` says which step each call belongs to; empty,
    each is its own. `temporal` is the filter bank along frames, in latent frames. `blocks` names denoiser blocks.
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
    step: tuple[int, ...] = ()
    temporal: FilterBank | None = None
    blocks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", self.step or tuple(range(self.steps)))

    @property
    def parts(self) -> frozenset[str]:
        """The optional parts of the schema that this cube has."""
        split = GUIDED.issubset(self.signals)
        there = {"frame": self.frames is not None, "temporal": self.temporal, "blocks": self.blocks, "split": split}
        return frozenset(name for name, has in there.items() if has)

    @property
    def steps(self) -> int:
        """Entries along `step`: calls of the scheduler, plus one for the finished sample."""
        return len(self.timestep)

    @property
    def log_snr(self) -> tuple[float, ...]:
        """2 ln(signal / noise); infinite where one of them vanishes."""
        return tuple(_log_snr(a, b) for a, b in zip(self.signal_level, self.noise_level, strict=True))

    def identity(self) -> dict[str, Any]:
        """What must be equal for runs to share a cube, apart from the levels."""
        shape = {"grid": list(self.grid), "channels": self.channels, "frames": self.frames, "steps": self.steps}
        measured = {"signals": list(self.signals), "bank": self.bank.to_dict(), "radial_bins": self.radial_bins}
        measured |= {"temporal": _described(self.temporal), "blocks": list(self.blocks)}
        return {name: parsed(text) for name, text in self.facts.items()} | shape | measured


@dataclass(frozen=True)
class Runs:
    """Complete runs, one row each: arrays as in the cube, and what tells the runs apart.

    `seed` is -1 where the noise did not come from a fresh seeded generator; `draw` counts the samples that one
    generator gave in one call, 0 where each sample has its own. `adapter_detail` is JSON: the adapters: their names,
    scales and content hashes. `guidance_rule` is "none" without guidance. `split` is empty where cond, uncond and
    guidance could be told apart (or were not asked for), else it says why not. Arrays that the header has no part for
    are None.
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
    adapter_detail: list[str]
    guidance_rule: list[str]
    split: list[str]
    agreement: NDArray[np.float32] | None = None
    temporal: NDArray[np.float32] | None = None
    block_energy: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Variable:
    """One array of the schema."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    long_name: str
    units: str = "1"
    part: str = ""

    @property
    def fill(self) -> Any:
        """What it holds where nothing was written."""
        return FILLS[self.dtype]

    def dimensions(self, parts: Collection[str]) -> tuple[str, ...]:
        """The dimensions, without `frame` where there are no frames."""
        return tuple(dim for dim in self.dims if dim != "frame" or "frame" in parts)


# Values that no run has, so that a chunk that is gone shows itself; `status` has to begin with "not complete".
FILLS: dict[str, Any] = {
    "float32": -math.inf,
    "float64": -math.inf,
    "int32": int(np.iinfo(np.int32).min),
    "int64": int(np.iinfo(np.int64).min),
    "string": "\x00 lost",
    "uint8": 0,
}

SCHEMA: tuple[Variable, ...] = (
    Variable("energy", ("run", "step", "signal", "frame", "channel", "band"), "float32", "energy of a band"),
    Variable("spectrum", ("run", "step", "signal", "radius"), "float32", "energy by radial frequency"),
    Variable("coherence", ("run", "step", "band"), "float32", "cosine of x0 with the finished sample"),
    Variable("agreement", ("run", "step", "pair", "band"), "float32", "inner product of velocities", part="split"),
    Variable(
        "temporal", ("run", "step", "signal", "tempo", "band"), "float32", "energy in time and space", part="temporal"
    ),
    Variable("block_energy", ("run", "step", "block", "band"), "float32", "energy of a block's output", part="blocks"),
    Variable("status", ("run",), "uint8", "1 = complete"),
    Variable("prompt", ("run",), "string", "prompt"),
    Variable("negative_prompt", ("run",), "string", "negative prompt"),
    Variable("seed", ("run",), "int64", "seed of the initial noise, -1 if unknown"),
    Variable("draw", ("run",), "int32", "place among the samples of one generator"),
    Variable("guidance_scale", ("run",), "float64", "guidance scale of the call"),
    Variable("adapter", ("run",), "string", "active adapters"),
    Variable("adapter_detail", ("run",), "string", "adapters: names, scales, content hashes (JSON)"),
    Variable("guidance_rule", ("run",), "string", "how cond and uncond are combined"),
    Variable("split", ("run",), "string", "why cond and uncond are not available; empty if they are"),
    Variable("step", ("step",), "int64", "sampling step"),
    Variable("call", ("step",), "int64", "call of the scheduler"),
    Variable("timestep", ("step",), "float64", "timestep of the scheduler"),
    Variable("noise_level", ("step",), "float64", "weight of the noise in the state (sigma)"),
    Variable("signal_level", ("step",), "float64", "weight of the clean sample in the state"),
    Variable("log_snr", ("step",), "float64", "log of the squared ratio of signal and noise level"),
    Variable("signal", ("signal",), "string", "what is measured"),
    Variable("frame", ("frame",), "int64", "latent frame", part="frame"),
    Variable("channel", ("channel",), "int64", "latent channel"),
    Variable("band", ("band",), "int64", "frequency band, 0 = lowest"),
    Variable("scale_low", ("band",), "float64", "scale of the wider Gaussian", "latent pixels"),
    Variable("scale_high", ("band",), "float64", "scale of the narrower Gaussian", "latent pixels"),
    Variable("frequency", ("band",), "float64", "peak of the band", "cycles per latent pixel"),
    Variable("radius", ("radius",), "float64", "centre of a radial bin", "cycles per latent pixel"),
    Variable("pair", ("pair",), "string", "velocities that are multiplied", part="split"),
    Variable("tempo", ("tempo",), "int64", "temporal band, 0 = slowest", part="temporal"),
    Variable("tempo_frequency", ("tempo",), "float64", "peak of it", "cycles per latent frame", part="temporal"),
    Variable("block", ("block",), "string", "block of the denoiser", part="blocks"),
)
FACTS = ("model_hash", "scheduler", "num_inference_steps", "family", "state_space", "prediction_type", "dtype")
RESERVED = frozenset(
    {
        *FACTS,
        "signals",
        "bank",
        "grid",
        "temporal",
        "parts",
        "facts",
        "notes",
        "format",
        "format_version",
        "coordinates",
    }
)
DATA = ("energy", "spectrum", "coherence", "agreement", "temporal", "block_energy", "status")


def _log_snr(signal: float, noise: float) -> float:
    if signal > 0 and noise > 0:
        return 2 * math.log(signal / noise)
    return math.inf if signal > 0 else -math.inf if noise > 0 else math.nan


def parsed(text: Any) -> Any:
    """What JSON says, or the value itself where it is none."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


def variables(parts: Collection[str] = ()) -> list[Variable]:
    """The schema of a cube with these optional parts; without any, what every cube has."""
    return [variable for variable in SCHEMA if not variable.part or variable.part in parts]


def rows(parts: Collection[str]) -> list[str]:
    """Names of the variables that grow with runs, apart from `status`."""
    return [variable.name for variable in variables(parts) if variable.dims[0] == "run" and variable.name != "status"]


def sizes(header: Header) -> dict[str, int]:
    """Lengths of the dimensions of a new cube."""
    counts = {"run": 0, "step": header.steps, "signal": len(header.signals), "channel": header.channels}
    tempos = header.temporal.bands if header.temporal else 0
    counts |= {"pair": len(PAIRS), "tempo": tempos, "block": len(header.blocks)}
    return counts | {"band": header.bank.bands, "radius": header.radial_bins, "frame": header.frames or 0}


def fixed_values(header: Header) -> dict[str, Any]:
    """Values of the coordinates that do not grow with runs."""
    counts = {name: np.arange(size) for name, size in sizes(header).items()}
    calls = {"call": counts["step"], "step": np.array(header.step)}
    levels = {name: getattr(header, name) for name in ("timestep", "signal_level", "noise_level", "log_snr")}
    bands = {name: getattr(header.bank, name) for name in ("scale_low", "scale_high", "frequency")}
    if header.temporal:
        bands["tempo_frequency"] = header.temporal.frequency
    names = {"signal": header.signals, "pair": PAIRS, "block": header.blocks}
    texts = {name: np.array(values, dtype=object) for name, values in names.items()}
    return counts | calls | levels | bands | texts | {"radius": radii(header.radial_bins, *header.grid)}


def attributes(header: Header) -> dict[str, str | int]:
    """Attributes of the store. `coordinates` is what tells xarray which variables are coordinates."""
    coordinates = " ".join(variable.name for variable in variables(header.parts) if variable.name not in DATA)
    described: dict[str, Any] = {"signals": header.signals, "bank": header.bank.to_dict(), "grid": header.grid}
    described |= {"temporal": _described(header.temporal), "parts": sorted(header.parts)}
    kept = {"facts": list(header.facts), "notes": list(header.notes)}
    texts = {name: json.dumps(value) for name, value in (described | kept).items()}
    own: dict[str, str | int] = {"format": FORMAT, "format_version": VERSION, "coordinates": coordinates}
    return {**header.notes, **header.facts, **texts, **own}


def _described(bank: FilterBank | None) -> dict[str, Any] | None:
    return bank.to_dict() if bank else None
