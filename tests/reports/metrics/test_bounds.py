"""No interval reaches where its quantity cannot be: distances stay above 0, shares within 0 and 1."""

from __future__ import annotations

import numpy as np
import pytest

from reports.metrics import compare, summarise
from reports.metrics.quantity import Quantity, averaged
from tests.reports.metrics.fixtures import evaluation

NEVER_NEGATIVE = ("validation_error", "band_distance", "spectrum_distance", "frechet", "diversity", "drift_world",
                  "drift_pixels", "memorised", "attribute_")  # fmt: skip


@pytest.fixture(scope="module")
def few() -> object:
    """Two prompts and two held-out pictures: t intervals of two are very wide."""
    return evaluation(prompts=3, seeds=2, unrelated=2, heldout=2, train=4)


def test_what_cannot_be_negative_has_no_interval_below_zero(few: object) -> None:
    measures = [m for m in summarise(few) if m.name.startswith(NEVER_NEGATIVE)]  # type: ignore[arg-type]
    assert {m.name for m in measures} >= {"validation_error", "drift_world", "drift_pixels", "band_distance"}
    assert all(m.value.low >= 0 for m in measures)
    error = next(m for m in measures if m.name == "validation_error")
    assert error.value.method.endswith("cut off at 0")


def test_shares_stay_within_zero_and_one_and_what_is_lost_within_minus_one_and_one(few: object) -> None:
    measures = list(summarise(few))  # type: ignore[arg-type]
    shares = [m.value for m in measures if m.name.startswith(("attribute_", "memorised"))]
    assert shares
    assert all(0 <= share.low <= share.value <= share.high <= 1 for share in shares)
    assert all("kept between 0 and 1" in share.method for share in shares)
    lost = [m.value for m in measures if m.name == "drift_attribute_right"]
    assert lost
    assert all(-1 <= one.low <= one.value <= one.high <= 1 for one in lost)


def test_a_difference_of_shares_stays_within_minus_one_and_one_and_keeps_its_p(few: object) -> None:
    found = [c for c in compare(few) if c.name.startswith("attribute_")]  # type: ignore[arg-type]
    assert found
    assert all(-1 <= c.difference.low <= c.difference.high <= 1 for c in found)


def test_a_wide_interval_is_cut_off_and_says_so() -> None:
    values = np.array([[0.1, 2.0, 0.1]])
    plain = Quantity("x", "x", "lower", "x", "prompts", ("a",), values, values, ("p", "q", "r"), bounds=(0.0, np.inf))
    found = averaged(plain, values).estimate("a", 0.95)
    assert found.low == 0.0
    assert found.method == "Student t, cut off at 0"
