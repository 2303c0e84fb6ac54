"""Runs become arms: equal but for the seed, told apart by what differs, paired over what they share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reports.arms import group, paired, reference_of
from reports.runs import Run, read_run
from spectra.errors import UserError
from tests.reports.fixtures import write_run


def read_runs(paths: list[Path]) -> list[Run]:
    return [read_run(path) for path in paths]


def test_seeds_of_one_configuration_are_one_arm(three_arms: list[Path]) -> None:
    arms = group(read_runs(three_arms))
    assert [arm.label for arm in arms] == ["LoRA", "FeRA without prior", "FeRA with prior"]
    assert {arm.seeds for arm in arms} == {(0, 1, 2)}


def test_the_order_of_the_folders_does_not_matter(three_arms: list[Path]) -> None:
    there, back = group(read_runs(three_arms)), group(read_runs(three_arms[::-1]))
    assert [[run.path for run in arm.runs] for arm in there] == [[run.path for run in arm.runs] for arm in back]


def test_arms_of_one_method_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    made = [
        write_run(tmp_path / f"lr{i}", samples=4, effect=0.5 - 0.05 * i, config={"lr": lr})
        for i, lr in enumerate((0.002, 0.008))
    ]
    arms = group(read_runs(made))
    assert [arm.label for arm in arms] == ["LoRA (lr 0.002)", "LoRA (lr 0.008)"]
    reference = reference_of(arms)
    assert reference is not None
    assert reference.label == "LoRA (lr 0.008)"


def labels_of(root: Path, configs: list[dict[str, object]], method: str = "lora") -> list[str]:
    made = [write_run(root / str(i), method, samples=4, config=config) for i, config in enumerate(configs)]
    return sorted(arm.label for arm in group(read_runs(made)))


def test_labels_leave_out_what_is_only_measured_where_the_training_tells_arms_apart(tmp_path: Path) -> None:
    measured: list[dict[str, object]] = [{"eval_every": 20, "guidance": 3.0}, {"eval_every": 50, "ablate": False}]
    found = labels_of(tmp_path, [{"lr": 0.01 * (1 + i), **one} for i, one in enumerate(measured)])
    assert found == ["LoRA (lr 0.01)", "LoRA (lr 0.02)"]


def test_labels_name_as_few_measurement_settings_as_tell_arms_apart(tmp_path: Path) -> None:
    found = labels_of(tmp_path, [{"eval_every": 20, "guidance": 3.0}, {"eval_every": 50, "guidance": 4.0}])
    assert found == ["LoRA (eval_every 20)", "LoRA (eval_every 50)"]


def test_labels_name_the_weightiest_settings_and_stay_short(tmp_path: Path) -> None:
    many = [
        {"clip": float(i), "dropout": 0.1 * i, "rank": 4 + i, "lr": 0.01 * (1 + i), "warmup": 0.1 * i, "gamma": 1.0 + i}
        for i in range(2)
    ]
    found = labels_of(tmp_path, [dict(one) for one in many])
    assert found == ["LoRA (lr 0.01, rank 4, clip 0.0)", "LoRA (lr 0.02, rank 5, clip 1.0)"]


def test_labels_name_more_settings_where_the_first_do_not_tell_arms_apart(tmp_path: Path) -> None:
    keys = ["lr", "rank", "batch", "gamma"]
    configs = [{key: 1 + (key == other) for key in keys} for other in keys]
    found = labels_of(tmp_path, [dict(one) for one in configs])
    assert len(set(found)) == 4
    assert "LoRA (lr 2, rank 1, batch 1)" in found
    assert all(label.count(",") <= 3 for label in found)


def test_long_settings_are_shortened_unless_their_ends_tell_arms_apart(tmp_path: Path) -> None:
    layers = [f"layer.{i}.attention" for i in range(9)]
    found = labels_of(tmp_path / "a", [{"targets": None}, {"targets": layers}])
    assert found == ["LoRA (targets default)", "LoRA (targets layer.0.attention, laye…)"]
    alike = labels_of(tmp_path / "b", [{"targets": layers}, {"targets": layers[:-1]}])
    assert len(set(alike)) == 2


def test_an_arm_keeps_its_colour_whichever_others_there_are(tmp_path: Path) -> None:
    kinds = [("lora", False), ("dora", False), ("fera", False), ("fera", True), ("loha", False)]
    runs = read_runs([write_run(tmp_path / f"{m}{p}", m, p, samples=4) for m, p in kinds])
    styles = {arm.label: arm.style for arm in group(runs)}
    assert (styles["LoRA"], styles["FeRA without prior"], styles["FeRA with prior"]) == (0, 1, 2)
    assert len(set(styles.values())) == 5
    usual = [run for run in runs if run.record["method"] in ("lora", "fera")]
    for few in (*([run] for run in usual), usual[:2], usual[1:]):
        assert all(arm.style == styles[arm.label] for arm in group(few))


def test_eight_arms_have_eight_colours(tmp_path: Path) -> None:
    made = [write_run(tmp_path / str(i), samples=4, config={"lr": i}) for i in range(8)]
    assert sorted(arm.style for arm in group(read_runs(made))) == list(range(8))


def test_places_of_files_make_no_arms(tmp_path: Path) -> None:
    made = [
        write_run(tmp_path / f"{i}", "fera", True, seed=i, samples=4, config={"prior": f"prior-{i}.json", "threads": i})
        for i in range(2)
    ]
    assert [arm.label for arm in group(read_runs(made))] == ["FeRA with prior"]


@pytest.mark.parametrize(
    ("config", "label"),
    [
        ({"router": "uniform"}, "FeRA without prior (uniform gates)"),
        ({"router": "clock", "expert": "dora"}, "FeRA without prior (clock router, DoRA experts)"),
        ({"fera_mode": "published", "router": "energy"}, "FeRA without prior (published mode)"),
        ({"router": "energy", "fera_mode": "exact", "expert": "lora"}, "FeRA without prior"),
    ],
)
def test_a_lone_variant_of_fera_says_what_it_is(tmp_path: Path, config: dict[str, str], label: str) -> None:
    arms = group(read_runs([write_run(tmp_path / "run", "fera", samples=4, config=config)]))
    assert [arm.label for arm in arms] == [label]


def test_how_a_run_was_kept_makes_no_arm(tmp_path: Path) -> None:
    made = [
        write_run(tmp_path / str(i), seed=i, samples=4, config={"checkpoint_every": i, "project": str(i)})
        for i in (1, 2)
    ]
    assert len(group(read_runs(made))) == 1


@pytest.mark.filterwarnings("error")
def test_arms_with_long_names_are_drawn(tmp_path: Path) -> None:
    from reports.compare import comparisons
    from reports.panels import verdict

    config = {"fera_mode": "published", "router": "energy+clock", "expert": "dora", "router_start": "random"}
    changes = [{}, config | {"experts": 3, "shared_rank": 3}, config | {"experts": 4, "shared_rank": 0}]
    arms = group(read_runs([
        write_run(tmp_path / str(i), "fera" if i else "lora", samples=4, config=one) for i, one in enumerate(changes)
    ]))  # fmt: skip
    assert verdict(comparisons(arms, reference_of(arms))).svg


def test_the_same_arm_and_seed_twice_is_refused(tmp_path: Path) -> None:
    made = [write_run(tmp_path / name, samples=4) for name in "ab"]
    with pytest.raises(UserError, match="same arm with the same seed"):
        group(read_runs(made))


def test_without_lora_the_arm_without_prior_is_the_reference(tmp_path: Path) -> None:
    made = [write_run(tmp_path / f"{prior}", "fera", prior, samples=4) for prior in (True, False)]
    reference = reference_of(group(read_runs(made)))
    assert reference is not None
    assert reference.label == "FeRA without prior"


def test_arms_are_paired_over_common_seeds_only(tmp_path: Path) -> None:
    lora = [write_run(tmp_path / f"l{seed}", seed=seed, samples=4) for seed in (0, 1, 2)]
    fera = [write_run(tmp_path / f"f{seed}", "fera", seed=seed, samples=4) for seed in (2, 1, 5)]
    first, second = group(read_runs(lora + fera))
    a, b = paired(first, second)
    assert a.shape == b.shape == (2, 8, 4)
    np.testing.assert_array_equal(a, first.errors()[[1, 2]])
    np.testing.assert_array_equal(b, second.errors()[[0, 1]])


def test_without_common_seeds_means_over_seeds_are_paired_by_sample(tmp_path: Path) -> None:
    made = [write_run(tmp_path / "l", seed=0, samples=4), write_run(tmp_path / "f", "fera", seed=3, samples=4)]
    a, b = paired(*group(read_runs(made)))
    assert a.shape == b.shape == (1, 8, 4)


def test_pictures_of_one_prompt_count_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "l", samples=4, prompts=["same", "same", "other", "third"])
    (arm,) = group(read_runs([run]))
    energies = arm.runs[0].evaluation.energy.sel(source="adapter").sum("channel").values
    assert arm.energies().shape == (1, 3, 4)
    np.testing.assert_allclose(arm.energies()[0, 0], energies[:2].mean(axis=0), rtol=1e-5)
