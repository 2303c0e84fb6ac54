"""Every picture family, built tiny with random weights, recorded, and held against the pipeline's own code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.modular_pipelines.flux import FluxAutoBlocks
from torch import Tensor

import spectra
from spectra import families
from spectra.errors import UserError
from spectra.families import family_of
from tests.matrix.evidence import BANK, Evidence, observe
from tests.matrix.images import CASES, Case
from tests.matrix.parts import BATCH, quiet

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")


@pytest.fixture(scope="session", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="session")
def guided(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """A guided call from given noise that ends with latents."""
    pipe = case.build()
    latents = case.given(pipe, case.noise())
    folder = tmp_path_factory.mktemp("guided")
    return observe(case, folder, latents=latents, output_type="latent", **case.size(), **case.on)


@pytest.fixture(scope="session")
def unguided(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """A call without guidance that draws its noise, decodes, and says as little of sizes as the pipeline allows."""
    sizes = case.size() if case.short is None else case.short
    return observe(case, tmp_path_factory.mktemp("unguided"), output_type="pt", **sizes, **case.off)


def close(found: Tensor, expected: Tensor) -> None:
    """Energies are equal to float32 accuracy, relative to the largest one."""
    assert found.shape == expected.shape
    assert expected.abs().min() > 0
    torch.testing.assert_close(found.double() / expected, torch.ones_like(expected), rtol=1e-4, atol=0)


def test_the_pipeline_is_known(case: Case, guided: Evidence) -> None:
    """Its family, and the axes of its latents: energies alone would not tell a picture from its transpose."""
    assert family_of(guided.pipe).name == case.family == guided.cube.attrs["family"]
    assert json.loads(guided.cube.attrs["grid"]) == list(case.grid)
    assert guided.cube.sizes["run"] == BATCH
    assert guided.cube.sizes["channel"] == case.channels


def test_step_0_is_the_initial_noise(case: Case, guided: Evidence) -> None:
    """The noise was plain before the pipeline packed it, so nothing is undone to compare."""
    scheduler = guided.pipe.scheduler
    scale = getattr(scheduler, "init_noise_sigma", 1.0) * getattr(scheduler.config, "sigma_data", 1.0)
    close(guided.energies("latent")[:, 0], BANK.energies(float(scale) * case.noise().double()))


def test_the_last_step_is_what_the_pipeline_returns(case: Case, guided: Evidence) -> None:
    close(guided.energies("latent")[:, -1], BANK.energies(guided.finished().double()))


@pytest.mark.parametrize("signal", ["latent", "prediction", "x0", "eps"])
def test_signals_are_those_of_the_scheduler(guided: Evidence, signal: str) -> None:
    """x0 by the scheduler's own account, eps = (x - a x0) / b with its own a and b."""
    close(guided.energies(signal)[:, :-1], guided.expected(signal))


def test_levels_are_those_of_the_scheduler(guided: Evidence) -> None:
    noise = torch.tensor([state.noise for state in guided.heard.states])
    torch.testing.assert_close(torch.from_numpy(guided.cube.noise_level.values[:-1]).float(), noise, rtol=1e-4, atol=0)


def test_sizes_that_the_call_leaves_open_are_found(case: Case, unguided: Evidence) -> None:
    assert json.loads(unguided.cube.attrs["grid"]) == list(case.grid)
    close(unguided.energies("latent")[:, :-1], unguided.expected("latent"))
    close(unguided.energies("x0")[:, :-1], unguided.expected("x0"))


def test_to_vae_is_what_the_pipeline_decodes(unguided: Evidence) -> None:
    """A prior decodes nothing and hands its latents on as they are."""
    passed_on = unguided.heard.decoded or [unguided.result.image_embeddings]
    final = unguided.plain(unguided.heard.states[-1].after)
    torch.testing.assert_close(family_of(unguided.pipe).to_vae(final, unguided.pipe), passed_on[0])


def test_the_denoiser_is_given_latents_and_its_sign_is_known(case: Case, unguided: Evidence) -> None:
    if not case.direct:
        pytest.skip("this pipeline turns the prediction into another one, which depends on the step")
    family, state = family_of(unguided.pipe), unguided.heard.states[-1]
    entered, left = unguided.heard.inputs[-1][family.latent_argument], unguided.heard.outputs[-1]
    assert _tensor(entered).shape[0] == len(state.x)
    torch.testing.assert_close(family.prediction_sign * _like(state.output, _tensor(left)), state.output)


def test_a_modular_pipeline_is_recorded_as_the_classic_one_of_the_same_parts(tmp_path: Path) -> None:
    case = CASES["FluxPipeline"]
    blocks = FluxAutoBlocks()
    blocks.sub_blocks.pop("text_encoder")  # embeddings are given
    call = {name: case.call[name] for name in ("prompt_embeds", "pooled_prompt_embeds")} | case.size()
    classic, modular = case.build(), quiet(blocks.init_pipeline())
    modular.update_components(transformer=classic.transformer, vae=classic.vae, scheduler=classic.scheduler)
    energies = []
    for name, pipe in {"classic": classic, "modular": modular}.items():
        with spectra.record(pipe, tmp_path / name, bank=BANK, signals=("latent", "x0")):
            pipe(**call, num_inference_steps=2, output_type="latent", generator=torch.Generator().manual_seed(0))
        energies.append(torch.from_numpy(spectra.open_cube(tmp_path / name).energy.values))
    torch.testing.assert_close(*energies, equal_nan=True)


@pytest.fixture
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "FAMILIES", ())


@pytest.mark.usefixtures("nothing_known")
@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "StableDiffusion3Pipeline"])
def test_an_unknown_family_with_plain_latents_works(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    seen = observe(case, tmp_path, latents=case.noise(), output_type="latent", **case.size(), **case.on)
    assert seen.cube.attrs["family"] == "unknown"
    close(seen.energies("x0")[:, :-1], seen.expected("x0"))


@pytest.mark.usefixtures("nothing_known")
def test_an_unknown_family_with_packed_latents_asks_for_a_layout_and_takes_it(tmp_path: Path) -> None:
    case = CASES["FluxPipeline"]
    with pytest.raises(UserError, match=r"keeps its latents as \(2, 24, 16\), whose layout is unknown: give layout="):
        observe(case, tmp_path, output_type="latent", **case.size())
    assert not (tmp_path / "c.zarr").exists()
    layout = "b (h w) (c p q) -> b c (h p) (w q), h=4, w=6, p=2, q=2"
    seen = observe(case, tmp_path, layout, output_type="latent", **case.size())
    close(seen.energies("x0")[:, :-1], seen.expected("x0"))


def _tensor(value: Any) -> Tensor:
    """Z-Image takes and gives a list of pictures with a frame axis."""
    return value if isinstance(value, Tensor) else torch.stack(list(value)).squeeze(2)


def _like(given: Tensor, left: Tensor) -> Tensor:
    """What the pipeline keeps of an output: tokens of the picture, channels of the mean."""
    return left[:, : given.shape[1]]
