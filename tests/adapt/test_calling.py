"""Every family's call against its own pipeline: what reached the scheduler, made again from plain latents."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapt.calling import WAYS, call_of
from datasets_cache.families import FAMILIES, Conditioning, encode_caption, encode_picture
from spectra.errors import UserError
from spectra.families import family_of
from spectra.models import call_defaults, load_pipeline
from spectra.prompts import quiet_cuts
from tests.matrix.train_calls import CAPTIONS, STEPS, arguments, first_frames
from tests.matrix.train_models import MODELS, folder, opened


@dataclass(frozen=True)
class Step:
    """One call of the scheduler: state and answer in plain layout, the state as the network is shown it."""

    noisy: Tensor
    timestep: Tensor
    answer: Tensor


@dataclass(frozen=True)
class Generated:
    pipe: Any
    steps: list[Step]
    conditioning: Conditioning

    def call(self, step: Step) -> Tensor:
        rows = step.timestep.expand(len(step.noisy))
        with torch.no_grad():
            return call_of(self.pipe)(self.denoiser, step.noisy, rows, self.conditioning)

    @property
    def denoiser(self) -> Any:
        return family_of(self.pipe).denoiser(self.pipe)


def told(name: str, pipe: Any) -> Conditioning:
    """What the encodings say of both samples, as the cache keeps it."""
    with quiet_cuts():
        rows = [encode_caption(pipe, caption, call_defaults(pipe)) for caption in CAPTIONS]
    pixels = torch.rand(1, 3, max(1, MODELS[name].frames), *MODELS[name].size) * 2 - 1
    facts = {"original": MODELS[name].size, "crop": (0, 0), "target": MODELS[name].size}
    for row, picture in zip(rows, first_frames(name), strict=True):
        first = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(*MODELS[name].size, 3)
        pixels[:, :, 0] = first.permute(2, 0, 1) / 127.5 - 1
        given = pixels if MODELS[name].frames else pixels[:, :, 0]
        row.update(encode_picture(pipe, given, facts)[1])
    return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}


@cache
def generated(name: str) -> Generated:
    pipe, made = opened(name), arguments(name)
    family, steps, kind = family_of(pipe), [], type(pipe.scheduler)
    signature = inspect.signature(kind.step)

    @functools.wraps(kind.step)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind(self, *args, **kwargs).arguments
        x, answer = (family.plain(given[part], pipe, made) for part in ("sample", "model_output"))
        result = kind.step(self, *args, **kwargs)
        if kind.__name__ == "EulerDiscreteScheduler":
            x = x / (self.sigmas[self.step_index - 1] ** 2 + 1).sqrt()
        steps.append(Step(x.clone(), torch.as_tensor(given["timestep"]).clone(), answer.clone()))
        return result

    pipe.scheduler.__class__ = type(kind.__name__, (kind,), {"step": step})
    try:
        with quiet_cuts():
            pipe(**made)
    finally:
        pipe.scheduler.__class__ = kind
    return Generated(pipe, steps, told(name, pipe))


@pytest.mark.parametrize("name", MODELS)
def test_a_call_answers_what_the_pipeline_gave_its_scheduler(name: str) -> None:
    """Packing, places, sizes, masks, timestep and sign in one: nothing of ours is in the expectation."""
    found = generated(name)
    assert len(found.steps) == STEPS
    for step in found.steps:
        answer = found.call(step)
        assert answer.dtype == torch.float32
        assert step.answer.std() > 1e-3
        torch.testing.assert_close(answer, step.answer.float(), rtol=1e-5, atol=1e-5 * float(step.answer.abs().max()))


@pytest.mark.parametrize("name", MODELS)
def test_each_sample_is_answered_at_its_own_timestep(name: str) -> None:
    found = generated(name)
    first, last = found.steps[0], found.steps[-1]
    call, noisy = call_of(found.pipe), first.noisy
    with torch.no_grad():
        both = call(found.denoiser, noisy, torch.stack([first.timestep, last.timestep]), found.conditioning)
        for row, step in enumerate((first, last)):
            alone = {key: value[row : row + 1] for key, value in found.conditioning.items()}
            one = call(found.denoiser, noisy[row : row + 1], step.timestep[None], alone)
            torch.testing.assert_close(both[row : row + 1], one, rtol=1e-4, atol=1e-4 * float(one.abs().max()))


@pytest.mark.parametrize("name", MODELS)
def test_the_prompt_and_the_timestep_matter(name: str) -> None:
    """Else the comparison with the pipeline would not notice if they were mixed up."""
    found = generated(name)
    step = found.steps[0]
    right = found.call(step)
    swapped = Generated(found.pipe, [], {key: value.flip(0) for key, value in found.conditioning.items()})
    later = Step(step.noisy, found.steps[-1].timestep, step.answer)
    for wrong in (swapped.call(step), found.call(later)):
        assert float((wrong - right).abs().max()) > 1e-4 * float(right.abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_a_denoiser_of_16_bits_answers_nearly_the_same_in_32(name: str) -> None:
    found = generated(name)
    half: Any = load_pipeline(folder(name), dtype=torch.bfloat16)
    step = found.steps[0]
    rows = step.timestep.expand(len(step.noisy))
    with torch.no_grad():
        whole = call_of(found.pipe)(found.denoiser, step.noisy, rows, found.conditioning)
        answer = call_of(half)(family_of(half).denoiser(half), step.noisy, rows, found.conditioning)
    assert answer.dtype == torch.float32
    assert float((answer - whole).norm() / whole.norm()) < 0.1


@pytest.mark.parametrize(("name", "key"), [("sdxl", "time_ids"), ("svd", "added_time_ids")])
def test_numbers_that_16_bits_do_not_hold_are_told_in_32(name: str, key: str) -> None:
    found, half = generated(name), load_pipeline(folder(name), dtype=torch.bfloat16)
    exact = found.conditioning | {key: found.conditioning[key] + 1021}
    given: list[dict[str, Any]] = []
    denoiser = family_of(half).denoiser(half)
    denoiser.register_forward_pre_hook(lambda _, args, named: given.append(named), with_kwargs=True)
    step = found.steps[0]
    with torch.no_grad():
        call_of(half)(denoiser, step.noisy, step.timestep.expand(len(step.noisy)), exact)
    (named,) = given
    assert torch.equal(named.get("added_cond_kwargs", named)[key], exact[key])
    assert named["sample"].dtype == torch.bfloat16


def test_a_wrapped_denoiser_is_called_like_a_bare_one() -> None:
    class Wrapped(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.module(*args, **kwargs)

    found = generated("flux")
    step = found.steps[0]
    rows = step.timestep.expand(len(step.noisy))
    with torch.no_grad():
        answer = call_of(found.pipe)(Wrapped(found.denoiser), step.noisy, rows, found.conditioning)
    assert torch.equal(answer, found.call(step))


def test_every_family_that_is_encoded_can_be_called() -> None:
    assert set(WAYS) == set(FAMILIES)
    assert {type(opened(name)).__name__ for name in MODELS} == set(WAYS)


def test_an_unknown_pipeline_is_refused() -> None:
    with pytest.raises(UserError, match="it is not known how to train a Unheard; known pipelines: StableDiffusion"):
        call_of(type("Unheard", (), {})())


def test_a_pipeline_with_two_denoisers_is_refused() -> None:
    pipe = type("WanPipeline", (SimpleNamespace,), {})(transformer=nn.Identity(), transformer_2=nn.Identity())
    with pytest.raises(UserError, match="has two denoisers"):
        call_of(pipe)
