"""A page with a section of every kind, made of numbers and pictures of this file alone; any text can be swapped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reports import panels, pictures
from reports.drawing import draw
from reports.sections import Key, Mark, Said, Section, Table

ARMS = ("LoRA", "FeRA with prior", "DoRA")
NOISE = np.geomspace(14, 0.08, 6)
STEPS = (0, 5, 10, 20, 30)
PROMPTS = ("a small black circle", "a large white star")
ERRORS = ("0.25", "0.24", "1 200")
CHANGES = ("reference", "−4.7 % (−6.0 % to −1.0 %)", "× 4.2")

Words = Callable[[str], str]


def same(text: str) -> str:
    """Text as it is."""
    return text


def mark(value: float, width: float = 0.03, none: float = 1.0) -> Mark:
    """A mark that is hollow where its interval includes `none`."""
    return Mark(value, value - width, value + width, abs(value - none) > width)


def drawing(seed: int, size: int = 64) -> np.ndarray:
    """A picture (size, size, 3) of coloured blocks."""
    blocks = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return blocks.repeat(size // 8, axis=0).repeat(size // 8, axis=1)


def levels(words: Words) -> Section:
    """Small multiples, a forest, and a folded table."""
    cells = [[mark(1 + 0.02 * (k - 2) * (b - 1)) for b in range(4)] for k in range(len(NOISE))]
    limits = panels.limits_of_marks([one for row in cells for one in row])
    named = [(words(arm), i, mark(0.5 + 0.1 * i, none=0.5)) for i, arm in enumerate(ARMS)]
    across = [(label, i, [mark(1 + 0.01 * i)] * len(NOISE)) for label, i, _ in named]
    found = (
        panels.level_bands("bands", words("FeRA against LoRA"), NOISE, cells, 1, [limits] * 4),
        panels.over_levels_marks("over", words("All arms"), NOISE, across, words("change of error"), 1.0),
        panels.forest("forest", words("Distance"), [(words("base model"), -1, mark(0.9)), *named], axis=words("unit")),
        panels.forest("glance", words("Error"), [
            (f"{label} against {words('LoRA')}", i, mark(0.9 + 0.2 * i)) for label, i, _ in named
        ], none=1.0, axis=words("change of error"), percent=True),
        panels.tradeoff("tradeoff", words("Gain and drift"), words("drift"), words("gain"), [
            (label, i, mark(0.1 * i), one) for label, i, one in named
        ]),
    )  # fmt: skip
    keys = (panels.style_key(words("base model"), -1), *(panels.style_key(words(a), i) for i, a in enumerate(ARMS)))
    return Section(
        "levels", words("Noise levels"), (Said(words("The error is lower"), words("95 % interval")),),
        (words("Measured on the same samples."),), keys, found, (), extra={
            "folded": [arms_table(words)], "footnotes": [words("small print")],
        },
    )  # fmt: skip


def arms_table(words: Words) -> Table:
    """One row per arm."""
    rows = zip(ARMS, ERRORS, CHANGES, strict=True)
    return Table(
        words("Summary"), (words("arm"), words("error"), words("against LoRA")),
        tuple((words(arm), words(error), words(change)) for arm, error, change in rows),
    )  # fmt: skip


def others(words: Words) -> list[Section]:
    """Experts, spectra and memorisation."""
    rng = np.random.default_rng(0)
    radius, lines = np.linspace(0.02, 0.7, 8), [(words("base model"), -1, np.linspace(1, 0.4, 8))]
    lines += [(words(arm), i, np.linspace(1, 0.8 + 0.1 * i, 8)) for i, arm in enumerate(ARMS)]
    bands = [(label, i, [mark(float(v)) for v in ratio[:4]]) for label, i, ratio in lines]
    experts = panels.specialisation(
        "experts", words("Experts"), NOISE, rng.random((6, 3, 4)), rng.normal(size=(6, 3, 4))
    )
    near = panels.nearest("near", words("Nearest"), [(label, i, rng.random(9)) for label, i, _ in lines], 0.2)
    tasks = [(words(task), [(words(arm), i, mark(0.95)) for i, arm in enumerate(ARMS)]) for task in ("one", "two")]
    twins = pictures.neighbours(
        [(words("LoRA"), words(p), drawing(1), drawing(2), words("a cat"), 0.1) for p in PROMPTS]
    )
    return [
        Section("experts-section", words("Experts"), keys=(Key(words("expert 0"), "var(--expert-0)", filled=True),),
                panels=(experts, panels.radial_spectra("radial", words("Radial"), radius, lines),
                        panels.over_bands("ratios", words("Bands"), bands, words("ratio")))),
        Section("memory", words("Memorisation"), panels=(near,), kind="neighbours", extra={"neighbours": twins}),
        Section("tasks", words("Tasks"), panels=(panels.overview("overview", words("All tasks"), tasks),)),
        Section("task", words("One task"), kind="task", extra={
            "sections": [Section("part", words("Part"), tables=(arms_table(words),))],
        }),
    ]  # fmt: skip


def shown(words: Words, size: int) -> list[Section]:
    """Pictures and predictions."""
    labels = ["held-out", "base model", *ARMS]
    columns = [
        (words(label), np.stack([drawing(10 * j + i, size) for i in range(2)])) for j, label in enumerate(labels)
    ]
    rows = pictures.rows(columns, [words(prompt) for prompt in PROMPTS], [0, 1])
    rng = np.random.default_rng(1)
    sources = [
        (
            words(label),
            style,
            np.stack([drawing(100 * style + 7 * k, size) for k in range(1, 6)]),
            rng.random((5, 4)) + 0.5,
        )
        for label, style in (("base model", 3), ("FeRA with prior", 1))
    ]
    scrubber = pictures.scrubber("scrub", sources, STEPS, NOISE[:5].tolist(), words(PROMPTS[0]), 0)
    return [
        Section("steps", words("Predictions"), kind="scrubber", extra={"scrubber": scrubber}),
        Section("pictures", words("Pictures"), kind="pictures", extra={"rows": rows}, tables=(arms_table(words),)),
    ]


def record(words: Words) -> list[Section]:
    """Provenance, how to reproduce, method."""
    facts, configs = [(words("Model"), words("mini"))], [(words("LoRA"), words('{"lr": 0.1}'))]
    return [
        Section("provenance", words("Provenance"), kind="provenance", extra={"facts": facts, "configs": configs}),
        Section("again", words("Again"), kind="reproduce", extra={"steps": [(words("Train"), words("adapt train"))]}),
        Section("method", words("Method"), kind="method", extra={"terms": [(words("Arm"), words("Runs alike."))]}),
    ]


def context(words: Words = same, size: int = 64) -> dict[str, Any]:
    """What the template draws, with every text passed through `words` and pictures of `size` pixels."""
    verdict = Section(
        "verdict", words("Verdict"), tables=(arms_table(words),), kind="verdict", nav=words("First"), extra={
            "top": [Said(words("FeRA helped: 1.43 % lower"), words("95 % interval"))],
            "warnings": [words("Few seeds.")], "rest": [Said(words("More"))],
        },
    )  # fmt: skip
    sections = [verdict, levels(words), *others(words), *shown(words, size), *record(words)]
    return {
        "title": words("mini on style"),
        "kind": words("Adapter report"),
        "meta": [words("9 runs")],
        "sections": sections,
    }


def write(path: Path, words: Words = same, size: int = 64) -> Path:
    """The page as a file."""
    path.write_text(draw(context(words, size)), encoding="utf-8", newline="\n")
    return path
