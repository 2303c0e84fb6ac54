"""The configuration is strict, and says in a sentence what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapt.config import LEARNING_RATES, TrainConfig, learning_rate
from adapt.methods import METHODS
from spectra.errors import UserError

LEAST: dict[str, Any] = {"model": "mini", "data": "pictures", "out": "runs/a"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"stpes": 3}, "unknown setting 'stpes'; did you mean 'steps'"),
        ({"zzz": 3}, "^unknown setting 'zzz'$"),
        ({"steps": 0}, "'steps' should be greater than or equal to 1, got 0"),
        ({"steps": "5"}, "'steps' should be a whole number, got '5'"),
        ({"steps": True}, "'steps' should be a whole number"),
        ({"lr": 0.0}, "'lr' should be greater than 0"),
        ({"lr": float("nan")}, "'lr' should be a finite number"),
        ({"method": "dira"}, "'method' should be 'fera', 'lora', .* or 'full', got 'dira'"),
        ({"caption_dropout": 1.5}, "'caption_dropout' should be less than or equal to 1"),
        ({"sample_seeds": []}, "'sample_seeds' should not be an empty list"),
        ({"targets": "to_q"}, "'targets' should be a list"),
        ({"rank": 7}, "rank 7 is not a multiple of the 3 experts"),
        ({"rank": 8, "shared_rank": 1}, "rank 8, of which 1 is always on, cannot be split evenly over 3 experts"),
        ({"method": "lora", "prior": "a.zarr"}, "prior belongs to FeRA"),
        ({"method": "lora", "fecl_weight": 0.1}, "fecl_weight belongs to FeRA"),
        ({"prior": "prior.txt"}, "neither a probed cube"),
        ({"model": ""}, "'model'"),
    ],
)
def test_a_bad_setting_is_one_clear_sentence(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        TrainConfig(**(LEAST | change))


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(UserError, match="'out' is missing; the setting 'data' is missing"):
        TrainConfig(model="mini")


def test_the_record_gives_the_same_configuration_again() -> None:
    config = TrainConfig(**LEAST, prior="a.zarr", sample_seeds=[1, 2], lr=1e-3)
    assert TrainConfig(**config.record()) == config


def test_toml_says_the_same_as_python_and_overrides_win(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('model = "mini"\ndata = "pictures"\nout = "runs/a"\nsteps = 7\nlr = 1\n')
    assert TrainConfig.from_toml(file, steps=9) == TrainConfig(**LEAST, steps=9, lr=1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("steps = = 3", "is not TOML"), ("model = 'mini'\nstep = 3", "unknown setting 'step'; did you")],
)
def test_bad_toml_is_one_clear_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=sentence):
        TrainConfig.from_toml(file)
    with pytest.raises(UserError, match="cannot read"):
        TrainConfig.from_toml(tmp_path / "missing.toml")


def test_every_method_has_a_learning_rate_and_large_models_get_a_smaller_one() -> None:
    assert LEARNING_RATES.keys() == METHODS.keys()
    for method in METHODS:
        assert learning_rate(method, 10_000_000) > learning_rate(method, 800_000_000)
