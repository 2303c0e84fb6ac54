from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from benchmarks.quality import drawn, numbers
from benchmarks.quality.control_numbers import gap, reduced, rows_of_model, section
from benchmarks.quality.design import Job
from reports.statistics import crossed
from tests.benchmarks.quality.synthetic import errors, write_final

CELL = ("mini", "style")


@pytest.fixture
def data(tmp_path: Path) -> xr.Dataset:
    """LoRA's pictures have twice the energy of the held-out ones, FeRA's 1.5 times."""
    for arm, energy in (("lora", 2.0), ("fera-prior", 1.5)):
        for seed in range(3):
            write_final(tmp_path, Job(*CELL, arm, 0.008, seed, "final"), errors(seed), energy=energy)
    return numbers.collect(tmp_path)


def test_the_share_of_right_attributes_leaves_out_what_a_caption_does_not_name(data: xr.Dataset) -> None:
    found = drawn.right(data, numbers.rows_of(data, CELL, "lora"))
    assert found.tolist() == [[1.0, 0.5, 1.0, 1.0]] * 3  # one attribute of the second picture is wrong


def test_bands_are_compared_with_the_held_out_pictures(data: xr.Dataset) -> None:
    assert [r.value for r in drawn.band_ratios(data, CELL, "lora")] == pytest.approx([2.0, 2.0])
    assert [r.value for r in drawn.band_ratios(data, CELL, "lora", "base")] == pytest.approx([1.0, 1.0])


def test_pictures_of_one_prompt_are_averaged_before_prompts(data: xr.Dataset) -> None:
    found = drawn.energies(data, numbers.rows_of(data, CELL, "lora"), "reference")
    assert found.shape == (3, 3, 2)  # seeds, prompts a b c, bands
    assert found[0, :, 0].tolist() == [2.0, 5.0, 8.0]  # pictures have 2, 4, 6, 8; the second and third are of b


def test_an_arm_nearer_to_the_held_out_pictures_has_a_smaller_mismatch(data: xr.Dataset) -> None:
    found = drawn.closer(data, CELL, "fera-prior", "lora")
    assert found.value == pytest.approx(np.log(1.5) - np.log(2.0))
    assert drawn.closer(data, CELL, "lora", "fera-prior", band=1).value == pytest.approx(np.log(2.0) - np.log(1.5))


def test_a_difference_has_the_crossed_interval_of_its_table() -> None:
    table = np.random.default_rng(0).normal(0.3, 1, size=(5, 12))
    found = drawn.difference({CELL: float(table.mean())}, {CELL: table})
    error, freedom = crossed(table)
    from scipy.stats import t

    assert (found.low, found.high) == pytest.approx(t.interval(0.95, freedom, table.mean(), error))
    assert found.p == pytest.approx(2 * t.sf(abs(table.mean()) / error, freedom))


def store(arms: dict[str, float]) -> xr.Dataset:
    """An evaluation store of two-dimensional features: an adapter turns the base's by an angle."""
    labels, angles = ["base"], [0.0]
    for arm, angle in arms.items():
        labels += [f"{arm} seed {seed}" for seed in range(3)]
        angles += [angle + 0.01 * seed for seed in range(3)]
    turned = np.array(angles)[:, None] + np.linspace(0, 0.1, 4)[None]
    features = 3 * np.stack([np.cos(turned), np.sin(turned)], -1)
    right = np.ones((len(labels), 4, 2), np.float32)
    right[1:, 0, 0], right[:, 1, 1] = 0, np.nan
    return xr.Dataset(
        {
            "attribute_right": (("adapter", "sample", "attribute"), right),
            "feature_world": (("adapter", "sample", "dim_world"), features),
            "reference_feature_world": (("reference", "dim_world"), np.array([[0.0, 2.0], [5.0, 0.0]])),
        },
        {
            "adapter": labels, "part": ("sample", ["asked", "asked", "unrelated", "unrelated"]),
            "reference_part": ("reference", ["heldout", "train"]),
        },
    )  # fmt: skip


def test_likeness_drift_and_text_of_new_prompts_are_those_of_the_features() -> None:
    found = reduced(store({"lora": 0.5}), "mini")
    asked = 0.5 + np.linspace(0, 0.1, 4)
    np.testing.assert_allclose(found.drawn_similarity[1], np.sin(asked), rtol=1e-6)  # to the held-out (0, 1) alone
    np.testing.assert_allclose(found.drawn_drift[1], 1 - np.cos(0.5), rtol=1e-5)
    np.testing.assert_allclose(found.drawn_drift[0], 0, atol=1e-12)
    assert found.drawn_right[1].values.tolist() == [0.5, 1.0, 1.0, 1.0]


def test_arms_are_compared_with_lora_by_training_seed() -> None:
    found = reduced(store({"lora": 0.5, "fera-prior": 0.7}), "mini")
    drift = gap(found, "mini", "fera-prior", "drift")
    assert drift is not None
    expected = np.mean([np.cos(0.5 + s) - np.cos(0.7 + s) for s in (0, 0.01, 0.02)])
    assert drift.value == pytest.approx(expected, rel=1e-4)
    assert [row[1] for row in rows_of_model(found, "mini")] == [
        "base model", "LoRA (`lora`)", "FeRA, start from the prior (`fera-prior`)"
    ]  # fmt: skip
    assert "| mini |" in section(found)


def test_where_nothing_was_drawn_the_page_says_nothing_of_it() -> None:
    assert section(xr.Dataset()) == ""
