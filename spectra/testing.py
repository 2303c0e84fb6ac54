"""Hypothesis strategies for those who test what they build on filter banks; needs `pip install hypothesis`.

A test that tries many banks, sizes, spectra, means and strides:

    from hypothesis import given
    from spectra.testing import banks, fields

    @given(banks(), fields())
    def test_bands_sum_to_the_field(bank, x):
        torch.testing.assert_close(bank.split(x).sum(-3), x)
"""

from __future__ import annotations

from collections.abc import Sequence

try:
    import hypothesis.strategies as st
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] != "hypothesis":
        raise
    raise ModuleNotFoundError(
        "spectra.testing needs hypothesis: install it with `pip install hypothesis`.", name="hypothesis"
    ) from None

import numpy as np
import torch
from torch import Tensor

from spectra.bands import FilterBank

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def scales(min_bands: int = 2, max_bands: int = 6, widest: float = 40.0) -> st.SearchStrategy[list[float]]:
    """Scales of a filter bank in any order, from 0.2 pixels to `widest`: often wider than small fields."""
    one = st.floats(0.2, widest).map(lambda scale: round(scale, 3))
    return st.lists(one, min_size=min_bands - 1, max_size=max_bands - 1, unique=True)


def banks(min_bands: int = 2, max_bands: int = 6, widest: float = 40.0) -> st.SearchStrategy[FilterBank]:
    """Filter banks with scales as `scales` draws them."""
    return scales(min_bands, max_bands, widest).map(FilterBank)


def grids(max_side: int = 21) -> st.SearchStrategy[tuple[int, int]]:
    """Sizes (h, w) of fields from 1 x 1 on: even, odd, square or not."""
    return st.tuples(st.integers(1, max_side), st.integers(1, max_side))


@st.composite
def fields(
    draw: st.DrawFn,
    grid: st.SearchStrategy[tuple[int, int]] | None = None,
    leading: Sequence[int] = (2,),
    dtypes: Sequence[torch.dtype] = (torch.float64,),
    strided: bool = True,
) -> Tensor:
    """Real tensors (*leading, h, w): white or steep spectra of any amplitude and mean, in memory in any order.

    Values keep clear of the largest number of float16.  Examples shrink towards small white fields around 0.
    """
    h, w = draw(grids() if grid is None else grid)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(size=(*leading, h, w)) * 10.0 ** draw(st.integers(-3, 2))
    if draw(st.booleans()):
        x = x.cumsum(-1).cumsum(-2) / (h * w)
    x = x + draw(st.sampled_from([0.0, -0.3, 50.0])) * min(float(np.abs(x).max()), 100.0)
    kept = torch.tensor(x).to(draw(st.sampled_from(list(dtypes))))
    return _laid_out(kept, draw(st.sampled_from(["rows", "columns", "steps", "reversed axes"]))) if strided else kept


def _laid_out(x: Tensor, order: str) -> Tensor:
    """The same values with other strides."""
    if order == "columns":
        return x.mT.contiguous().mT
    if order == "steps":
        return x.repeat_interleave(3, -1)[..., ::3]
    if order == "reversed axes":
        axes = tuple(range(x.ndim))[::-1]
        return x.permute(axes).contiguous().permute(axes)
    return x
