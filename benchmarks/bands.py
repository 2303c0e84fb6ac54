"""Band energies of latents: this toolkit's DCT form against Gaussian filters by scipy, torch, FFT and kornia.

    OMP_NUM_THREADS=1 python benchmarks/bands.py [--bands 3 4 5 6 7 8] [--seconds 2]

All arms but kornia are first checked to agree with scipy in float64; kornia mirrors at pixel centres, so its numbers
differ at the edges, and it refuses kernels wider than the field.  Timings are medians of processor time (which
other work on the machine disturbs less than the wall clock) over interleaved rounds in one process, with one thread.
Prints a table and writes benchmarks/results/bands.json.  With a GPU it also times the energies there against a copy of
the same tensor, which has to read and write every number once.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kornia.filters import gaussian_blur2d
from scipy.ndimage import gaussian_filter
from torch import Tensor

from spectra.bands import FilterBank

SHAPES = (
    (1, 4, 64, 64), (16, 4, 64, 64), (1, 16, 128, 128), (4, 16, 128, 128), (16, 16, 128, 128), (1, 16, 21, 60, 104),
)  # fmt: skip
ROUNDS = 9  # at most; fewer where an arm is slow, and at least 3
LIMIT = 2e10  # multiplications beyond which a convolution is not waited for
Energies = Callable[[Tensor], Tensor]
Row = dict[str, Any]


def by_dct(bank: FilterBank) -> Energies:
    """This toolkit."""
    return bank.energies


def by_scipy(bank: FilterBank) -> Energies:
    """scipy's Gaussian filters in space."""

    def blur(x: Tensor, scale: float) -> Tensor:
        return torch.from_numpy(gaussian_filter(x.numpy(), scale, mode="reflect", axes=(-2, -1)))

    return lambda x: differences(bank, x, blur)


def by_convolution(bank: FilterBank) -> Energies:
    """Depthwise separable convolutions in torch, of fields that are mirrored at their edges as scipy does it."""
    kernels = {scale: gaussian(scale) for scale in bank.scales}

    def blur(x: Tensor, scale: float) -> Tensor:
        kernel = kernels[scale].to(x.dtype)
        for axis in (-2, -1):
            padded = mirrored(x, axis, len(kernel) // 2)
            planes = padded.reshape(1, -1, *padded.shape[-2:])
            taps = kernel.view(1, 1, *((-1, 1) if axis == -2 else (1, -1))).repeat(planes.shape[1], 1, 1, 1)
            x = torch.nn.functional.conv2d(planes, taps, groups=planes.shape[1]).view(x.shape)
        return x

    return lambda x: differences(bank, x, blur)


def by_kornia(bank: FilterBank) -> Energies:
    """kornia's Gaussian blur, with its own edges."""

    def blur(x: Tensor, scale: float) -> Tensor:
        size = 2 * reach(scale) + 1
        return gaussian_blur2d(x.flatten(0, -4), (size, size), (scale, scale)).view(x.shape)

    return lambda x: differences(bank, x, blur)


def by_fft(bank: FilterBank) -> Energies:
    """Real FFTs of fields beside their mirror images, four times the size; squares weighted by the transfer."""
    cache: dict[tuple[int, int, torch.dtype], Tensor] = {}

    def energies(x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        if (h, w, x.dtype) not in cache:
            cache[h, w, x.dtype] = torch.tensor(fft_weights(bank, h, w)).to(x.dtype)
        rows = torch.cat([x, x.flip(-1)], -1)
        F = torch.fft.rfft2(torch.cat([rows, rows.flip(-2)], -2))
        square = F.real.square() + F.imag.square()
        return torch.einsum("...hw,khw->...kh", square, cache[h, w, x.dtype]).sum(-1)

    return energies


def fft_weights(bank: FilterBank, h: int, w: int) -> np.ndarray:
    """D^2 on the half plane of frequencies of a mirrored field, with Parseval's factor; its Nyquist terms are zero."""
    rows = np.minimum(np.minimum(np.arange(2 * h), 2 * h - np.arange(2 * h)), h - 1)
    columns = np.minimum(np.arange(w + 1), w - 1)
    twice = np.where(np.arange(w + 1) > 0, 2.0, 1.0)
    return bank.transfer(h, w)[:, rows][:, :, columns] ** 2 * twice / (16 * h * w)


def differences(bank: FilterBank, x: Tensor, blur: Callable[[Tensor, float], Tensor]) -> Tensor:
    """Energies (..., band), low to high, of the differences between fields blurred at neighbouring scales."""
    smooth = [*(blur(x, scale) for scale in reversed(bank.scales)), x]
    bands = [smooth[0], *(b - a for a, b in pairwise(smooth))]
    return torch.stack([band.square().sum((-2, -1)) for band in bands], -1)


def reach(scale: float) -> int:
    """Pixels to either side of a kernel."""
    return int(4 * scale + 0.5)


def gaussian(scale: float) -> Tensor:
    """Normalised taps."""
    taps = torch.exp(-0.5 * (torch.arange(-reach(scale), reach(scale) + 1, dtype=torch.float64) / scale) ** 2)
    return taps / taps.sum()


def mirrored(x: Tensor, axis: int, margin: int) -> Tensor:
    """The field continued by its mirror images, `d c b a | a b c d | d c b a`."""
    n = x.shape[axis]
    at = torch.arange(-margin, n + margin) % (2 * n)
    return x.index_select(axis, torch.where(at < n, at, 2 * n - 1 - at))


ARMS = {"dct": by_dct, "scipy": by_scipy, "fft": by_fft, "convolution": by_convolution, "kornia": by_kornia}


def fits(arm: str, bank: FilterBank, shape: tuple[int, ...]) -> bool:
    """False where kornia refuses the kernel, and where convolutions would take minutes."""
    widest = reach(bank.scales[-1])
    cost = 4 * np.prod(shape) * sum(2 * reach(scale) + 1 for scale in bank.scales)
    return arm not in ("convolution", "kornia") or ((arm != "kornia" or widest < min(shape[-2:])) and cost < LIMIT)


def seconds(call: Callable[[], object], at_least: float = 2e-3) -> float:
    """Of one call, on average over enough of them to be timed."""
    start, calls = time.process_time(), 0
    while time.process_time() - start < at_least or not calls:
        call()
        calls += 1
    return (time.process_time() - start) / calls


def interleaved(arms: dict[str, Callable[[], object]], budget: float) -> dict[str, dict[str, float]]:
    """Median and quartiles of rounds that time every arm once, after one round to warm up."""
    once = {name: seconds(call) for name, call in arms.items()}
    rounds = int(np.clip(budget / sum(once.values()), 3, ROUNDS))
    taken = [{name: seconds(call) for name, call in arms.items()} for _ in range(rounds)]
    return {name: quartiles([row[name] for row in taken]) for name in arms}


def quartiles(values: list[float]) -> dict[str, float]:
    """Of seconds."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return {"median": float(median), "low": float(low), "high": float(high), "rounds": len(values)}


def agree(bank: FilterBank, x: Tensor, arms: dict[str, Energies]) -> float:
    """Check the arms in float64 on a few fields; the largest error of float32 energies, over the usual energy."""
    few = x.flatten(0, -3)[:16].view(1, -1, *x.shape[-2:])
    wanted = arms["scipy"](few.double())
    for name in set(arms) - {"kornia"}:
        torch.testing.assert_close(arms[name](few.double()), wanted, rtol=1e-9, atol=1e-9)
    usual = torch.tensor(bank.white_noise(*x.shape[-2:]).mean)
    return float(((bank.energies(few) - wanted).abs() / torch.maximum(wanted, usual)).max())


def measure(shape: tuple[int, ...], bands: int, budget: float) -> Row:
    """One row: timings, ratios over the DCT form, and its error in float32."""
    bank = FilterBank.octaves(bands, grid=(shape[-2], shape[-1]))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    arms = {name: make(bank) for name, make in ARMS.items() if fits(name, bank, shape)}
    error = agree(bank, x, arms)
    taken = interleaved({name: (lambda arm=arm: arm(x)) for name, arm in arms.items()}, budget)
    ratios = {name: taken[name]["median"] / taken["dct"]["median"] for name in arms if name != "dct"}
    about = {"shape": list(shape), "bands": bands, "scales": bank.scales}
    return {**about, "seconds": taken, "ratios": ratios, "error": error}


def on_gpu(shape: tuple[int, ...], bands: int) -> Row:
    """One row for the GPU: energies of a bfloat16 and a float32 tensor over the time of copying it."""
    bank, row = FilterBank.octaves(bands, grid=(shape[-2], shape[-1])), {"shape": list(shape), "bands": bands}
    for kind in (torch.float32, torch.bfloat16):
        x = torch.randn(shape, device="cuda").to(kind)
        energies, copy = (gpu_seconds(call) for call in (lambda x=x: bank.energies(x), lambda x=x: x.clone()))
        row[str(kind).removeprefix("torch.")] = {"seconds": energies, "copy": copy, "ratio": energies / copy}
    return row


def gpu_seconds(call: Callable[[], object], calls: int = 50) -> float:
    """The median over single calls, by the device's own clock."""
    taken = []
    for _ in range(calls + 5):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end) / 1e3)
    return float(np.median(taken[5:]))


def show(rows: list[Row], flat: list[Row]) -> None:
    """The table, and how flat the cost is over the number of bands."""
    others = [name for name in ARMS if name != "dct"]
    print(
        f"{'latents':>16} {'bands':>5} {'dct, ms':>9}"
        + "".join(f"{name + ' / dct':>18}" for name in others)
        + "    error"
    )
    for row in rows:
        shape, own = "x".join(map(str, row["shape"])), 1e3 * row["seconds"]["dct"]["median"]
        ratios = [row["ratios"].get(name) for name in others]
        cells = "".join(f"{ratio:>18.1f}" if ratio else f"{'-':>18}" for ratio in ratios)
        print(f"{shape:>16} {row['bands']:>5} {own:>9.3f}{cells}{row['error']:>9.0e}")
    for row in flat:
        print(f"{'x'.join(map(str, row['shape'])):>16}: most bands / fewest bands = {row['ratio']:.2f}")


def flatness(shape: tuple[int, ...], bands: list[int], budget: float) -> Row:
    """The time with most bands over that with fewest, in rounds of their own."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    banks = {str(k): FilterBank.octaves(k, grid=(shape[-2], shape[-1])) for k in (min(bands), max(bands))}
    taken = interleaved({k: (lambda bank=bank: bank.energies(x)) for k, bank in banks.items()}, budget)
    return {"shape": list(shape), "ratio": taken[str(max(bands))]["median"] / taken[str(min(bands))]["median"]}


def processor() -> str:
    """Its name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bands", type=int, nargs="+", default=[3, 4, 5, 6, 7, 8])
    parser.add_argument("--seconds", type=float, default=2.0, help="for the rounds of one row")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(shape, bands, asked.seconds) for shape in SHAPES for bands in sorted(asked.bands)]
    flat = [flatness(shape, asked.bands, asked.seconds) for shape in SHAPES]
    show(rows, flat)
    gpu = [on_gpu(shape, bands) for shape in SHAPES for bands in asked.bands] if torch.cuda.is_available() else []
    for row in gpu:
        print(row)
    about = {
        "command": "python benchmarks/bands.py " + " ".join(sys.argv[1:]), "threads": 1, "processor": processor(),
        "versions": {name: version(name) for name in ("torch", "numpy", "scipy", "kornia")},
    }  # fmt: skip
    out = Path(__file__).parent / "results" / "bands.json"
    out.parent.mkdir(exist_ok=True)
    found = {**about, "rows": rows, "most_over_fewest_bands": flat, "gpu": gpu}
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"Written to {out}")


if __name__ == "__main__":
    main()
