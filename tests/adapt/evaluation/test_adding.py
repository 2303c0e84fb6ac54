"""Adapters that are added later: one protocol for all, or a refusal that loses nothing."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import spectra
from adapt.evaluation.adapters import find
from adapt.evaluation.protocol import check_same, read
from adapt.evaluation.request import labels_of, repeated, unrepeated
from adapt.evaluation.store import known_in, open_evaluation
from spectra.errors import UserError
from tests.adapt.evaluation.kinds import by_hand, evaluated, files, merged, strong_lora, two
from tests.adapt.small import data


def test_adapters_that_are_added_later_are_as_if_they_had_been_there_from_the_start(tmp_path: Path) -> None:
    evaluated(tmp_path / "a.zarr", [strong_lora()], unrelated=["a house"])
    later = evaluated(tmp_path / "a.zarr", [merged(), strong_lora()], unrelated=["a house"], model=None)
    xr.testing.assert_identical(later, two()[1])
    mine, expected = (spectra.open_cube(out / "probe") for out in (tmp_path / "a.zarr", two()[0]))
    for name in ("energy", "spectrum", "adapter", "prompt", "seed", "draw"):
        np.testing.assert_array_equal(mine[name], expected[name])


def test_the_same_call_again_changes_no_file(tmp_path: Path) -> None:
    shutil.copytree(two()[0], tmp_path / "a.zarr")
    before = files(tmp_path / "a.zarr")
    again = evaluated(tmp_path / "a.zarr", [strong_lora(), merged()], unrelated=["a house"])
    assert files(tmp_path / "a.zarr") == before
    xr.testing.assert_identical(again, two()[1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts": ["another"]}, "prompts was"),
        pytest.param({"seeds": [1]}, r"seeds was \[3, 5\], is \[1\]", marks=pytest.mark.slow),
        ({"steps": 3}, "steps was 2, is 3"),
        pytest.param({"guidance": 1.0}, "guidance was 3.0, is 1.0", marks=pytest.mark.slow),
        pytest.param({"unrelated": []}, "unrelated was", marks=pytest.mark.slow),
        pytest.param({"resolution": 32}, "sizes.height was 64, is 32", marks=pytest.mark.slow),
        ({"data": data() / "heldout"}, r"begun without held-out pictures \(--data\), which cannot be added later"),
        pytest.param({"model": merged}, "model_hash was", marks=pytest.mark.slow),
        ({"names": ["merged"]}, "the name 'merged' is taken"),
    ],
)
def test_what_would_not_compare_is_refused_and_nothing_is_lost(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    shutil.copytree(two()[0], tmp_path / "a.zarr")
    before = files(tmp_path / "a.zarr")
    asked = {name: value() if callable(value) else value for name, value in changes.items()}
    with pytest.raises(UserError, match=words):
        evaluated(tmp_path / "a.zarr", [by_hand("fera")], **({"unrelated": ["a house"]} | asked))
    assert files(tmp_path / "a.zarr") == before


def test_another_batch_or_device_is_said_and_not_refused(tmp_path: Path) -> None:
    shutil.copytree(two()[0], tmp_path / "a.zarr")
    with pytest.warns(UserWarning, match="batch was 8, is 2"):
        found = evaluated(tmp_path / "a.zarr", [by_hand("fera")], unrelated=["a house"], batch=2)
    assert found.adapter.values.tolist() == ["base", "strong", "merged", "fera"]


def test_an_adapter_that_changed_is_refused_by_name(tmp_path: Path) -> None:
    shutil.copytree(strong_lora(), tmp_path / "mine")
    evaluated(tmp_path / "a.zarr", [tmp_path / "mine"], prompts=["a"], seeds=[0])
    settings = tmp_path / "mine" / "adapter_config.json"
    settings.write_text(settings.read_text().replace('"lora_alpha": 2', '"lora_alpha": 4'))
    with pytest.raises(UserError, match="mine has other weights than when it was evaluated as 'mine'"):
        evaluated(tmp_path / "a.zarr", [tmp_path / "mine"], prompts=["a"], seeds=[0])


def test_an_adapter_that_was_moved_is_known_by_its_name_and_weights(tmp_path: Path) -> None:
    known = known_in(two()[0])
    for name in ("strong", "other"):
        shutil.copytree(strong_lora(), tmp_path / name)
    assert labels_of([find(tmp_path / "strong")], None, known) == ["strong"]
    assert labels_of([find(tmp_path / "other")], None, known) == ["other"]


def test_labels_are_unique_or_given(tmp_path: Path) -> None:
    shutil.copytree(merged() / "unet", tmp_path / "strong" / "unet")
    both = [find(strong_lora()), find(tmp_path / "strong" / "unet")]
    assert labels_of(both, None, []) == ["strong", "strong (2)"]
    assert labels_of(both, None, known_in(two()[0])) == ["strong", "strong (2)"]
    assert labels_of(both, ["<i>ünï</i>", "b"], []) == ["<i>ünï</i>", "b"]


def test_an_adapter_that_is_given_twice_is_one(tmp_path: Path) -> None:
    (tmp_path / "strong").symlink_to(strong_lora())
    given: list[str | Path] = [
        strong_lora(),
        str(strong_lora()),
        strong_lora() / ".." / "strong",
        tmp_path / "strong",
        "base",
    ]
    assert unrepeated(given) == [str(strong_lora())]
    assert repeated(given) == [str(strong_lora())]
    assert repeated([merged(), strong_lora(), "base", "base"]) == []


def test_an_adapter_that_is_given_twice_is_said_to_count_once(tmp_path: Path) -> None:
    shutil.copytree(two()[0], tmp_path / "a.zarr")
    asked = [strong_lora(), strong_lora()]
    with pytest.warns(UserWarning, match="given more than once, counted once: .*strong"):
        assert evaluated(tmp_path / "a.zarr", asked, unrelated=["a house"]).sizes["adapter"] == 3
    with pytest.raises(UserError, match=r"2 names were given for 1 adapter \(.*strong was given more than once\)"):
        evaluated(tmp_path / "b.zarr", asked, names=["a", "b"])


def test_what_can_be_left_out_is_said_to_be(tmp_path: Path) -> None:
    stored = read(two()[1].attrs["protocol"])
    with pytest.raises(UserError, match="leave seeds and the unrelated prompts out to take what it has, or choose"):
        check_same(stored, replace(stored, seeds=[1], unrelated=[]), "a.zarr")
    with pytest.raises(UserError, match=r"is \[1\]; choose another place$"):
        check_same(stored, replace(stored, model_hash="other", seeds=[1]), "a.zarr")


def test_what_a_store_was_begun_without_is_named_in_words() -> None:
    stored = replace(read(two()[1].attrs["protocol"]), unrelated=[])
    part = {"count": 4, "sha256": "0"}
    now = replace(stored, unrelated=["a house"], pictures={"heldout": part, "train": part})
    with pytest.raises(UserError) as refused:
        check_same(stored, now, "a.zarr")
    assert str(refused.value) == (
        "a.zarr was begun without held-out pictures (--data), training pictures (--train), unrelated prompts "
        "(--unrelated), which cannot be added later; leave them out, or begin a new store at another place"
    )
    with pytest.raises(UserError, match=r"begun without unrelated prompts .* leave them out, or begin a new store"):
        check_same(replace(now, unrelated=[]), now, "a.zarr")
    assert not check_same(now, now, "a.zarr")


def test_a_store_keeps_the_command_of_each_call_that_added_adapters_even_an_old_one(tmp_path: Path) -> None:
    place = tmp_path / "a.zarr"
    evaluated(place, [strong_lora()], prompts=["a"], seeds=[0], steps=1, command="one")
    found = evaluated(place, [merged()], prompts=["a"], seeds=[0], steps=1, command="two")
    assert found.command.values.tolist() == ["one", "one", "two"]
    assert "command" in found.coords
    old = tmp_path / "old.zarr"
    shutil.copytree(two()[0], old)
    shutil.rmtree(old / "command")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(zarr.open_group(old, mode="r+", use_consolidated=False).store)
    assert "command" not in open_evaluation(old)
    added = evaluated(old, [by_hand("fera")], unrelated=["a house"], command="three")
    assert added.command.values.tolist() == ["", "", "", "three"]
    xr.testing.assert_identical(added.drop_vars("command").isel(adapter=slice(3)), two()[1].drop_vars("command"))
