"""The questions that the experiment was made for, each answered in a line or two from the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import xarray as xr

from benchmarks.quality import control_numbers, drawn, words
from benchmarks.quality.contrasts import have
from benchmarks.quality.control import TASK
from benchmarks.quality.drawn import Difference
from benchmarks.quality.numbers import Cell, cells
from benchmarks.quality.summary import GOAL, MAIN, QUESTIONS, REFERENCE, Compared, Question, Speed
from benchmarks.quality.verdict import partly
from benchmarks.quality.words import cell_name, listed, probability
from spectra.analysis.statistics import holm

ASKED = 5
"""Of the questions about two arms, those that were asked from the start; the others are about numbers of parts."""
NOT_YET = "not answered yet: the runs are missing."


def in_short(data: xr.Dataset, asked: Sequence[tuple[Question, Compared]], fast: Sequence[Speed]) -> str:
    """A list in markdown."""
    found = {question.words: one for question, one in asked}
    lines = [(q.words, of_arms(q, found.get(q.words))) for q in QUESTIONS[:ASKED]]
    lines += [
        (f"In how many of LoRA's steps is its final error reached (the goal: {GOAL})?", of_steps(fast)),
        ("Does the generated spectrum match the held-out pictures better than LoRA's, and in which bands?",
         of_spectrum(data)),
        ("Is text control kept on the subject task while the subject is kept?", of_text(data)),
    ]  # fmt: skip
    return "\n".join(f"- **{question}** {answer[0].upper()}{answer[1:]}" for question, answer in lines)


def of_arms(question: Question, one: Compared | None) -> str:
    """The answer of a pair of arms."""
    if one is None or one.all is None:
        return NOT_YET
    r = one.all
    said = words.finding(r, question.says_a, question.says_b)
    return f"{said} (`{one.a}` over `{one.b}`: {words.ratio(r)}{partly(one)}, p = {probability(r.p_corrected)})."


def of_steps(fast: Sequence[Speed]) -> str:
    """The main arm's share of steps in each cell."""
    main = next((one for one in fast if one.arm == MAIN), None)
    if main is None or not main.steps:
        return NOT_YET
    shares = [f"{words.steps(steps)} on {cell_name(cell)}" for cell, steps in main.steps.items()]
    met = [cell_name(cell) for cell in main.met]
    goal = f"the goal is met on {listed(met)}" if met else "the goal is met nowhere"
    return f"{listed(shares)}: {goal}, for FeRA with a prior."


def there(data: xr.Dataset) -> list[Cell]:
    """Cells that have the main arm and LoRA."""
    return [cell for cell in cells(data) if have(data, cell, MAIN, REFERENCE)]


def of_spectrum(data: xr.Dataset) -> str:
    """Mismatch of band energies of the main arm less LoRA's, over cells, and in which bands it differs."""
    where = there(data)
    if not where:
        return NOT_YET
    whole = drawn.closer_over(data, where, MAIN, REFERENCE)
    bands = [drawn.closer_over(data, where, MAIN, REFERENCE, band) for band in range(data.sizes["band"])]
    adjusted = holm(xr.DataArray([one.p for one in bands]).values.astype(float))
    pairs = zip(bands, adjusted, strict=True)
    named = [f"band {i} ({words.difference(one)})" for i, (one, p) in enumerate(pairs) if p < 0.05]
    return (
        f"{side(whole, 'closer, taken alone', 'further off, taken alone')}: the mean |log ratio| of band energies of "
        f"FeRA with a prior, less LoRA's, is {words.difference(whole)}, mean over {many(where, 'cell')} "
        f"(p = {probability(whole.p)}, not corrected); after correction over the bands it differs in "
        f"{listed(named) if named else 'none of them'}."
    )


def many(where: Sequence[Cell], what: str) -> str:
    """A number and its noun."""
    return f"{len(where)} {what}{'s' * (len(where) > 1)}"


def side(found: Difference, below: str, above: str) -> str:
    """Which side of 0 an interval lies on."""
    return (below if found.value < 0 else above) if found.differs else "no difference found"


def of_text(data: xr.Dataset) -> str:
    """Right attributes on the subject task beside the base's and LoRA's, and likeness where it was measured."""
    where = [cell for cell in there(data) if cell[1] == TASK]
    if not where:
        return NOT_YET
    lora, base = (drawn.right_over(data, where, MAIN, other) for other in (REFERENCE, "base"))
    return (
        f"share of right attributes of FeRA with a prior, on held-out captions, mean over {many(where, 'model')}: less "
        f"LoRA's {words.difference(lora)}, less the base's {words.difference(base)}. {likeness(data)}"
    )


def likeness(data: xr.Dataset) -> str:
    """The second stage in a sentence: whether the subject is kept on new backgrounds."""
    if "drawing_model" not in data:
        return "Whether the subject is kept on new prompts was not measured yet (`benchmarks.quality.control`)."
    said = []
    for model in dict.fromkeys(data.drawing_model.values.tolist()):
        gaps = [control_numbers.gap(data, model, MAIN, measure) for measure in ("similarity", "right")]
        if gaps[0] is not None and gaps[1] is not None and math.isfinite(gaps[0].value):
            said.append(f"{words.difference(gaps[0])} and {words.difference(gaps[1])} ({model})")
    if not said:
        return "On new prompts too few final runs of FeRA with a prior and of LoRA have drawn."
    return f"On new backgrounds, likeness to the subject and right attributes, less LoRA's: {listed(said)}."
