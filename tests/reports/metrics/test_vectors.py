"""Similarity, diversity and neighbours by the cosine, against scipy's distances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from reports.metrics import vectors
from reports.metrics.vectors import cosine, diversity, nearest, similarity
from spectra.errors import UserError


def features(n: int, seed: int = 0, dims: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dims))


def test_cosines_are_scipys() -> None:
    x, y = features(6), features(5, 1)
    assert cosine(x[:5], y) == pytest.approx(1 - np.diag(cdist(x[:5], y, "cosine")))
    assert similarity(x, y) == pytest.approx(1 - cdist(x, y, "cosine").mean(1))
    assert similarity(np.stack([x, 7 * x]), y)[1] == pytest.approx(similarity(x, y))


def test_the_nearest_is_the_smallest_of_all_distances_in_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = features(20), features(9, 1)
    table = cdist(x, y, "cosine")
    whole = nearest(x, y)
    monkeypatch.setattr(vectors, "BLOCK", 30)
    parts = nearest(x, y)
    assert whole.place.tolist() == parts.place.tolist() == table.argmin(1).tolist()
    assert whole.distance == pytest.approx(table.min(1))


def test_diversity_is_the_mean_over_pairs_of_a_prompt() -> None:
    x, prompt = features(7), ["b", "a", "b", "a", "a", "b", "c"]
    found = diversity(x, prompt)
    assert found[0] == pytest.approx(pdist(x[[0, 2, 5]], "cosine").mean())
    assert found[1] == pytest.approx(pdist(x[[1, 3, 4]], "cosine").mean())
    assert np.isnan(found[2])


def test_pictures_that_are_all_the_same_have_no_diversity() -> None:
    assert diversity(np.repeat(features(1), 5, axis=0), ["a"] * 5) == pytest.approx([0], abs=1e-12)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_features_without_a_direction_are_refused(bad: float) -> None:
    x = features(3)
    x[1] = bad
    with pytest.raises(UserError, match="no direction"):
        cosine(x, features(3))
