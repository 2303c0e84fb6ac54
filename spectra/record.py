"""Record what a diffusion pipeline does, while it is called as always."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra import cube, provenance, stores
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.families import Family, family_of, with_layout
from spectra.meter import Meter, default_radial_bins, keeps_coherence
from spectra.schema import RESERVED, Header, Runs
from spectra.signals import SIGNALS, schedule_of
from spectra.stores import StoreLike
from spectra.tap import tap

if TYPE_CHECKING:
    import torch

DEFAULT_BANDS = 4
Method = Callable[..., Any]


@contextmanager
def record(
    pipe: Any,
    store: StoreLike,
    *,
    bank: FilterBank | None = None,
    signals: Sequence[str] = ("latent", "x0"),
    layout: str | None = None,
    radial_bins: int | None = None,
    adapter: str | None = None,
    resume: cube.Resume = "allow",
    attrs: Mapping[str, Any] | None = None,
) -> Iterator[Recorder]:
    """Add every sample that `pipe` generates inside the block to the cube at `store`.

        with spectra.record(pipe, "runs/a.zarr"):
            pipe("a red circle", generator=torch.Generator().manual_seed(0))

    A call is written when it has ended with all its steps; one that fails or is interrupted leaves nothing. Without
    `bank`, the cube's own is used, or four octave bands of a new one. `signals` are some of latent (always), x0, eps
    and prediction. `layout` tells how to unpack latents of unknown families (`spectra.families`). `adapter` names what
    is attached to the pipeline, by default PEFT's active adapters. `attrs` are kept as text in a new cube.

    Raises UserError if the store cannot be written or holds runs of another kind, if this pipeline is being recorded
    already, and, from within the call, if latents or scheduler are of a kind that is not understood.
    """
    recorder = Recorder(pipe, store, bank, _known(signals), layout, radial_bins, adapter, _notes(pipe, attrs))
    recorder.open(resume)
    with ExitStack() as stack:
        try:
            stack.enter_context(tap(pipe, "__call__", recorder.call))
        except LookupError as error:
            raise UserError(f"this {type(pipe).__name__} is being recorded already; end that first") from error
        yield recorder


@dataclass
class Recorder:
    """A recording in progress: `runs` counts the samples that it has written."""

    pipe: Any
    store: StoreLike
    bank: FilterBank | None
    signals: tuple[str, ...]
    layout: str | None
    radial_bins: int | None
    adapter: str | None
    notes: dict[str, str]
    runs: int = 0
    family: Family = field(init=False)
    model_hash: str = field(init=False)
    stored: Header | None = None

    def open(self, resume: cube.Resume) -> None:
        """Look at pipeline and store before anything is generated. Raises UserError as `record` says."""
        from spectra.models import model_hash

        if not hasattr(getattr(self.pipe, "scheduler", None), "step"):
            raise UserError(f"{type(self.pipe).__name__} has no scheduler with a step, so nothing can be recorded")
        self.family = with_layout(family_of(self.pipe), self.layout)
        cube.check_resume(self.store, resume)
        stores.check_writable(self.store)
        self.model_hash = model_hash(self.pipe)
        if stores.exists(self.store):
            self._adopt(cube.read_header(self.store))

    def _adopt(self, stored: Header) -> None:
        """Go on with a cube that exists: what was left open is as it is there."""
        self.bank = self.bank or stored.bank
        self.radial_bins = self.radial_bins or stored.radial_bins
        mine = {"bank": self.bank.to_dict(), "signals": list(self.signals), "radial_bins": self.radial_bins}
        facts = {"model_hash": self.model_hash, "family": self.family.name}
        cube.refuse(self.store, cube.differences(stored.identity(), facts | mine))
        self.stored = stored

    def check_call(self, arguments: Mapping[str, Any]) -> None:
        """Raise UserError if a call with these arguments would not fit the cube that is being resumed."""
        facts = {"scheduler": provenance.scheduler_json(self.pipe.scheduler), **_asked_steps(arguments)}
        now = {name: json.loads(text) for name, text in facts.items()}
        if self.stored is not None:
            cube.refuse(self.store, cube.differences(self.stored.identity(), now))

    def arguments_of(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments of a call of the pipeline with these, defaults included."""
        parameters = inspect.signature(type(self.pipe).__call__).parameters.values()
        defaults = {one.name: one.default for one in parameters if one.default is not one.empty}
        return defaults | dict(arguments)

    def active_adapter(self) -> str:
        """The name that runs get: the one that was given, or those of PEFT's active adapters."""
        return self.adapter if self.adapter is not None else provenance.active_adapters(self.pipe)

    def call(self, original: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The pipeline's `__call__`, with its scheduler listened to."""
        arguments = _bind(original, args, kwargs)
        self.check_call(arguments)
        watched = _Call(self, self.pipe.scheduler, arguments, provenance.Seeds.of(arguments))
        with tap(self.pipe.scheduler, "step", watched.step):
            result = original(*args, **kwargs)
        watched.finish()
        return result

    def write(self, header: Header, runs: Runs) -> None:
        """Append the runs of a call, to a new cube if there is none."""
        if stores.exists(self.store):
            cube.resume(self.store, header)
        else:
            cube.create(self.store, header)
        cube.append(self.store, runs)
        self.stored = header
        self.runs += len(runs.prompt)


@dataclass
class _Call:
    """One call of the pipeline: its samples become runs when it ends well."""

    recorder: Recorder
    scheduler: Any
    arguments: dict[str, Any]
    seeds: provenance.Seeds
    meter: Meter | None = None
    labels: provenance.Labels | None = None
    last_index: int | None = None
    final: Any = None
    shape: tuple[int, ...] = ()
    dtype: str = ""

    def step(self, original: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The scheduler's `step`, observed. Arguments are taken by name: schedulers differ in their order."""
        import torch

        given = _bind(original, args, kwargs)
        if missing := {"sample", "model_output", "timestep"} - given.keys():
            name = type(self.scheduler).__name__
            raise UserError(f"{name}.step has no argument {sorted(missing)[0]}, so it cannot be recorded")
        result = original(*args, **kwargs)
        with torch.no_grad():
            self._observe(given["sample"], given["model_output"], given["timestep"])
        self.final = result[0] if isinstance(result, tuple) else result.prev_sample
        return result

    def _observe(self, sample: torch.Tensor, output: torch.Tensor, timestep: Any) -> None:
        if sample.ndim >= 4 and output.shape[1] == 2 * sample.shape[1]:
            output = output[:, : sample.shape[1]]  # the other half is a learned variance
        x, out = self._plain(sample), self._plain(output)
        meter = self.meter or self._begin(x, str(sample.dtype).removeprefix("torch."))
        step_index = getattr(self.scheduler, "step_index", None)
        index = None if step_index is None else step_index - 1  # it points at the next step by now
        if index is not None and index == self.last_index:
            meter.forget_last()  # the pipeline rewound its scheduler; the last call of an index counts
        self.last_index = index
        meter.observe(x, out, meter.schedule.at(timestep, index))

    def _plain(self, latents: torch.Tensor) -> torch.Tensor:
        return self.recorder.family.plain(latents, self.recorder.pipe, self.arguments)

    def _begin(self, x: torch.Tensor, dtype: str) -> Meter:
        """At the first step: everything is known that can be refused."""
        recorder = self.recorder
        self.shape, self.dtype = tuple(x.shape), dtype
        self.labels = provenance.labels(self.arguments, self.seeds, len(x), recorder.active_adapter())
        grid = (x.shape[-2], x.shape[-1])
        bank = recorder.bank or FilterBank.octaves(DEFAULT_BANDS, grid)
        bins = recorder.radial_bins or default_radial_bins(grid)
        keep = keeps_coherence(self.shape, self._expected(), recorder.signals)
        schedule = schedule_of(self.scheduler, recorder.signals)
        self.meter = Meter(bank, bins, recorder.signals, schedule, keep)
        if recorder.stored is not None:
            now = self._header(recorder.stored.steps).identity() | {"steps": self._expected() + 1}
            cube.refuse(recorder.store, cube.differences(recorder.stored.identity(), now))
        return self.meter

    def _expected(self) -> int:
        """Scheduler calls that the pipeline means to make."""
        planned = getattr(self.recorder.pipe, "num_timesteps", None)
        return int(planned) if planned is not None else len(self.scheduler.timesteps)

    def finish(self) -> None:
        """Write the runs, unless the call was interrupted."""
        import torch

        name = type(self.recorder.pipe).__name__
        if self.meter is None or self.labels is None:
            raise UserError(f"{name} ended without calling step of its scheduler (of a copy?): nothing was recorded")
        done, expected = len(self.meter.levels), self._expected()
        if done < expected:
            warnings.warn(f"{name} ended after {done} of {expected} steps: not recorded", stacklevel=4)
            return
        with torch.no_grad():
            energy, spectrum, coherence = self.meter.finish(self._plain(self.final))
        _check_finite(energy[:, :, self.recorder.signals.index("latent")], name)
        header = self._header(len(self.meter.levels))
        self.recorder.write(header, Runs(energy, spectrum, coherence, **vars(self.labels)))

    def _header(self, steps: int) -> Header:
        """The header of this call; levels that are not known yet are left at NaN."""
        assert self.meter is not None
        meter, recorder, scheduler = self.meter, self.recorder, self.scheduler
        levels = (meter.levels + [meter.schedule.final] * steps)[:steps]
        timestep, signal_level, noise_level = zip(*levels, strict=True)
        facts = {
            "model_hash": recorder.model_hash,
            "scheduler": provenance.scheduler_json(scheduler),
            **_asked_steps(self.arguments),
            "family": recorder.family.name,
            "state_space": meter.schedule.space,
            "prediction_type": meter.schedule.prediction_type,
            "dtype": self.dtype,
        }
        off = {} if meter.keep_clean else {"coherence_off": "x0 is not recorded, or would take over 256 MB per run"}
        return Header(
            recorder.signals, meter.bank, (self.shape[-2], self.shape[-1]), self.shape[1],
            self.shape[2] if len(self.shape) == 5 else None, meter.radial_bins,
            timestep, signal_level, noise_level, facts, recorder.notes | off,
        )  # fmt: skip


def _asked_steps(arguments: Mapping[str, Any]) -> dict[str, str]:
    """The steps that were asked for, as a fact; a scheduler may make more calls than that."""
    return {"num_inference_steps": json.dumps(arguments.get("num_inference_steps"))}


def _bind(function: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a call by name, defaults included; a call that does not fit is left to fail by itself."""
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return dict(kwargs)
    bound.apply_defaults()
    return {**bound.arguments.pop("kwargs", {}), **bound.arguments}


def _known(signals: Sequence[str]) -> tuple[str, ...]:
    """Signals in their usual order. Raises UserError for unknown ones and without `latent`, which every cube has."""
    unknown = sorted(set(signals) - set(SIGNALS))
    if unknown or isinstance(signals, str):
        raise UserError(f"signals are some of {', '.join(SIGNALS)}, not {unknown[0] if unknown else signals!r}")
    if "latent" not in signals:
        raise UserError('signals have to hold "latent", which every cube is checked by')
    return tuple(name for name in SIGNALS if name in signals)


def _notes(pipe: Any, attrs: Mapping[str, Any] | None) -> dict[str, str]:
    """What is kept of where a cube comes from, and the user's own attributes as text."""
    own = {name: value if isinstance(value, str) else json.dumps(value) for name, value in (attrs or {}).items()}
    taken = sorted(RESERVED.intersection(own))
    if taken:
        raise UserError(f"the attribute {taken[0]!r} belongs to the cube itself; choose another name")
    model = str(getattr(pipe, "name_or_path", "") or type(pipe).__name__)
    return {"model": model, "versions": json.dumps(provenance.versions()), "command": provenance.command(), **own}


def _check_finite(latents: Any, name: str) -> None:
    if not np.isfinite(latents).all():
        step = int(np.argmax(~np.isfinite(latents).reshape(*latents.shape[:2], -1).all((0, 2))))
        raise UserError(f"latents of {name} are not finite from step {step} on: not recorded; try torch_dtype=float32")
