"""Models open by name, folder or hub id; what is not whole is refused in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from spectra.errors import UserError
from spectra.model_files import check_folder
from spectra.models import MODELS, call_defaults, check_steps, load_pipeline, locate, model_hash, usable_device
from tests.tiny import tiny_sd, tiny_sd3, tiny_sd3_folder, tiny_sd_folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sd_folder(tmp_path_factory.mktemp("models") / "whole")


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_every_name_in_the_registry_says_what_it_is() -> None:
    for name, model in MODELS.items():
        assert model.bundled or model.analytic or model.source.count("/") == 1, name
        assert (model.memory is None) == model.analytic, name
        assert model.memory is None or model.memory > 0, name
        assert model.licence, name
        assert model.family, name


def test_every_family_in_the_registry_is_known_to_the_tap() -> None:
    from spectra.families import FAMILIES

    assert {model.family for model in MODELS.values()} <= {family.name for family in FAMILIES}


def test_a_folder_opens_as_the_pipeline_that_was_saved(whole: Path) -> None:
    pipe = load_pipeline(whole)
    assert type(pipe).__name__ == "StableDiffusionPipeline"
    assert {part.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder)} == {torch.float32}
    assert not pipe.unet.training


def test_opening_prints_nothing(whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_pipeline(whole)
    out, err = capfd.readouterr()
    assert out + err == ""


def test_half_precision_on_disk_opens_in_full_precision(tmp_path: Path) -> None:
    folder = tmp_path / "half"
    tiny_sd().to(torch.float16).save_pretrained(folder)
    pipe = load_pipeline(folder)
    assert {part.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder)} == {torch.float32}
    assert model_hash(pipe) == model_hash(load_pipeline(folder, dtype=torch.float16))


def test_an_sd3_folder_without_t5_opens_and_generates_with_its_defaults(tmp_path: Path) -> None:
    pipe = load_pipeline(tiny_sd3_folder(tmp_path / "sd3"))
    defaults = call_defaults(pipe)
    assert defaults == {"max_sequence_length": 1}
    out = pipe("a ring", num_inference_steps=1, guidance_scale=1.0, output_type="latent", **defaults).images
    assert out.shape == (1, 4, 16, 16)


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.bundled])
def test_a_bundled_model_opens_by_name_and_draws_a_picture(name: str) -> None:
    pipe = load_pipeline(name)
    drawn = pipe("a large red ring on a striped blue background", num_inference_steps=2, **call_defaults(pipe)).images
    assert drawn[0].size == (64, 64)


def test_more_steps_than_noise_levels_are_refused_for_denoising_models_only() -> None:
    check_steps(tiny_sd(), 1000)
    check_steps(tiny_sd3(), 2000)
    with pytest.raises(UserError, match="trained on 1000 noise levels"):
        check_steps(tiny_sd(), 1001)


def test_an_accelerator_is_used_only_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._C, "_accelerator_getAccelerator", lambda: torch.device("cuda"))  # built for one
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert usable_device() == torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert usable_device() == torch.device("cuda")


def test_only_sd3_without_room_for_t5_needs_other_arguments() -> None:
    assert call_defaults(tiny_sd()) == {}
    wide = tiny_sd3()
    wide.transformer.register_to_config(joint_attention_dim=4096)
    assert call_defaults(wide) == {}


# --- identity ---------------------------------------------------------------------------------------------------------


def test_the_hash_follows_the_weights_and_not_the_path(whole: Path, copy: Path) -> None:
    assert model_hash(whole) == model_hash(copy) == model_hash(load_pipeline(copy))
    file = copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    key = next(iter(weights))
    weights[key] = weights[key] + 1
    save_file(weights, file, metadata={"format": "pt"})
    assert model_hash(whole) != model_hash(copy)


def test_the_hash_follows_the_configuration(whole: Path, copy: Path) -> None:
    config = json.loads((copy / "vae" / "config.json").read_text())
    (copy / "vae" / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.5}))
    assert model_hash(whole) != model_hash(copy)


def test_the_hash_ignores_an_attached_adapter_and_the_scheduler() -> None:
    from diffusers import EulerDiscreteScheduler
    from peft import LoraConfig

    pipe = tiny_sd()
    before = model_hash(pipe)
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    assert model_hash(pipe) == before


def test_two_seeds_are_two_models() -> None:
    assert model_hash(tiny_sd(seed=0)) != model_hash(tiny_sd(seed=1))


# --- what is refused --------------------------------------------------------------------------------------------------


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def drop_folder(name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / name)


def cut(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return spoil


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def to_pickle(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()


def drop_tensor(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights.pop("conv_norm_out.weight")
    save_file(weights, file, metadata={"format": "pt"})


def drop_text_tensor(folder: Path) -> None:
    file = folder / "text_encoder" / "model.safetensors"
    weights = {key: value for key, value in load_file(file).items() if "token_embedding" not in key}
    save_file(weights, file, metadata={"format": "pt"})


def rename(name: str, to: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).rename((folder / name).with_name(to)) and None


SPOILED = {
    "no index": (drop("model_index.json"), "not a diffusers pipeline"),
    "index is not JSON": (write("model_index.json", "{"), "damaged"),
    "index without class": (write("model_index.json", "{}"), "no pipeline class"),
    "unknown class": (write("model_index.json", '{"_class_name": "NoSuchPipeline"}'), "NoSuchPipeline"),
    "component missing": (drop_folder("vae"), "vae"),
    "config missing": (drop("unet/config.json"), "unet/config.json"),
    "config not JSON": (cut("unet/config.json"), "damaged"),
    "weights missing": (drop("unet/diffusion_pytorch_model.safetensors"), "no weights"),
    "weights cut short": (cut("unet/diffusion_pytorch_model.safetensors"), "damaged or incomplete"),
    "weights empty": (write("text_encoder/model.safetensors", ""), "damaged or incomplete"),
    "shard missing": (
        write("unet/a.safetensors.index.json", '{"weight_map": {"x": "part-2.safetensors"}}'),
        "part-2.safetensors is missing",
    ),
    "one tensor missing": (drop_tensor, "conv_norm_out.weight"),
    "one tensor of the text encoder missing": (drop_text_tensor, "CLIPTextModel lacks the weights .*token_embedding"),
    "vocabulary missing": (drop("tokenizer/tokenizer.json"), "tokenizer lacks its vocabulary"),
    "merges missing": (rename("tokenizer/tokenizer.json", "vocab.json"), r"tokenizer lacks merges\.txt"),
    "length of prompts missing": (drop("tokenizer/tokenizer_config.json"), r"lacks tokenizer_config\.json"),
    "pickle only": (to_pickle, "never loaded"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_torn_folder_is_refused_in_one_sentence(copy: Path, case: str) -> None:
    spoil, expected = SPOILED[case]
    spoil(copy)
    with pytest.raises(UserError, match=expected) as caught:
        load_pipeline(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spoil", [drop_tensor, drop_text_tensor])
def test_missing_weights_are_noticed_however_quiet_the_libraries_are(
    copy: Path, spoil: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
) -> None:
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    before = [library.get_verbosity() for library in libraries]
    try:
        for library in libraries:
            library.set_verbosity_error()
        spoil(copy)
        with pytest.raises(UserError, match="is torn"):
            load_pipeline(copy)
        assert [library.get_verbosity() for library in libraries] == [40, 40]
    finally:
        for library, level in zip(libraries, before, strict=True):
            library.set_verbosity(level)
    assert capfd.readouterr().err == ""


def test_a_tokenizer_that_reads_bytes_has_no_vocabulary_to_lose(tmp_path: Path) -> None:
    from transformers import ByT5Tokenizer

    ByT5Tokenizer().save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": "X", "tokenizer": ["transformers", "ByT5Tokenizer"]})
    )
    check_folder(tmp_path)


def test_a_misspelt_name_is_answered_with_close_names() -> None:
    with pytest.raises(UserError, match="did you mean mini"):
        locate("minni")


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(UserError, match=r"no model folder '\./nowhere'"):
        locate("./nowhere")


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="is a file"):
        locate(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["sd15", "someone/some-model"])
def test_an_unreachable_hub_is_one_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("diffusers.pipelines.pipeline_utils.DIFFUSERS_CACHE", str(tmp_path), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="cannot be reached and there is no local copy") as caught:
        locate(name)
    assert "\n" not in str(caught.value)
