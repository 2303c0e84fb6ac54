"""What a probed cube teaches an adapter: bands, scaling of the features, and where the router starts.

The denoiser's input at each step of a recorded generation is the recorded latent up to a factor, and shares do not see
factors; so the log shares of the cube's latents are exactly what a router will read.  Their mean and deviation become
the scaling of its features.  Its start is fitted: with u in (0, 1) the position along the trajectory (0 = noise, 1 =
finished), expert m of M is centred at c_m = (m + 1/2) / M and the intended gates are

    p_m(u) = exp(-(u - c_m)^2 / (2 (overlap / M)^2)) / sum over experts,

so experts part by noise level, the first one at the noisy end, and `overlap` (in units of their distance) says how
softly.  A sharp split starves experts of data; an overlap of one gives every expert a visible part nearly everywhere.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adapt.trajectory import read_trajectory
from spectra.bands import FilterBank
from spectra.errors import UserError

if TYPE_CHECKING:
    import xarray as xr

    from adapt.fera import FeraConfig

Array = NDArray[np.float64]
Floats = tuple[float, ...]

FORMAT = 1
_MOST_POINTS = 4096  # of the fit; whole runs are left out evenly beyond it
_DECAY = 1e-3  # of the fitted weights; less of it fits the recorded latents better and new ones worse


@dataclass(frozen=True)
class Prior:
    """A prior for FeRA.  Tuples are per band, per step (denoiser calls, noisy first) or per expert.

    `router` holds the fitted weights w1 b1 w2 b2; `gate_error` and `gate_error_max` are the mean and the largest
    absolute difference between fitted and intended gates (as probabilities) over all recorded latents.  `shares` (steps
    x bands) and `gates` (steps x experts, as probabilities) are means over the runs, kept to explain the prior.
    """

    scales: Floats
    grid: tuple[int, int]
    feature_mean: Floats
    feature_std: Floats
    experts: int
    overlap: float
    tau: float
    hidden: int
    seed: int
    router: dict[str, Any]
    gate_error: float
    gate_error_max: float
    noise_level: Floats
    shares: tuple[Floats, ...]
    gates: tuple[Floats, ...]
    provenance: dict[str, Any]

    @classmethod
    def from_cube(
        cls,
        cube: xr.Dataset | str | Path,
        experts: int = 3,
        *,
        overlap: float = 1.0,
        tau: float = 0.7,
        hidden: int = 64,
        seed: int = 0,
    ) -> Prior:
        """Learn a prior from a cube of `spectra probe`, or from the path of one.

        `overlap` is the width of an expert's region in units of the distance between experts; `tau` and `hidden`
        describe the router.  Deterministic for equal input and `seed`.  Raises UserError where the cube lacks a part.
        """
        _check_request(experts, overlap, tau, hidden)
        path = read_trajectory(cube)
        features = path.log_shares
        mean, std = features.mean((0, 1)), np.maximum(features.std((0, 1)), 1e-2)
        intended = np.broadcast_to(soft_prototypes(path.position, experts, overlap), (*features.shape[:2], experts))
        router, fitted = _fit((features - mean) / std, intended, tau, hidden, seed)
        error = np.abs(fitted - intended)
        return cls(
            scales=path.bank.scales, grid=path.grid, feature_mean=_plain(mean), feature_std=_plain(std),
            experts=experts, overlap=float(overlap), tau=float(tau), hidden=hidden, seed=seed, router=router,
            gate_error=_digits(error.mean()), gate_error_max=_digits(error.max()), noise_level=_plain(path.noise_level),
            shares=_rows(path.shares.mean(0)), gates=_rows(fitted.mean(0)), provenance=path.provenance,
        )  # fmt: skip

    def save(self, path: str | Path) -> Path:
        """Write the prior as JSON, whole or not at all; equal priors give equal bytes."""
        target = Path(path)
        unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        text = json.dumps({"format": FORMAT, "kind": "adapt prior", **asdict(self)}, indent=1, sort_keys=True)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(text + "\n", encoding="utf-8")
            unfinished.replace(target)
        except OSError as error:
            raise UserError(f"cannot write the prior to {target}: {error}") from error
        return target

    @classmethod
    def load(cls, path: str | Path) -> Prior:
        """Read a prior; UserError where the file is missing, torn, of another format or inconsistent."""
        try:
            saved = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read as a prior: {error}") from error
        if not isinstance(saved, dict) or saved.pop("kind", None) != "adapt prior":
            raise UserError(f"{path} is not a prior: make one from a cube with adapt.Prior.from_cube(...).save(...)")
        if saved.pop("format", None) != FORMAT:
            raise UserError(f"{path} is a prior of another format than {FORMAT}: make it again from its cube")
        return _checked(saved, str(path))

    def check_model(self, model_hash: str) -> None:
        """Raise UserError where the prior was learned from another model than the one with this hash."""
        learned = self.provenance.get("model_hash")
        if learned != model_hash:
            name = self.provenance.get("model") or "a model"
            raise UserError(
                f"this prior was learned from {name} (hash {str(learned)[:12]}), but the model to adapt has hash "
                f"{model_hash[:12]}: probe that model and make a prior from its cube"
            )

    def fera_config(self, **overrides: Any) -> FeraConfig:
        """A FeraConfig with everything that the prior knows; any other field can be given.

        Raises UserError for a field that would contradict the fit, such as another number of experts.
        """
        from adapt.fera import FeraConfig

        known: dict[str, Any] = {
            "num_experts": self.experts, "scales": self.scales, "grid": self.grid, "feature_mean": self.feature_mean,
            "feature_std": self.feature_std, "tau": self.tau, "router_hidden": self.hidden, "router_start": self.router,
        }  # fmt: skip
        for name in known.keys() & overrides.keys():
            if overrides[name] != known[name]:
                raise UserError(f"this prior was fitted with {name} {_short(known[name])}: make another to change it")
        origin = {name: value for name, value in self.provenance.items() if name != "cube"}  # adapters get shared
        return FeraConfig(**{**known, "provenance": origin, **overrides})

    def explain(self) -> list[str]:
        """What the prior says, in plain sentences."""
        from_where = self.provenance.get("model") or "an unnamed model"
        runs, steps, bands = self.provenance.get("runs", "?"), len(self.noise_level), len(self.scales) + 1
        low, high = self.shares[0][0], self.shares[-1][0]
        top_first, top_last = self.shares[0][-1], self.shares[-1][-1]
        spread = [max(row[m] for row in self.gates) - min(row[m] for row in self.gates) for m in range(self.experts)]
        sentences = [
            f"Learned from {runs} samples of {from_where}, {steps} denoising steps each.",
            f"The latent ({self.grid[0]} x {self.grid[1]}) is split into {bands} bands by Gaussians of "
            f"{', '.join(f'{s:g}' for s in self.scales)} latent pixels.",
            f"From the noise to the last step, the lowest band's share of the energy goes from {low:.0%} to "
            f"{high:.0%}, the highest band's from {top_first:.0%} to {top_last:.0%}.",
            *(self._expert(m) for m in range(self.experts)),
            f"At the start an expert's gate moves by up to {max(spread):.0%} over the noise levels; with an overlap of "
            f"{self.overlap:g} no expert's average falls below {min(map(min, self.gates)):.0%} at any of them.",
            f"The fitted router is {self.gate_error:.1%} away from the intended gates on average and "
            f"{self.gate_error_max:.1%} at worst.",
        ]
        return sentences

    def _expert(self, m: int) -> str:
        leads = [level for level, row in zip(self.noise_level, self.gates, strict=True) if max(row) == row[m]]
        if not leads:
            return f"Expert {m + 1} leads at no noise level at the start."
        return f"Expert {m + 1} leads at noise levels {max(leads):.3g} to {min(leads):.3g}."


def soft_prototypes(u: Array, experts: int, overlap: float) -> Array:
    """Intended gates at positions u (...,) in (0, 1) along the trajectory: (..., experts), rows sum to one."""
    centres = (np.arange(experts) + 0.5) / experts
    logits = -0.5 * ((np.asarray(u)[..., None] - centres) * experts / overlap) ** 2
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    gates: Array = weights / weights.sum(-1, keepdims=True)
    return gates


def _fit(features: Array, intended: Array, tau: float, hidden: int, seed: int) -> tuple[dict[str, Any], Array]:
    """Router weights whose gates follow `intended` (runs, steps, experts) on `features` (runs, steps, bands).

    Cross-entropy by L-BFGS in float64 from a seeded random start.  Returns the weights and the gates that they give.
    """
    import torch

    from adapt.fera import router

    runs, steps, bands = features.shape
    chosen = np.unique(np.linspace(0, runs - 1, max(1, min(runs, _MOST_POINTS // steps))).round().astype(int))
    x = torch.from_numpy(np.ascontiguousarray(features[chosen])).flatten(0, 1)
    p = torch.from_numpy(np.ascontiguousarray(intended[chosen])).flatten(0, 1)
    experts = p.shape[-1]
    start = router.random_start(bands, hidden, experts, torch.Generator().manual_seed(seed))
    weights = router.RouterWeights(*(w.double().requires_grad_() for w in start))
    optimizer = torch.optim.LBFGS(list(weights), max_iter=300, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        q = router.gates(x, weights, tau) / experts
        decay = sum((w.square().sum() for w in weights), start=x.new_zeros(()))
        value: torch.Tensor = -(p * q.clamp_min(1e-12).log()).sum(-1).mean() + _DECAY * decay
        value.backward()
        return value

    optimizer.step(loss)
    fixed = router.RouterWeights(*(_rounded(w.detach()) for w in weights))
    fitted = router.gates(torch.from_numpy(np.ascontiguousarray(features)), fixed, tau) / experts
    return {name: _lists(value.tolist()) for name, value in fixed._asdict().items()}, fitted.numpy()


# Checks and plain numbers


def _check_request(experts: int, overlap: float, tau: float, hidden: int) -> None:
    if experts < 1 or hidden < 1:
        raise UserError(f"a prior needs at least 1 expert and 1 hidden unit, got {experts} and {hidden}")
    for name, value in (("overlap", overlap), ("tau", tau)):
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"the {name} of a prior is a number above 0, got {value}")


def _checked(saved: Mapping[str, Any], source: str) -> Prior:
    names = {item.name for item in fields(Prior)}
    if set(saved) != names:
        wrong = sorted(set(saved) ^ names)
        raise UserError(f"{source} is not a whole prior: it has missing or unknown fields ({', '.join(wrong)})")
    try:
        prior = Prior(**{name: _tuples(value) if name != "router" else value for name, value in saved.items()})
        bands = FilterBank(prior.scales).bands
        _check_request(prior.experts, prior.overlap, prior.tau, prior.hidden)
        _check_shapes(prior, bands)
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{source} is not a valid prior: {error}") from error
    return prior


def _check_shapes(prior: Prior, bands: int) -> None:
    from adapt.fera.config import router_shapes

    steps = len(prior.noise_level)
    numbers: dict[str, tuple[Any, tuple[int, ...]]] = {
        "grid": (prior.grid, (2,)),
        "feature_mean": (prior.feature_mean, (bands,)),
        "feature_std": (prior.feature_std, (bands,)),
        "shares": (prior.shares, (steps, bands)),
        "gates": (prior.gates, (steps, prior.experts)),
        "noise_level": (prior.noise_level, (steps,)),
        "gate_error": ([prior.gate_error, prior.gate_error_max], (2,)),
    }
    shapes = router_shapes(bands, prior.hidden, prior.experts)
    if set(prior.router) != set(shapes):
        raise UserError(f"the router has weights {sorted(prior.router)} instead of {sorted(shapes)}")
    numbers |= {f"router {name}": (prior.router[name], shape) for name, shape in shapes.items()}
    for name, (value, shape) in numbers.items():
        found = np.asarray(value, dtype=np.float64)
        if found.shape != shape or not np.isfinite(found).all():
            raise UserError(f"{name} is not {shape} finite numbers")
    if min(prior.feature_std) <= 0:
        raise UserError("feature_std is not above 0 in every band")
    if not isinstance(prior.provenance, dict) or "model_hash" not in prior.provenance:
        raise UserError("it does not say which model it was learned from")


def _digits(value: float) -> float:
    """Seven significant digits: what float32 holds, and short in a file."""
    return float(f"{value:.7g}")


def _rounded(weights: Any) -> Any:
    return weights.new_tensor(_lists(weights.tolist()))


def _lists(value: Any) -> Any:
    return [_lists(item) for item in value] if isinstance(value, list) else _digits(value)


def _plain(values: Array) -> Floats:
    return tuple(_digits(value) for value in values)


def _rows(values: Array) -> tuple[Floats, ...]:
    return tuple(_plain(row) for row in values)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
