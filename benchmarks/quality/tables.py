"""The tables of the page of results, in markdown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from benchmarks.quality import drawn, words
from benchmarks.quality.contrasts import have
from benchmarks.quality.design import FULL
from benchmarks.quality.extra import ARMS, IDEAS
from benchmarks.quality.numbers import Cell, arms_of, cells, rows_of
from benchmarks.quality.summary import REFERENCE, Compared, Question, Speed, Swept, parameters
from benchmarks.quality.verdict import partly
from benchmarks.quality.words import cell_name, named, probability


def arms_table(numbers: xr.Dataset) -> str:
    """What each arm is, its settings and its trainable parameters by model."""
    models = list(dict.fromkeys(model for model, _ in cells(numbers)))
    rows = []
    for arm in arms_of(numbers):
        if arm not in FULL.arms:
            continue
        counts = parameters(numbers, arm)
        settings = ", ".join(
            f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in ARMS[arm].settings.items()
        )
        start = "; start from the probed prior" if ARMS[arm].prior else ""
        rows.append([named(arm), settings + start, *(f"{counts[m]:,}" if m in counts else "-" for m in models)])
    return words.table(["arm", "settings", *(f"parameters, {m}" for m in models)], rows)


def parameter_spread(numbers: xr.Dataset) -> float:
    """Largest relative difference of trainable parameters between LoRA and a planned FeRA arm of the same model."""
    base = parameters(numbers, REFERENCE)
    gaps = [
        abs(count / base[model] - 1)
        for arm in arms_of(numbers) if arm in FULL.arms and ARMS[arm].settings["method"] == "fera"
        for model, count in parameters(numbers, arm).items() if model in base
    ]  # fmt: skip
    return max(gaps, default=0.0)


def ratio_heads(where: Sequence[Cell]) -> list[str]:
    """Heads of the columns of `ratio_cells`."""
    return ["ratio over all cells", "p (Holm)", *map(cell_name, where)]


def ratio_cells(one: Compared) -> list[str]:
    """A comparison over all cells, its p, and in each cell; empty where the two share no cell."""
    if one.all is None:
        return []
    each = [words.ratio(ratio) for ratio in one.each.values()]
    return [words.ratio(one.all, bold=True) + partly(one), probability(one.all.p_corrected), *each]


def error_table(compared: Sequence[Compared]) -> str:
    """Ratios of final errors to LoRA's."""
    if not compared:
        return ""
    rows = [[named(one.a), *ratio_cells(one)] for one in compared if one.all is not None]
    return words.table(["arm", *ratio_heads(list(compared[0].each))], rows)


def speed_table(found: Sequence[Speed]) -> str:
    """Steps to LoRA's final error by cell, the cost of a step, the error within LoRA's time."""
    where = list(dict.fromkeys(cell for one in found for cell in one.steps))
    timed = any(one.cost for one in found)
    rows = [
        [named(one.arm), *(words.steps(one.steps.get(cell)) for cell in where)] + (time_cells(one) if timed else [])
        for one in found
    ]
    models = " / ".join(next((one.cost for one in found if one.cost), {}))
    more = [f"time of a step over LoRA's ({models})", "error within LoRA's time, ratio, all cells"] if timed else []
    return words.table(["arm", *(f"steps, {cell_name(cell)}" for cell in where), *more], rows)


def time_cells(one: Speed) -> list[str]:
    """The time of a step by model, and the error within LoRA's time."""
    return [" / ".join(f"{c:.2f}" for c in one.cost.values()) or "-", words.ratio(one.budget)]


def question_table(found: Sequence[tuple[Question, Compared]]) -> str:
    """The questions and what the runs answer."""
    rows = [
        [q.words, f"`{q.a}` / `{q.b}`", words.ratio(one.all, bold=True) + partly(one), probability(one.all.p_corrected),
         words.finding(one.all, q.says_a, q.says_b),
         ", ".join(cell_name(cell) for cell, r in one.each.items() if r is not None and r.holds) or "none"]
        for q, one in found if one.all is not None
    ]  # fmt: skip
    heads = ["question", "arms", "ratio over all cells", "p (Holm)", "answer", "cells where a difference holds"]
    return words.table(heads, rows)


def ideas_table(found: Sequence[Compared]) -> str:
    """Ideas beyond the plan, each against the arm that differs in it alone."""
    asked = {(idea.arm.name, idea.against): idea.question for idea in IDEAS}
    rows = [[asked[one.a, one.b], *row] for one, row in zip(found, pair_rows(found), strict=True)]
    return words.table(["what is changed", "arms", *ratio_heads(list(found[0].each) if found else [])], rows)


def pair_table(found: Sequence[Compared]) -> str:
    """Pairs of arms."""
    return words.table(["arms", *ratio_heads(list(found[0].each))], pair_rows(found))


def pair_rows(found: Sequence[Compared]) -> list[list[str]]:
    """A row for each pair of arms."""
    return [[f"`{one.a}` / `{one.b}`", *ratio_cells(one)] for one in found]


def beside_table(found: Sequence[tuple[Compared, Speed]]) -> str:
    """Arms beyond the plan beside LoRA: error, steps to its final error, time of a step."""
    where = list(found[0][0].each) if found else []
    rows = [
        [f"`{one.a}`", words.ratio(one.all, bold=True) + partly(one), probability(one.all.p_corrected),
         *(words.steps(fast.steps.get(cell)) for cell in where), *time_cells(fast)]
        for one, fast in found if one.all is not None
    ]  # fmt: skip
    heads = ["arm", "error, ratio to LoRA's", "p (Holm)", *(f"steps, {cell_name(cell)}" for cell in where),
             "time of a step", "error within LoRA's time"]  # fmt: skip
    return words.table(heads, rows)


def text_table(numbers: xr.Dataset) -> str:
    """Shares of named attributes that are right, by arm and cell, and the difference to LoRA."""
    where = cells(numbers)
    rows = [ceiling_row(numbers, source, name) for source, name in (("base", "base model"), ("reference", "held-out"))]
    for arm in arms_of(numbers):
        if arm not in FULL.arms:
            continue
        row = [named(arm)]
        for cell in where:
            found = rows_of(numbers, cell, arm)
            share = f"{drawn.right(numbers, found).mean():.3f}" if len(found) else "-"
            compare = arm != REFERENCE and have(numbers, cell, arm, REFERENCE)
            gap = words.difference(drawn.right_difference(numbers, cell, arm, REFERENCE)) if compare else "-"
            row += [share, gap]
        rows.append(row)
    heads = [words_ for cell in where for words_ in (cell_name(cell), "less LoRA's")]
    return words.table(["pictures of", *heads], rows)


def ceiling_row(numbers: xr.Dataset, source: str, name: str) -> list[str]:
    """The same shares for pictures that belong to no arm."""
    row = [name]
    for cell in cells(numbers):
        rows = next((found for arm in arms_of(numbers) if len(found := rows_of(numbers, cell, arm))), None)
        row += ["-" if rows is None else f"{drawn.right(numbers, rows[:1], source).mean():.3f}", ""]
    return row


def spectrum_table(numbers: xr.Dataset) -> str:
    """Energies over those of the held-out pictures by band, and the mean mismatch beside LoRA's."""
    bands = numbers.sizes["band"]
    rows = []
    for cell in cells(numbers):
        there = [arm for arm in arms_of(numbers) if arm in FULL.arms and len(rows_of(numbers, cell, arm)) > 1]
        for arm in there:
            found = [f"{r.value:.2f}" for r in drawn.band_ratios(numbers, cell, arm)]
            own = drawn.mismatch(numbers, rows_of(numbers, cell, arm), None)[0]
            compare = arm != REFERENCE and have(numbers, cell, arm, REFERENCE)
            gap = words.difference(drawn.closer(numbers, cell, arm, REFERENCE)) if compare else "-"
            rows.append([cell_name(cell), named(arm), *found, f"{own:.3f}", gap])
        if there:
            base = drawn.band_ratios(numbers, cell, there[0], "base")
            off = float(np.mean([abs(np.log(r.value)) for r in base]))
            rows.append([cell_name(cell), "base model", *(f"{r.value:.2f}" for r in base), f"{off:.3f}", "-"])
    names = [f"band {k}" + (" (low)" if k == 0 else " (high)" if k == bands - 1 else "") for k in range(bands)]
    return words.table(["cell", "pictures of", *names, "mean abs. log ratio", "less LoRA's"], rows)


def sweep_table(found: Sequence[Swept]) -> str:
    """Errors by rate, a row for each arm and cell."""
    rates = sorted({rate for one in found for rate in one.errors})
    rows = []
    for one in found:
        cells_ = [shown_error(one, rate) for rate in rates]
        rows.append([cell_name(one.cell), f"`{one.arm}`", *cells_])
    return words.table(["cell", "arm", *(f"{rate:g}" for rate in rates)], rows)


def shown_error(one: Swept, rate: float) -> str:
    """One error of a sweep; the best is bold."""
    if rate not in one.errors:
        return ""
    error = one.errors[rate]
    text = "failed" if np.isinf(error) else f"{error:.4f}"
    return f"**{text}**" if rate == one.best else text
