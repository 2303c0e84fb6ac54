"""One call of a pipeline that is listened to: what the scheduler was given, held back, measured, made into runs.

While the pipeline runs, states and predictions are only copied. They are measured when the call has ended, or in
between where they would take more memory than allowed.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra import cube
from spectra.errors import UserError
from spectra.recording import meter, provenance
from spectra.recording.ending import hearing_state, level_after
from spectra.recording.entry import (
    Entry,
    copied,
    index_of,
    levels_of,
    positional,
    replaced,
    states_of,
    with_variance,
    without_variance,
)
from spectra.recording.headers import check_finite, header_of, proven
from spectra.recording.meter import RADIAL_BINS, Measured, Meter, Plan, keeps_coherence
from spectra.recording.refusals import check_start, check_step
from spectra.recording.steering import Progress, steered
from spectra.recording.tap import tap
from spectra.schema import GUIDED, Runs
from spectra.signals import Level, Schedule, output_for, schedule_of

if TYPE_CHECKING:
    from torch import Tensor

    from spectra.record import Recorder
    from spectra.recording.split import Split

Method = Callable[..., Any]


@dataclass(repr=False)
class Call:
    """One call of the pipeline: its samples become runs when it ends well. `schedule` is given where no scheduler is.

    `whole` says that the pipeline itself knows how many steps it means to make, so that an interruption shows; `guide`
    is what knows, while it runs, whether it guides, and `rule_name` how it did. `entries` are what is held back, `held`
    bytes of it, and `reasons` says of each call of the scheduler before the last why it has no split. `result` is what
    the last step gave, `final` a copy of the latents that the pipeline went on with. `end` is told where a loop ends
    somewhere else than its scheduler. Shapes are those of latents, `raw_shape` as the scheduler gets them.
    """

    recorder: Recorder
    scheduler: Any
    arguments: dict[str, Any]
    seeds: provenance.Seeds
    schedule: Schedule | None = None
    whole: bool = True
    guide: Any = None
    entries: list[Entry] = field(default_factory=list)
    held: int = 0
    reasons: list[str] = field(default_factory=list)
    final: Tensor | None = None
    end: Level | None = None
    rule_name: str = "none"
    shape: tuple[int, ...] = ()
    raw_shape: tuple[int, ...] = ()
    dtype: str = ""
    plan: Plan | None = None
    meter: Meter | None = None
    labels: provenance.Labels | None = None
    watcher: Any = None
    progress: Progress = field(default_factory=Progress)
    blocks: Any = None
    result: Any = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the scheduler's steps, and what else was asked for, for the length of one call."""
        recorder = self.recorder
        with ExitStack() as stack:
            stack.enter_context(recorder.family.resolving(recorder.pipe, self.arguments))
            if recorder.splits:
                from spectra.recording.split import Watcher

                self.watcher = Watcher(recorder.pipe, recorder.family, self.arguments)
                stack.enter_context(self.watcher.watching())
            if recorder.blocks:
                from spectra.recording.blocks import BlockWatcher

                self.blocks = BlockWatcher(recorder.pipe, recorder.family)
                stack.enter_context(self.blocks.watching())
            if self.scheduler is not None:
                stack.enter_context(hearing_state(recorder.pipe, self.went_on))
                stack.enter_context(tap(self.scheduler, "step", self.step))
            yield

    def step(self, original: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The scheduler's `step`, observed. Arguments are taken by name: schedulers differ in their order."""
        given = dict(zip(positional(self.kind), args, strict=False)) | kwargs
        x, timestep = given["sample"], given["timestep"]
        check_step(given)
        out = without_variance(x, self._output(given))
        split = self._split(out)
        if self.recorder.rule is not None:
            out = steered(self, x, out, timestep, split)
            args, kwargs = replaced(self.kind, args, kwargs, with_variance(out, given["model_output"]))
        kept = x.detach().clone(), out.detach().clone()
        result = original(*args, **kwargs)
        after = getattr(self.scheduler, "step_index", None)
        self.keep(Entry(*kept, timestep, None if after is None else after - 1, None, split))
        self.result = result[0] if isinstance(result, tuple) else result.prev_sample
        self.final = self.result.detach().clone()
        return result

    def went_on(self, latents: Tensor) -> None:
        """Hear the latents that the pipeline goes on with after a step, which are mostly what the step gave."""
        changed = latents is not self.result
        if changed and self.final is not None and getattr(latents, "shape", None) == self.final.shape:
            self.final = latents.detach().clone()

    def _output(self, given: Mapping[str, Any]) -> Tensor:
        """What the network predicts; where `step` is given a clean sample beside it, what would lead to that."""
        out: Tensor = given["model_output"]
        if given.get("pred_original_sample") is None:
            return out
        schedule = self.schedule or schedule_of(self.scheduler, ("latent", "x0"))
        level = schedule.at(given["timestep"], index_of(self.scheduler, given["timestep"]))
        return output_for(given["sample"], given["pred_original_sample"], level, schedule)

    def keep(self, entry: Entry) -> None:
        """Hold an observation back; one of the same index as the last replaces it (the pipeline rewound)."""
        entry.split = copied(entry.split)
        if self.rule_name == "none":  # read as it goes: a callback may end guidance half way
            self.rule_name = provenance.guidance_rule(self.guide, self.arguments, self.recorder.family)
        if self.entries and entry.index is not None and entry.index == self.entries[-1].index:
            self.held -= self.entries.pop().nbytes
        elif self.entries:
            self._settle(self.entries[-1])
        if self.blocks is not None:
            shape = tuple(self.plain(entry.x).shape)
            entry.blocks = self.blocks.take(shape, entry.split, self.recorder.bank_for(shape))
        self.entries.append(entry)
        self.held += entry.nbytes
        if self.held > self.recorder.memory and len(self.entries) > 1:
            self._measure(self.entries[:-1])

    def finish(self) -> None:
        """Write the runs, unless the call was interrupted. Raises UserError if nothing was heard."""
        import torch

        name = self.recorder.name
        if not self.entries or self.final is None:
            raise UserError(f"{name} ended without {self._missing()}: nothing was recorded")
        self._settle(self.entries[-1])
        done, expected = len(self.reasons), self.expected()
        if expected is not None and done < expected:
            warnings.warn(f"{name} ended after {done} of {expected} steps: not recorded", stacklevel=4)
            return
        with torch.no_grad():
            assert self.schedule is not None
            end = self.end or level_after(self.scheduler, self.schedule, self.entries[-1])
            self._measure(self.entries)
            assert self.meter is not None
            self.meter.schedule = dataclasses.replace(self.schedule, final=end)
            measured = self.meter.finish(self.plain(self.final))
        verdict = self.watcher.verdict() if self.watcher is not None else ""
        self._write(*proven(measured, verdict, self.reasons, self.recorder))

    def _missing(self) -> str:
        """What has to be called, and was not."""
        if self.entries:
            return "the finished sample: call run.finish(x) after the loop"
        if self.scheduler is None:
            return "any observation: call run.observe(...) at each step and run.finish(x) after the loop"
        return "calling step of its scheduler (of a copy?)"

    @property
    def heard(self) -> int:
        """Scheduler calls so far, without those that were taken back."""
        return len(self.reasons) + len(self.entries[-1:])

    @property
    def kind(self) -> Any:
        """The scheduler's class, by which its signature is remembered."""
        return type(self.scheduler)

    def expected(self) -> int | None:
        """Scheduler calls that the pipeline means to make; None where nothing tells."""
        if not self.whole:
            return None
        planned = getattr(self.recorder.pipe, "num_timesteps", None)
        return int(planned) if planned is not None else len(self.scheduler.timesteps)

    def _split(self, out: Tensor) -> Split | str:
        if self.watcher is None:
            return ""
        taken: Split | str = self.watcher.take(out)
        return taken

    def _settle(self, entry: Entry) -> None:
        """Nothing will take `entry` back any more. With the first, everything is known that can be refused."""
        if self.plan is None:
            self._begin(entry)
        if entry.x.shape != self.raw_shape:
            shapes = f"{self.raw_shape} to {tuple(entry.x.shape)}"
            raise UserError(f"{self.recorder.name} went from latents {shapes} within one call, and a cube has one grid")
        self.reasons.append(entry.split if isinstance(entry.split, str) else "")

    def _begin(self, entry: Entry) -> None:
        recorder = self.recorder
        check_start(self.scheduler, entry.timestep)
        self.raw_shape, self.dtype = tuple(entry.x.shape), str(entry.x.dtype).removeprefix("torch.")
        self.shape = tuple(self.plain(entry.x).shape)
        name, detail = recorder.attached.look(self.arguments)
        adapters = (name if recorder.adapter is None else recorder.adapter, detail)
        self.labels = provenance.labels(self.arguments, self.seeds, self.shape[0], adapters, recorder.rule)
        bins = recorder.radial_bins or RADIAL_BINS
        if recorder.temporal is not None and len(self.shape) != 5:
            raise UserError(f"{recorder.name} makes pictures, so there are no frames for temporal bands")
        skip = int(getattr(recorder.family, "causal", False))
        bank, blocks = recorder.bank_for(self.shape), tuple(entry.blocks or ())
        self.plan = Plan(bank, bins, recorder.signals, recorder.temporal, skip, blocks)
        self.schedule = self.schedule or schedule_of(self.scheduler, recorder.signals)
        self._check_header()

    def _check_header(self) -> None:
        stored, expected = self.recorder.stored, self.expected()
        made = (self.recorder.described(self.scheduler), self.shape, self.dtype, expected, self.plan)
        if stored is None or made == self.recorder.checked:
            return
        now = header_of(self, stored.steps, [], True).identity()
        if expected is not None:
            now["steps"] = expected + 1
        cube.refuse(self.recorder.store, cube.differences(stored.identity(), now))
        self.recorder.checked = made

    def plain(self, latents: Tensor) -> Tensor:
        """Latents as the scheduler gets them -> `(b, c, [t], h, w)`."""
        return self.recorder.family.plain(latents, self.recorder.pipe, self.arguments)

    def _measure(self, entries: Sequence[Entry]) -> None:
        """Measure held entries, some at a time, and let go of them."""
        import torch

        assert self.plan is not None
        assert self.schedule is not None
        if self.meter is None:
            steps = self.expected() or len(entries)
            fits = self.expected() is not None or self.held <= self.recorder.memory
            keep = fits and keeps_coherence(self.shape, steps, self.recorder.signals, self.recorder.memory)
            self.meter = Meter(self.plan, self.schedule, keep)
        size = max(meter.WORKING // (4 * int(np.prod(self.shape))), 1)
        levels = levels_of(entries, self.schedule)
        guided = GUIDED.issubset(self.recorder.signals)
        with torch.no_grad():
            for start in range(0, len(entries), size):
                part = slice(start, start + size)
                self.meter.measure(states_of(entries[part], levels[part], self.plain, guided))
                for entry in entries[part]:
                    if entry.blocks is not None:
                        self.meter.add_blocks(entry.blocks)
        self.entries = self.entries[len(entries) :]
        self.held = sum(entry.nbytes for entry in self.entries)

    def _write(self, measured: Measured, split: str) -> None:
        assert self.meter is not None
        assert self.labels is not None
        recorder, count = self.recorder, self.shape[0]
        check_finite(measured.energy[:, :, recorder.signals.index("latent")], recorder.name)
        rule = str(recorder.rule) if recorder.rule else self.rule_name
        header = header_of(self, len(self.meter.levels), self.meter.levels, self.meter.keep_clean)
        labels = {**vars(self.labels), "guidance_rule": [rule] * count, "split": [split] * count}
        recorder.write(header, Runs(**measured._asdict(), **labels))
