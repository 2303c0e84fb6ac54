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
        ({"mode": "published"}, "mode"),
        ({"bands": 1}, "bands"),
        ({"bands": 4, "scales": (1.0, 2.0)}, "bands"),
        ({"scales": (1.0, -2.0)}, "scales"),
        ({"scales": (1.0,), "feature_mean": (0.0, 0.0)}, "feature_std"),
        ({"scales": (1.0,), "feature_mean": (0.0,), "feature_std": (1.0,)}, "feature_mean"),
        ({"scales": (1.0,), "feature_mean": (0.0, 0.0), "feature_std": (1.0, 0.0)}, "feature_std"),
        ({"feature_mean": (0.0,) * 4, "feature_std": (1.0,) * 4}, "scales"),
        ({"router_start": {"w1": [[1.0]]}}, "router_start"),
    ],
)
def test_a_bad_value_is_named(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        FeraConfig(target_modules=["to_q"], **settings)


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
