"""The strategies for users: what they draw, and what they say without hypothesis."""

import subprocess
import sys
import textwrap

import torch
from hypothesis import find, given
from torch import Tensor

import spectra.testing
from spectra.bands import FilterBank
from spectra.testing import DTYPES, banks, fields, grids


@given(banks(min_bands=3, max_bands=4, widest=5.0), grids(9), fields(leading=(1, 2), dtypes=DTYPES))
def test_draws_are_what_was_asked_for(bank: FilterBank, grid: tuple[int, int], x: Tensor) -> None:
    assert 3 <= bank.bands <= 4
    assert bank.scales[-1] <= 5
    assert 1 <= min(grid) <= max(grid) <= 9
    assert x.shape[:2] == (1, 2)
    assert x.dtype in DTYPES
    assert x.isfinite().all()


def test_strange_fields_are_among_the_draws() -> None:
    assert find(fields(), lambda x: not x.is_contiguous() and x.numel() > 2) is not None
    assert find(fields(), lambda x: x.shape[-2:] == (1, 1)) is not None
    assert find(fields(dtypes=DTYPES), lambda x: x.dtype == torch.float16 and x.abs().max() > 100) is not None
    assert find(fields(), lambda x: x.mean().abs() > 10 * x.std() > 0) is not None


def test_without_hypothesis_one_sentence_says_what_to_install() -> None:
    code = "import sys; sys.modules['hypothesis'] = None; import spectra.bands; import spectra.testing"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        "ModuleNotFoundError: spectra.testing needs hypothesis: install it with `pip install hypothesis`."
    )


def test_the_example_of_the_module_runs() -> None:
    example = (spectra.testing.__doc__ or "").split("strides:\n")[1]
    names: dict[str, object] = {"torch": torch}
    exec(textwrap.dedent(example), names)
    test = names["test_bands_sum_to_the_field"]
    assert callable(test)
    test()
