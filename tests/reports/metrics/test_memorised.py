"""Pictures that are closer to training pictures than chance explains, with the pairs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from reports.metrics import neighbours, summarise
from reports.metrics.memorised import CLOSE, threshold
from spectra.errors import UserError
from tests.reports.metrics.fixtures import evaluation

DATA = evaluation(2, 8, 2, heldout=40, train=20, copies=6)


def shares() -> dict[str, float]:
    return {one.adapter: one.value.value for one in summarise(DATA) if one.name == "memorised_world"}


def test_copies_of_training_pictures_are_seen_and_paired_with_what_they_copy() -> None:
    assert shares()["lora-1"] - shares()["fera-0"] >= 5 / 16
    pairs = neighbours(DATA, "world", "lora-1")
    copied = {(pair.sample, pair.reference) for pair in pairs[:6]}
    assert copied == {(i, 40 + i) for i in range(6)}
    assert all(pair.close and pair.distance < 1e-6 for pair in pairs[:6])
    assert [pair.distance for pair in pairs] == sorted(pair.distance for pair in pairs)
    assert len(pairs) == 16


def test_the_share_is_that_of_the_pairs_called_close_and_distances_are_scipys() -> None:
    for adapter, row in (("base", 0), ("lora-1", 2)):
        pairs = neighbours(DATA, "world", adapter)
        assert shares()[adapter] == pytest.approx(np.mean([pair.close for pair in pairs]))
        table = cdist(DATA.feature_world.values[row], DATA.reference_feature_world.values[40:], "cosine")
        for pair in pairs:
            assert pair.distance == pytest.approx(table[pair.sample].min(), abs=1e-6)
            assert pair.reference - 40 == table[pair.sample].argmin()


def test_the_threshold_is_what_held_out_pictures_pass_one_time_in_twenty() -> None:
    rng = np.random.default_rng(0)
    train, held = rng.normal(size=(50, 6)), rng.normal(size=(200, 6))
    limit = threshold(held, train)
    assert (cdist(held, train, "cosine").min(1) <= limit).mean() == pytest.approx(CLOSE, abs=0.005)
    fresh = cdist(rng.normal(size=(4000, 6)), train, "cosine").min(1)
    assert (fresh <= limit).mean() == pytest.approx(CLOSE, abs=0.04)


def test_few_held_out_pictures_are_a_note() -> None:
    few = [one for one in summarise(evaluation(1, 4, heldout=10)) if one.name == "memorised_world"]
    assert all("10 held-out pictures" in one.note for one in few)
    many = [one for one in summarise(DATA) if one.name == "memorised_world"]
    assert not any(one.note for one in many)


@pytest.mark.parametrize(
    ("network", "adapter", "words"), [("clip", "base", "no network"), ("world", "nobody", "no adapter")]
)
def test_neighbours_of_nobody_are_refused(network: str, adapter: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        neighbours(DATA, network, adapter)


def test_without_training_pictures_there_are_no_neighbours() -> None:
    with pytest.raises(UserError, match="no training pictures"):
        neighbours(evaluation(1, 3, train=0), "world", "base")
