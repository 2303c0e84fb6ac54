"""In which order an evaluation is told: the verdict first, and nothing twice among the first sentences."""

from __future__ import annotations

from collections.abc import Sequence

from reports.cells import Cells, energies_of
from reports.evaluated import BASE, Evaluation
from reports.evaluation_words import (
    about_base_model,
    about_drift,
    about_energy,
    about_memory,
    against_base,
    best_of,
    deciding,
    decisive,
    headline,
    of_pair,
    where,
    winner,
)  # fmt: skip
from reports.evidence import identical, same, twins, unlike
from reports.sections import Said


def say_evaluation(found: Evaluation, cells: Sequence[Cells], noise: Sequence[float]) -> list[Said]:
    """Everything that an evaluation says, the most important first."""
    top, old = verdict_on(found)
    said = [where(one, noise) for one in unlike(found, cells)]
    said += [about_energy(one) for one in unlike(found, energies_of(found))]
    aside = [one for one in (about_drift(found), about_memory(found)) if one is not None]
    said = [*aside[:1], *said, *aside[1:]] if old else [*said, *aside]
    based = [label for label in found.adapters if found.pairs and found.to_base and not same(found, label, BASE)]
    return [*top, *said, *old, *(about_base_model(found, label) for label in based)]


def verdict_on(found: Evaluation) -> tuple[list[Said], list[Said]]:
    """What stands first, and the verdicts on pairs that it has given already."""
    if not found.pairs:
        return [about_base_model(found, label) for label in found.adapters], []
    best, base, first = best_of(found), against_base(found), found.adapters[0]
    pairs = [(a, b) for a, b in found.pairs if not same(found, a, b)]
    old = [pair for pair in pairs if best and told_by_best(found, *pair)]
    groups = twins(found)
    again = [names for names in groups if best and (BASE in names or (first in names and winner(found) is None))]
    news = [headline(found, *pair) for pair in pairs if pair not in old]
    news += [identical(found, names) for names in groups if names not in again]
    told = [*(identical(found, names) for names in again), *(headline(found, *pair) for pair in old)]
    return ([*best, *base, *news] if best else [*news[:1], *base, *news[1:]]), told


def told_by_best(found: Evaluation, a: str, b: str) -> bool:
    """True where the verdict on a pair would only repeat what `best_of` says."""
    judged = decisive(found.among)
    first = found.adapters[0]
    name, label = winner(found) or (deciding([c for c in judged if c.b == first]), first)
    held = {c.name for c in of_pair(judged, a, b) if c.favours is not None}
    return held <= {name} and any(same(found, label, one) for one in (a, b))
