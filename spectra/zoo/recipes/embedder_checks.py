"""Checks of the world embedder on held-out drawings: are classes apart, pictures found again, distances orderly?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spectra.zoo import tasks
from spectra.zoo.embedder import Embedder, embed
from spectra.zoo.reader import ATTRIBUTES
from spectra.zoo.recipes import embedder_pictures as drawn
from spectra.zoo.recipes.embedder_pictures import Drawing

Features = NDArray[np.floating[Any]]
Pixels = NDArray[np.uint8]
Painter = Callable[[np.random.Generator], Drawing]

STYLES: dict[str, Painter] = {s: lambda rng, s=s: drawn.drawn("scene", s, rng) for s in drawn.STYLES}  # type: ignore[misc]
SUBJECTS: dict[str, Painter] = {
    "zog": lambda rng: drawn.drawn("zog", "none", rng),
    "one part wrong": lambda rng: drawn.drawn("broken", "none", rng, wrong=1),
    "three parts wrong": lambda rng: drawn.drawn("broken", "none", rng, wrong=3),
    "crowd": lambda rng: drawn.drawn("crowd", "none", rng),
    "scene": lambda rng: drawn.drawn("scene", "none", rng),
}
LADDERS: dict[str, tuple[float, ...]] = {
    "blur": (0.0, 0.5, 1.0, 1.5, 2.5),
    "noise": (0.0, 0.04, 0.08, 0.16, 0.32),
    "ghost": (0.0, 0.1, 0.2, 0.35, 0.5),
}
"""Strengths in the units of `drawn.WORST`."""
SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Of wrong pictures: not hatched in the style task, one part wrong in the subject task."""


def drawings(painter: Painter, count: int, seed: int) -> list[Drawing]:
    """`count` drawings of a stream that training never sees."""
    return [painter(np.random.default_rng([90_000 + seed, index])) for index in range(count)]


def pixels(found: Sequence[Drawing]) -> Pixels:
    """Their pictures (n, 64, 64, 3) uint8."""
    return drawn.to_pixels([one.picture for one in found])


def as_pixels(pictures: torch.Tensor) -> Pixels:
    """Pictures (n, 3, 64, 64) in -1..1 -> (n, 64, 64, 3) uint8, rounded and clipped."""
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def unit(features: Features) -> Features:
    """Rows of length one."""
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True))


def frechet(a: Features, b: Features) -> float:
    """Squared Fréchet distance of the Gaussians of two sets of rows (Dowson and Landau 1982)."""
    cov_a, cov_b = (np.cov(rows.astype(np.float64), rowvar=False) for rows in (a, b))
    roots = np.sqrt(np.clip(np.linalg.eigvals(cov_a @ cov_b).real, 0, None))
    apart = ((a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)) ** 2).sum()
    return float(apart + np.trace(cov_a) + np.trace(cov_b) - 2 * roots.sum())


def nearest_centroid(embedder: Embedder | None, painters: dict[str, Painter], count: int) -> dict[str, float]:
    """Share of held-out pictures per class whose nearest class mean (of `count` others each) is their own."""
    means = np.stack([embed(pixels(drawings(p, count, 1)), embedder=embedder).mean(0) for p in painters.values()])
    right = {}
    for index, (name, painter) in enumerate(painters.items()):
        features = embed(pixels(drawings(painter, count, 2)), embedder=embedder)
        distances = ((features[:, None] - means[None]) ** 2).sum(-1)
        right[name] = float((distances.argmin(1) == index).mean())
    return right


def attribute_accuracy(embedder: Embedder | None, count: int) -> dict[str, float]:
    """Share of right attributes, read by least squares on one-hot labels of `8 * count` other pictures."""
    learnt, asked = (drawings(SUBJECTS["scene"], n, seed) for n, seed in ((8 * count, 3), (2 * count, 4)))
    x, y = (np.pad(embed(pixels(d), embedder=embedder), ((0, 0), (0, 1)), constant_values=1) for d in (learnt, asked))
    right = {}
    for index, (name, values) in enumerate(ATTRIBUTES.items()):
        labels = np.eye(len(values))[[one.attributes[index] for one in learnt]]
        weights = np.linalg.lstsq(x, labels, rcond=None)[0]
        right[name] = float(((y @ weights).argmax(1) == [one.attributes[index] for one in asked]).mean())
    return right


def retrieval(embedder: Embedder | None, count: int) -> dict[str, float]:
    """Share of pictures that are found among all by a changed copy, by cosine."""
    pictures = drawn.as_input(pixels([drawn.example(90_005, index) for index in range(count)]))
    rng = torch.Generator().manual_seed(5)
    copies = {
        "moved and tinted": drawn.view(pictures, rng),
        "blur 1 px": drawn.blur(pictures, torch.full((count,), 1.0)),
        "noise 0.1": pictures + 0.1 * torch.randn(pictures.shape, generator=rng),
    }
    known = unit(embed(as_pixels(pictures), embedder=embedder))
    found = {name: unit(embed(as_pixels(copy), embedder=embedder)) for name, copy in copies.items()}
    return {name: float(((rows @ known.T).argmax(1) == np.arange(count)).mean()) for name, rows in found.items()}


def ladders(embedder: Embedder | None, count: int) -> dict[str, list[float]]:
    """Fréchet distance from `count` style and subject pictures to `count` others, spoilt more and more."""
    painters: tuple[Painter, Painter] = (STYLES["hatched"], SUBJECTS["zog"])
    reference, others = (np.concatenate([pixels(drawings(p, count // 2, s)) for p in painters]) for s in (6, 7))
    known, clean = embed(reference, embedder=embedder), drawn.as_input(others)[torch.randperm(
        len(others), generator=torch.Generator().manual_seed(6))]  # fmt: skip
    found: dict[str, list[float]] = {}
    for index, (name, strengths) in enumerate(LADDERS.items()):
        found[name] = []
        for strength in strengths:
            levels = torch.zeros(len(clean), len(drawn.WORST))
            levels[:, index] = strength / drawn.WORST[name]
            spoilt = drawn.spoil(clean, levels, torch.Generator().manual_seed(7))
            found[name].append(frechet(known, embed(as_pixels(spoilt), embedder=embedder)))
    return found


def wrong_shares(embedder: Embedder | None, count: int) -> dict[str, list[float]]:
    """Fréchet distance from a task's pictures to others of which more and more are wrong."""
    pairs = {"style": (STYLES["hatched"], STYLES["none"]), "subject": (SUBJECTS["zog"], SUBJECTS["one part wrong"])}
    found = {}
    for name, (right, wrong) in pairs.items():
        known, good, bad = (
            embed(pixels(drawings(p, count, seed)), embedder=embedder)
            for p, seed in ((right, 8), (right, 9), (wrong, 9))
        )
        mixed = [np.concatenate([bad[: round(share * count)], good[round(share * count) :]]) for share in SHARES]
        found[name] = [frechet(known, rows) for rows in mixed]
    return found


def likeness(embedder: Embedder | None, count: int) -> dict[str, dict[str, float]]:
    """Mean cosine of other pictures to `count` held-out pictures of each task, as for image similarity."""
    tasks_of = {"style": (STYLES, tasks.style_picture), "subject": (SUBJECTS, tasks.subject_picture)}
    found = {}
    for task, (painters, painter) in tasks_of.items():
        shown = [painter(np.random.default_rng([90_010, index]))[1] for index in range(count)]
        known = unit(embed(drawn.to_pixels(shown), embedder=embedder))
        rows = {name: unit(embed(pixels(drawings(p, count, 11)), embedder=embedder)) for name, p in painters.items()}
        found[task] = {name: float((features @ known.T).mean()) for name, features in rows.items()}
    return found


def checks(embedder: Embedder | None = None, count: int = 256) -> dict[str, Any]:
    """All checks with `count` pictures per class or side; the shipped embedder unless another is given."""
    found = {
        "pictures": count,
        "style accuracy": nearest_centroid(embedder, STYLES, count),
        "subject accuracy": nearest_centroid(embedder, SUBJECTS, count),
        "attribute accuracy": attribute_accuracy(embedder, count),
        "retrieval": retrieval(embedder, count),
        "mean cosine": likeness(embedder, count),
        "strengths": {**LADDERS, "wrong": SHARES},
        "Fréchet distance, spoilt": ladders(embedder, count),
        "Fréchet distance, share wrong": wrong_shares(embedder, count),
    }
    return _rounded(found)  # type: ignore[no-any-return]


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value
