"""In which order an evaluation is told: the verdict first, and nothing twice among the first sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
    harmed_at,
    headline,
    of_pair,
    where,
    winner,
    worse_levels,
)  # fmt: skip
from reports.evidence import all_identical, same, unlike
from reports.sections import Said
from reports.words import listed


def say_evaluation(found: Evaluation, cells: Sequence[Cells], noise: Sequence[float]) -> list[Said]:
    """Everything that an evaluation says, the most important first."""
    top, repeats = verdict_on(found)
    said = [where(one, noise) for one in unlike(found, cells)]
    said += [about_energy(one) for one in unlike(found, energies_of(found))]
    aside = [one for one in (about_drift(found), about_memory(found)) if one is not None]
    said = [*aside[:1], *said, *aside[1:]] if repeats else [*said, *aside]
    based = [label for label in found.distinct if found.pairs and found.to_base and not same(found, label, BASE)]
    return [*top, *said, *(about_base_model(found, label) for label in based)]


def verdict_on(found: Evaluation) -> tuple[list[Said], bool]:
    """What stands first, and whether it leaves out verdicts on pairs."""
    alike, harmed = all_identical(found), harmed_at(found)
    but = f", but at some noise levels the error of {listed([*harmed])} is higher" if harmed else ""
    base = [replace(one, claim=one.claim + but) for one in against_base(found)]
    if not found.pairs:
        based = [label for label in found.distinct if not same(found, label, BASE)]
        return [*base, *alike, *(about_base_model(found, label) for label in based)], False
    best = best_of(found)
    old = [pair for pair in found.pairs if best and told_by_best(found, *pair)]
    news = [headline(found, *pair) for pair in found.pairs if pair not in old]
    first, rest = (best, news) if best else (news[:1], news[1:])
    return [*first, *alike, *base, *worse_levels(found, harmed), *rest], bool(old)


def told_by_best(found: Evaluation, a: str, b: str) -> bool:
    """True where the verdict on a pair would only repeat what `best_of` says."""
    judged = decisive(found.among)
    first = found.reference
    name, label = winner(found) or (deciding([c for c in judged if c.b == first]), first)
    held = {c.name for c in of_pair(judged, a, b) if c.favours is not None}
    return held <= {name} and label in (a, b)
