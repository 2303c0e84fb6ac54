"""Every number in the words is recomputed from the stores, without the code that wrote them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import reports
from reports import Ratio, Report
from reports.building import title_of
from reports.statistics import corrected
from reports.tables import attributes, summary
from reports.training_words import about_error, about_steps, say
from reports.words import interval, span
from tests.reports.fixtures import write_cube, write_run


def errors(folder: Path, names: list[str]) -> np.ndarray:
    """Final errors (seeds, samples), read straight from the stores."""
    stores = [xr.open_zarr(folder / name / "metrics.zarr", chunks=None, consolidated=False) for name in names]
    return np.stack(
        [s.validation_error.isel(eval_step=-1).mean(("level", "draw")).astype(float).values for s in stores]
    )


def two_way(table: np.ndarray) -> float:
    """Half width of the 95 % interval of a crossed two-way mean, written out as sums."""
    seeds, samples = table.shape
    mean = table.sum() / table.size
    a = sum(samples * (row.mean() - mean) ** 2 for row in table) / (seeds - 1)
    b = sum(seeds * (column.mean() - mean) ** 2 for column in table.T) / (samples - 1)
    rest = sum(
        (table[s, i] - table[s].mean() - table[:, i].mean() + mean) ** 2 for s in range(seeds) for i in range(samples)
    )
    c = rest / ((seeds - 1) * (samples - 1))
    freedom = (a + b) ** 2 / (a**2 / (seeds - 1) + b**2 / (samples - 1))
    return float(np.sqrt(max(a + b - c, a, b) / table.size) * stats.t.ppf(0.975, freedom))


def test_the_first_sentence_says_what_the_stores_say(report: Report, three_arms: list[Path]) -> None:
    root = three_arms[0].parent
    fera = errors(root, ["prior-0", "prior-1", "prior-2"])
    lora = errors(root, ["lora-0", "lora-1", "lora-2"])
    ratio = fera.mean() / lora.mean()
    half = two_way(fera / fera.mean() - lora / lora.mean())
    low, high = ratio * np.exp(-half), ratio * np.exp(half)
    said = report.sentences[0]
    assert said.startswith("FeRA with prior helped: its final validation error is ")
    numbers = [float(number) for number in re.findall(r"([\d.]+) %", said)]
    expected = [100 * (1 - ratio), 95, 100 * (1 - high), 100 * (1 - low)]
    assert numbers == pytest.approx(expected, abs=0.051)
    assert "3 training seeds and 12 validation samples" in said


def test_the_second_sentence_interpolates_the_curves(report: Report, three_arms: list[Path]) -> None:
    root = three_arms[0].parent
    logs = []
    for seed in range(3):
        curve = {}
        for arm in ("lora", "prior"):
            store = xr.open_zarr(root / f"{arm}-{seed}" / "metrics.zarr", chunks=None, consolidated=False)
            curve[arm] = store.validation_error.mean(("level", "sample", "draw")).astype(float).values
        target = curve["lora"][-1]
        after = int(np.argmax(curve["prior"] <= target))
        steps = np.interp(-target, -curve["prior"][after - 1 : after + 1], [50 * (after - 1), 50 * after])
        logs.append(np.log(steps / 400))
    half = stats.t.ppf(0.975, 2) * np.std(logs, ddof=1) / np.sqrt(3)
    expected = np.exp([np.mean(logs), np.mean(logs) - half, np.mean(logs) + half])
    said = report.sentences[1]
    numbers = [float(number) for number in re.findall(r"\b(\d\.\d\d)\b", said)][:3]
    assert numbers == pytest.approx(expected, abs=0.0051)


def test_band_energies_are_ratios_of_means(report: Report, three_arms: list[Path]) -> None:
    store = xr.open_zarr(three_arms[0].parent / "lora-0" / "evaluation.zarr", chunks=None, consolidated=False)
    energy = store.energy.sum("channel").mean("sample")
    expected = (energy.sel(source="base") / energy.sel(source="reference")).values
    band = int(np.argmax(np.abs(np.log(expected))))
    said = next(s for s in report.sentences if s.startswith("Against held-out pictures"))
    assert f"band {band}" in said
    assert f"{expected[band]:.3g} times as much energy" in said


def test_bands_are_told_in_the_order_of_the_cube(report: Report) -> None:
    said = next(s for s in report.sentences if s.startswith("The base model"))
    assert "from low to high" in said
    steps = [int(n) for n in re.findall(r"\d+", said.split("steps ")[1].split(" of 30")[0])]
    assert steps == sorted(steps)
    assert len(steps) == 4


def test_the_numbers_for_scripts_are_those_of_the_words(report: Report) -> None:
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    first = found["comparisons"][0]
    assert (first["arm"], first["other"]) == ("FeRA with prior", "LoRA")
    assert f"{100 * (1 - first['error']['value']):.1f} %" in found["sentences"][0]
    assert first["error"]["estimand"] in found["sentences"][0]
    assert len(first["levels"]) == 8
    assert found["reference"] == "LoRA"
    assert [arm["label"] for arm in found["arms"]] == ["LoRA", "FeRA without prior", "FeRA with prior"]


def test_equal_arms_are_said_not_to_differ(tmp_path: Path) -> None:
    made = [
        write_run(tmp_path / f"{method}{seed}", method, seed=seed, samples=8, effect=0.45, jitter=0.1, quality=q)
        for method, q in (("lora", 0.8), ("fera", 0.79))
        for seed in range(3)
    ]
    made_up = reports.build(made)
    assert made_up.sentences[0].startswith("No difference was found between FeRA without prior and LoRA")
    assert "includes no difference" in made_up.sentences[0]
    assert not made_up.pairs[0].error.differs


def test_a_worse_arm_is_said_to_be_worse(tmp_path: Path) -> None:
    made = [
        write_run(tmp_path / f"{method}{seed}", method, seed=seed, samples=8, effect=effect)
        for method, effect in (("lora", 0.4), ("fera", 0.6))
        for seed in range(3)
    ]
    said = reports.build(made).sentences
    assert said[0].startswith("FeRA without prior did worse")
    assert "higher than that of LoRA" in said[0]
    assert "does not reach the final error of LoRA" in said[1]


def test_with_one_seed_intervals_are_over_samples_and_say_so(tmp_path: Path) -> None:
    made = [
        write_run(tmp_path / "l", samples=8, effect=0.46),
        write_run(tmp_path / "f", "fera", True, samples=8, effect=0.4),
    ]
    report = reports.build(made)
    assert "8 validation samples of one training seed" in report.sentences[0]
    assert "8 validation samples of one training seed" in report.sentences[1]
    assert any("single training seed" in said for said in report.sentences)
    ratio = report.pairs[0].error
    first, second = errors(tmp_path, ["f"])[0], errors(tmp_path, ["l"])[0]
    values = first / first.mean() - second / second.mean()
    half = stats.t.ppf(0.975, 7) * values.std(ddof=1) / np.sqrt(8)
    centre = np.log(first.mean() / second.mean())
    assert np.log([ratio.low, ratio.high]) == pytest.approx(centre + np.array([-half, half]))


def test_one_run_is_compared_with_the_base_alone(tmp_path: Path) -> None:
    report = reports.build([write_run(tmp_path / "only", "fera", samples=4)])
    assert report.reference is None
    assert not report.pairs
    assert report.sentences[0].startswith("Against the untrained base model")
    assert "only" in report.to_html()


def test_two_seeds_are_called_too_few(tmp_path: Path) -> None:
    made = [write_run(tmp_path / f"{s}", seed=s, samples=4) for s in range(2)]
    report = reports.build(made)
    assert any("only 2 training seeds" in said for said in report.sentences)
    assert any("Few training seeds" in said for said in report.warnings)


def test_a_difference_that_may_be_chance_among_many_arms_is_not_claimed(report: Report) -> None:
    pair = report.pairs[2]
    assert pair.arm.label == "FeRA without prior" or pair.other.label == "FeRA without prior"
    alone = replace(pair.error, low=0.9, high=0.99, value=0.95, p=0.03)
    claimed = replace(pair, error=corrected([alone])[0])
    among = replace(pair, error=corrected([alone, alone, alone])[0])
    assert about_error(claimed).claim.startswith(f"{pair.arm.label} helped")
    assert about_error(among).claim.startswith("No difference was found")
    assert "p = 0.09 by Holm’s correction" in about_error(among).support


def test_all_comparisons_of_a_figure_are_one_family(report: Report) -> None:
    for family in (
        [pair.error for pair in report.pairs], [pair.steps for pair in report.pairs],
        [ratio for pair in report.pairs for ratio in pair.levels], [r for pair in report.pairs for r in pair.energy],
    ):  # fmt: skip
        p = [ratio.p for ratio in family if np.isfinite(ratio.p)]
        smallest = min((ratio for ratio in family if np.isfinite(ratio.p)), key=lambda ratio: ratio.p)
        assert smallest.p_corrected == pytest.approx(min(1, len(p) * min(p)))


def test_the_spectral_distance_of_an_arm_has_an_interval(report: Report) -> None:
    arm = report.arms[0]
    found = report.to_dict()["arms"][0]["spectral_distance"]
    made, real = arm.energies().mean(axis=(0, 1)), arm.energies("reference").mean(axis=(0, 1))
    assert found["value"] == pytest.approx(np.abs(np.log(made / real)).mean())
    assert found["low"] < found["value"] < found["high"]


def test_arms_that_differ_in_more_than_the_method_are_warned_of(tmp_path: Path) -> None:
    made = [
        write_run(tmp_path / "a", samples=4, steps=400, record={"trainable_parameters": 100_000}),
        write_run(tmp_path / "b", "fera", samples=4, steps=200, record={"versions": {"torch": "9"}}),
    ]
    said = " ".join(reports.build(made).warnings)
    assert "different numbers of steps" in said
    assert "trainable parameters" in said
    assert "different versions of diffusers, python, spectra-adapt, torch" in said


def test_the_headline_says_where_the_arms_were_not_given_the_same(tmp_path: Path) -> None:
    made = [
        write_run(tmp_path / f"{method}{seed}", method, seed=seed, samples=8, effect=effect, steps=steps, config=config)
        for method, effect, steps, config in (("lora", 0.4, 400, {}), ("fera", 0.6, 80, {"batch": 8, "lr": 0.01}))
        for seed in range(2)
    ]
    report = reports.build(made)
    given = "after 80 steps against 400, at batch size 8 against 16, at learning rate 0.01 against 0.004"
    assert report.said[0].claim.startswith(f"FeRA without prior did worse, {given}: its final validation error")
    assert report.said[1].claim.startswith(f"FeRA without prior, {given}, does not reach")
    assert any("batch sizes differ" in said for said in report.warnings)


def test_the_headline_says_where_trainable_parameters_differ(tmp_path: Path) -> None:
    made = [
        write_run(tmp_path / method, method, samples=8, effect=effect, record={"trainable_parameters": size})
        for method, effect, size in (("lora", 0.4, 100_000), ("fera", 0.3, 200_000))
    ]
    said = reports.build(made).said[0].claim
    begun = "FeRA without prior helped in this run, with 200 000 trainable parameters against 100 000: its"
    assert said.startswith(begun)


def test_arms_given_the_same_have_a_plain_headline(report: Report) -> None:
    assert report.said[0].claim.startswith("FeRA with prior helped: its")


def test_settings_that_both_labels_say_are_not_said_again(tmp_path: Path) -> None:
    made = [write_run(tmp_path / str(lr), samples=8, effect=10 * lr, config={"lr": lr}) for lr in (0.03, 0.05)]
    assert "at learning rate" not in reports.build(made).sentences[0]


def test_a_ratio_of_steps_without_an_interval_comes_after_what_has_one(report: Report) -> None:
    pair = report.pairs[0]
    bare = replace(pair, steps=replace(pair.steps, low=np.nan, high=np.nan))
    said = say(report.arms, [bare, *report.pairs[1:]], report.base)
    place = next(i for i, one in enumerate(said) if one.claim == about_steps(bare).claim)
    assert place == len(said) - 1
    assert "no interval" in said[place].text
    row = next(row for row in summary(report.arms, [bare], report.reference).rows if row[0] == bare.arm.label)
    assert f"{bare.steps.value:.2f} (no interval)" in row


def test_a_long_support_is_given_in_full_once_and_every_sentence_keeps_its_repeats(report: Report) -> None:
    for estimand in {pair.error.estimand for pair in report.pairs} | {pair.levels[0].estimand for pair in report.pairs}:
        assert sum(estimand in said for said in report.sentences) == 1
    compared = [s for s in report.sentences if "final validation error" in s and "base model" not in s]
    compared += [s for s in report.sentences if "noise levels" in s]
    assert len(compared) >= 6
    for said in compared:
        assert "ratio" in said
        assert "interval" in said
        assert re.search(r"3 (training )?seeds", said)
        assert re.search(r"12 (validation )?samples", said)


def test_numbers_in_one_sentence_are_rounded_alike(report: Report) -> None:
    assert interval(Ratio(0.5, 0.17, 0.847, 3, 8, "x")) == "95 % interval 15 % to 83 % lower"
    assert span(Ratio(1.127, 1.014, 1.25, 3, 8, "x")) == "+1 % to +25 %"
    assert interval(Ratio(0.986, 0.972, 0.9996, 3, 8, "x")) == "95 % interval 0.04 % to 2.80 % lower"
    for said in report.sentences:
        shown = re.findall(r"(\d+(?:\.\d+)?) %", re.sub(r"95 % intervals?", "", said))
        assert len({len(number.partition(".")[2]) for number in shown}) <= 1, said


def test_a_cube_whose_bands_come_late_says_never(tmp_path: Path) -> None:
    cube = write_cube(tmp_path / "c.zarr", runs=2, steps=12, late=True)
    report = reports.build([write_run(tmp_path / "a", samples=4)], cube)
    said = next(s for s in report.sentences if s.startswith("The base model"))
    assert "never" in said
    assert "not strictly" in said
    assert "never reaches" in report.to_html()


@pytest.mark.parametrize(
    ("record", "title"),
    [
        ({"model": "mini", "data": "tasks/style/train"}, "mini on style"),
        ({"model": "/models/sd15/", "data": "pictures"}, "sd15 on pictures"),
        ({"model": "org/sdxl", "data": "train"}, "sdxl on train"),
    ],
)
def test_the_title_says_model_and_data(record: dict[str, str], title: str) -> None:
    assert title_of(record) == title


def test_shares_of_right_answers_leave_out_captions_that_do_not_name_an_attribute(report: Report) -> None:
    table = attributes(report.arms)
    assert table is not None
    held_out, lora = table.rows[0], next(row for row in table.rows if row[0] == "LoRA")
    low = 0.025 ** (1 / 7)  # the exact binomial interval where 7 of 7 captions are right
    assert held_out[3] == f"1.00 ({low:.2f} to 1.00)"
    stores = [run.evaluation.attribute_right.sel(source="adapter").values for run in report.arms[0].runs]
    assert [float(cell[:4]) for cell in lora[1:4]] == pytest.approx(
        np.nanmean(np.stack(stores), axis=(0, 1)), abs=0.0051
    )
