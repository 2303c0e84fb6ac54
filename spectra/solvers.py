"""What deterministic samplers do to a Gaussian field: their linear recursions, in float64 and without diffusers.

Every such sampler makes its next state from states and from predictions of x0, with numbers as weights. Where the
prediction is affine in the state, mode by mode, the state stays `mean + gain * Z` for the coefficients Z of the first
noise. Here a state is the pair (mean, gain), (2, c, h, w), and a solver yields the state at each call of the denoiser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra.errors import UserError
from spectra.gaussian import GaussianField, Levels, Path

State = NDArray[np.float64]
Predict = Callable[[int, State], State]
Solver = Callable[[Predict, Levels, State], Iterator[State]]


def euler(predict: Predict, levels: Levels, x: State) -> Iterator[State]:
    """Euler's method, and DDIM: x0 and noise as they are thought to be, mixed anew (Song et al. 2021, eq. 12)."""
    a, b = levels
    for i in range(len(a) - 1):
        ratio = b[i + 1] / b[i]
        x = ratio * x + (a[i + 1] - ratio * a[i]) * predict(i, x)
        yield x


def heun(predict: Predict, levels: Levels, x: State) -> Iterator[State]:
    """Heun's method in the noise level, for flows and variance exploding states (Karras et al. 2022, algorithm 1).

    The levels are those of the calls: each but the first and the last one comes twice.
    """
    b = levels.b
    for i in range(0, len(b) - 1, 2):
        slope = (x - predict(i, x)) / b[i]
        guess = x + (b[i + 1] - b[i]) * slope
        yield guess
        if i + 2 < len(b):
            again = (guess - predict(i + 1, guess)) / b[i + 1]
            x = x + (b[i + 1] - b[i]) * (slope + again) / 2
            yield x


def dpm_solver_2m(predict: Predict, levels: Levels, x: State) -> Iterator[State]:
    """DPM-Solver++(2M), midpoint, with steps of first order at both ends (Lu et al. 2022b, algorithm 2)."""
    a, b = levels
    time, last = _half_log_snr(levels), len(a) - 2
    before = x
    for i in range(last + 1):
        h = time[i + 1] - time[i]
        clean = predict(i, x)
        trend = 0 if i in (0, last) else (clean - before) * h / (time[i] - time[i - 1])
        x = b[i + 1] / b[i] * x - a[i + 1] * np.expm1(-h) * (clean + trend / 2)
        before = clean
        yield x


def unipc(predict: Predict, levels: Levels, x: State) -> Iterator[State]:
    """UniPC-2 with B2(h), which predicts x0, with steps of first order at both ends (Zhao et al. 2023, algorithm 1).

    The state that the denoiser sees is the predicted one; it is corrected before the next step is made from it.
    """
    a, b = levels
    time, last = _half_log_snr(levels), len(a) - 2
    corrected, cleans = x, [predict(0, x)]
    for i in range(last + 1):
        if i:
            cleans.append(predict(i, x))
            corrected = _unipc_corrected(cleans, time[: i + 1], a[i], b[i] / b[i - 1], corrected)
        h = time[i + 1] - time[i]
        # Half of what a line through the last two predictions adds.
        trend = 0 if i in (0, last) else (cleans[i] - cleans[i - 1]) * h / (time[i] - time[i - 1])
        x = b[i + 1] / b[i] * corrected - a[i + 1] * np.expm1(-h) * (cleans[i] + trend / 2)
        yield x


def _unipc_corrected(cleans: list[State], time: NDArray[np.float64], a: float, ratio: float, x: State) -> State:
    """The state at the last of these times, from the one before and the prediction that was made here."""
    h = time[-1] - time[-2]
    phi = np.expm1(-h)
    first = phi / -h - 1
    new = cleans[-1] - cleans[-2]
    if len(cleans) == 2:
        change: Any = new / 2
    else:
        r = (time[-3] - time[-2]) / h
        second = 2 * (first / -h - 0.5)
        old_weight, new_weight = np.linalg.solve([[1, 1], [r, 1]], [first / phi, second / phi])
        change = old_weight * (cleans[-3] - cleans[-2]) / r + new_weight * new
    corrected: State = ratio * x - a * phi * (cleans[-2] + change)
    return corrected


def _half_log_snr(levels: Levels) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.log(levels.a) - np.log(levels.b)


SOLVERS: dict[str, Solver] = {"euler": euler, "heun": heun, "dpm-solver-2m": dpm_solver_2m, "unipc": unipc}
EULER = (
    "DDIMScheduler", "DDIMParallelScheduler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler",
)  # fmt: skip
SECOND_ORDER = {"solver_order": 2, "thresholding": False, "final_sigmas_type": "zero", "lower_order_final": True}
NEEDED: dict[str, tuple[str, Mapping[str, Any]]] = {
    **{name: ("euler", {"clip_sample": False, "thresholding": False, "stochastic_sampling": False}) for name in EULER},
    **dict.fromkeys(("HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"), ("heun", {"clip_sample": False})),
    "DPMSolverMultistepScheduler": (
        "dpm-solver-2m", SECOND_ORDER | {"algorithm_type": "dpmsolver++", "solver_type": "midpoint"},
    ),
    "UniPCMultistepScheduler": (
        "unipc", SECOND_ORDER | {"solver_type": "bh2", "predict_x0": True, "disable_corrector": [], "solver_p": None},
    ),
}  # fmt: skip
"""The solver of a scheduler of diffusers, and the options that it stands for."""


def solver_of(scheduler: Mapping[str, Any]) -> str | None:
    """The name of the solver of a scheduler, described as in a cube's attribute `scheduler`; None for other samplers.

    Options that the description lacks do not exist in that scheduler.
    """
    name, needed = NEEDED.get(scheduler["class"], (None, {}))
    fits = all(scheduler.get(option, value) == value for option, value in needed.items())
    return name if fits else None


def sampler_path(field: GaussianField, levels: Levels, solver: str = "euler", start: float | None = None) -> Path:
    """The states of a sampler of `field` at each call and after the last, from noise of size `start`.

    `levels` belong to the calls, the end included: `signal_level` and `noise_level` of a cube. Without `start`, noise
    has unit size, or that of the first level where the variance explodes. Use it as `path` of `GaussianField.energies`
    and its like. Raises UserError for an unknown solver.
    """
    if solver not in SOLVERS:
        raise UserError(f"unknown solver {solver!r}: choose one of {', '.join(SOLVERS)}")

    def predict(call: int, x: State) -> State:
        offset, slope = field.signal("x0", levels.a[call], levels.b[call])
        return slope * x + np.stack([offset, np.zeros_like(offset)])

    size = start if start is not None else max(float(levels.b[0]), 1.0)
    first = np.stack([np.zeros_like(field.mean), np.full_like(field.mean, size)])
    states = np.stack([first, *SOLVERS[solver](predict, levels, first)])
    return Path(states[:, 0], states[:, 1], np.zeros_like(states[:, 0]))
