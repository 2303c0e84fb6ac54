"""Guidance rules to probe with, and what cubes say about them.

A rule combines the predictions with (c) and without (u) the prompt. Beyond plain classifier-free guidance the result
depends on what is combined, so rules work on velocities (`spectra.velocity`) whatever the network predicts:

    cfg                 u + w (c - u)
    cfg-zero-init       the same, but v = 0 at the first steps
    cfg-zero-star       s u + w (c - s u),  s = <c, u> / ||u||^2 per sample, and v = 0 at the first steps
                        (Fan et al. 2025, arXiv 2503.18886)
    cfg-zero-star-band  the same with one s per frequency band: an extension of this project that nobody has validated

`s` is the least-squares scale: it makes `c - s u` orthogonal to u and as short as it can be.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.recording.rule_text import parsed
from spectra.recording.split import Split
from spectra.schema import PAIRS
from spectra.signals import Level, Schedule
from spectra.velocity import DIRECT, EPSILON, agreement, band_products, least_squares_scale, prediction, velocity

if TYPE_CHECKING:
    import xarray as xr
    from torch import Tensor

Plain = Callable[["Tensor"], "Tensor"]

__all__ = [
    "RULES",
    "GuidanceRule",
    "ZeroInit",
    "ZeroStar",
    "ZeroStarBand",
    "agreement",
    "band_scale",
    "cosine",
    "guidance_energy",
    "optimal_scale",
    "rule",
]


@dataclass(frozen=True)
class GuidanceRule:
    """Plain classifier-free guidance, and what all rules share. `scale` is w; None takes the pipeline's."""

    name: ClassVar[str] = "cfg"
    scale: float | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and not math.isfinite(self.scale):
            raise UserError(f"a guidance scale is a finite number, not {self.scale}")

    def __str__(self) -> str:
        """The name and the options that differ from the defaults, as cubes keep it."""
        options = [(one.name, getattr(self, one.name), one.default) for one in dataclasses.fields(self)]
        given = ", ".join(f"{name}={value}" for name, value, default in options if value != default)
        return f"{self.name}({given})" if given else self.name

    def check(self, scheduler: Any, schedule: Schedule, arguments: Mapping[str, Any]) -> None:
        """Raise UserError if a call with these arguments cannot be guided by this rule; to be called when it begins."""
        if arguments.get("guidance_rescale"):
            raise UserError(
                f"guidance_rescale={arguments['guidance_rescale']} and the guidance rule {self.name} exclude each "
                "other: the rule replaces what the pipeline would rescale; set guidance_rescale=0"
            )

    def combine(
        self,
        x: Tensor,
        split: Split,
        level: Level,
        schedule: Schedule,
        step: int,
        total: int,
        *,
        plain: Plain | None = None,
        bank: FilterBank | None = None,
    ) -> Tensor:
        """What to give `scheduler.step` instead of `model_output`, in its shape and type.

        `x` is the state that the predictions of `split` were made from, in the same layout; `step` counts the sampling
        steps of the call from 0 to `total - 1`. `plain` rearranges that layout to `(b, c, [t], h, w)`; it and `bank`
        are needed by rules that work in bands.
        """
        return split.uncond + self._weight(split) * (split.cond - split.uncond)

    def _weight(self, split: Split) -> float:
        w = split.scale if self.scale is None else self.scale
        if math.isnan(w):
            raise UserError(f"the pipeline guides with several scales at once: give the rule {self.name} one scale")
        return w


@dataclass(frozen=True)
class ZeroInit(GuidanceRule):
    """Plain guidance, but the first steps do not move: half of CFG-Zero*.

    `zero_init` counts the steps whose velocity is zero; a float below 1 is a fraction of all steps, rounded, at least
    one. It needs a flow schedule, on which a zero velocity leaves the state as it is; Euler then does what it would do
    if its first levels were dropped.
    """

    name: ClassVar[str] = "cfg-zero-init"
    zero_init: float = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = float(self.zero_init).is_integer()
        if not (0 <= self.zero_init < math.inf and (whole or self.zero_init < 1)):
            raise UserError(f"zero_init is a number of steps or a fraction of them below 1, not {self.zero_init}")

    def check(self, scheduler: Any, schedule: Schedule, arguments: Mapping[str, Any]) -> None:
        """As for every rule; UserError where velocities are unknown or a zero one would still move the state.

        Warns of solvers that keep the zeros of the first steps in their history.
        """
        super().check(scheduler, schedule, arguments)
        kind = schedule.prediction_type
        if kind not in {*DIRECT, "epsilon", "sample", "original_sample"}:
            raise UserError(f"the rule {self.name} works on velocities, and none is known for predictions of {kind!r}")
        if self.zero_init and schedule.space != "flow":
            raise UserError(
                f"zero_init is for flow matching: in a {schedule.space} state a zero velocity is not a step that can "
                "be left out; set zero_init=0"
            )
        if self.zero_init and (order := _memory(scheduler)) > 1:
            warnings.warn(
                f"{type(scheduler).__name__} keeps the last {order} predictions, so the zeros of the first steps act "
                "on the steps after them: this is not the same as starting later",
                stacklevel=2,
            )

    def zero_steps(self, total: int) -> int:
        """How many of `total` steps have no velocity. Raises UserError if all have."""
        steps = int(self.zero_init) if float(self.zero_init).is_integer() else max(1, round(self.zero_init * total))
        if steps >= total:
            raise UserError(f"zero_init={self.zero_init} leaves none of {total} steps: take fewer")
        return steps

    def combine(
        self,
        x: Tensor,
        split: Split,
        level: Level,
        schedule: Schedule,
        step: int,
        total: int,
        *,
        plain: Plain | None = None,
        bank: FilterBank | None = None,
    ) -> Tensor:
        """As for every rule; UserError where the prediction says nothing of the velocity."""
        if level.signal == 0 and schedule.prediction_type == "epsilon":
            raise UserError("a prediction of the noise has no velocity where there is no signal: drop the first step")
        x, c, u = x.float(), split.cond.float(), split.uncond.float()
        c, u = (velocity(x, out, level, schedule) for out in (c, u))
        if step < self.zero_steps(total):
            return prediction(x, c.new_zeros(c.shape), level, schedule).to(split.cond.dtype)
        shared = self._shared(c, u, plain or _same, bank)
        guided = shared + self._weight(split) * (c - shared)
        return prediction(x, guided, level, schedule).to(split.cond.dtype)

    def _shared(self, c: Tensor, u: Tensor, plain: Plain, bank: FilterBank | None) -> Tensor:
        """What guidance leads away from."""
        return u


@dataclass(frozen=True)
class ZeroStar(ZeroInit):
    """CFG-Zero*: guidance leads away from the multiple of u that is nearest to c, and the first steps do not move."""

    name: ClassVar[str] = "cfg-zero-star"

    def _shared(self, c: Tensor, u: Tensor, plain: Plain, bank: FilterBank | None) -> Tensor:
        return least_squares_scale(c, u) * u


@dataclass(frozen=True)
class ZeroStarBand(ZeroStar):
    """CFG-Zero* with a scale per frequency band, `s_b = <c, B_b u> / <u, B_b u>`: this project's own, unvalidated.

    The one scale of CFG-Zero* is the mean of these, weighted by `<u, B_b u>`. `bank` is by default the recording's.
    """

    name: ClassVar[str] = "cfg-zero-star-band"
    bank: FilterBank | None = None

    def _shared(self, c: Tensor, u: Tensor, plain: Plain, bank: FilterBank | None) -> Tensor:
        bank = self.bank or bank
        if bank is None:
            raise UserError(f"the rule {self.name} needs a filter bank: give it one as bank=FilterBank(...)")
        C, U = plain(c), plain(u)
        both, own = band_products(C, U, bank)[:, 1:].unbind(1)
        scale = (both / (own + EPSILON)).to(U.dtype)  # (b, K)
        shared = (bank.split(U) * scale.reshape(len(U), *(1,) * (U.ndim - 3), -1, 1, 1)).sum(-3)
        return _packed(shared, u, plain)


RULES: dict[str, type[GuidanceRule]] = {one.name: one for one in (GuidanceRule, ZeroInit, ZeroStar, ZeroStarBand)}


def rule(name: str, **options: Any) -> GuidanceRule:
    """The rule of that name; options may be in the name, as cubes keep it: `cfg-zero-star(zero_init=0)`.

    Raises UserError for unknown names and options.
    """
    name, written = parsed(name)
    options = written | options
    if name not in RULES:
        raise UserError(f"there is no guidance rule {name!r}: choose one of {', '.join(RULES)}")
    known = [one.name for one in dataclasses.fields(RULES[name])]
    if unknown := sorted(options.keys() - set(known)):
        raise UserError(f"the guidance rule {name} has no option {unknown[0]!r}: it has {', '.join(known)}")
    try:
        return RULES[name](**options)
    except UserError:
        raise
    except (TypeError, ValueError, AttributeError) as error:  # an option of another kind
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise UserError(f"the guidance rule {name} cannot have {given}: give numbers") from error


def optimal_scale(cube: xr.Dataset) -> xr.DataArray:
    """s of CFG-Zero* at each step, (run, step): `sum_b <c, B_b u> / sum_b <u, B_b u>`; NaN after the last step."""
    _, both, own = _pairs(cube)
    scale = both.sum("band", skipna=False) / (own.sum("band", skipna=False) + EPSILON)
    return scale.rename("optimal_scale").assign_attrs(long_name="scale of CFG-Zero*", units="1")


def band_scale(cube: xr.Dataset) -> xr.DataArray:
    """The scale of each band by itself, (run, step, band)."""
    _, both, own = _pairs(cube)
    scale = both / (own + EPSILON)
    return scale.rename("band_scale").assign_attrs(long_name="scale of CFG-Zero* by band", units="1")


def cosine(cube: xr.Dataset) -> xr.DataArray:
    """The cosine between the velocities with and without the prompt, (run, step)."""
    cc, cu, uu = (one.sum("band", skipna=False) for one in _pairs(cube))
    angle = cu / (cc * uu) ** 0.5
    return angle.rename("cosine").assign_attrs(
        long_name="cosine of the two velocities", units="1", valid_range=[-1.0, 1.0]
    )


def guidance_energy(cube: xr.Dataset) -> xr.DataArray:
    """The power `<d, B_b d>` of what guidance adds, (rule, run, step, band): d = c - u for cfg, c - s u for the other.

    From the three stored pairs, `<c, B c> - 2 s <c, B u> + s^2 <u, B u>`, in float64. They are stored in float32, so
    what is below a millionth of the power of the velocities themselves is noise.
    """
    import xarray as xr

    cc, cu, uu = _pairs(cube)
    scales = {GuidanceRule.name: xr.ones_like(cu.isel(band=0, drop=True)), ZeroStar.name: optimal_scale(cube)}
    parts = [cc - 2 * s * cu + s**2 * uu for s in scales.values()]
    energy = xr.concat(parts, xr.DataArray(list(scales), dims="rule", name="rule"))
    return energy.rename("guidance_energy").assign_attrs(long_name="power of the guidance", units="1")


def _pairs(cube: xr.Dataset) -> list[xr.DataArray]:
    """The three inner products of a cube, each (run, step, band) in float64."""
    if "agreement" not in cube:
        raise UserError(
            "this cube has no agreement of the predictions with and without the prompt: record it with the signals "
            "cond, uncond and guidance, with guidance on"
        )
    return [cube["agreement"].isel(pair=i, drop=True).astype("float64") for i in range(len(PAIRS))]


def _memory(scheduler: Any) -> int:
    """How many predictions a solver combines into one step."""
    names = ("solver_order", "predictor_order", "corrector_order")
    return max(int(getattr(scheduler.config, name, None) or 1) for name in names)


def _same(x: Tensor) -> Tensor:
    return x


def _packed(field: Tensor, like: Tensor, plain: Plain) -> Tensor:
    """The inverse of `plain`, which only rearranges: a plain `field` in the layout of `like`."""
    import torch

    places = plain(torch.arange(like.numel(), device=like.device).reshape(like.shape))
    return torch.empty_like(like).flatten().scatter(0, places.flatten(), field.flatten()).reshape(like.shape)
