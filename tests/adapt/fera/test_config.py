from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftConfig
from scipy.fft import idctn
from torch import nn

from adapt.fera import FeraConfig
from adapt.fera.config import blind_statistics, config_from_json, resolve
from spectra.bands import FilterBank
from spectra.errors import UserError

FLOW = {"kind": "flow", "steps": 1000}


def test_the_default_alpha_is_the_total_rank_so_the_update_is_not_scaled() -> None:
    config = FeraConfig(r=4, num_experts=3, target_modules=["to_q"])
    assert config.alpha == 12
    assert config.scaling == 1


def test_a_saved_configuration_comes_back_equal_through_peft(tmp_path: Path) -> None:
    config = FeraConfig(
        r=2, num_experts=4, target_modules=["to_v", "to_q"], alpha=3.0, dropout=0.1, scales=(1.6, 0.8), grid=(16, 8),
        feature_mean=(-1.0, -2.0, -3.0), feature_std=(1.0, 0.5, 0.25), tau=0.5, provenance={"model": "mini"},
    )  # fmt: skip
    config.save_pretrained(str(tmp_path))
    assert PeftConfig.from_pretrained(str(tmp_path)) == config


def test_the_file_does_not_depend_on_the_order_of_the_targets(tmp_path: Path) -> None:
    FeraConfig(target_modules=["to_v", "to_q", "conv1"]).save_pretrained(str(tmp_path / "a"))
    FeraConfig(target_modules=["conv1", "to_q", "to_v"]).save_pretrained(str(tmp_path / "b"))
    one, two = ((tmp_path / name / "adapter_config.json").read_bytes() for name in "ab")
    assert one == two


def test_the_start_of_the_router_is_not_written_because_its_weights_are() -> None:
    start = {"w1": np.zeros((64, 4)).tolist(), "b1": [0.0] * 64, "w2": np.zeros((3, 64)).tolist(), "b2": [0.0] * 3}
    assert FeraConfig(target_modules=["to_q"], router_start=start).to_dict()["router_start"] is None


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"r": 0}, "r is"),
        ({"num_experts": 2.5}, "num_experts"),
        ({"alpha": 0}, "alpha"),
        ({"tau": 0.0}, "tau"),
        ({"dropout": 1.0}, "dropout"),
        ({"mode": "quick"}, "mode is 'exact' or 'published', got 'quick'"),
        ({"gates": "hard"}, "gates is 'router' or 'uniform'"),
        ({"features": ("shares", "noise")}, "features are some of shares, snr, log_snr"),
        ({"features": ("shares", "shares")}, "each once"),
        ({"features": ()}, "features"),
        ({"features": ("log_snr",)}, "need a noise_schedule.*schedule_of"),
        ({"noise_schedule": {"kind": "flow"}}, "not a noise schedule"),
        (
            {
                "features": ("shares", "log_snr"),
                "noise_schedule": FLOW,
                "scales": (1.0,),
                "feature_mean": (0.0,) * 2,
                "feature_std": (1.0,) * 2,
            },
            "feature_mean needs 3 finite numbers",
        ),
        ({"mode": "published", "scales": (1.0, 2.0)}, "published mode reads plain shares.*leave out scales"),
        ({"mode": "published", "features": ("log_snr",), "noise_schedule": FLOW}, "leave out features"),
        ({"total_rank": 7}, "cannot be split evenly over 3 experts"),
        ({"total_rank": 8, "shared_rank": 3}, "with 3 of it shared"),
        ({"r": 4, "total_rank": 8}, "make a total rank of 12, not 8"),
        ({"shared_rank": -1}, "shared_rank"),
        ({"bands": 2.5}, "bands"),
        ({"bands": 1}, "bands"),
        ({"bands": 4, "scales": (1.0, 2.0)}, "bands"),
        ({"scales": (1.0, -2.0)}, "scales"),
        ({"scales": (1.0,), "feature_mean": (0.0, 0.0)}, "feature_std"),
        ({"scales": (1.0,), "feature_mean": (0.0,), "feature_std": (1.0,)}, "feature_mean"),
        ({"scales": (1.0,), "feature_mean": (0.0, 0.0), "feature_std": (1.0, 0.0)}, "feature_std"),
        ({"feature_mean": (0.0,) * 4, "feature_std": (1.0,) * 4}, "scales"),
        ({"router_start": {"w1": [[1.0]]}}, "router_start"),
        ({"router_start": [1.0]}, "router_start holds matrices"),
        ({"router_start": {"w1": [[1.0], [1.0, 2.0]]}}, "router_start holds matrices"),
        ({"gates": "uniform", "router_start": {}}, "no router to start"),
        ({"r": True}, "r is a whole number"),
        ({"total_rank": "12"}, "total_rank is a whole number"),
        ({"total_rank": 12.0}, "total_rank is a whole number of at least 1, got 12.0"),
        ({"bands": "4"}, "bands is a whole number"),
        ({"num_experts": None}, "num_experts is a whole number"),
        ({"tau": "warm"}, "tau is a number above 0, got 'warm'"),
        ({"alpha": float("nan")}, "alpha is a number above 0"),
        ({"dropout": "0.1"}, "dropout is a number in"),
        ({"scales": 0.8}, "scales is a list of numbers"),
        ({"scales": "0.8,1.6"}, "scales is a list of numbers"),
        ({"feature_mean": 0.0, "feature_std": 1.0}, "feature_mean is a list of numbers"),
        ({"features": None}, "features is a list of names"),
        ({"target_modules": [1]}, "target_modules is a list of names"),
        ({"exclude_modules": 5}, "exclude_modules is a list of names"),
        ({"grid": 64}, "grid is .height, width. in latent pixels, got 64"),
        ({"grid": "64x64"}, "grid is .height, width. in latent pixels, got '64x64'"),
        ({"grid": (1, 2, 3)}, "grid is"),
        ({"grid": (64.5, 64)}, "each side of grid is a whole number of at least 1, got 64.5"),
        ({"grid": (0, 64)}, "each side of grid"),
        ({"noise_schedule": "flow"}, "not a noise schedule"),
        ({"noise_schedule": {"kind": "vp", "last": 999, "log_snr": 5}}, "not a noise schedule"),
    ],
)
def test_a_bad_value_is_named(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        FeraConfig(**{"target_modules": ["to_q"], **settings})


def test_a_bad_value_in_a_file_is_named_with_the_file() -> None:
    with pytest.raises(UserError, match=r"run/adapter_config\.json: FeraConfig: scales is a list .* got '0.8'"):
        config_from_json({"peft_type": "FERA", "target_modules": ["to_q"], "scales": "0.8"}, "run/adapter_config.json")


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    given: dict[str, Any] = {"r": np.int64(2), "grid": np.array([16, 8]), "tau": np.float32(0.5)}
    config = FeraConfig(**given, scales=np.array([0.8, 1.6]))  # type: ignore[arg-type]
    config.save_pretrained(str(tmp_path))
    plain = FeraConfig(r=2, grid=(16, 8), tau=0.5, scales=(0.8, 1.6))
    assert PeftConfig.from_pretrained(str(tmp_path)) == config == plain


def test_an_unknown_setting_in_a_file_is_refused_with_a_guess() -> None:
    saved = json.loads(json.dumps(FeraConfig(target_modules=["to_q"]).to_dict()))
    with pytest.raises(UserError, match="did you mean 'num_experts'"):
        config_from_json({**saved, "num_expert": 2}, "adapter_config.json")


def test_resolving_fills_in_the_denoiser_and_leaves_the_given_configuration_alone(unet: nn.Module) -> None:
    config = FeraConfig(target_modules=["to_q"])
    resolved = resolve(config, unet)
    assert (config.scales, config.grid, config.feature_mean) == (None, None, None)
    assert resolved.grid == (16, 16)
    assert resolved.scales == FilterBank.octaves(4, (16, 16)).scales


def test_a_model_that_does_not_say_its_grid_needs_one() -> None:
    with pytest.raises(UserError, match="grid"):
        resolve(FeraConfig(target_modules=["0"]), nn.Sequential(nn.Linear(2, 2)))


@pytest.mark.parametrize("size", [16, 64])
def test_blind_statistics_centre_pink_pictures_in_noise(size: int) -> None:
    bank = FilterBank.octaves(4, (size, size))
    mean, std = blind_statistics(bank, (size, size))
    draw = np.random.default_rng(0)
    f = np.hypot(np.arange(size)[:, None], np.arange(size)) + (np.arange(size * size).reshape(size, size) == 0)
    pink = idctn(draw.standard_normal((64, size, size)) / f, axes=(1, 2), norm="ortho")
    t = np.linspace(0.02, 0.98, 64)[:, None, None]
    mixed = torch.from_numpy((1 - t) * pink / pink.std() + t * draw.standard_normal(pink.shape))
    features = (bank.shares(mixed).log() - torch.tensor(mean)) / torch.tensor(std)
    assert features.mean(0).abs().max() < 1
    assert features.abs().max() < 8


def test_a_file_of_the_first_version_still_loads() -> None:
    """It knew no total rank, no features and no schedule: these are its keys."""
    saved = {
        "peft_type": "FERA", "task_type": None, "auto_mapping": None, "base_model_name_or_path": None, "revision": None,
        "inference_mode": True, "peft_version": "0.21.2", "r": 2, "num_experts": 4, "target_modules": ["to_q"],
        "exclude_modules": None, "alpha": 3.0, "dropout": 0.0, "mode": "exact", "bands": 3, "scales": [0.8, 1.6],
        "grid": [16, 8], "feature_mean": [-1.0, -2.0, -3.0], "feature_std": [1.0, 0.5, 0.25], "tau": 0.5,
        "router_hidden": 64, "router_start": None, "latent_argument": "sample", "provenance": {"model": "mini"},
    }  # fmt: skip
    config = config_from_json(saved, "adapter_config.json")
    assert (config.total_rank, config.shared_rank, config.scaling) == (8, 0, 3 / 8)
    assert (config.features, config.gates, config.noise_schedule) == (("shares",), "router", None)
    assert config.feature_width == 3
    assert config.grid == (16, 8)


def test_the_features_and_the_schedule_come_back_from_a_file(tmp_path: Path) -> None:
    config = FeraConfig(target_modules=["to_q"], features=("snr", "log_snr"), total_rank=8, num_experts=2,
                        noise_schedule={"kind": "vp", "last": 2, "log_snr": [3.0, 1.0, -2.5]})  # fmt: skip
    config.save_pretrained(str(tmp_path))
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config_from_json(saved, "adapter_config.json") == config


def test_a_total_rank_is_split_over_the_experts() -> None:
    config = FeraConfig(target_modules=["to_q"], total_rank=14, num_experts=3, shared_rank=2)
    assert (config.rank, config.total_rank) == (4, 14)


def test_one_feature_may_be_named_without_a_tuple() -> None:
    assert FeraConfig(target_modules=["to_q"], features="shares").features == ("shares",)  # type: ignore[arg-type]


def test_published_mode_has_the_defaults_of_its_authors(unet: nn.Module) -> None:
    config = resolve(FeraConfig(target_modules=["to_q"], mode="published"), unet)
    assert (config.bands, config.alpha, config.rank, config.tau, config.router_hidden) == (3, 1.0, 4, 0.7, 64)
    assert (config.scales, config.feature_mean) == (None, None)
    assert config.bank == FilterBank.octaves(3, (16, 16))  # what a loss with exact bands takes


def test_uniform_gates_need_no_statistics_and_no_schedule(unet: nn.Module) -> None:
    config = resolve(FeraConfig(target_modules=["to_q"], gates="uniform", features=("log_snr",)), unet)
    assert config.feature_mean is None
    assert not config.timed
