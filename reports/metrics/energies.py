"""Band energies and radial spectra of pictures against those of the reference pictures.

Where every prompt is the caption of a held-out picture, each prompt is compared to its own pictures, and what the
contents of the prompts add cancels.  Otherwise the references are one fixed set, and contents that differ count.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reports.metrics.opened import Opened
from reports.metrics.quantity import Found, Quantity, jackknifed
from reports.metrics.spectral import log_distance, log_ratio, without_each
from spectra.analysis.statistics import Array, cluster_means, places


class _Kept(NamedTuple):
    """Energies of references, (prompt, k) where they are those of the prompts, else (k,), and what they are."""

    energy: Array
    words: str

    @property
    def mean(self) -> Array:
        """Of all references, (k,)."""
        return self.energy if self.energy.ndim == 1 else self.energy.mean(0)

    @property
    def without(self) -> Array:
        """Of all but each prompt's, (prompt, k), or of all, (k,)."""
        return self.energy if self.energy.ndim == 1 else without_each(self.energy)


def energies(opened: Opened) -> Found:
    """Distances of band energies and radial spectra to the references, and the ratio in each band."""
    if not len(opened.references.rows) or "energy" not in opened.data:
        yield "no spectral distances: no reference pictures were given (--data)"
        return
    made = opened.values("energy", "adapter", "sample", "channel", "band")[:, opened.asked.rows].sum(2, dtype=float)
    kept = _kept(opened, opened.values("reference_energy", "reference", "channel", "band").sum(1, dtype=float))
    yield from _distance(opened, made, kept, "band_distance", "distance of band energies to the references", "bands")
    yield from _bands(opened, made, kept)
    if "spectrum" in opened.data and "reference_spectrum" in opened.data:
        made = opened.values("spectrum", "adapter", "sample", "radius")[:, opened.asked.rows].astype(float)
        kept = _kept(opened, opened.values("reference_spectrum", "reference", "radius").astype(float))
        title = "distance of radial spectra to the references"
        yield from _distance(opened, made, kept, "spectrum_distance", title, "radii")


def _kept(opened: Opened, energy: Array) -> _Kept:
    """The references of each prompt, or their mean where some prompt has none."""
    rows, words = opened.references
    captions = [str(text) for text in opened.data.reference_caption.values[rows]]
    prompts = list(dict.fromkeys(opened.asked.labels))
    if not set(prompts) <= set(captions):
        return _Kept(energy[rows].mean(0), words)
    own = [energy[rows[[caption == prompt for caption in captions]]].mean(0) for prompt in prompts]
    return _Kept(np.stack(own), f"the {words} of the same captions".replace(f"{len(rows)} ", ""))


def _distance(opened: Opened, made: Array, kept: _Kept, name: str, title: str, over: str) -> Found:
    """Mean over bands or radii of the absolute log ratio of mean energies, of (adapter, sample, k)."""
    group = opened.asked
    if group.clusters < 2:
        yield f"no {title}: there is one picture of each adapter"
        return
    means = [cluster_means(one, group.labels) for one in made]
    values = np.array([log_distance(one.mean(0), kept.mean) for one in means])
    without = np.stack([log_distance(without_each(one), kept.without) for one in means])
    estimand = f"mean over {over} of |log ratio of mean energies, generated over reference pictures|"
    plain = Quantity(name, title, "lower", estimand, group.unit, opened.adapters, values, values[:, None], group.labels,
                     f"{group.words} against {kept.words}", bounds=(0.0, np.inf))  # fmt: skip
    yield jackknifed(plain, values, without)


def _bands(opened: Opened, made: Array, kept: _Kept) -> Found:
    """Per band, mean energy (adapter, sample, band) over that of the references; parts are linearised logs."""
    group = opened.asked
    means = np.stack([cluster_means(one, group.labels).mean(0) for one in made])
    logs, parts = log_ratio(means, kept.mean), made / means[:, None] - 1
    if kept.energy.ndim == 2:
        parts = parts - (kept.energy / kept.mean - 1)[places(group.labels)]
    for k in range(made.shape[-1]):
        yield Quantity(
            f"band_ratio_{k}", f"energy of band {k} relative to the references", "neutral",
            f"ratio of mean energies in band {k}, generated over reference pictures", group.unit, opened.adapters,
            logs[:, k], logs[:, k, None] + parts[..., k], group.labels, f"{group.words} against {kept.words}",
            method="bootstrap", logs=True,
        )  # fmt: skip
