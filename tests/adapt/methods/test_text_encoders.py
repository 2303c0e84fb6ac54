"""LoRAs of text encoders are attached, learn through the captions, and are saved and loaded beside the adapter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from adapt.methods import METHODS, attach_text_encoders, load_adapters, load_text_encoders, save_text_encoders
from adapt.methods.text_encoders import base_encoders, encode_now, text_groups
from spectra.errors import UserError
from tests.adapt.methods.conftest import settings
from tests.matrix.image_tokens import flux
from tests.tiny import tiny_sd, tiny_sd3


@pytest.mark.parametrize("kind", ["sd", "sd3"])
def test_encoders_learn_from_captions_and_come_back_from_disk(tmp_path: Path, kind: str) -> None:
    make = tiny_sd if kind == "sd" else tiny_sd3
    pipe, config = make(), settings("lora", text_encoder=True)
    encoders = attach_text_encoders(pipe, config)
    assert list(encoders) == (["text_encoder"] if kind == "sd" else ["text_encoder", "text_encoder_2"])
    before = {name: value.detach().clone() for name, value in encode_now(pipe, ["a", "b c"], {}).items()}
    optimizer = torch.optim.SGD([p for g in text_groups(encoders, 1e-2, config) for p in g["params"]], lr=10.0)
    for _ in range(2):
        loss = sum(value.square().mean() for value in encode_now(pipe, ["a", "b c"], {}).values())
        assert isinstance(loss, torch.Tensor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = encode_now(pipe, ["a", "b c"], {})
    assert any(float((after[name] - before[name]).detach().abs().max()) > 1e-4 for name in after)

    METHODS["lora"].attach(_denoiser(pipe), config, ["to_q"], None)
    METHODS["lora"].save(_denoiser(pipe), tmp_path)
    save_text_encoders(pipe, tmp_path)
    fresh = make()
    assert load_adapters(fresh, tmp_path) == "lora"
    for name, value in encode_now(fresh, ["a", "b c"], {}).items():
        torch.testing.assert_close(value, after[name])
    for name in encoders:
        PeftModel.from_pretrained(getattr(make(), name), str(tmp_path / name))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_encoders_give_their_base_back(method: str) -> None:
    pipe = tiny_sd()
    before = _of(encode_now(pipe, ["a"], {}))
    attach_text_encoders(pipe, settings(method, text_encoder=True))
    learned = [name for name, p in pipe.text_encoder.named_parameters() if p.requires_grad]
    with torch.no_grad():
        for p in pipe.text_encoder.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape), alpha=0.1)
    after = _of(encode_now(pipe, ["a"], {}))
    with base_encoders(pipe):
        torch.testing.assert_close(_of(encode_now(pipe, ["a"], {})), before)
    assert float((after - before).abs().max()) > 1e-3
    torch.testing.assert_close(_of(encode_now(pipe, ["a"], {})), after)
    assert learned == [name for name, p in pipe.text_encoder.named_parameters() if p.requires_grad]


def test_full_training_saves_and_loads_whole_encoders(tmp_path: Path) -> None:
    pipe, config = tiny_sd(), settings("full", text_encoder=True)
    METHODS["full"].attach(pipe.unet, config, [], None)
    encoders = attach_text_encoders(pipe, config)
    assert all(p.requires_grad for p in encoders["text_encoder"].parameters())
    with torch.no_grad():
        for p in encoders["text_encoder"].parameters():
            p.add_(torch.randn(p.shape), alpha=0.1)
    METHODS["full"].save(pipe.unet, tmp_path)
    save_text_encoders(pipe, tmp_path)
    other = tiny_sd()
    assert load_adapters(other, tmp_path) == "full"
    for name, value in other.text_encoder.state_dict().items():
        assert torch.equal(value, pipe.text_encoder.state_dict()[name])


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_run_goes_on_from_trained_encoders(tmp_path: Path, method: str) -> None:
    pipe, config = tiny_sd(), settings(method, text_encoder=True)
    METHODS[method].attach(pipe.unet, config, ["to_q"], None)
    attach_text_encoders(pipe, config)
    with torch.no_grad():
        for p in pipe.text_encoder.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape), alpha=0.1)
    METHODS[method].save(pipe.unet, tmp_path)
    save_text_encoders(pipe, tmp_path)
    more = settings(method, text_encoder=True, start_from=tmp_path)
    second = tiny_sd()
    METHODS[method].attach(second.unet, more, ["to_q"], None)
    attach_text_encoders(second, more)
    torch.testing.assert_close(_of(encode_now(second, ["a"], {})), _of(encode_now(pipe, ["a"], {})))
    assert any(p.requires_grad for p in second.text_encoder.parameters())
    with pytest.raises(UserError, match="trained the text encoder too"):
        METHODS[method].attach(tiny_sd().unet, settings(method, start_from=tmp_path), ["to_q"], None)


def _of(told: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in told.values()])


def test_only_what_was_added_learns() -> None:
    pipe = tiny_sd()
    attach_text_encoders(pipe, settings("lora", text_encoder=True))
    learned = [name for name, p in pipe.text_encoder.named_parameters() if p.requires_grad]
    assert learned
    assert all(".lora_" in name for name in learned)


def test_a_pipeline_without_clip_and_a_lora_that_does_not_fit_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no CLIP text encoder"):
        attach_text_encoders(flux(), settings("lora", text_encoder=True))
    pipe = tiny_sd3()
    attach_text_encoders(pipe, settings("lora", text_encoder=True))
    save_text_encoders(pipe, tmp_path)
    with pytest.raises(UserError, match="is a LoRA of a text encoder that this StableDiffusionPipeline lacks"):
        load_text_encoders(tiny_sd(), tmp_path)
    assert not getattr(tiny_sd().text_encoder, "peft_config", {})


def _denoiser(pipe: object) -> object:
    return getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
