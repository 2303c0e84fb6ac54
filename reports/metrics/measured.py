"""Everything that an evaluation lets one measure, and why the rest is not there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from reports.metrics.drifted import drift, known_mean
from reports.metrics.energies import energies
from reports.metrics.featured import of_network
from reports.metrics.opened import Group, Opened
from reports.metrics.quantity import SHARE, Found, Quantity, averaged
from spectra.analysis.statistics import Array
from spectra.errors import UserError

if TYPE_CHECKING:
    import xarray as xr

READ = (64, 64)
"""Height and width of the pictures that the attribute reader reads."""
SPOKEN = 'the attribute reader knows captions such as "a large red circle on a plain blue background"'


class Measured(NamedTuple):
    """What is measured, in the order in which it is shown, and sentences on what is not."""

    quantities: list[Quantity]
    reasons: list[str]


def measured(evaluation: xr.Dataset) -> Measured:
    """All quantities of an evaluation.  Raises UserError where it is no evaluation."""
    opened = Opened(evaluation)
    makers: list[Callable[[], Found]] = [
        lambda: validation(opened), lambda: attributes(opened),
        *(lambda name=name: of_network(opened, name) for name in opened.networks),
        lambda: energies(opened), lambda: drift(opened),
    ]  # fmt: skip
    found = [one for make in makers for one in _tried(make)]
    reasons = [one for one in found if isinstance(one, str)]
    if not opened.networks:
        reasons.append("no distances, similarity or diversity: no feature network was used (--network)")
    return Measured([one for one in found if isinstance(one, Quantity)], reasons)


def _tried(make: Callable[[], Found]) -> Found:
    """What can be measured before something cannot, and why it cannot."""
    try:
        yield from make()
    except UserError as error:
        yield str(error)


def validation(opened: Opened) -> Found:
    """Error of the prediction on held-out pictures, the same noise for all; pictures are the clusters."""
    if "validation_error" not in opened.data:
        yield "no validation error: no held-out pictures were given (--data)"
        return
    values = opened.values("validation_error", "adapter", "heldout", "level", "draw")
    errors = np.asarray(values.mean((2, 3)), np.float64)
    whole = np.isfinite(errors).all(1)
    names = tuple(np.array(opened.adapters, object)[whole])
    if not whole.all():
        missing = ", ".join(np.array(opened.adapters, object)[~whole])
        yield f"no validation error of {missing}: it was not measured for every held-out picture"
    levels, draws, held = values.shape[2], values.shape[3], values.shape[1]
    yield averaged(
        Quantity(
            "validation_error", "validation error", "lower",
            "mean squared error of the prediction over noise levels and held-out pictures", "held-out pictures",
            names, errors[whole], errors[whole], tuple(range(held)),
            f"{held} held-out pictures, {levels} noise levels, {draws} noises each", ratio=bool((errors > 0).all()),
            bounds=(0.0, math.inf),
        ),
        errors[whole],
    )  # fmt: skip


def attributes(opened: Opened) -> Found:
    """Share of what captions name that the reader finds in the picture, over all attributes and for each."""
    if "attribute_right" not in opened.data:
        yield f"no attribute agreement: {_unread(opened)}"
        return
    right = opened.values("attribute_right", "adapter", "sample", "attribute")[:, opened.asked.rows].astype(np.float64)
    prompts = np.array(opened.data.prompt.values[opened.asked.rows], object)
    silent, every = set(prompts[np.isnan(right).all((0, 2))]), set(prompts)
    if silent == every:
        yield f"no attribute agreement: {SPOKEN}, and no prompt is one"
        return
    if silent:
        yield f"no attribute agreement of {len(silent)} of {len(every)} prompts: {SPOKEN}"
    pinned = f"{opened.asked.words}; bundled attribute reader"
    names = [str(name) for name in opened.data.attribute.values]
    yield from _shares(opened, known_mean(right), opened.asked, "attribute_right", "share of attributes right", pinned)
    for k, name in enumerate(names):
        yield from _shares(
            opened, right[..., k], opened.asked, f"attribute_{name}", f"share with the right {name}", pinned
        )


def _unread(opened: Opened) -> str:
    """Why the reader was asked nothing, as far as an evaluation tells."""
    if (opened.data.sizes.get("y"), opened.data.sizes.get("x")) == READ:
        return f"{SPOKEN}, and no prompt is one"
    return "the attribute reader knows only pictures of the bundled models"


def _shares(opened: Opened, values: Array, group: Group, name: str, title: str, pinned: str) -> Found:
    """A mean of numbers (adapter, sample) in 0..1 over the samples that all adapters have."""
    known = np.asarray(np.isfinite(values).all(0))
    if not known.any():
        yield f"no {title}: no caption names it"
        return
    group, values = group.take(known), values[:, known]
    yield averaged(
        Quantity(name, title, "higher", f"mean {title} over {group.unit}", group.unit, opened.adapters,
                 values, values, group.labels, pinned, bounds=SHARE, counted=True),
        values,
    )  # fmt: skip
