"""A prior on the disk: JSON, written whole or not at all, and checked when it is read."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from spectra.bands import FilterBank
from spectra.errors import UserError

if TYPE_CHECKING:
    from adapt.prior.prior import Prior

FORMAT = 2
KIND = "adapt prior"


def save(prior: Prior, path: str | Path) -> Path:
    """Write a prior; equal priors give equal bytes.  UserError where the place cannot be written to."""
    target = Path(path)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    text = json.dumps({"format": FORMAT, "kind": KIND, **asdict(prior)}, indent=1, sort_keys=True, allow_nan=False)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text + "\n", encoding="utf-8")
        unfinished.replace(target)
    except OSError as error:
        raise UserError(f"cannot write the prior to {target}: {error}") from error
    return target


def load(path: str | Path) -> Prior:
    """Read a prior; UserError where the file is missing, torn, of another format or inconsistent."""
    try:
        saved = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a prior: {error}") from error
    if not isinstance(saved, dict) or saved.pop("kind", None) != KIND:
        raise UserError(f"{path} is not a prior: make one from a cube with adapt.Prior.from_cube(...).save(...)")
    if (found := saved.pop("format", None)) != FORMAT:
        raise UserError(f"{path} is a prior of format {found}, and this version reads format {FORMAT}: make it again "
                        "from its cube")  # fmt: skip
    return _checked(saved, str(path))


def _checked(saved: dict[str, Any], source: str) -> Prior:
    from adapt.prior.prior import Prior, check_request

    try:
        prior = TypeAdapter(Prior).validate_json(json.dumps(saved))
        check_request(prior.experts, prior.overlap, prior.tau, prior.hidden, prior.features)
        _check_numbers(prior)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{source} is not a whole and valid prior: {where}: {first['msg'].lower()}") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"{source} is not a valid prior: {error}") from error
    return prior


def _check_numbers(prior: Prior) -> None:
    """UserError unless everything has the length that the bands, steps and experts ask for, and its range."""
    for name, (value, shape) in _shapes(prior).items():
        try:
            found = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            found = np.array(np.nan)
        if found.shape != shape or not np.isfinite(found).all():
            raise UserError(f"{name} is not {shape} finite numbers")
    if min(value for one in prior.statistics.values() for value in one.std) <= 0:
        raise UserError("feature_std is not above 0 in every band")
    if len(prior.timestep_log_snr) < 2 or (np.diff(prior.timestep_log_snr) > 0).any():
        raise UserError("timestep_log_snr does not fall from clean to noisy")
    if "model_hash" not in prior.provenance:
        raise UserError("it does not say which model it was learned from")


def _shapes(prior: Prior) -> dict[str, tuple[Any, tuple[int, ...]]]:
    from adapt.fera.config import router_shapes
    from adapt.prior.prior import FEATURES

    bands, steps = FilterBank(prior.scales).bands, len(prior.noise_level)
    width = {"shares": bands, "snr": bands, "log_snr": 1}
    if set(prior.statistics) != set(FEATURES):
        raise UserError(f"it has statistics of {sorted(prior.statistics)} instead of {sorted(FEATURES)}")
    weights = router_shapes(sum(width[name] for name in prior.features), prior.hidden, prior.experts)
    if set(prior.router) != set(weights):
        raise UserError(f"the router has weights {sorted(prior.router)} instead of {sorted(weights)}")
    found: dict[str, tuple[Any, tuple[int, ...]]] = {
        "shares": (prior.shares, (steps, bands)),
        "gates": (prior.gates, (steps, prior.experts)),
        "log_snr": (prior.log_snr, (steps,)),
        "timestep": (prior.timestep, (steps,)),
        "density.log_snr": (prior.density.log_snr, (len(prior.density.timestep),)),
    }
    for name, one in prior.statistics.items():
        found |= {
            f"feature_mean of {name}": (one.mean, (width[name],)),
            f"feature_std of {name}": (one.std, (width[name],)),
        }
    return found | {f"router {name}": (prior.router[name], shape) for name, shape in weights.items()}
