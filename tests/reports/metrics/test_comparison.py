"""Comparisons find what is there, at the rate that was promised, and say what would have shown."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from scipy.stats import ttest_rel

from reports.metrics import Comparison, Measured, compare, measured
from reports.metrics.quantity import Quantity, averaged
from spectra.analysis.power import detectable
from spectra.analysis.statistics import Array, false_discovery, holm, t_quantile
from spectra.errors import UserError
from tests.reports.metrics.fixtures import evaluation


@cache
def usual() -> Measured:
    """Do not change it."""
    return measured(evaluation(prompts=8, seeds=2, own_captions=True))


@cache
def all_pairs() -> tuple[Comparison, ...]:
    return tuple(compare(usual()))


def one(name: str, a: str, b: str, found: tuple[Comparison, ...] | None = None) -> Comparison:
    return next(c for c in found or all_pairs() if (c.name, c.a, c.b) == (name, a, b))


def test_known_effects_are_found_and_favour_the_better_adapter() -> None:
    error = one("validation_error", "fera-0", "base")
    assert error.kind == "ratio"
    assert error.difference.value == pytest.approx(0.7, abs=0.01)
    assert error.difference.low < 0.7 < error.difference.high
    assert error.holds
    assert error.favours == "fera-0"
    assert error.words.startswith("fera-0 is lower than base in validation error by ")
    assert "which is better" in error.words
    assert one("validation_error", "dora-2", "lora-1").favours == "lora-1"
    band = one("band_distance", "lora-1", "base")
    assert band.favours == "lora-1"
    assert band.difference.high < 0


def test_where_there_is_no_effect_what_would_have_shown_is_said() -> None:
    error = one("validation_error", "lora-1", "fera-0")
    assert not error.holds
    assert error.favours is None
    spread = np.log(error.difference.high / error.difference.value) / t_quantile(24, 0.95) * np.sqrt(24)
    level = 1 - 0.05 / len(all_pairs())
    assert error.resolution == pytest.approx(np.expm1(detectable(spread, 24, level)))
    assert error.difference.includes(1)
    assert 0 < error.resolution < 0.02
    assert error.words.startswith("no difference found; with n = 24 held-out pictures differences above ")
    assert error.words.endswith(" % would show")


def test_no_words_ever_say_that_adapters_are_equal() -> None:
    for found in all_pairs():
        assert not any(word in found.words.lower() for word in ("equal", "identical", "equivalent", "significant"))
        assert found.words.startswith("no difference found") != found.holds


def test_p_is_that_of_the_paired_test_over_prompts_and_corrected_over_all_comparisons() -> None:
    data = evaluation(prompts=8, seeds=2, own_captions=True)
    rows = (data.part == "asked").values
    x = [np.asarray(data.feature_world.values[k][rows], float) for k in (0, 2)]
    words = np.asarray(data.text_world.values[rows], float)
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (*x, words)]
    cosines = [(v * unit[2]).sum(1).reshape(-1, 2).mean(1) for v in unit[:2]]
    assert one("text_world", "lora-1", "base").p == pytest.approx(ttest_rel(*cosines).pvalue)
    p = np.array([c.p for c in all_pairs()])
    assert [c.p_corrected for c in all_pairs()] == pytest.approx(holm(p).tolist())
    other = compare(usual(), correction="benjamini-hochberg")
    assert [c.p_corrected for c in other] == pytest.approx(false_discovery(p).tolist())
    assert [c.p_corrected for c in compare(usual(), correction="none")] == pytest.approx(p.tolist())


def test_a_difference_that_only_the_correction_takes_away_is_said_as_such() -> None:
    alone = {(c.name, c.a, c.b): c.holds for c in compare(usual(), correction="none")}
    lost = [c for c in all_pairs() if alone[c.name, c.a, c.b] and not c.holds]
    assert lost
    assert all("by itself" in c.words and "after Holm's correction" in c.words for c in lost)


def test_fewer_comparisons_cost_less() -> None:
    few = compare(usual(), [("lora-1", "fera-0")], names=["validation_error"])
    assert [(c.name, c.a, c.b) for c in few] == [("validation_error", "lora-1", "fera-0")]
    assert few[0].p_corrected == few[0].p
    assert "Holm" not in few[0].words
    assert few[0].resolution < one("validation_error", "lora-1", "fera-0").resolution


def test_turning_a_pair_turns_its_difference() -> None:
    for name in ("text_world", "validation_error", "frechet_world"):
        back = compare(usual(), [("base", "fera-0")], names=[name])[0]
        there = compare(usual(), [("fera-0", "base")], names=[name])[0]
        turned = [1 / v if there.kind == "ratio" else -v for v in (there.difference.value, there.difference.high)]
        assert [back.difference.value, back.difference.low] == pytest.approx(turned)
        assert back.p == pytest.approx(there.p)
        assert back.favours == there.favours


def test_the_base_has_no_drift_to_compare() -> None:
    drifts = [c for c in all_pairs() if c.name.startswith("drift")]
    assert drifts
    assert not any("base" in (c.a, c.b) for c in drifts)


def test_an_adapter_and_its_copy_show_no_difference_and_no_false_precision() -> None:
    data = evaluation(1, 5)
    copy = data.isel(adapter=[0, 1, 1]).assign_coords(adapter=["base", "one", "again"])
    found = tuple(compare(copy, [("again", "one")]))
    assert not any(c.holds for c in found)
    assert "every number is the same for both" in one("validation_error", "again", "one", found).words
    right = one("attribute_right", "again", "one", found)
    assert right.difference.low < 0 < right.difference.high
    assert "would show" in right.words


def test_one_prompt_and_seed_has_no_answer() -> None:
    found = tuple(compare(evaluation(1, 1, seeds=1), names=["similarity_world"]))
    assert np.isnan(found[0].p)
    assert not found[0].holds
    assert found[0].words.startswith("no answer")
    json.dumps(found[0].to_dict(), allow_nan=False)


def test_questions_about_what_is_not_there_are_refused() -> None:
    for wrong, words in (
        ({"pairs": [("fera-0", "nobody")]}, "no adapter 'nobody'"),
        ({"names": ["fid"]}, "no measure 'fid'"),
        ({"correction": "none at all"}, "correction is one of"),
    ):
        with pytest.raises(UserError, match=words):
            compare(usual(), **wrong)


def null(rng: np.random.Generator, cells: int, prompts: int = 8) -> Measured:
    """Measures of two adapters that differ by noise alone; cells are correlated, as cells are."""
    noise = rng.normal(size=(2, prompts, cells)) + rng.normal(size=(2, prompts, 1))
    return Measured([_mean(f"m{k}", noise[..., k]) for k in range(cells)], [])


def _mean(name: str, values: Array) -> Quantity:
    empty, labels = np.zeros((2, 1)), tuple(range(values.shape[1]))
    return averaged(Quantity(name, name, "lower", name, "prompts", ("a", "b"), empty[:, 0], empty, labels), values)


@pytest.mark.parametrize("studies", [150, pytest.param(2000, marks=pytest.mark.slow)])
def test_under_no_effect_a_false_claim_among_all_is_as_rare_as_promised(studies: int) -> None:
    rng = np.random.default_rng(0)
    families = [null(rng, 12) for _ in range(studies)]
    wrong = np.mean([any(c.holds for c in compare(family)) for family in families])
    naive = np.mean([any(c.holds for c in compare(family, correction="none")) for family in families[:150]])
    error = np.sqrt(0.05 * 0.95 / studies)
    assert wrong <= 0.05 + 3 * error
    assert naive > 0.2


@pytest.mark.parametrize("studies", [300, pytest.param(3000, marks=pytest.mark.slow)])
def test_a_difference_of_the_stated_resolution_is_found_in_four_of_five_studies(studies: int) -> None:
    rng, size, found = np.random.default_rng(1), detectable(np.sqrt(2.0), 16), 0
    for _ in range(studies):
        values = rng.normal(size=(2, 16))
        values[0] += size
        found += compare(Measured([_mean("m", values)], []))[0].holds
    assert found / studies == pytest.approx(0.8, abs=3 * np.sqrt(0.16 / studies))
