"""What a prediction may have been made of: readings of the denoiser's outputs, and how well each reproduces it.

A reading is a pair (cond, uncond); a form adds the sign and the scale.  All functions are pure and none waits for the
device but `tried` and `solved`, once each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

SOLVED = "least squares"
MOST_CALLS = 8  # of the denoiser between two steps that are kept
ROUNDING = 2.0  # units of the last place that a reading may miss by


class Call(NamedTuple):
    """One call of a denoiser: which of them, the cache context that it was made in, and its output."""

    denoiser: int
    context: str
    output: Tensor


class Form(NamedTuple):
    """`sign (u + (w + extra)(c - u))`, with c and u by the numbered reading and w by the name of its source."""

    reading: int
    sign: float
    source: str
    extra: float


class Trial(NamedTuple):
    """A form with the weight that it stands for; `miss` and `allowed` are norms."""

    form: Form
    weight: Any
    miss: float
    allowed: float

    @property
    def fits(self) -> bool:
        """True if it misses by no more than rounding."""
        return self.miss <= self.allowed


Reading = tuple["Tensor", "Tensor"]  # (cond, uncond), each of the shape of `model_output`; one object if not guided


def tensor_of(result: Any) -> Tensor | None:
    """The prediction in what a denoiser returned; equal tensors of a list become one. None if there is none."""
    import torch

    if isinstance(result, Mapping):
        result = next(iter(result.values()), None)
    elif isinstance(result, tuple):
        result = result[0] if result else None
    if isinstance(result, list) and result and len({getattr(one, "shape", None) for one in result}) == 1:
        result = torch.stack(result)
    return result.detach() if isinstance(result, torch.Tensor) and result.ndim > 1 else None


def readings_of(calls: Sequence[Call], m: Tensor) -> tuple[list[Reading], str]:
    """What could be cond and uncond, the usual order first; or why nothing could."""
    n = len(m)
    if len(calls) == 1:
        output = calls[0].output
        if len(output) == 2 * n:
            halves = [_parts(half, m) for half in output.chunk(2)]
            pairs = [(c, u) for u, c in zip(*halves, strict=True)] + list(zip(*halves, strict=True))
        else:
            pairs = [(part, part) for part in _parts(output, m)]
    elif labelled(calls):
        c, u = (next(call.output for call in calls if call.context == name) for name in ("cond", "uncond"))
        pairs = list(zip(_parts(c, m), _parts(u, m), strict=False))
    elif len(calls) == 2:
        one, two = (_parts(call.output, m) for call in calls)
        pairs = [*zip(one, two, strict=False), *zip(two, one, strict=False)]
    else:
        number = f"{len(calls)} times" if len(calls) <= MOST_CALLS else f"more than {MOST_CALLS} times"
        return [], f"the denoiser was called {number} between two steps of the scheduler"
    shapes = " and ".join(str(tuple(call.output.shape)) for call in calls)
    return pairs, "" if pairs else f"outputs of the denoiser, {shapes}, do not make up a prediction {tuple(m.shape)}"


def labelled(calls: Sequence[Call]) -> bool:
    """True if the pipeline itself says which call is which."""
    contexts = [call.context for call in calls]
    return contexts.count("cond") == 1 and contexts.count("uncond") == 1


def _parts(output: Tensor, m: Tensor) -> list[Tensor]:
    """Views of `output` with the shape of `m`: all of it, or its beginning or end where one axis is longer.

    Learned variances and the tokens of a reference picture come after the prediction, a frame that is given before it.
    """
    if output.numel() == m.numel():
        return [output.reshape(m.shape)]
    longer = [axis for axis, (a, b) in enumerate(zip(output.shape, m.shape, strict=False)) if a != b]
    if output.ndim != m.ndim or len(longer) != 1 or longer[0] == 0 or output.shape[longer[0]] < m.shape[longer[0]]:
        return []
    axis, size = longer[0], m.shape[longer[0]]
    return [output.narrow(axis, start, size) for start in (0, output.shape[axis] - size)]


def tried(forms: Sequence[tuple[Form, Any]], readings: Sequence[Reading], m: Tensor) -> list[Trial]:
    """The errors of all forms, brought from the device at once."""
    import torch

    if not forms:
        return []
    errors = torch.stack([torch.stack(miss(m, *readings[form.reading], form.sign, w)) for form, w in forms]).tolist()
    return [Trial(form, weight, *error) for (form, weight), error in zip(forms, errors, strict=True)]


def miss(m: Tensor, c: Tensor, u: Tensor, sign: float, weight: Any) -> tuple[Tensor, Tensor]:
    """The norm of `m - sign (u + weight (c - u))`, computed as pipelines do, and what rounding allows."""
    import torch

    wide = torch.promote_types(c.dtype, m.dtype)
    kind = torch.promote_types(wide, torch.float32)
    c, u, eps = c.to(wide), u.to(wide), max(torch.finfo(one.dtype).eps for one in (c, m))
    part = weight * (c - u)
    error, terms = m.to(wide) - sign * (u + part), (m.to(kind).norm() + part.to(kind).norm())
    return error.to(kind).norm(), ROUNDING * eps * terms


def solved(readings: Sequence[Reading], m: Tensor) -> list[tuple[Form, float]]:
    """For each reading and sign, the w that comes nearest to `m`."""
    import torch

    forms = [Form(i, sign, SOLVED, 0.0) for i, (c, u) in enumerate(readings) if c is not u for sign in (1.0, -1.0)]
    if not forms:
        return []
    weights = torch.stack([_nearest(form.sign * m, *readings[form.reading]) for form in forms]).tolist()
    return [(form, weight) for form, weight in zip(forms, weights, strict=True) if math.isfinite(weight)]


def _nearest(m: Tensor, c: Tensor, u: Tensor) -> Tensor:
    kind = m.float().dtype if m.dtype.itemsize < 8 else m.dtype
    m, c, u = m.to(kind), c.to(kind), u.to(kind)
    return ((m - u) * (c - u)).sum() / (c - u).square().sum()


def number(weight: Any) -> float:
    """A weight as one number, NaN where it is several."""
    return float(weight) if not hasattr(weight, "numel") or weight.numel() == 1 else math.nan
