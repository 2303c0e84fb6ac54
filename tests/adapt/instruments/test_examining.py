"""All instruments on finished runs of several methods."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from adapt.instruments import examine, learned, open_run
from adapt.loop import train
from adapt.validate import make_grid, validate
from spectra.errors import UserError
from tests.adapt.small import config, finished

ALWAYS = {"validation_error", "gradient_energy", "gradient_norm", "gradient_cosine", "gradient_agreement",
          "gradient_share", "band_agreement"}  # fmt: skip
ROUTED = {"expert_gradient", "expert_effect", "expert_error", "expert_total", "effect_cosine", "gates", "gate_variance",
          "feature_variance", "error_by_gates", "expert_norm", "expert_spectral", "expert_rank", "expert_cosine",
          "update_cosine"}  # fmt: skip
UPDATES = {"update_norm", "update_spectral", "update_rank"}


@cache
def examined(method: str) -> xr.Dataset:
    return examine(finished(method).path)


def test_a_fera_run_shows_everything() -> None:
    found = examined("fera")
    assert set(found.data_vars) == ALWAYS | ROUTED | UPDATES
    assert {name: found.sizes[name] for name in ("level", "sample", "expert", "band", "feature")} == {
        "level": 3, "sample": 2, "expert": 3, "band": 4, "feature": 4,
    }  # fmt: skip
    assert found.gating.values.tolist() == ["own", "level_mean", "other_picture", "uniform"]
    assert found.source.values.tolist() == ["level", "picture", "draw"]
    np.testing.assert_allclose(found.gates.mean("expert"), 1, rtol=1e-5)
    for name in ("update_cosine", "expert_cosine"):
        np.testing.assert_allclose(np.diagonal(found[name]), 1, rtol=1e-5)
    assert (np.diff(found.noise_level) > 0).all()
    assert (found.update_rank <= 12).all()
    assert (found.expert_rank <= 4).all()


def test_it_measures_the_adapter_of_the_run() -> None:
    """Errors and effects are those in the run's own numbers, but for the second draw of the noise."""
    run = finished("fera")
    kept = xr.open_zarr(run.path / "metrics.zarr", consolidated=False).load()
    found = examined("fera")
    np.testing.assert_allclose(found.validation_error, kept.validation_error[-1].mean(("sample", "draw")), rtol=1e-4)
    np.testing.assert_allclose(found.expert_effect, kept.expert_effect, rtol=1e-3)


def test_a_lora_run_shows_gradients_and_updates() -> None:
    found = examined("lora")
    assert set(found.data_vars) == ALWAYS | UPDATES
    assert found.update_rank.dims == ("layer",)
    assert float(found.update_norm.min()) > 0
    assert found.attrs["method"] == "lora"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "ia3", "loha", "adalora", "dora"])
def test_other_methods_show_their_gradients(method: str, tmp_path: Path) -> None:
    found = examine(train(config(tmp_path / method, method=method)).path)
    assert set(found.data_vars) >= ALWAYS
    assert float(found.gradient_norm.min()) > 0


def test_gradients_are_with_respect_to_what_was_trained() -> None:
    the = open_run(finished("lora").path)
    parameters = learned(the.denoiser)
    assert sum(value.numel() for value in parameters.values()) == finished("lora").record["trainable_parameters"]
    routed = open_run(finished("fera").path)
    count = sum(value.numel() for value in learned(routed.denoiser).values())
    assert count == finished("fera").record["adapter_parameters"]


def test_an_opened_run_answers_as_it_did_when_it_ended() -> None:
    run = finished("fera", "sd3")
    the = open_run(run.path)
    kept = xr.open_zarr(run.path / "metrics.zarr", consolidated=False).load()
    np.testing.assert_allclose(validate(the, make_grid(the)).error, kept.validation_error[-1], rtol=1e-4)


def test_settings_may_be_changed_for_a_look() -> None:
    the = open_run(finished("lora").path, eval_levels=5)
    assert make_grid(the).shape[0] == 5


def test_what_is_no_run_or_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a finished run"):
        examine(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(finished("lora").path, other)
    record = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps(record | {"model_hash": "f" * 32}))
    with pytest.raises(UserError, match="hash ffffffffffff"):
        examine(other)
    assert torch.is_grad_enabled()
