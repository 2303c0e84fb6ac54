"""Measures of a synthetic evaluation whose effects are known, against numpy by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from reports.metrics import Measure, featured, reasons, summarise
from reports.metrics.distances import extrapolated, frechet
from spectra.errors import UserError
from tests.reports.metrics.fixtures import evaluation, write_evaluation


@cache
def usual() -> xr.Dataset:
    """Do not change it."""
    return evaluation(prompts=8, seeds=2)


@cache
def measures() -> dict[tuple[str, str], Measure]:
    return {(one.name, one.adapter): one for one in summarise(usual())}


def asked(name: str, adapter: int) -> np.ndarray:
    rows = (usual().part == "asked").values
    return np.asarray(usual()[name].values[adapter][rows], np.float64)


def by_prompt(values: np.ndarray) -> np.ndarray:
    """Two seeds a prompt, in a row."""
    return np.asarray(values.reshape(-1, 2, *values.shape[1:]).mean(1))


def heldout(name: str) -> np.ndarray:
    return np.asarray(usual()[name].values[(usual().reference_part == "heldout").values], np.float64)


def test_every_measure_of_the_contract_is_there_for_every_adapter() -> None:
    names = {"validation_error", "band_distance", "spectrum_distance", "frechet_world", "kernel_world", "text_world",
             "similarity_world", "attribute_right", "attribute_shape", "diversity_world", "memorised_world",
             *(f"band_ratio_{k}" for k in range(4))}  # fmt: skip
    drifts = {"drift_world", "drift_pixels", "drift_attribute_right"}
    for adapter in usual().adapter.values:
        there = {name for name, label in measures() if label == adapter}
        assert there >= names
        assert (there & drifts) == (set() if adapter == "base" else drifts)
    assert reasons(usual()) == []


def test_means_are_those_of_prompts_and_pictures() -> None:
    error = usual().validation_error.values[1].mean((0, 2)).mean()
    assert measures()["validation_error", "fera-0"].value.value == pytest.approx(error)
    assert measures()["validation_error", "fera-0"].value.n == 24
    right = np.nanmean(asked("attribute_right", 2), axis=1)
    assert measures()["attribute_right", "lora-1"].value.value == pytest.approx(right.mean())
    named = asked("attribute_right", 2)[1:, 2]  # the first sample's caption names no background
    prompts = [named[:1].mean(), *by_prompt(named[1:])]
    assert measures()["attribute_background", "lora-1"].value.value == pytest.approx(np.mean(prompts))


def test_distances_are_those_of_the_asked_pictures_to_the_held_out_ones() -> None:
    found = measures()["frechet_world", "base"]
    assert found.value.value == pytest.approx(frechet(asked("feature_world", 0), heldout("reference_feature_world")))
    assert found.value.n == 8
    assert "16 pictures of 8 prompts against 24 held-out pictures" in found.pinned
    assert "5d415d41" in found.pinned
    prompts = usual().prompt.values[(usual().part == "asked").values].tolist()
    many = extrapolated(asked("feature_world", 0), heldout("reference_feature_world"), prompts)
    assert found.note.endswith(f"extrapolated to many: {many:.3g}")
    made, kept = by_prompt(asked("energy", 3).sum(1)).mean(0), heldout("reference_energy").sum(1).mean(0)
    assert measures()["band_distance", "dora-2"].value.value == pytest.approx(np.abs(np.log(made / kept)).mean())
    assert measures()["band_ratio_1", "dora-2"].value.value == pytest.approx(made[1] / kept[1])


def test_cosines_are_by_hand() -> None:
    x, kept = asked("feature_world", 1), heldout("reference_feature_world")
    x, kept = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, kept))
    assert measures()["similarity_world", "fera-0"].value.value == pytest.approx((x @ kept.T).mean())
    words = usual().text_world.values[(usual().part == "asked").values]
    words = words / np.linalg.norm(words, axis=1, keepdims=True)
    assert measures()["text_world", "fera-0"].value.value == pytest.approx((x * words).sum(1).mean())
    assert measures()["diversity_world", "fera-0"].value.value == pytest.approx(1 - (x[::2] * x[1::2]).sum(1).mean())


def test_drift_is_from_the_bases_picture_of_the_same_prompt_and_seed() -> None:
    rows = (usual().part == "unrelated").values
    images = usual().image.values[:, rows].astype(np.float64) / 255
    apart = np.sqrt(((images[2] - images[0]) ** 2).mean((1, 2, 3)))
    assert measures()["drift_pixels", "lora-1"].value.value == pytest.approx(apart.mean(), rel=1e-5)
    right = usual().attribute_right.values[:, rows].astype(np.float64)
    lost = (right[0] - right[2]).mean()
    assert measures()["drift_attribute_right", "lora-1"].value.value == pytest.approx(lost)


def test_no_interval_of_a_distance_reaches_below_zero() -> None:
    few = evaluation(2, prompts=4, seeds=1, unrelated=2)
    drifts = [one.value for one in summarise(few) if one.name in ("drift_world", "drift_pixels")]
    assert len(drifts) == 4
    assert all(0 <= one.low <= one.value <= one.high for one in drifts)
    assert any(one.low == 0 < one.value for one in drifts)  # two prompts say little


def test_names_of_known_scores_are_kept_for_their_networks() -> None:
    data = evaluation(1, 4, networks=("world", "clip", "inception", "dino"))
    titles = {one.name: one.title for one in summarise(data)}
    assert titles["text_clip"].startswith("CLIP score")
    assert titles["frechet_inception"] == "FID"
    assert titles["similarity_dino"].startswith("DINO")
    for name, title in titles.items():
        known = {"frechet_inception", "kernel_inception", "text_clip", "similarity_clip"}
        if name not in known:
            assert not any(word in title for word in ("FID", "KID", "CLIP score", "CLIP-I"))
    assert titles["frechet_world"] == "Fréchet distance on the bundled features"


def test_few_pictures_for_many_dimensions_are_said() -> None:
    few = [one for one in summarise(evaluation(1, 3, 2)) if one.name == "frechet_world"]
    assert all("full rank" in one.note for one in few)
    assert "full rank" not in measures()["frechet_world", "base"].note


def test_prompts_that_the_attribute_reader_does_not_know_are_counted() -> None:
    data = evaluation(1, prompts=3, seeds=2)
    rows = {name: (data.prompt == name).values for name in dict.fromkeys(data.prompt.values[data.part == "asked"])}
    for dropped, words in ((1, "no attribute agreement of 1 of 3 prompts: "), (3, "no attribute agreement: ")):
        for mine in list(rows.values())[:dropped]:
            data.attribute_right.values[:, mine] = np.nan
        said = [one for one in reasons(data) if "attribute" in one or "share" in one]
        assert len(said) == 1
        assert said[0].startswith(f'{words}the attribute reader knows captions such as "a large red circle on')
        assert any(one.name == "attribute_right" for one in summarise(data)) == (dropped < 3)


def test_where_the_reader_was_asked_nothing_pictures_of_another_size_are_the_reason() -> None:
    data = evaluation(1, prompts=2, attributes=False)
    assert any(one.endswith("and no prompt is one") for one in reasons(data))
    small = reasons(data.isel(y=slice(32), x=slice(32)))
    assert "no attribute agreement: the attribute reader knows only pictures of the bundled models" in small


@pytest.mark.parametrize(
    ("left_out", "gone", "why"),
    [
        ({"references": False}, ("frechet_world", "band_distance", "memorised_world"), "no reference pictures"),
        ({"validation": False}, ("validation_error",), "no held-out pictures"),
        ({"attributes": False}, ("attribute_right", "drift_attribute_right"), "attribute reader"),
        ({"networks": ()}, ("frechet_world", "diversity_world", "drift_world"), "no feature network"),
        ({"unrelated": 0}, ("drift_world", "drift_pixels"), "no unrelated prompts"),
        ({"seeds": 1}, ("diversity_world",), "one seed"),
        ({"train": 0}, ("memorised_world",), "no training pictures"),
        ({"prompts": 2}, ("frechet_world", "kernel_world"), "3 prompts"),
    ],
)
def test_what_is_missing_gives_fewer_measures_and_a_reason(
    left_out: dict[str, object], gone: tuple[str, ...], why: str
) -> None:
    data = evaluation(1, **{"prompts": 4, **left_out})  # type: ignore[arg-type]
    names = {one.name for one in summarise(data)}
    assert names
    assert not names & set(gone)
    assert any(why in reason for reason in reasons(data))


def test_one_prompt_with_seeds_takes_the_seeds_as_clusters() -> None:
    found = {one.name: one for one in summarise(evaluation(1, 1, seeds=6)) if one.adapter == "fera-0"}
    assert found["similarity_world"].value.n == 6
    assert "seeds of one prompt" in found["similarity_world"].value.estimand
    assert found["frechet_world"].value.n == 6
    assert np.isneginf(found["diversity_world"].value.low) or found["diversity_world"].value.low == 0
    assert np.isposinf(found["diversity_world"].value.high)


def test_one_picture_of_each_adapter_has_values_and_no_certainty() -> None:
    data = evaluation(1, 1, seeds=1, unrelated=1)
    found = {one.name: one.value for one in summarise(data) if one.adapter == "fera-0"}
    assert found["similarity_world"].n == 1
    assert (found["similarity_world"].low, found["similarity_world"].high) == (-1, 1)
    assert (found["attribute_right"].low, found["attribute_right"].high) == (0, 1)
    assert np.isposinf(found["drift_pixels"].high)


def test_pictures_of_the_references_own_captions_are_compared_prompt_by_prompt() -> None:
    own = evaluation(2, 6, own_captions=True)
    found = {(one.name, one.adapter): one for one in summarise(own)}
    fera = found["band_ratio_2", "fera-0"]
    assert "same captions" in fera.pinned
    assert fera.value.value == pytest.approx(1, abs=0.01)
    other = {(one.name, one.adapter): one.value for one in summarise(evaluation(2, 6))}["band_ratio_2", "fera-0"]
    assert fera.value.high - fera.value.low < 0.05 * (other.high - other.low)


def test_numbers_depend_neither_on_the_order_of_samples_nor_on_other_adapters() -> None:
    data = evaluation(2, 5, attributes=False)
    order = np.random.default_rng(0).permutation(data.sizes["sample"])
    shuffled = data.isel(sample=order, reference=np.arange(data.sizes["reference"])[::-1])
    alone = data.isel(adapter=[0, 2])
    usual_ones = {(one.name, one.adapter): one.value for one in summarise(data)}
    for other in (shuffled, alone):
        for one in summarise(other):
            known = usual_ones[one.name, one.adapter]
            assert one.value.value == pytest.approx(known.value, rel=1e-6, abs=1e-9), one.name
            assert one.value.high == pytest.approx(known.high, rel=1e-5), one.name


def test_very_many_prompts_are_left_out_in_groups_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(featured, "GROUPS", 5)
    found = {one.name: one.value for one in summarise(usual()) if one.adapter == "base"}
    assert found["frechet_world"].n == 5
    assert "groups of prompts" in found["frechet_world"].method
    assert found["frechet_world"].value == measures()["frechet_world", "base"].value.value
    assert found["kernel_world"].n == 8


def test_gaps_in_one_adapter_do_not_hide_the_others() -> None:
    data = evaluation(2, 4)
    errors = data.validation_error.values.copy()
    errors[2, 0, 3] = np.nan
    data = data.assign(validation_error=(data.validation_error.dims, errors))
    assert {one.adapter for one in summarise(data) if one.name == "validation_error"} == {"base", "fera-0"}
    assert any("lora-1" in reason for reason in reasons(data))


def test_features_that_are_not_finite_are_a_reason() -> None:
    data = evaluation(1, 4)
    bad = data.feature_world.values.copy()
    bad[1, 0, 0] = np.inf
    data = data.assign(feature_world=(data.feature_world.dims, bad))
    assert any("not finite" in reason for reason in reasons(data))
    assert any(one.name == "validation_error" for one in summarise(data))


def test_what_is_read_from_the_store_gives_the_same_numbers(tmp_path: Path) -> None:
    data = evaluation(1, 4, hostile=True)
    path = write_evaluation(tmp_path / "EVAL.zarr", data)
    stored = xr.open_zarr(path, consolidated=False)
    assert [one.to_dict() for one in summarise(stored)] == [one.to_dict() for one in summarise(data)]
    assert "owned" in next(one.adapter for one in summarise(stored) if one.adapter != "base")


def test_measures_are_plain_json() -> None:
    written = json.dumps([one.to_dict() for one in summarise(evaluation(1, 1, seeds=1))], allow_nan=False)
    assert "NaN" not in written


def test_what_is_no_evaluation_is_refused() -> None:
    with pytest.raises(UserError, match="no evaluation of adapters"):
        summarise(xr.Dataset({"energy": ("run", [1.0])}))
    twice = evaluation(1, 2).assign_coords(adapter=["base", "base"])
    with pytest.raises(UserError, match="same label"):
        summarise(twice)


def test_the_metrics_need_no_torch() -> None:
    code = "import sys, reports.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
