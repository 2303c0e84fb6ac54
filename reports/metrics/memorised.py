"""Pictures that are closer to a training picture than pictures that were never trained on are.

How close is close depends on the data set and on the network, so the held-out pictures say it: the 5 % quantile of
their own distances to the nearest training picture.  An adapter that memorises nothing has about 5 % of its pictures
below; pictures of prompts that are easier or plainer than the held-out ones may have more, so look at the pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reports.metrics.opened import Opened, References
from reports.metrics.quantity import SHARE, Found, Quantity, averaged
from reports.metrics.results import Neighbour
from reports.metrics.vectors import nearest
from spectra.errors import UserError

if TYPE_CHECKING:
    import xarray as xr

CLOSE = 0.05
FEW = 20  # held-out pictures; below, their 5 % quantile is their minimum


def threshold(heldout: NDArray[Any], train: NDArray[Any]) -> float:
    """The distance below which 5 % of held-out pictures (n, d) have their nearest training picture (m, d)."""
    return float(np.quantile(nearest(heldout, train).distance, CLOSE))


def memorised(opened: Opened, network: str, made: NDArray[Any], title: str) -> Found:
    """Share of pictures (adapter, sample, dim) that are closer to a training picture than the threshold."""
    missing = _missing(opened, network)
    if missing:
        yield missing
        return
    (held, old), (train, new) = _references(opened, network, "heldout"), _references(opened, network, "train")
    limit, group = threshold(old, new), opened.asked
    close = np.stack([nearest(one, new).distance <= limit for one in made]).astype(np.float64)
    note = f"{len(held.rows)} held-out pictures say little about the closest 5 %" * (len(held.rows) < FEW)
    plain = Quantity(
        f"memorised_{network}", title, "lower",
        f"mean share over {group.unit} of pictures closer than the closest 5 % of held-out pictures ({limit:.3g})",
        group.unit, opened.adapters, close, close, group.labels,
        f"{group.words}, {train.words}, calibrated by {held.words}; {opened.pinned(network)}", network, note,
        bounds=SHARE, counted=True,
    )  # fmt: skip
    yield averaged(plain, close)


def neighbours(evaluation: xr.Dataset, network: str, adapter: str) -> list[Neighbour]:
    """The training picture nearest to each picture of an adapter on asked prompts, closest pair first.

    Raises UserError where the network, the adapter or the training pictures are not in the evaluation.
    """
    opened = Opened(evaluation)
    missing = f"no network {network} in this evaluation" if network not in opened.networks else ""
    missing = missing or (f"no adapter {adapter} in this evaluation" if adapter not in opened.adapters else "")
    missing = missing or _missing(opened, network)
    if missing:
        raise UserError(missing)
    (_, old), (train, new) = _references(opened, network, "heldout"), _references(opened, network, "train")
    found = nearest(opened.features(network, opened.asked)[opened.adapters.index(adapter)], new)
    limit = threshold(old, new)
    pairs = [
        Neighbour(int(sample), int(train.rows[place]), float(distance), bool(distance <= limit))
        for sample, place, distance in zip(opened.asked.rows, found.place, found.distance, strict=True)
    ]
    return sorted(pairs, key=lambda pair: pair.distance)


def _references(opened: Opened, network: str, part: str) -> tuple[References, NDArray[Any]]:
    references = opened.part(part)
    return references, opened.reference_features(network, references)


def _missing(opened: Opened, network: str) -> str:
    """Why memorisation cannot be looked for, "" where it can."""
    for part, option in (("train", "--train"), ("heldout", "--data")):
        if f"reference_feature_{network}" not in opened.data or not len(opened.part(part).rows):
            words = "training" if part == "train" else "held-out"
            return f"no memorisation by {network}: no {words} pictures were given ({option})"
    return ""
