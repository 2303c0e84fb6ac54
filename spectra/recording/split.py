"""Tell the predictions with and without the prompt apart while a pipeline guides, and prove it.

Guidance hands `m = u + w (c - u)` to the scheduler, but pipelines differ in how they come by c and u: one call of the
denoiser on a doubled batch (either half first), two calls in a row, lists of tensors, half of the channels, a minus
sign, or `c + w (c - u)`.  A `Watcher` keeps what the denoiser gave since the last step and accepts the reading that
reproduces m to the rounding error of its type.  Where none does, guidance was rescaled, normalised or cut, and the
answer is a sentence instead of a guess.

The first steps are checked on the spot.  Once a single reading and scale fit, later steps of the same form are only
computed on the device, and `verdict` looks at their errors when the call has ended: no step waits for the device.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from spectra.families import Family
from spectra.recording.readings import (
    MOST_CALLS,
    SOLVED,
    Call,
    Form,
    Reading,
    labelled,
    miss,
    number,
    readings_of,
    solved,
    tensor_of,
    tried,
)
from spectra.recording.tap import tap

if TYPE_CHECKING:
    from torch import Tensor

OFF = "guidance is off"
UNMATCHED = "the prediction is not uncond + w (cond - uncond): guidance is rescaled, normalised or cut"
SILENT = "the denoiser was not called between two steps of the scheduler"
# Where pipelines keep w, most specific first: a model with embedded guidance has its own `guidance_scale` besides.
SCALES = ("true_cfg_scale", "guidance_scale", "guidance_scale_2", "prior_guidance_scale", "decoder_guidance_scale")


class Split(NamedTuple):
    """Predictions with and without the prompt, in the scheduler's sign and the layout of `model_output`.

    `scale` is w in `uncond + w (cond - uncond)`, so 1 means no guidance; NaN where it is several (one per frame).
    """

    cond: Tensor
    uncond: Tensor
    scale: float


@dataclass
class Watcher:
    """Watch one call of a pipeline: `watching` around it, `take` at each scheduler step, `verdict` when it has ended.

    `arguments` are those of the call, by name and with defaults: the guidance scale is read from the pipeline as it
    goes, else from there. `scale_source` says where the last accepted scale came from ("least squares" if no scale that
    the pipeline names reproduces the prediction).
    """

    pipe: Any
    family: Family
    arguments: Mapping[str, Any]
    scale_source: str = ""
    calls: deque[Call] = field(default_factory=lambda: deque(maxlen=MOST_CALLS + 1), init=False)
    context: str = field(default="", init=False)
    trusted: dict[Any, Form] = field(default_factory=dict, init=False)
    misses: list[Tensor] = field(default_factory=list, init=False)

    @contextmanager
    def watching(self) -> Iterator[Watcher]:
        """Listen to the objects that the pipeline calls, compiled ones included, for the length of a `with`."""
        with ExitStack() as stack:
            for index, denoiser in enumerate(denoisers(self.pipe, self.family)):
                stack.enter_context(tap(denoiser, "__call__", self._hear(index)))
                eager = getattr(denoiser, "_orig_mod", denoiser)  # a compiled module passes other methods on to it
                if hasattr(type(eager), "cache_context"):
                    stack.enter_context(tap(eager, "cache_context", self._label))
            try:
                yield self
            finally:
                self.calls.clear()

    def take(self, model_output: Tensor) -> Split | str:
        """The split behind what `scheduler.step` is given (without learned variances), or why there is none.

        Call it once per step; outputs are let go of at once.
        """
        calls, m = list(self.calls), model_output.detach()
        self.calls.clear()
        if not calls:
            return SILENT
        readings, reason = readings_of(calls, m)
        if reason:
            return reason
        key = tuple((call.denoiser, call.context, tuple(call.output.shape)) for call in calls), tuple(m.shape)
        form = self.trusted.get(key)
        if form is not None and form.source in {"", *self._scales()}:
            return self._trust(form, readings, m)
        return self._check(key, calls, readings, m)

    def verdict(self) -> str:
        """Empty, or the reason why splits that `take` gave on trust were wrong: they then all have to be dropped."""
        import torch

        if not self.misses:
            return ""
        missed, allowed = torch.stack(self.misses).cpu().unbind(-1)
        return "" if bool((missed <= allowed).all()) else self._unmatched()

    def _hear(self, index: int) -> Any:
        def heard(original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            result = original(*args, **kwargs)
            output = tensor_of(result)
            if output is not None:
                self.calls.append(Call(index, self.context, output))
            return result

        return heard

    @contextmanager
    def _within(self, inner: Any, name: str) -> Iterator[Any]:
        before, self.context = self.context, name.removeprefix("pred_")  # as guiders call them
        try:
            with inner as value:
                yield value
        finally:
            self.context = before

    def _label(self, original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._within(original(*args, **kwargs), str(args[0] if args else kwargs.get("name", "")))

    def _scales(self) -> dict[str, Any]:
        """Guidance scales by where they are kept: live on the pipeline, in the arguments of the call, on a guider."""
        found: dict[str, Any] = {}
        for name in SCALES:
            guider = getattr(self.pipe, "guider_2" if name.endswith("_2") else "guider", None)
            kept = getattr(guider, name.removesuffix("_2"), None)
            places = (getattr(self.pipe, f"_{name}", None), self.arguments.get(name), kept)
            value = next((value for value in places if _is_scale(value)), None)
            found |= {} if value is None else {name: value}
        return found

    def _trust(self, form: Form, readings: Sequence[Reading], m: Tensor) -> Split | str:
        import torch

        weight = self._scales().get(form.source, 1.0) + form.extra
        self.misses.append(torch.stack(miss(m, *readings[form.reading], form.sign, weight)))
        return self._split(form, weight, readings)

    def _check(self, key: Any, calls: Sequence[Call], readings: Sequence[Reading], m: Tensor) -> Split | str:
        """Try everything that could have been meant; one wait for the device, two where the scale has to be solved."""
        fitting = [trial for trial in tried(self._forms(readings), readings, m) if trial.fits]
        if not fitting:
            fitting = [trial for trial in tried(solved(readings, m), readings, m) if trial.fits]
            if fitting and not labelled(calls):  # the other order fits 1 - w as well: guidance goes beyond cond
                fitting = [trial for trial in fitting if trial.weight >= 1]
        if not fitting:
            return self._unmatched()
        best = min(fitting, key=lambda trial: trial.miss)
        if best.form.source != SOLVED and len({(one.form.reading, number(one.weight)) for one in fitting}) == 1:
            self.trusted[key] = best.form
        return self._split(best.form, best.weight, readings)

    def _forms(self, readings: Sequence[Reading]) -> list[tuple[Form, Any]]:
        """Every form that a pipeline may have used, with its weight."""
        signs = (float(self.family.prediction_sign), -float(self.family.prediction_sign))
        guided = [(name, extra, value + extra) for name, value in self._scales().items() for extra in (0.0, 1.0)]
        return [
            (Form(index, sign, name, extra), weight)
            for index, (c, u) in enumerate(readings)
            for sign in signs
            for name, extra, weight in ([("", 0.0, 1.0)] if c is u else guided)
        ]

    def _split(self, form: Form, weight: Any, readings: Sequence[Reading]) -> Split | str:
        c, u = readings[form.reading]
        if c is u:
            return OFF
        self.scale_source = form.source
        return Split(*((c, u) if form.sign > 0 else (-c, -u)), number(weight))

    def _unmatched(self) -> str:
        rescale = self.arguments.get("guidance_rescale")
        return f"{UNMATCHED} (guidance_rescale is {rescale})" if rescale else UNMATCHED


def denoisers(pipe: Any, family: Family) -> list[Any]:
    """The networks that the pipeline may call: some change at a noise level, some have another one without prompt."""
    name = family.denoiser_attribute
    found = (getattr(pipe, one, None) for one in (name, f"{name}_2", f"{name}_3", f"unconditional_{name}"))
    return list({id(one): one for one in found if one is not None}.values())


def _is_scale(value: Any) -> bool:
    return (isinstance(value, (int, float)) and not isinstance(value, bool)) or hasattr(value, "numel")
