"""Band energies of latents: this toolkit's DCT form against Gaussian filters in space, by scipy and by torch.

Prints a table of seconds and ratios, and writes benchmarks/results/band_energies.json. All three are first checked to
agree with one another.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from spectra.bands import FilterBank

SHAPES = ((16, 4, 16, 16), (16, 4, 64, 64), (4, 16, 128, 128))
BANDS = (3, 5)
REPEATS = 7


def by_scipy(x: np.ndarray, scales: tuple[float, ...]) -> np.ndarray:
    """Energies (..., band), low to high, from differences of reflected Gaussian filters."""
    smooth = [x, *(gaussian_filter(x, (0, 0, scale, scale), mode="reflect") for scale in scales)]
    fields = [smooth[-1], *(a - b for a, b in zip(smooth[-2::-1], smooth[:0:-1], strict=True))]
    return np.stack([(field**2).sum((-2, -1)) for field in fields], -1)


def by_convolution(x: torch.Tensor, scales: tuple[float, ...]) -> torch.Tensor:
    """The same with separable convolutions in torch."""
    smooth = [x, *(blur(x, scale) for scale in scales)]
    fields = [smooth[-1], *(a - b for a, b in zip(smooth[-2::-1], smooth[:0:-1], strict=True))]
    return torch.stack([field.square().sum((-2, -1)) for field in fields], -1)


def blur(x: torch.Tensor, scale: float) -> torch.Tensor:
    """Gaussian filter with the picture mirrored at its edges, as scipy's `reflect`."""
    radius = int(4 * scale + 0.5)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=x.dtype) / scale) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    for axis in (-1, -2):
        line = x.movedim(axis, -1)
        size = line.shape[-1]
        at = torch.arange(-radius, size + radius) % (2 * size)
        padded = line[..., torch.where(at < size, at, 2 * size - 1 - at)]
        out = torch.nn.functional.conv1d(padded.reshape(-1, 1, padded.shape[-1]), kernel)
        x = out.reshape(line.shape).movedim(-1, axis)
    return x


def seconds(call: Callable[[], object]) -> float:
    """The median of several timings of a call, after one to warm up."""
    call()
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def measure(shape: tuple[int, ...], bands: int) -> dict[str, object]:
    """One row: the three timings and the two ratios."""
    bank = FilterBank.octaves(bands, grid=(shape[-2], shape[-1]))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = by_scipy(x.numpy(), bank.scales)
    for found in (bank.energies(x), by_convolution(x, bank.scales)):
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-8)
    single = x.float()
    taken = {
        "dct": seconds(lambda: bank.energies(single)),
        "scipy": seconds(lambda: by_scipy(single.numpy(), bank.scales)),
        "convolution": seconds(lambda: by_convolution(single, bank.scales)),
    }
    ratios = {f"{name} / dct": taken[name] / taken["dct"] for name in ("scipy", "convolution")}
    return {"shape": list(shape), "bands": bands, "seconds": taken, "ratios": ratios}


def main() -> None:
    """Measure, print, write."""
    rows = [measure(shape, bands) for shape in SHAPES for bands in BANDS]
    print(f"{'latents':>20} {'bands':>5} {'dct, ms':>9} {'scipy / dct':>12} {'convolution / dct':>18}")
    for row in rows:
        scipy, convolution = row["ratios"].values()
        shape = "x".join(map(str, row["shape"]))
        print(f"{shape:>20} {row['bands']:>5} {1e3 * row['seconds']['dct']:>9.3f} {scipy:>12.1f} {convolution:>18.1f}")
    out = Path(__file__).parent / "results" / "band_energies.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"threads": torch.get_num_threads(), "rows": rows}, indent=2) + "\n")
    print(f"Written to {out.relative_to(Path.cwd()) if out.is_relative_to(Path.cwd()) else out}")


if __name__ == "__main__":
    main()
