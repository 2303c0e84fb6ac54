"""Record what a diffusion pipeline does, while it is called as always."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spectra import cube
from spectra.bands import DEFAULT_BANDS, FilterBank
from spectra.errors import UserError
from spectra.families import Family, family_of, with_layout
from spectra.recording import provenance
from spectra.recording.arguments import defaults_of, names_of
from spectra.recording.attached import Attached
from spectra.recording.call import Call
from spectra.recording.claims import claimed
from spectra.recording.ending import CALLBACK, heard_callback
from spectra.recording.headers import asked, known_signals, notes_of
from spectra.recording.loops import Loop, Sampling, explicit, loop_seeds, subject
from spectra.recording.meter import MEMORY
from spectra.recording.refusals import check_recordable
from spectra.recording.repeats import Repeats
from spectra.recording.sink import Sink
from spectra.recording.steering import rule_of
from spectra.recording.tap import tap
from spectra.schema import GUIDED, Header, Runs
from spectra.storage import stores
from spectra.storage.stored import open_stored
from spectra.storage.stores import StoreLike

if TYPE_CHECKING:
    from torch import Tensor

Method = Callable[..., Any]


@contextmanager
def record(
    pipe: Any,
    store: StoreLike,
    *,
    bank: FilterBank | int | None = None,
    signals: Sequence[str] = ("latent", "x0"),
    layout: str | None = None,
    radial_bins: int | None = None,
    adapter: str | None = None,
    resume: cube.Resume = "allow",
    attrs: Mapping[str, Any] | None = None,
    temporal: FilterBank | None = None,
    guidance: Any = None,
    blocks: bool = False,
    memory: int = MEMORY,
    model_hash: str | None = None,
) -> Iterator[Recorder]:
    """Add every sample that `pipe` generates inside the block to the cube at `store`.

        with spectra.record(pipe, "runs/a.zarr"):
            pipe("a red circle", generator=torch.Generator().manual_seed(0))

    A call becomes runs when it has ended with all its steps; one that fails or is interrupted leaves nothing. Runs are
    written together, now and then and at the end of the block, however that ends. `pipe` is a pipeline, a modular one,
    or, for a loop written by hand (`Recorder.sampling`), a scheduler or a network.

    `bank` is a filter bank or a number of octave bands; without it, the cube's own is used, or four octave bands.
    `signals` are some of latent (always), x0, eps, prediction, and cond, uncond and guidance, the difference of the
    two, which come together; "blocks" is the same as `blocks=True`: energies of the outputs of the denoiser's
    blocks. `layout` tells how to unpack latents of unknown families (`spectra.families`). `adapter` names what is
    attached to the pipeline, by default PEFT's active adapters. `attrs` are kept as text in a new cube. `temporal`
    is a filter bank along latent frames. `guidance` is a rule of `spectra.guidance`, or its name: what it makes of
    cond and uncond goes to the scheduler instead of the pipeline's own prediction. `memory` bounds, in bytes, the
    states that a call holds back unmeasured and the clean samples of one run, without which there is no coherence.
    `model_hash` is what the base is known by, where that is known or `adapter` is a checkpoint in its place.

    Raises UserError if the store cannot be written or holds runs of another kind, if this pipeline is being recorded
    already, and, from within the call, if latents or scheduler are of a kind that is not understood. Warns where a
    block ends without runs, and of runs that the cube held before.
    """
    names = known_signals(signals)
    bands = bank if isinstance(bank, int) else None
    if bands is not None and bands < 1:
        raise UserError(f"a filter bank needs at least 1 band, not {bands}")
    recorder = Recorder(
        subject(pipe), store, bank if isinstance(bank, FilterBank) else None, names, layout, radial_bins, adapter,
        notes_of(pipe, attrs), temporal, rule_of(guidance), blocks or "blocks" in signals, memory, bands,
        known_hash=model_hash,
    )  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(claimed(pipe))
        recorder.open(resume)
        stack.callback(recorder.sink.close)
        if not isinstance(recorder.pipe, Loop):
            stack.enter_context(tap(recorder.pipe, "__call__", recorder.call))
        yield recorder
    recorder.warn_if_empty()


@dataclass(repr=False)
class Recorder:
    """A recording in progress: `runs` counts the samples that were recorded.

    Where `expects_runs` is set to False, nothing is said of a block that ends without any.
    """

    pipe: Any
    store: StoreLike
    bank: FilterBank | None
    signals: tuple[str, ...]
    layout: str | None
    radial_bins: int | None
    adapter: str | None
    notes: dict[str, str]
    temporal: FilterBank | None
    rule: Any
    blocks: bool
    memory: int
    bands: int | None = None
    known_hash: str | None = None
    runs: int = 0
    expects_runs: bool = True
    family: Family = field(init=False)
    model_hash: str = field(init=False)
    attached: Attached = field(init=False)
    sink: Sink = field(init=False)
    repeats: Repeats = field(init=False)
    stored: Header | None = None
    checked: Any = None
    described: provenance.SchedulerText = field(default_factory=provenance.SchedulerText)
    busy: tuple[int, Call] | None = None

    def __repr__(self) -> str:
        return f"Recorder({self.name}, {stores.name(self.store)}, {self.runs} runs)"

    def open(self, resume: cube.Resume) -> None:
        """Look at pipeline and store before anything is generated. Raises UserError as `record` says."""
        check_recordable(self.pipe)
        self.family = with_layout(family_of(self.pipe), self.layout)
        self.attached, self.sink, self.repeats = Attached(self.pipe), Sink(self.store), Repeats(self.store)
        cube.check_resume(self.store, resume)
        stores.check_writable(self.store)
        self.model_hash = self.known_hash or provenance.model_hash(self.pipe)
        if stores.exists(self.store):
            stored = open_stored(self.store)
            self._adopt(stored.header())
            self.repeats.read(stored)

    def _adopt(self, stored: Header) -> None:
        """Go on with a cube that exists: what was left open is as it is there."""
        if self.bands not in (None, stored.bank.bands):
            cube.refuse(self.store, [f"bands was {stored.bank.bands}, is {self.bands}"])
        self.bank = self.bank or stored.bank
        self.radial_bins = self.radial_bins or stored.radial_bins
        self.temporal = self.temporal or stored.temporal
        mine = {"bank": self.bank.to_dict(), "signals": list(self.signals), "radial_bins": self.radial_bins}
        mine["temporal"] = self.temporal.to_dict() if self.temporal else None
        facts = {"model_hash": self.model_hash, "family": self.family.name}
        cube.refuse(self.store, cube.differences(stored.identity(), facts | mine))
        self.stored = stored

    @property
    def name(self) -> str:
        """What messages call the thing that is recorded."""
        return self.pipe.name if isinstance(self.pipe, Loop) else type(self.pipe).__name__

    @property
    def kind(self) -> Any:
        """The pipeline's class, by which its signature is remembered."""
        return type(self.pipe)

    @property
    def splits(self) -> bool:
        """True if cond and uncond have to be told apart."""
        return self.rule is not None or self.blocks or GUIDED.issubset(self.signals)

    def bank_for(self, shape: tuple[int, ...]) -> FilterBank:
        """The bank for plain latents of this shape."""
        return self.bank or FilterBank.octaves(self.bands or DEFAULT_BANDS, (shape[-2], shape[-1]))

    def check_call(self, arguments: Mapping[str, Any]) -> None:
        """Raise UserError if a call with these arguments would not fit the cube that is being resumed."""
        if self.stored is None or isinstance(self.pipe, Loop):
            return
        facts = asked(self, self.pipe.scheduler, arguments)
        if any(self.stored.facts[name] != text for name, text in facts.items()):
            now = {name: json.loads(text) for name, text in facts.items()}
            cube.refuse(self.store, cube.differences(self.stored.identity(), now))

    def arguments_of(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments of a call of the pipeline with these, defaults included."""
        guided = getattr(getattr(self.pipe, "guider", None), "guidance_scale", None)
        scale = {} if guided is None else {"guidance_scale": guided}
        modular = getattr(self.pipe, "default_call_parameters", {})
        return defaults_of(self.kind) | modular | scale | dict(arguments)

    def call(self, original: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The pipeline's `__call__`, with its scheduler listened to. A call from within a call belongs to that one."""
        if self.busy is not None and self.busy[0] == threading.get_ident():
            return original(*args, **kwargs)
        named = dict(zip(names_of(self.kind), args, strict=False))
        arguments = self.arguments_of(named | kwargs)
        self.check_call(arguments)
        seeds = provenance.Seeds.of(arguments)
        whole = hasattr(type(self.pipe), "num_timesteps")
        watched = Call(self, self.pipe.scheduler, arguments, seeds, whole=whole, guide=self.pipe)
        args, kwargs = ((), named | kwargs) if CALLBACK in named else (args, kwargs)
        kwargs = heard_callback(self.pipe, arguments, kwargs, watched.went_on)
        with self._during(watched), watched.listening():
            result = original(*args, **kwargs)
        watched.finish()
        return result

    @contextmanager
    def _during(self, watched: Call) -> Iterator[None]:
        if self.busy is not None:
            raise UserError(f"this {self.name} is generating already, in another thread; give each thread its own")
        self.busy = threading.get_ident(), watched
        try:
            yield
        finally:
            self.busy = None

    @contextmanager
    def sampling(
        self,
        prompt: Any = None,
        *,
        seed: int | Sequence[int] | None = None,
        space: str | None = None,
        prediction_type: str | None = None,
        **arguments: Any,
    ) -> Iterator[Sampling]:
        """Record a sampling loop that is written by hand, in a `with`; when it ends well its samples become runs.

            with recorder.sampling("a red circle", seed=0):         # steps of the scheduler are heard
                for t in scheduler.timesteps:
                    x = scheduler.step(model(x, t), t, x).prev_sample

            with recorder.sampling("a red circle", seed=0, space="ve", prediction_type="sample") as run:
                for sigma, lower in itertools.pairwise(sigmas):     # no scheduler: say what happens
                    denoised = model(x, sigma)
                    run.observe(x, denoised, noise_level=sigma)
                    x = x + (x - denoised) / sigma * (lower - sigma)
                run.finish(x)

        `space` is ve, vp or flow and `prediction_type` one of epsilon, v_prediction, sample and flow_prediction; with
        them noise levels are the weights of the noise in the state. Further arguments are those that a pipeline would
        be called with (negative_prompt, guidance_scale, num_inference_steps, height, ...). Raises UserError for kinds
        that are not known, and at the end if nothing was observed or not finished.
        """
        named = {"prompt": prompt, **arguments}
        schedule = explicit(space, prediction_type) if space or prediction_type else None
        scheduler = None if schedule is not None else self.pipe.scheduler
        if schedule is None and scheduler is None:
            raise UserError("a loop without a scheduler needs sampling(..., space=..., prediction_type=...)")
        watched = Call(self, scheduler, named, loop_seeds(seed, arguments), schedule, whole=False)
        with self._during(watched), watched.listening():
            yield Sampling(watched)
        watched.finish()

    def observe(self, x: Tensor, model_output: Tensor, timestep: Any = None, *, noise_level: Any = None) -> None:
        """`Sampling.observe` of the loop that is being recorded."""
        Sampling(self._current()).observe(x, model_output, timestep, noise_level=noise_level)

    def finish(self, x: Tensor, *, noise_level: float | None = None) -> None:
        """`Sampling.finish` of the loop that is being recorded."""
        Sampling(self._current()).finish(x, noise_level=noise_level)

    def _current(self) -> Call:
        if self.busy is None:
            raise UserError("nothing is being sampled: observe within `with recorder.sampling(...)`")
        return self.busy[1]

    def write(self, header: Header, runs: Runs) -> None:
        """Hand the runs of a call over, to be written when it is time."""
        self.sink.add(header, runs)
        self.stored = header
        self.runs += len(runs.prompt)
        self.repeats.add(runs, stacklevel=6)

    def warn_if_empty(self) -> None:
        """Say what to do where a block has ended, and nothing was recorded that should have been."""
        if self.runs or not self.expects_runs:
            return
        todo = (
            "run the loop inside `with recorder.sampling(...)`, and let it end"
            if isinstance(self.pipe, Loop)
            else f"{self.name} was not called inside the block, or its call did not finish"
        )
        warnings.warn(f"nothing was recorded at {stores.name(self.store)}: {todo}", stacklevel=4)
