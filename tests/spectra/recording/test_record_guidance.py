from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

import spectra
import spectra.guidance
from spectra.errors import UserError
from spectra.record import record
from tests.spectra.guided import flux, modular_wan
from tests.spectra.witness import BANK, CALL, Witness, energies, scipy_energies, seeded
from tests.tiny import tiny_sd, tiny_sd3

GUIDED = ("latent", "x0", "cond", "uncond", "guidance")
PROMPTED = CALL | {"guidance_scale": 3.0}


class Halves:
    """The two halves of what the denoiser put out, first without and then with the prompt."""

    def __init__(self, denoiser: torch.nn.Module) -> None:
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        denoiser.register_forward_hook(lambda module, args, out: self.kept.append(out[0].chunk(2)))


@pytest.mark.parametrize(("make", "denoiser"), [(tiny_sd, "unet"), (tiny_sd3, "transformer")])
def test_cond_uncond_and_their_difference_are_those_of_the_denoiser(make: Any, denoiser: str, tmp_path: Path) -> None:
    pipe = make()
    halves = Halves(getattr(pipe, denoiser))
    with record(pipe, tmp_path / "c.zarr", bank=BANK, signals=GUIDED):
        pipe(["a", "b"], generator=seeded(1, 2), **PROMPTED)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    for i, (uncond, cond) in enumerate(halves.kept):
        for signal, field in (("cond", cond), ("uncond", uncond), ("guidance", cond - uncond)):
            np.testing.assert_allclose(energies(cube, signal)[:, i], scipy_energies(field), rtol=1e-3, atol=1e-6)
    assert np.isnan(cube.energy.sel(signal=list(GUIDED[1:])).isel(step=-1)).all()
    assert set(cube["split"].values) == {""}
    assert set(cube.guidance_rule.values) == {"cfg"}


def test_agreement_is_the_inner_product_of_the_velocities_by_band(tmp_path: Path) -> None:
    pipe = tiny_sd3()
    halves = Halves(pipe.transformer)
    with record(pipe, tmp_path / "c.zarr", bank=BANK, signals=GUIDED):
        pipe("a", generator=seeded(1), **PROMPTED)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    for i, (uncond, cond) in enumerate(halves.kept):
        pairs = {"cond cond": (cond, cond), "cond uncond": (cond, uncond), "uncond uncond": (uncond, uncond)}
        for pair, (one, two) in pairs.items():
            products = (BANK.split(one.double()) * two.double().unsqueeze(-3)).sum((1, 3, 4))
            np.testing.assert_allclose(cube.agreement.sel(pair=pair).isel(step=i), products, rtol=1e-4)
    assert np.isnan(cube.agreement.isel(step=-1)).all()


def test_agreement_of_noise_predictions_is_that_of_the_library_for_each_step(tmp_path: Path) -> None:
    from spectra.guidance import agreement
    from spectra.recording.split import Split
    from spectra.signals import schedule_of

    pipe = tiny_sd("epsilon")
    witness, halves = Witness(pipe), Halves(pipe.unet)
    with record(pipe, tmp_path / "c.zarr", bank=BANK, signals=GUIDED):
        pipe(["a", "b"], generator=seeded(1, 2), **PROMPTED)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    schedule = schedule_of(pipe.scheduler, ("latent",))
    for i, (x, t, (uncond, cond)) in enumerate(zip(witness.states, witness.times, halves.kept, strict=True)):
        expected = agreement(x, Split(cond, uncond, 3.0), schedule.at(t, None), schedule, BANK)
        np.testing.assert_allclose(cube.agreement.isel(step=i), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"guidance_scale": 1.0}, "guidance is off"), ({"guidance_scale": 3.0, "guidance_rescale": 0.7}, "rescale")],
)
def test_without_a_split_there_are_no_numbers_but_a_reason(options: Any, reason: str, tmp_path: Path) -> None:
    pipe = tiny_sd()
    with record(pipe, tmp_path / "c.zarr", signals=GUIDED):
        pipe("a", **CALL | options)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    assert np.isnan(cube.energy.sel(signal=["cond", "uncond", "guidance"])).all()
    assert np.isnan(cube.agreement).all()
    assert np.isfinite(cube.energy.sel(signal="x0").isel(step=slice(-1))).all()
    assert reason in str(cube["split"].values[0])


def test_guidance_for_a_part_of_the_steps_is_recorded_for_that_part(tmp_path: Path) -> None:
    pipe = tiny_sd()

    def stop(pipe: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        if step == 1:
            pipe._guidance_scale = 1.0
            return {"prompt_embeds": tensors["prompt_embeds"].chunk(2)[1]}
        return {}

    with record(pipe, tmp_path / "c.zarr", signals=GUIDED):
        pipe(
            "a", callback_on_step_end=stop, callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"], **PROMPTED
        )
    cube = spectra.open_cube(tmp_path / "c.zarr")
    known = np.isfinite(cube.energy.sel(signal="cond").isel(run=0)).all(("channel", "band"))
    assert known.values.tolist() == [True, True, False, False, False]
    assert str(cube["split"].values[0]) == "in 2 of 4 calls guidance is off"
    assert cube.guidance_rule.values.tolist() == ["cfg"]


def test_one_of_the_three_brings_the_others(tmp_path: Path) -> None:
    with record(tiny_sd(), tmp_path / "c.zarr", signals=("latent", "guidance")) as recorder:
        assert recorder.signals == ("latent", "cond", "uncond", "guidance")


def test_a_rule_replaces_what_the_scheduler_is_given(tmp_path: Path) -> None:
    from spectra.guidance import rule
    from spectra.recording.split import Split
    from spectra.signals import schedule_of

    pipe = tiny_sd3()
    witness, halves = Witness(pipe), Halves(pipe.transformer)
    with record(pipe, tmp_path / "c.zarr", bank=BANK, signals=("latent", "prediction"), guidance="cfg-zero-star"):
        pipe("a", generator=seeded(1), **PROMPTED)
    zero, schedule = rule("cfg-zero-star"), schedule_of(pipe.scheduler, ("latent",))
    for i, (x, out, (uncond, cond)) in enumerate(zip(witness.states, witness.outputs, halves.kept, strict=True)):
        expected = zero.combine(x, Split(cond, uncond, 3.0), schedule.at(None, i), schedule, i, 4)
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    assert str(cube.guidance_rule.values[0]) == "cfg-zero-star"
    assert float(cube.energy.sel(signal="prediction").isel(step=0).sum()) == 0
    np.testing.assert_allclose(energies(cube, "prediction")[:, 3], scipy_energies(witness.outputs[3]), rtol=1e-4)


@pytest.mark.parametrize("scheduler", ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"])
@pytest.mark.parametrize("strength", [None, 0.6])
def test_the_first_steps_of_a_call_are_zero_wherever_in_the_schedule_it_begins(
    scheduler: str, strength: float | None, tmp_path: Path
) -> None:
    parts = tiny_sd3().components | {"scheduler": getattr(diffusers, scheduler)()}
    pipe = (diffusers.StableDiffusion3Pipeline if strength is None else diffusers.StableDiffusion3Img2ImgPipeline)(
        **parts
    )
    changed = {} if strength is None else {"image": torch.ones(1, 3, 64, 64), "strength": strength}
    pipe.set_progress_bar_config(disable=True)
    rule = spectra.guidance.rule("cfg-zero-star", zero_init=2)
    with record(pipe, tmp_path / "c.zarr", signals=("latent", "prediction"), guidance=rule):
        pipe("a", generator=seeded(1)[0], **PROMPTED | {"num_inference_steps": 6, "height": 64, "width": 64} | changed)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    zero = (cube.energy.sel(signal="prediction").sum(("channel", "band")) == 0).values[0, :-1]
    assert zero.tolist() == (cube["step"].values[:-1] < 2).tolist()
    np.testing.assert_allclose(energies(cube, "latent")[:, 1], energies(cube, "latent")[:, 0], rtol=1e-6)


@pytest.mark.filterwarnings("ignore:UniPCMultistepScheduler keeps the last 2")
def test_the_rule_gives_what_the_guider_of_the_same_name_gives(tmp_path: Path) -> None:
    """diffusers' own CFG-Zero*, in a modular pipeline, which tells nobody how many steps it makes."""
    guiders = (diffusers.ClassifierFreeZeroStarGuidance, diffusers.ClassifierFreeGuidance)
    given = []
    for guider, own in zip(guiders, (None, "cfg-zero-star"), strict=True):
        pipe, call = modular_wan(guider(guidance_scale=4.0))
        with record(pipe, tmp_path / f"{own}.zarr", signals=("latent", "prediction"), guidance=own):
            pipe(**call, generator=seeded(1)[0])
        given.append(spectra.open_cube(tmp_path / f"{own}.zarr").energy.values)
    assert (given[0][:, 0, 1] == 0).all()
    np.testing.assert_allclose(given[1], given[0], rtol=1e-3)


@pytest.mark.parametrize(
    ("call", "expected"),
    [({}, "cfg"), ({"true_cfg_scale": 1.0}, "none"), ({"negative_prompt_embeds": None}, "none")],
)
def test_guidance_by_embeddings_is_named_and_what_a_network_has_built_in_is_not(
    call: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    pipe, given = flux(**call)  # guidance_scale is 3.5, an input of its network
    pipe.set_progress_bar_config(disable=True)
    with record(pipe, tmp_path / "c.zarr", signals=("latent", "cond")):
        pipe(**given, generator=seeded(1)[0])
    cube = spectra.open_cube(tmp_path / "c.zarr")
    assert cube.guidance_rule.values.tolist() == [expected]
    assert (str(cube["split"].values[0]) == "") == (expected == "cfg")


@pytest.mark.parametrize(
    ("call", "scale"),
    [
        ({}, 4.0),
        ({"true_cfg_scale": 2.0}, 2.0),
        ({"true_cfg_scale": 1.0}, 3.5),
        ({"negative_prompt_embeds": None}, 3.5),
    ],
)
def test_runs_are_labelled_with_the_scale_that_guides(call: dict[str, Any], scale: float, tmp_path: Path) -> None:
    pipe, given = flux(**call, guidance_scale=3.5)
    pipe.set_progress_bar_config(disable=True)
    with record(pipe, tmp_path / "c.zarr"):
        pipe(**given, generator=seeded(1)[0])
    assert spectra.open_cube(tmp_path / "c.zarr").guidance_scale.values.tolist() == [scale]


@pytest.mark.parametrize(("options", "scale"), [({"scale": 5.0}, 5.0), ({}, 3.0)])
def test_a_rule_with_a_scale_of_its_own_labels_runs_with_it(options: Any, scale: float, tmp_path: Path) -> None:
    pipe = tiny_sd()
    with record(pipe, tmp_path / "c.zarr", guidance=spectra.guidance.rule("cfg", **options)):
        pipe("a", generator=seeded(1), **PROMPTED)
    assert spectra.open_cube(tmp_path / "c.zarr").guidance_scale.values.tolist() == [scale]


@pytest.mark.parametrize("name", ["FluxFillPipeline", "Flux2Pipeline", "SanaSprintPipeline"])
def test_distilled_pipelines_without_a_negative_prompt_do_not_guide(name: str) -> None:
    from spectra.families import family_of
    from spectra.recording.provenance import guidance_rule

    pipe = object.__new__(getattr(diffusers, name))
    assert guidance_rule(pipe, {"guidance_scale": 30.0}, family_of(pipe)) == "none"


def test_plain_guidance_as_a_rule_changes_no_picture(tmp_path: Path) -> None:
    pipe = tiny_sd()
    plain = pipe("a", generator=seeded(1), **PROMPTED).images
    with record(pipe, tmp_path / "c.zarr", guidance="cfg"):
        ruled = pipe("a", generator=seeded(1), **PROMPTED).images
    torch.testing.assert_close(ruled, plain, rtol=1e-4, atol=1e-4)


def test_a_rule_without_guidance_and_a_rule_that_does_not_exist_are_refused(tmp_path: Path) -> None:
    pipe = tiny_sd()
    with (
        record(pipe, tmp_path / "c.zarr", guidance="cfg"),
        pytest.raises(UserError, match="needs cond and uncond, but guidance is off"),
    ):
        pipe("a", **CALL)
    with (
        pytest.raises(UserError, match="no guidance rule 'wrong'"),
        record(pipe, tmp_path / "c.zarr", guidance="wrong"),
    ):
        pytest.fail("the block must not be entered")


@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        ("HeunDiscreteScheduler", {}, [0, 0, 1, 1, 2, 2, 3, 4]),
        ("PNDMScheduler", {"skip_prk_steps": True}, [0, 0, 1, 2, 3, 4]),
        ("EulerDiscreteScheduler", {}, [0, 1, 2, 3, 4]),
    ],
)
def test_calls_are_counted_and_know_their_step(name: str, options: Any, steps: list[int], tmp_path: Path) -> None:
    pipe = tiny_sd("epsilon")
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **options)
    with record(pipe, tmp_path / "c.zarr"):
        pipe("a", generator=seeded(1), **CALL)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    assert cube.call.values.tolist() == list(range(len(steps)))
    assert cube["step"].values.tolist() == steps
    assert json.loads(cube.attrs["scheduler"])["class"] == name


def test_a_rule_leaves_a_learned_variance_as_it_is() -> None:
    from spectra.recording.entry import with_variance, without_variance

    x, whole = torch.zeros(1, 4, 2, 2), torch.randn(1, 8, 2, 2)
    assert torch.equal(without_variance(x, whole), whole[:, :4])
    assert torch.equal(with_variance(torch.ones_like(x), whole), torch.cat([torch.ones_like(x), whole[:, 4:]], 1))
    assert torch.equal(with_variance(x, x), x)
