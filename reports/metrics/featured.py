"""What features of a network say: distances to the references, text, similarity, diversity, drift, memorisation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reports.metrics.distances import (
    checked,
    frechet,
    frechet_without,
    full_rank,
    kernel_distance,
    kernel_without,
)
from reports.metrics.drifted import BASE, against_base, from_base
from reports.metrics.memorised import memorised
from reports.metrics.opened import Group, Opened
from reports.metrics.quantity import Found, Quantity, averaged, jackknifed
from reports.metrics.vectors import cosine, diversity, similarity

LABELS = {"world": "the bundled", "clip": "CLIP", "dino": "DINO", "inception": "Inception"}
FEWEST = 3  # prompts: one is left out at a time, and two are needed for a spread
APART = 2.0  # one minus a cosine, at most
GROUPS = 64  # prompts are left out in at most so many groups
TITLES = {
    ("frechet", "inception"): "FID", ("kernel", "inception"): "KID", ("text", "clip"): "CLIP score (as a cosine)",
    ("similarity", "clip"): "CLIP-I", ("similarity", "dino"): "DINO similarity",
}  # fmt: skip
WORDS = {
    "frechet": "Fréchet distance on {} features",
    "kernel": "kernel distance on {} features",
    "text": "agreement of picture and prompt by {} features",
    "similarity": "similarity to the reference pictures by {} features",
    "diversity": "diversity within a prompt by {} features",
    "drift": "drift on unrelated prompts by {} features",
    "memorised": "share of pictures close to a training picture by {} features",
}


def title(what: str, network: str) -> str:
    """The name of a metric on a network; only FID, CLIP score and the like carry these names."""
    known = TITLES.get((what, network))
    return known or WORDS[what].format(LABELS.get(network, network))


def of_network(opened: Opened, network: str) -> Found:
    """Everything that one feature network lets one measure."""
    made = opened.features(network, opened.asked)
    if not np.isfinite(made).all():
        yield f"no measures by {network}: features of some pictures are not finite"
        return
    yield from _to_references(opened, network, made)
    yield from _text(opened, network, made)
    yield from _diversity(opened, network, made)
    yield from _drift(opened, network)
    yield from memorised(opened, network, made, title("memorised", network))


def _to_references(opened: Opened, network: str, made: NDArray[Any]) -> Found:
    """Frechet and kernel distances, and similarity, to the reference pictures; these are fixed."""
    if f"reference_feature_{network}" not in opened.data or not len(opened.references.rows):
        yield f"no distances and similarity by {network}: no reference pictures were given (--data)"
        return
    kept, group = opened.reference_features(network, opened.references), opened.asked
    if group.clusters < FEWEST or len(kept) < 2:
        yield f"no distances by {network}: they need pictures of {FEWEST} prompts (or seeds) and 2 reference pictures"
    else:
        yield _frechet(opened, network, made, kept)
        yield _kernel(opened, network, made, kept)
    values = similarity(made, kept)
    estimand = f"mean over {group.unit} of the cosine with all reference pictures"
    plain = _plain(opened, network, "similarity", "higher", estimand, _pinned(opened, network, True))
    yield averaged(replace(plain, bounds=(-1.0, 1.0)), values)


def _frechet(opened: Opened, network: str, made: NDArray[Any], kept: NDArray[Any]) -> Quantity:
    labels = _grouped(opened.asked)
    values = np.array([frechet(one, kept) for one in made])
    without = np.stack([frechet_without(*checked(one, kept), labels) for one in made])
    n, size, dims = made.shape[1], without.shape[1], made.shape[2]
    ends = size * values - (size - 1) * without.mean(1)
    few = f"{n} and {len(kept)} pictures cannot give {dims} dimensions a covariance of full rank; " * (
        not full_rank(n, len(kept), dims)
    )
    notes = tuple(f"{few}biased upwards at {n} pictures, extrapolated to many: {end:.3g}" for end in ends)
    estimand = f"Fréchet distance of {n} pictures to these {len(kept)} reference pictures"
    plain = _plain(opened, network, "frechet", "lower", estimand, _pinned(opened, network, True))
    unit = f"groups of {plain.unit}" * (size < plain.clusters) or plain.unit
    plain = replace(plain, bounds=(0.0, np.inf), notes=notes, unit=unit, cluster=labels)
    return jackknifed(plain, values, without)


def _kernel(opened: Opened, network: str, made: NDArray[Any], kept: NDArray[Any]) -> Quantity:
    labels = opened.asked.labels
    values = np.array([kernel_distance(one, kept, labels) for one in made])
    without = np.stack([kernel_without(one, kept, labels) for one in made])
    estimand = f"unbiased squared MMD to these {len(kept)} reference pictures, cubic kernel, pairs of different prompts"
    plain = _plain(opened, network, "kernel", "lower", estimand, _pinned(opened, network, True))
    return jackknifed(plain, values, without)


def _text(opened: Opened, network: str, made: NDArray[Any]) -> Found:
    name = f"text_{network}"
    if name not in opened.data:
        yield f"no agreement with the prompt by {network}: this network does not read text"
        return
    words = opened.values(name, "sample", f"dim_{network}")[opened.asked.rows]
    estimand = f"mean over {opened.asked.unit} of the cosine of picture and prompt"
    plain = _plain(opened, network, "text", "higher", estimand, _pinned(opened, network))
    yield averaged(replace(plain, bounds=(-1.0, 1.0)), cosine(made, words[None]))


def _diversity(opened: Opened, network: str, made: NDArray[Any]) -> Found:
    """Mean distance of pairs within a prompt; for one prompt there is no other to say how sure that is."""
    group = opened.asked
    labels = group.labels if group.unit == "prompts" else ("the prompt",) * len(group.rows)
    values = np.stack([diversity(one, labels) for one in made])
    several = np.isfinite(values).all(0)
    if not several.any():
        yield f"no diversity by {network}: every prompt has one seed"
        return
    values, kept = values[:, several], tuple(np.array(list(dict.fromkeys(labels)), object)[several])
    estimand = "mean over prompts of one minus the cosine of two pictures of the prompt"
    plain = _plain(opened, network, "diversity", "higher", estimand, _pinned(opened, network))
    plain = replace(plain, cluster=kept, bounds=(0.0, np.inf), unit="prompts", reach=APART)
    found = averaged(plain, values)
    yield replace(found, ratio=bool((found.values > 0).all()))


def _drift(opened: Opened, network: str) -> Found:
    group = opened.unrelated
    if not len(group.rows) or BASE not in opened.adapters:
        return
    moved = opened.features(network, group)
    apart = np.maximum(1 - cosine(moved, moved[opened.adapters.index(BASE)][None]), 0)
    words = title("drift", network), "one minus the cosine with the base's picture"
    pinned = f"{against_base(group)}; {opened.pinned(network)}"
    yield replace(from_base(opened, apart, group, f"drift_{network}", words, pinned), network=network, reach=APART)


def _plain(opened: Opened, network: str, what: str, better: Any, estimand: str, pinned: str) -> Quantity:
    """A quantity on the asked prompts, values to come."""
    none, group = np.zeros((len(opened.adapters), 1)), opened.asked
    return Quantity(
        f"{what}_{network}", title(what, network), better, estimand, group.unit, opened.adapters, none[:, 0], none,
        group.labels, pinned, network,
    )  # fmt: skip


def _pinned(opened: Opened, network: str, references: bool = False) -> str:
    against = f" against {opened.references.words}" * references
    return f"{opened.asked.words}{against}; {opened.pinned(network)}"


def _grouped(group: Group) -> tuple[int, ...]:
    """Clusters that are left out together: prompts, or groups of them where there are very many."""
    place = {label: i % GROUPS for i, label in enumerate(sorted(set(group.labels), key=str))}
    return tuple(place[label] for label in group.labels)
