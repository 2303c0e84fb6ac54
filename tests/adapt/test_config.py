"""The configuration is strict, and says in a sentence what is wrong."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import adapt
from adapt.config import LEARNING_RATES, NEEDS, TrainConfig, learning_rate
from adapt.methods import METHODS
from datasets_cache.encoder import Preparation
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
        ({"rank": 6, "shared_rank": 6}, "rank 6, of which 6 is always on, leaves less than 1 for each expert"),
        ({"rank": 3, "shared_rank": 9}, "rank 3, of which 9 is always on, leaves less than 1 for each expert"),
        ({"rank": 2}, "rank 2 leaves less than 1 for each expert"),
        ({"method": "lora", "prior": "a.zarr"}, "prior belongs to FeRA"),
        ({"method": "lora", "timesteps": "prior", "overlap": 2.0}, "overlap belongs to FeRA"),
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


def test_every_setting_is_read_somewhere() -> None:
    """As an attribute of what is called `config`, of the configuration itself, or as a field of `Preparation`."""
    home = Path(adapt.__file__).parent
    read = {field.name for field in fields(Preparation)}  # `adapt.task.preparation_of` reads all of these
    for path in home.rglob("*.py"):
        if path.parent.name not in ("settings", "fera"):  # the latter's `config` is a FeraConfig
            found = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute))
            owners = ("config", "self") if path.name == "config.py" else ("config",)
            read |= {node.attr for node in found if ast.unparse(node.value).rpartition(".")[2] in owners}
    assert not TrainConfig.model_fields.keys() - read


def test_a_setting_without_effect_is_said_and_no_error() -> None:
    changed: dict[str, Any] = {
        "logit_mean": 1.0, "logit_std": 2.0, "mode_scale": 0.5, "gamma": 2.0, "bucket_step": 8, "class_weight": 2.0,
        "class_count": 2, "prior_data": "a.zarr", "overlap": 2.0, "router_start": "random", "fecl_form": "published",
        "fecl_every": 2, "fecl_share": 0.5, "fecl_warmup": 0.5, "preview_prompts": ["a"], "project": "mine",
    }  # fmt: skip
    assert changed.keys() == NEEDS.keys()
    assert len(TrainConfig(**LEAST, **changed).unused()) == len(changed)
    assert TrainConfig(**LEAST, gamma=2.0).unused() == [
        "gamma is set and has no effect without weighting = 'min_snr' or weighting = 'soft_min_snr'"
    ]
    used = {
        "buckets": True, "class_caption": "a dog", "prior": "b.zarr", "fecl_weight": 0.1, "preview_every": 5,
        "trackers": ["tensorboard"], "timesteps": "mode", "weighting": "min_snr",
    }  # fmt: skip
    assert not TrainConfig(**LEAST, **(changed | used | {"logit_mean": 0.0, "logit_std": 1.0})).unused()


def test_the_noise_levels_of_any_method_may_follow_a_prior() -> None:
    config = TrainConfig(**LEAST, method="lora", timesteps="prior", prior="a.zarr", prior_data="b.zarr")
    assert config.unused() == []
