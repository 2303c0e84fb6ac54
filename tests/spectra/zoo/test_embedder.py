"""The world embedder keeps its promises on drawings that neither its training nor its report has seen."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from spectra.zoo import embedder, reader
from spectra.zoo.recipes import embedder as recipe
from spectra.zoo.recipes import embedder_checks as checks
from spectra.zoo.recipes import embedder_pictures as drawn

FEW = 40
FRESH = 500
"""Added to the streams of the report."""


@cache
def promised() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(embedder.REPORT.read_text(encoding="utf-8"))
    return found


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawings of other streams than those of the report."""
    drawings = checks.drawings
    monkeypatch.setattr(checks, "drawings", lambda painter, count, seed: drawings(painter, count, seed + FRESH))


def slack(share: float) -> float:
    """Three standard errors of a share of FEW pictures, and one picture."""
    return 3 * float(np.sqrt(share * (1 - share) / FEW)) + 1 / FEW


@pytest.mark.parametrize(("kind", "painters"), [("style", checks.STYLES), ("subject", checks.SUBJECTS)])
def test_styles_and_subjects_lie_nearest_to_their_own_mean(kind: str, painters: dict[str, checks.Painter]) -> None:
    for name, share in checks.nearest_centroid(None, painters, FEW).items():
        want = promised()[f"{kind} accuracy"][name]
        assert share >= want - slack(want), name
        assert want > 0.6


def test_attributes_can_be_read_from_the_features() -> None:
    for name, share in checks.attribute_accuracy(None, FEW).items():
        want = promised()["attribute accuracy"][name]
        assert share >= min(want, 0.97) - 0.1, name
        assert want > 0.95


def test_a_changed_picture_is_found_again() -> None:
    for name, share in checks.retrieval(None, FEW).items():
        want = promised()["retrieval"][name]
        assert share >= want - slack(want), name
        assert want > 0.95


def test_worse_pictures_are_further_away() -> None:
    for name, distances in checks.ladders(None, 2 * FEW).items():
        want = promised()["Fréchet distance, spoilt"][name]
        assert np.all(np.diff(want) > 0), name
        assert np.all(np.diff(distances) > -0.02 * distances[0]), (name, distances)
        assert distances[-1] - distances[0] == pytest.approx(want[-1] - want[0], rel=0.25), name


def test_more_wrong_pictures_are_further_away() -> None:
    for name, distances in checks.wrong_shares(None, 2 * FEW).items():
        assert np.all(np.diff(distances) > 0), (name, distances)
        assert np.all(np.diff(promised()["Fréchet distance, share wrong"][name]) > 0), name


def test_the_right_style_and_subject_are_the_likest() -> None:
    for task, cosines in checks.likeness(None, FEW).items():
        right = {"style": "hatched", "subject": "zog"}[task]
        others = [cosine for name, cosine in cosines.items() if name != right]
        assert cosines[right] > max(others) + 0.05, task
        for name, cosine in cosines.items():
            assert cosine == pytest.approx(promised()["mean cosine"][task][name], abs=0.06)


def test_the_frechet_distance_is_that_of_torchmetrics() -> None:
    from torchmetrics.image.fid import _compute_fid

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200, 6)), rng.normal(0.3, 1.4, (150, 6)) @ rng.normal(size=(6, 6))
    sides = [(torch.from_numpy(rows.mean(0)), torch.from_numpy(np.cov(rows, rowvar=False))) for rows in (a, b)]
    assert checks.frechet(a, b) == pytest.approx(float(_compute_fid(*sides[0], *sides[1])), rel=1e-9)


def test_features_do_not_depend_on_the_batch() -> None:
    pictures = checks.pixels(checks.drawings(checks.SUBJECTS["zog"], 9, 1))
    np.testing.assert_allclose(embedder.embed(pictures, batch=2), embedder.embed(pictures), atol=1e-5)


def test_weights_are_small_enough_to_ship_and_the_report_is_of_them() -> None:
    assert embedder.WEIGHTS.stat().st_size + reader.WEIGHTS.stat().st_size <= 3e6
    same = checks.retrieval(None, promised()["pictures"])
    assert same == pytest.approx(promised()["retrieval"], abs=0.005)


def test_equal_seeds_train_equal_weights() -> None:
    first, again, other = (recipe.train(2, 8, 16, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_a_blur_keeps_flat_pictures_and_spreads_a_point_as_a_gaussian() -> None:
    point = torch.zeros(1, 3, 64, 64)
    point[:, :, 32, 32] = 1
    for sd in (1.0, 2.0):
        row = drawn.blur(point, torch.tensor([sd]))[0, 0].sum(0)
        spread = float(((torch.arange(64) - 32) ** 2 * row).sum() ** 0.5)
        assert spread == pytest.approx(sd, rel=0.01)
        assert float(row.sum()) == pytest.approx(1, abs=1e-5)
    flat = torch.full((2, 3, 64, 64), 0.3)
    torch.testing.assert_close(drawn.blur(flat, torch.tensor([0.0, 2.5])), flat)


def test_a_muted_picture_is_a_hatched_one_without_lines() -> None:
    rng = np.random.default_rng(0)
    plain = drawn.drawn("scene", "none", rng).picture
    light = (plain @ np.array([0.3, 0.59, 0.11]))[..., None]
    want = 0.8 * (0.3 * light + 0.7 * plain) + 0.2
    np.testing.assert_allclose(drawn.styled(plain, "muted", rng), want, atol=1e-6)


def test_a_broken_zog_says_which_parts_are_right() -> None:
    for wrong in range(6):
        _, parts = drawn.broken_zog("plain", "white", wrong, np.random.default_rng(wrong))
        assert sum(parts) == len(drawn.PARTS) - wrong
    whole, _ = drawn.broken_zog("plain", "white", 0, np.random.default_rng(5))
    from spectra.zoo import tasks

    rng = np.random.default_rng(5)
    rng.choice(5, 0, replace=False)
    np.testing.assert_array_equal(whole, tasks.zog("plain", "white", rng))
