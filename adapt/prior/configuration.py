"""From a prior to the settings of an adapter, and which of them can still be changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spectra.errors import UserError

if TYPE_CHECKING:
    from adapt.fera import FeraConfig
    from adapt.prior.prior import Prior


def fera_config(prior: Prior, overrides: dict[str, Any]) -> FeraConfig:
    """The FeraConfig of a prior; see `Prior.fera_config`."""
    from adapt.fera import FeraConfig

    if overrides.get("mode", "exact") != "exact":
        raise UserError("a prior describes exact bands, which mode 'published' does not read: leave the prior out")
    features = overrides.get("features", prior.features)
    given = dict(overrides, features=(features,) if isinstance(features, str) else tuple(features))
    uniform = given.get("gates") == "uniform"
    fitted: dict[str, Any] = {
        "num_experts": prior.experts, "tau": prior.tau, "router_hidden": prior.hidden, "features": prior.features,
    }  # fmt: skip
    known: dict[str, Any] = {"scales": prior.scales, "bands": prior.bands, "grid": prior.grid}
    known |= _scaling(prior, given["features"])
    if not (uniform or ("router_start" in given and given["router_start"] is None)):
        known |= fitted | {"router_start": prior.router}
    for name in known.keys() & given.keys():
        if given[name] != known[name]:
            raise UserError(_refusal(name, known[name], name in fitted))
    start = {"router_start": None} if uniform else {}
    return FeraConfig(**{**fitted, **known, "provenance": _origin(prior), **given, **start})


def _scaling(prior: Prior, features: tuple[str, ...]) -> dict[str, Any]:
    unknown = sorted(set(features) - set(prior.statistics))
    if unknown:
        raise UserError(
            f"this prior does not know the features {', '.join(unknown)}; it knows {sorted(prior.statistics)}"
        )
    found = [prior.statistics[name] for name in features]
    mean, std = (tuple(value for one in found for value in getattr(one, part)) for part in ("mean", "std"))
    return {"feature_mean": mean, "feature_std": std}


def _refusal(name: str, value: Any, fitted: bool) -> str:
    words = f"this prior was fitted with {name} {_short(value)}: make another to change it"
    return words + (
        ", or give up its router's start (router_start: None here, 'random' in the settings of a run)" if fitted else ""
    )


def _origin(prior: Prior) -> dict[str, Any]:
    """Provenance without paths: adapters get shared."""
    return {
        name: {k: v for k, v in value.items() if k != "cube"} if isinstance(value, dict) else value
        for name, value in prior.provenance.items() if name != "cube"
    }  # fmt: skip


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
