"""The model `gaussian`: named, listed, loaded, probed, and exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

import spectra
from spectra.errors import UserError
from spectra.models import MODELS, load_pipeline, locate, model_hash
from spectra.zoo.gaussian import gaussian_pipeline, network_level
from tests.spectra.witness import seeded

SMALL = "gaussian:2x6x8:1.0:0.5"


def test_it_is_probed_by_name(tmp_path: Path) -> None:
    cube = spectra.probe(SMALL, ["a", "b"], [0, 1], 4, tmp_path / "c.zarr")
    assert dict(cube.sizes) | {"run": 4, "step": 5, "channel": 2} == dict(cube.sizes)
    assert cube.attrs["model"] == SMALL
    assert cube.attrs["family"] == MODELS["gaussian"].family == "gaussian"


def test_a_specification_says_shape_exponent_and_mean() -> None:
    for spec, shape in (("gaussian", (4, 16, 16)), ("gaussian:1x5x7", (1, 5, 7)), (SMALL, (2, 6, 8))):
        pipe: Any = load_pipeline(spec)
        assert pipe("a", num_inference_steps=1).images.shape == (1, *shape)
    field = load_pipeline(SMALL).field()
    assert field.mean[0, 0, 0] == pytest.approx(0.5 * np.sqrt(48))
    # one over f: a mode of twice the frequency has half the variance
    assert field.variance[0, 0, 1] / field.variance[0, 0, 2] == pytest.approx(2)


@pytest.mark.parametrize(
    "spec",
    ["gaussian:", "gaussian:4x4", "gaussian:0x4x4", "gaussian:1x4x4:steep", "gaussian:1x4x4:nan",
     "gaussian:1x4x4:2:3:4", "gaussian:1x4x4:99", "gaussian:1x4x4:2:1e9", "gaussian:9999x9999x9999"],
)  # fmt: skip
def test_a_specification_that_is_none_is_refused_in_one_sentence(spec: str) -> None:
    with pytest.raises(UserError, match="gaussian:4x24x32") as caught:
        load_pipeline(spec)
    assert "\n" not in str(caught.value)


def test_options_of_other_models_are_refused() -> None:
    with pytest.raises(UserError, match="variant"):
        load_pipeline("gaussian", variant="fp16")


def test_it_has_no_folder() -> None:
    with pytest.raises(UserError, match="no folder"):
        locate("gaussian")


def test_a_text_always_stands_for_the_same_field() -> None:
    one, two = gaussian_pipeline(SMALL), gaussian_pipeline(SMALL)
    np.testing.assert_array_equal(one.field("a dog").mean, two.field("a dog").mean)
    assert abs(one.field("a dog").mean - one.field("a cat").mean).max() > 0.1
    np.testing.assert_array_equal(one.field("a dog").variance, one.field("a cat").variance)
    tilted = gaussian_pipeline(SMALL, tilt=0.5)
    assert abs(tilted.field("a dog").variance - tilted.field("a cat").variance).max() > 0.1


def test_the_hash_tells_specifications_apart() -> None:
    hashes = [model_hash(gaussian_pipeline(spec)) for spec in ("gaussian", "gaussian:4x16x16", SMALL, "gaussian:2x6x8")]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


@pytest.mark.parametrize(
    "name",
    ["FlowMatchEulerDiscreteScheduler", "DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler",
     "LMSDiscreteScheduler", "HeunDiscreteScheduler", "DPMSolverMultistepScheduler", "DEISMultistepScheduler",
     "PNDMScheduler", "DPMSolverSinglestepScheduler"],
)  # fmt: skip
def test_any_scheduler_ends_near_the_data(name: str) -> None:
    """Samples have the mean and, but for discretisation, the energies of the field."""
    pipe = gaussian_pipeline("gaussian:1x6x8:1.0:0.5")
    pipe.scheduler = getattr(diffusers, name)(**({"clip_sample": False} if name.startswith("DD") else {}))
    samples = pipe(["a"] * 256, num_inference_steps=30, generator=seeded(*range(256))).images.double()
    X, field = spectra.FilterBank((1.0,)).coefficients(samples).numpy(), pipe.field("a")
    np.testing.assert_allclose(X.mean(0), field.mean, atol=0.7)
    assert 0.7 < (X.var(0) / field.variance).mean() < 1.15


def test_the_denoiser_says_what_the_field_says() -> None:
    pipe = gaussian_pipeline(SMALL, dtype=torch.float64)
    field, x = pipe.field("a"), torch.randn(3, 2, 6, 8, dtype=torch.float64)
    given = pipe._embed(["a"] * 3, None, guided=False)
    names = {"epsilon": "eps", "sample": "x0", "v_prediction": "v", "flow_prediction": "flow"}
    for a, b in ((0.6, 0.4), (0.0, 1.0), (1.0, 0.0)):
        for kind, name in names.items():
            said = pipe.transformer(x, torch.zeros(3), given, level=(a, b), prediction_type=kind)[0]
            torch.testing.assert_close(said, field.predict(x, name, a, b), atol=1e-12, rtol=1e-12)


def test_guidance_runs_both_prompts_in_one_batch() -> None:
    pipe, seen = gaussian_pipeline(SMALL), []
    pipe.transformer.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    for scale in (1.0, 2.0):
        pipe(["a", "b"], negative_prompt="c", num_inference_steps=1, guidance_scale=scale)
    assert seen == [2, 4]
    with pytest.raises(UserError, match="as many negative prompts"):
        pipe(["a", "b"], negative_prompt=["c"], guidance_scale=2.0)


def test_given_noise_and_callbacks_are_used_as_elsewhere() -> None:
    pipe, seen = gaussian_pipeline(SMALL), []

    def halve(pipe: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append(step)
        return {"latents": tensors["latents"] / 2}

    noise = torch.randn(1, 2, 6, 8, generator=torch.Generator().manual_seed(3))
    given = pipe("a", latents=noise, num_inference_steps=3).images
    torch.testing.assert_close(given, pipe("a", generator=seeded(3), num_inference_steps=3).images)
    halved = pipe("a", latents=noise, num_inference_steps=3, callback_on_step_end=halve, return_dict=False)[0]
    assert seen == [0, 1, 2]
    assert halved.std() < given.std()
    assert isinstance(pipe("a", num_inference_steps=1, output_type="np").images, np.ndarray)


def test_what_it_cannot_do_is_said_in_a_sentence() -> None:
    pipe = gaussian_pipeline(SMALL)
    with pytest.raises(UserError, match="no picture"):
        pipe("a", output_type="pil")
    with pytest.raises(UserError, match="shape"):
        pipe("a", latents=torch.zeros(1, 4, 4, 4))
    for name in ("KDPM2DiscreteScheduler", "EDMEulerScheduler"):
        pipe.scheduler = getattr(diffusers, name)()
        with pytest.raises(UserError, match="unknown to the Gaussian model"):
            pipe("a", num_inference_steps=2)
    with pytest.raises(UserError, match="unknown to the Gaussian model"):
        network_level(diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), 0, 0)
    pipe.scheduler = diffusers.DDPMScheduler(prediction_type="epsilon")
    pipe.scheduler.register_to_config(prediction_type="noise")
    with pytest.raises(UserError, match="not 'noise'"):
        pipe("a", num_inference_steps=2)
