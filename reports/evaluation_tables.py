"""The tables of an evaluation: every measure with its interval, every comparison with its corrected p."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reports.evaluated import BASE, Evaluation
from reports.evaluation_words import FIRST, weight
from reports.evidence import model, moved, number, would_show
from reports.metrics import Measure
from reports.sections import ARROWS, Table
from reports.words import listed

BETTER = {"lower": "lower", "higher": "higher", "neutral": "neither"}


def cell(m: Measure | None, star: bool) -> str:
    """A measure with its interval."""
    if m is None:
        return "–"
    value = number(m.value.value)
    if np.isfinite(m.value.low) and np.isfinite(m.value.high):
        value += f" ({number(m.value.low)} to {number(m.value.high)})"
    return value + " *" * star


def shown_as(label: str) -> str:
    """The name of a model in heads."""
    return "base model" if label == BASE else label


def main_measures(found: Evaluation) -> list[str]:
    """The names of measures that decide, one of each kind, the weightiest first."""
    names = [n for n in dict.fromkeys(m.name for m in found.measures) if weight(n) < len(FIRST)]
    first = {weight(name): name for name in reversed(names)}
    return [first[place] for place in sorted(first)]


def measure_table(found: Evaluation, names: Sequence[str] | None = None) -> Table:
    """Measures x models: all, or those of `names`."""
    holding = {(c.name, c.a) for c in found.to_base if c.holds}
    rows = []
    for name in names or dict.fromkeys(m.name for m in found.measures):
        of = {m.adapter: m for m in found.measures if m.name == name}
        first = next(iter(of.values()))
        cells = [cell(of.get(label), (name, label) in holding) for label in found.shown]
        rows.append((first.title, BETTER[first.better], *cells))
    what = "All measures" if names is None else "The main measures"
    caption = f"{what}; 95 % intervals in brackets; * differs from the base model after Holm’s correction"
    heads = ("measure", "better", *map(shown_as, found.shown))
    return Table(caption, heads, tuple(rows), note=about_copies(found) if names else "")


def about_copies(found: Evaluation) -> str:
    """Which adapters stand for copies that no table or figure shows; empty where there are none."""
    groups = [[label for label, first in found.copies.items() if first == one] for one in found.distinct]
    named = [f"{one} stands for {listed(same)}" for one, same in zip(found.distinct, groups, strict=True) if same]
    return f"Identical adapters are shown once: {'; '.join(named)}." if named else ""


def arrowed(table: Table) -> Table:
    """A table of measures with arrows in place of the column of words that says which side is better."""
    meaning = ", ".join(f"{arrow} {side} is better" for side, arrow in ARROWS.items())
    rows = tuple((row[0], *row[2:]) for row in table.rows)
    heads, better = (table.heads[0], *table.heads[2:]), tuple(row[1] for row in table.rows)
    return Table(f"{table.caption}; {meaning}", heads, rows, better, table.note)


def comparison_table(found: Evaluation) -> Table | None:
    """Every comparison of two adapters, and what it could have seen; None with a single adapter.

    Where all are compared with the base model these comparisons.
    """
    compared = found.to_base if found.against == BASE else found.among
    if not compared:
        return None
    rows = []
    for c in sorted(compared, key=lambda c: not c.holds):
        low, high = c.difference.low, c.difference.high
        span = f"{number(low)} to {number(high)}" if np.isfinite(low) and np.isfinite(high) else "–"
        kind = "ratio" if c.kind == "ratio" else "difference"
        verdict = moved(c) if c.holds else f"no difference found; {would_show(c)}"
        value = number(c.difference.value)
        rows.append(
            (f"{c.title}: {c.a} against {c.b}", value, span, kind, str(c.difference.n), number(c.p_corrected), verdict)
        )
    heads = ("comparison", "value", "95 % interval", "kind", "n", "p, corrected", "finding")
    first = "the first, " * (not found.against)
    pairs = f"Adapters against {first}{model(found.reference)}" if found.untested else "Adapters in pairs"
    caption = f"{pairs}; paired over the same prompts and seeds; p by Holm over these {len(rows)} comparisons"
    caption += ", those that hold first"
    return Table(caption, heads, tuple(rows))


def attribute_table(found: Evaluation) -> Table | None:
    """How often the reader of attributes finds what prompts say, attribute by attribute; None where it was not used."""
    if "attribute_right" not in found.data:
        return None
    right = found.data.attribute_right.isel(sample=found.part("asked"))
    share = right.mean("sample", skipna=True).transpose("adapter", "attribute").values
    known = np.isfinite(right.transpose("adapter", "sample", "attribute").values)
    counted = sorted(set(known.any(axis=0).sum(axis=0).tolist()))
    names = [str(n) for n in found.data.attribute.values]
    rows = tuple(
        (shown_as(label), *(f"{v:.2f}" if np.isfinite(v) else "–" for v in row))
        for label, row in zip(found.labels, share, strict=True) if label in found.shown
    )  # fmt: skip
    answers = " to ".join(str(n) for n in dict.fromkeys([counted[0], counted[-1]])) + " answers"
    caption = f"Share of pictures in which the attribute reader finds what the prompt says ({answers} in each column)"
    return Table(caption, ("model", *names), rows)


def pinned_table(found: Evaluation) -> Table:
    """What each measure was measured with, and what it suffers from."""
    rows = []
    for name in dict.fromkeys(m.name for m in found.measures):
        first = next(m for m in found.measures if m.name == name)
        rows.append((first.title, name, first.value.estimand, first.value.method, first.pinned, first.note or "–"))
    heads = ("measure", "name in gates", "estimand", "interval", "measured with", "note")
    return Table("What the measures are and what they were measured with", heads, tuple(rows))
