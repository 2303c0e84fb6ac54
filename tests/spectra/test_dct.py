"""The transform: what every method of a filter bank rests on, on any device, in any mode, in batches of any size."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from spectra import dct
from spectra.bands import FilterBank, coefficients, coherence, radial_spectrum
from spectra.errors import UserError

BANK = FilterBank((0.8, 1.6, 3.2))


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_coefficients_are_the_orthonormal_dct() -> None:
    x = noise(3, 9, 5) + 7
    np.testing.assert_allclose(coefficients(x), dctn(x.numpy(), axes=(-2, -1), norm="ortho"), atol=1e-13)
    assert torch.equal(BANK.coefficients(x), coefficients(x))


@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (2, 5), (7, 7), (8, 3), (33, 64)])
@pytest.mark.parametrize("folded", [True, False])
def test_cut_and_folded_batches_have_the_same_energies(
    grid: tuple[int, int], folded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = noise(5, 2, *grid) + 3
    plain = BANK.energies(x), BANK.power(x), radial_spectrum(x, 5)
    monkeypatch.setattr(dct, "_BLOCK", 3 * grid[0] * grid[1])
    monkeypatch.setattr(dct, "_FOLD", 0 if folded else 1000)
    for got, expected in zip((BANK.energies(x), BANK.power(x), radial_spectrum(x, 5)), plain, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_large_batches_are_differentiable_and_match_small_ones() -> None:
    x = noise(17, 4, 64, 64, dtype=torch.float32).requires_grad_()
    (gradient,) = torch.autograd.grad(BANK.energies(x).sum(), x)
    expected = torch.autograd.grad(BANK.energies(x[3]).sum(), x)[0][3]
    torch.testing.assert_close(gradient[3], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(BANK.energies(x)[3], BANK.energies(x[3]), rtol=1e-6, atol=0)


@pytest.mark.filterwarnings("ignore:Dynamo detected a call", "ignore:To copy construct")
def test_energies_can_be_mapped_and_compiled() -> None:
    x = noise(3, 2, 9, 8)
    torch.testing.assert_close(torch.vmap(BANK.energies)(x), BANK.energies(x))
    gradients = torch.func.vmap(torch.func.grad(lambda field: BANK.energies(field)[..., 1].sum()))(x)
    assert gradients.shape == x.shape
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(BANK.energies, backend="aot_eager")(x), BANK.energies(x))


def test_autocast_does_not_lower_the_precision() -> None:
    x = noise(2, 4, 16, 16, dtype=torch.float32)
    plain = BANK.energies(x), BANK.split(x), coherence(x, x.roll(1, 0), BANK), radial_spectrum(x, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = BANK.energies(x), BANK.split(x), coherence(x, x.roll(1, 0), BANK), radial_spectrum(x, 8)
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


def test_reduced_matmul_precision_does_not_reach_the_products() -> None:
    x, before = noise(4, 16, 16), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        got = BANK.energies(x.float())
    finally:
        torch.set_float32_matmul_precision(before)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), BANK.energies(x.float().double()), rtol=1e-7, atol=0)


def test_matrices_first_made_in_inference_mode_serve_in_training() -> None:
    bank = FilterBank((0.77, 2.345))  # used nowhere else, hence not cached
    with torch.inference_mode():
        bank.energies(torch.ones(11, 13))
    x = noise(11, 13, dtype=torch.float32).requires_grad_()
    bank.energies(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_strides_do_not_matter() -> None:
    x = noise(9, 14, 3, 2)
    torch.testing.assert_close(BANK.energies(x.permute(3, 2, 1, 0)), BANK.energies(x.permute(3, 2, 1, 0).contiguous()))


def test_shapes_only_are_enough_on_a_device_without_data() -> None:
    assert BANK.energies(torch.empty(2, 4, 16, 16, device="meta")).shape == (2, 4, 4)
    assert BANK.split(torch.empty(2, 4, 16, 16, device="meta")).shape == (2, 4, 4, 16, 16)


def test_nothing_waits_for_the_device() -> None:
    """A tensor without data has nothing to wait for: whoever asks it for a number fails."""
    x = torch.empty(16, 4, 64, 64, device="meta", dtype=torch.bfloat16, requires_grad=True)
    for method in (BANK.energies, BANK.power, BANK.shares, BANK.split, coefficients):
        method(x).sum().backward()
    assert coherence(x, x, BANK).shape == (16, 4)
    assert radial_spectrum(x, 64).shape == (16, 4, 64)
    assert BANK.relative_to_noise(BANK.energies(x), 64, 64).shape == (16, 4, 4)
    with pytest.raises(RuntimeError, match="meta"):
        x.sum().item()


@pytest.mark.parametrize("x", [torch.zeros(4), torch.zeros(0, 4), torch.zeros(4, 4, dtype=torch.complex64)])
def test_what_is_not_a_field_is_refused(x: torch.Tensor) -> None:
    with pytest.raises(UserError, match="a field is a real tensor"):
        BANK.energies(x)


def test_matrices_are_made_once_for_a_grid_type_and_device() -> None:
    x = noise(2, 3, 10, 23, dtype=torch.float32)
    BANK.energies(x), BANK.split(x), radial_spectrum(x, 7)
    made = dct.constant.cache_info().misses
    BANK.energies(x + 1), BANK.split(x[:1]), radial_spectrum(x, 7), FilterBank(BANK.scales).energies(x.bfloat16())
    assert dct.constant.cache_info().misses == made
    BANK.energies(x.double())
    assert dct.constant.cache_info().misses > made
