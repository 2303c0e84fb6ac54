"""Latents and embeddings are kept by content: never mixed up, made again only where something changed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from PIL import Image

from datasets_cache import encode, encode_all
from datasets_cache.encoding import CachedData
from datasets_cache.families import decode_latents, encode_pixels, native_size, text_identity, vae_identity
from spectra.errors import UserError
from tests.adapt.small import write_pictures
from tests.matrix.train_models import MODELS
from tests.tiny import tiny_sd, tiny_sd3


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_sd()


def rows(data: CachedData) -> dict[str, tuple[str, bytes, bytes]]:
    """Picture bytes -> what the network would be trained on."""
    hidden, latents = data.conditioning(range(len(data)))["encoder_hidden_states"], data.latents(range(len(data)))
    return {
        path.read_bytes().hex(): (caption, latent.numpy().tobytes(), embedding.numpy().tobytes())
        for path, caption, latent, embedding in zip(data.paths, data.captions, latents, hidden, strict=True)
    }


def test_a_second_time_everything_is_found(tmp_path: Path, pipe: Any) -> None:
    folder = write_pictures(tmp_path / "data", 3)
    first, second = (encode(folder, pipe, tmp_path / "cache") for _ in range(2))
    assert (first.hits, first.misses) == (0, 7)  # three pictures, three captions, the empty prompt
    assert (second.hits, second.misses) == (7, 0)
    assert rows(first) == rows(second)
    assert first.keys == second.keys


def test_renaming_and_shuffling_files_never_mixes_captions(tmp_path: Path, pipe: Any) -> None:
    folder = write_pictures(tmp_path / "data", 4)
    before = encode(folder, pipe, tmp_path / "cache")
    expected = rows(before)
    for old, new in {"0": "z", "1": "tmp", "2": "1", "tmp": "2", "3": "a"}.items():
        for suffix in (".png", ".txt"):
            (folder / (old + suffix)).rename(folder / (new + suffix))
    after = encode(folder, pipe, tmp_path / "cache")
    assert after.misses == 0
    assert [path.name for path in after.paths] != [path.name for path in before.paths]
    assert rows(after) == expected


def test_a_picture_edited_under_its_old_name_is_encoded_again_and_only_it(tmp_path: Path, pipe: Any) -> None:
    folder = write_pictures(tmp_path / "data", 3)
    before = encode(folder, pipe, tmp_path / "cache")
    Image.new("RGB", (64, 64), "red").save(folder / "1.png")
    after = encode(folder, pipe, tmp_path / "cache")
    assert after.misses == 1
    same = (before.latents(range(len(before))) == after.latents(range(len(after)))).flatten(1).all(1).tolist()
    assert same == [True, False, True]


def test_swapping_captions_swaps_embeddings_without_encoding(tmp_path: Path, pipe: Any) -> None:
    folder = write_pictures(tmp_path / "data", 2)
    before = encode(folder, pipe, tmp_path / "cache").conditioning(range(2))["encoder_hidden_states"]
    texts = [(folder / f"{i}.txt").read_text() for i in range(2)]
    for i in range(2):
        (folder / f"{i}.txt").write_text(texts[1 - i])
    after = encode(folder, pipe, tmp_path / "cache")
    assert after.misses == 0
    assert torch.equal(after.conditioning(range(2))["encoder_hidden_states"], before.flip(0))


def test_another_autoencoder_or_text_encoder_shares_nothing(tmp_path: Path, pipe: Any) -> None:
    folder = write_pictures(tmp_path / "data", 2)
    encode(folder, pipe, tmp_path / "cache")
    changed = tiny_sd()
    with torch.no_grad():
        changed.vae.quant_conv.bias[0] += 0.5
    assert encode(folder, changed, tmp_path / "cache").misses == 2
    with torch.no_grad():
        next(changed.text_encoder.parameters())[0] += 0.5
    assert encode(folder, changed, tmp_path / "cache").misses == 3


def test_what_changes_an_encoding_without_changing_weights_is_part_of_the_key() -> None:
    pipe = tiny_sd()
    text, picture = text_identity(pipe, {}), vae_identity(pipe)
    pipe.text_encoder.add_adapter(LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted = text_identity(pipe, {})
    assert adapted != text
    with torch.no_grad():
        next(value for name, value in pipe.text_encoder.named_parameters() if "lora_B" in name)[0] += 1
    assert text_identity(pipe, {}) not in (text, adapted)
    pipe.text_encoder.disable_adapters()
    assert text_identity(pipe, {}) == text

    pipe.vae.enable_tiling()
    tiled = vae_identity(pipe)
    pipe.vae.tile_sample_min_size //= 2
    assert len({picture, tiled, vae_identity(pipe)}) == 3
    pipe.vae.disable_tiling()
    assert vae_identity(pipe) == picture

    pipe.tokenizer.chat_template = "{{ messages }}"
    assert text_identity(pipe, {}) != text


def test_words_that_a_pipeline_puts_around_a_prompt_are_part_of_the_key() -> None:
    lumina = MODELS["lumina2"].build()
    before = text_identity(lumina, {})
    lumina.system_prompt = "You draw."
    assert text_identity(lumina, {}) != before


@pytest.mark.parametrize("make", [tiny_sd, tiny_sd3])
def test_the_denoiser_accepts_what_is_cached(tmp_path: Path, make: Any) -> None:
    pipe = make()
    data = encode(write_pictures(tmp_path / "data", 2, size=(80, 100)), pipe, tmp_path / "cache")
    denoiser = getattr(pipe, "transformer", None) or pipe.unet
    with torch.no_grad():
        answer = denoiser(
            data.latents([0, 1]), timestep=torch.tensor([10, 10]), **data.conditioning([0, 1]), return_dict=False
        )[0]
    assert answer.shape == data.latents([0, 1]).shape == (2, 4, 16, 16)
    assert data.empty.keys() == data.conditioning([0]).keys()


@pytest.mark.parametrize("make", [tiny_sd, tiny_sd3])
def test_embeddings_are_those_that_the_pipeline_generates_with(tmp_path: Path, make: Any) -> None:
    pipe, seen = make(), []
    denoiser = getattr(pipe, "transformer", None) or pipe.unet
    hook = denoiser.register_forward_pre_hook(lambda *call: seen.append(call[2]), with_kwargs=True)
    data = encode(write_pictures(tmp_path / "data", 1), pipe, tmp_path / "cache")
    extra = {"max_sequence_length": 1} if hasattr(pipe, "tokenizer_2") else {}
    pipe(data.captions[0], num_inference_steps=1, guidance_scale=5.0, output_type="latent", **extra)
    hook.remove()
    for name, value in data.conditioning(range(len(data))).items():
        torch.testing.assert_close(seen[0][name], torch.cat([data.empty[name], value]))


@pytest.mark.parametrize("make", [tiny_sd, tiny_sd3])
def test_latents_decode_as_the_pipeline_decodes_them(make: Any) -> None:
    pipe = make()
    pipe.vae.register_to_config(scaling_factor=0.7, shift_factor=0.3)
    call = {"prompt": "x", "num_inference_steps": 1, "guidance_scale": 1.0}
    call |= {"max_sequence_length": 1} if hasattr(pipe, "tokenizer_2") else {}
    latents, drawn = (
        pipe(**call, generator=torch.Generator().manual_seed(0), output_type=kind).images for kind in ("latent", "pt")
    )
    torch.testing.assert_close(decode_latents(pipe, latents), drawn)


def test_encoding_applies_scale_and_shift_where_decoding_takes_them_back() -> None:
    plain, scaled = tiny_sd3(), tiny_sd3()
    scaled.vae.register_to_config(scaling_factor=0.7, shift_factor=0.3)
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(encode_pixels(scaled, pixels), (encode_pixels(plain, pixels) - 0.3) * 0.7)


def test_pictures_get_the_size_that_the_denoiser_was_made_for() -> None:
    assert native_size(tiny_sd()) == native_size(tiny_sd3()) == (64, 64)


def test_a_damaged_picture_is_named_before_anything_is_encoded(tmp_path: Path, pipe: Any) -> None:
    folder = write_pictures(tmp_path / "data", 2)
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"1\.png is damaged"):
        encode(folder, pipe, tmp_path / "cache")
    (folder / "1.png").write_bytes(whole)
    assert encode(folder, pipe, tmp_path / "cache").hits == 0


def test_values_that_are_not_finite_are_refused_and_not_cached(tmp_path: Path) -> None:
    folder, broken = write_pictures(tmp_path / "data", 1), tiny_sd()
    with torch.no_grad():
        broken.vae.quant_conv.bias[0] = torch.inf
    for _ in range(2):
        with pytest.raises(UserError, match=r"0\.png encodes to values that are not finite"):
            encode(folder, broken, tmp_path / "cache")


def test_a_pipeline_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    from datasets_cache.families import encoding_family

    with pytest.raises(UserError, match="known pipelines: StableDiffusionPipeline"):
        encoding_family(object())


def test_taking_rows_keeps_them_together(tmp_path: Path, pipe: Any) -> None:
    data = encode(write_pictures(tmp_path / "data", 3), pipe, tmp_path / "cache")
    taken = rows(data.take([2, 0]))
    assert taken.items() <= rows(data).items()
    assert len(taken) == 2


def test_pictures_that_are_enlarged_are_counted_cached_or_not(tmp_path: Path, pipe: Any) -> None:
    for name, size in {"small": (63, 40), "low": (40, 64), "right": (64, 64), "large": (80, 100)}.items():
        write_pictures(tmp_path / name, 2, size=size)
    for _ in range(2):
        with pytest.warns(UserWarning, match="are (cut|enlarged)") as said:
            encode(tmp_path / "small", pipe, tmp_path / "cache")
        assert [str(one.message) for one in said if one.category is UserWarning] == [
            "2 pictures are smaller than 64 x 64 and are enlarged"
        ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("low", "right", "large"):
            encode(tmp_path / name, pipe, tmp_path / "cache")


def test_several_folders_are_warned_about_once(tmp_path: Path, pipe: Any) -> None:
    outer = write_pictures(tmp_path / "data", 2, size=(32, 32))
    inner = write_pictures(outer / "held", 1, seed=1, size=(32, 32))
    for path in (outer / "1.txt", inner / "0.txt"):
        path.write_text("more than sixteen letters")
    with pytest.warns(UserWarning, match="are (cut|enlarged)") as said:
        data, held = encode_all([outer, inner], pipe, tmp_path / "cache")
    assert (len(data), len(held)) == (2, 1)
    assert [str(one.message) for one in said if one.category is UserWarning] == [
        f"2 captions are longer than the 16 tokens this model reads and are cut (first: {outer / '1.txt'})",
        "3 pictures are smaller than 64 x 64 and are enlarged",
    ]
