"""Make a pipeline folder from a training state: `python -m spectra.zoo.recipes.assemble --model mini ...`."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
)
from safetensors.torch import load_file, save_file
from torch import nn

from spectra.zoo.recipes import text
from spectra.zoo.recipes.denoiser import RECIPES

FLOW_SHIFT = 1.5


def stable_diffusion(vae: AutoencoderKL, nets: nn.ModuleDict) -> DiffusionPipeline:
    """`mini` as a StableDiffusionPipeline."""
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", timestep_spacing="trailing",
        clip_sample=False, set_alpha_to_one=True, steps_offset=1,
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=vae, text_encoder=nets["text_encoder"], tokenizer=text.tokenizer(), unet=nets["denoiser"],
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_3(vae: AutoencoderKL, nets: nn.ModuleDict) -> DiffusionPipeline:
    """`mini-flow` as a StableDiffusion3Pipeline without T5."""
    return StableDiffusion3Pipeline(
        transformer=nets["denoiser"], scheduler=FlowMatchEulerDiscreteScheduler(shift=FLOW_SHIFT), vae=vae,
        text_encoder=nets["text_encoder"], tokenizer=text.tokenizer(),
        text_encoder_2=nets["text_encoder_2"], tokenizer_2=text.tokenizer(), text_encoder_3=None, tokenizer_3=None,
    )  # fmt: skip


def pipeline(model: str, vae_folder: Path, state_file: Path) -> DiffusionPipeline:
    """The pipeline with the averaged weights of a training state, float32."""
    nets = RECIPES[model].build()
    nets.load_state_dict(torch.load(state_file, weights_only=True)["average"])
    vae = AutoencoderKL.from_pretrained(vae_folder)
    vae.register_to_config(shift_factor=0.0)
    build = stable_diffusion if model == "mini" else stable_diffusion_3
    pipe = build(vae, nets.eval())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def promise_float32(folder: Path) -> None:
    """Say float32 in the text encoders' configs: transformers opens in the stored type, diffusers in float32."""
    for file in folder.glob("text_encoder*/config.json"):
        config = json.loads(file.read_text())
        file.write_text(json.dumps(config | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n")


def share_autoencoder(folder: Path, owner: Path) -> None:
    """Let two models in one parent folder hold one autoencoder: the second's weights become a link to the first's."""
    name = Path("vae") / "diffusion_pytorch_model.safetensors"
    if (folder / name).read_bytes() != (owner / name).read_bytes():
        raise SystemExit(f"{folder} and {owner} have different autoencoders")
    (folder / name).unlink()
    (folder / name).symlink_to(Path("../..") / owner.name / name)


def prefix_text_keys(folder: Path) -> None:
    """Name a plain CLIP text model's keys as every transformers version reads them (`text_model.` in front)."""
    file = folder / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    named = {
        k if k.startswith(("text_model.", "text_projection")) else f"text_model.{k}": v for k, v in weights.items()
    }
    save_file(named, file, metadata={"format": "pt"})


def main() -> None:
    """Assemble and save in half precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=list(RECIPES), required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share-vae", type=Path, help="sibling model folder whose autoencoder is the same")
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    pipeline(args.model, args.vae, args.state).to(torch.float16).save_pretrained(args.out)
    prefix_text_keys(args.out)
    promise_float32(args.out)
    if args.share_vae:
        share_autoencoder(args.out, args.share_vae)


if __name__ == "__main__":
    main()
