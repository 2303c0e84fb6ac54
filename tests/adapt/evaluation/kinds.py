"""One adapter of every kind for the tiny Stable Diffusion model, each made once, and short evaluations of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import peft
import torch
import xarray as xr
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn

from adapt.evaluation.evaluating import evaluate
from adapt.evaluation.store import open_evaluation
from adapt.export import export
from adapt.methods import METHODS, attach_text_encoders, save_text_encoders
from adapt.task import targets_of
from spectra.families import family_of
from spectra.models import load_pipeline
from tests.adapt.small import config, encodings, finished, model
from tests.tiny import tiny_sd, tiny_sd3

PROMPTS = ["a red circle", "<b>&'ü</b>"]
SEEDS = [3, 5]


@cache
def place() -> Path:
    return Path(mkdtemp())


def stirred(network: nn.Module, seed: int = 0, only: str = "", size: float = 0.1) -> nn.Module:
    """The network with other weights, where their names hold `only`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if only in name:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return network


def run(method: str) -> Path:
    return finished(method).path


@cache
def by_hand(method: str, text: bool = False) -> Path:
    """A folder of one of our methods, with other weights than it starts from, and a text encoder's beside it."""
    folder, pipe = place() / f"{method}{'-text' * text}", load_pipeline(model("sd"))
    unet = family_of(pipe).denoiser(pipe)
    settings = config(place() / "unused", method=method, text_encoder=text)
    METHODS[method].attach(unet, settings, targets_of(settings, pipe), None, pipe)
    stirred(unet, only="" if method == "full" else "lora_B" if method == "lora" else "fera_B")
    if text:
        attach_text_encoders(pipe, settings)
        stirred(pipe.text_encoder, only="lora_B")
    METHODS[method].save(unet, folder)
    save_text_encoders(pipe, folder)
    return folder


def peft_folder(folder: Path, network: Any, settings: peft.PeftConfig, only: str = "lora_B") -> Path:
    """A network's adapter with other weights than it starts from, as PEFT saves it."""
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(network, settings)
    stirred(wrapped, only=only)
    wrapped.save_pretrained(folder)
    return folder


@cache
def strong_lora() -> Path:
    """A PEFT folder whose update is large enough to be seen in every picture."""
    return peft_folder(
        place() / "strong", tiny_sd().unet, LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"])
    )


@cache
def flow_lora() -> Path:
    """A PEFT folder for the tiny Stable Diffusion 3."""
    return peft_folder(place() / "flow", tiny_sd3().transformer, LoraConfig(r=2, target_modules=["to_q"]))


@cache
def house() -> Path:
    """A kind of adapter that PEFT has and `adapt train` does not."""
    settings = peft.HRAConfig(r=2, target_modules=["to_q", "to_v"])
    return peft_folder(place() / "hra", tiny_sd().unet, settings, only="hra_u")


@cache
def in_parts() -> Path:
    """A folder with a PEFT folder for the denoiser, as PEFT's examples write it."""
    peft_folder(place() / "parts" / "unet", tiny_sd().unet, LoraConfig(r=2, target_modules=["to_q"]))
    return place() / "parts"


@cache
def exported(form: str) -> Path:
    return export(strong_lora(), place() / form, form, model=str(model("sd")), prompts=["a"], steps=2)


@cache
def routed(router: str) -> Path:
    """A FeRA folder whose gates move with the noise level; they follow the latents too unless the router is a clock."""
    folder, pipe = place() / f"fera-{router}", load_pipeline(model("sd"))
    unet, settings = family_of(pipe).denoiser(pipe), config(place() / "unused", method="fera", router=router)
    torch.manual_seed(0)
    METHODS["fera"].attach(unet, settings, targets_of(settings, pipe), None, pipe)
    stirred(stirred(unet, only="fera_B"), 2, only="fera.", size=0.3)
    METHODS["fera"].save(unet, folder)
    return folder


def scheduled(router: str, form: str = "scheduled-loras", steps: int = 16) -> Path:
    """An export of `routed`; sixteen steps come as near to clean pictures as the cells of a validation do."""
    out = place() / f"{form}-{router}-{steps}"
    if out.exists():
        return out
    return export(routed(router), out, form, model=str(model("sd")), prompts=PROMPTS, steps=steps, guidance=3.0)


@cache
def saved_by_diffusers() -> Path:
    """What `save_lora_weights` writes, with a LoRA of the text encoder too."""
    pipe: Any = load_pipeline(model("sd"))
    torch.manual_seed(0)
    for network, targets in ((pipe.unet, ["to_q"]), (pipe.text_encoder, ["q_proj"])):
        network.add_adapter(LoraConfig(r=2, target_modules=targets))
        stirred(network, only="lora_B")
    pipe.save_lora_weights(
        place() / "both", unet_lora_layers=get_peft_model_state_dict(pipe.unet),
        text_encoder_lora_layers=get_peft_model_state_dict(pipe.text_encoder),
    )  # fmt: skip
    return place() / "both"


@cache
def merged() -> Path:
    """A checkpoint with other weights in denoiser and text encoder."""
    pipe = tiny_sd()
    stirred(pipe.unet)
    stirred(pipe.text_encoder, 1)
    pipe.save_pretrained(place() / "merged")
    return place() / "merged"


@cache
def denoiser() -> Path:
    unet: Any = stirred(tiny_sd().unet, 2)
    unet.save_pretrained(place() / "denoiser")
    return place() / "denoiser"


@cache
def denoiser_file() -> Path:
    unet = stirred(tiny_sd().unet, 3)
    save_file(unet.state_dict(), place() / "weights.safetensors")
    return place() / "weights.safetensors"


KINDS: dict[str, tuple[str, Callable[[], Path]]] = {
    "run-lora": ("lora", lambda: run("lora")),
    "fera": ("fera", lambda: by_hand("fera")),
    "full": ("full", lambda: by_hand("full")),
    "text": ("lora", lambda: by_hand("lora", text=True)),
    "adapter-of-run": ("lora", lambda: run("lora") / "adapter"),
    "peft": ("lora", strong_lora),
    "peft-other": ("hra", house),
    "peft-parts": ("lora", in_parts),
    "diffusers": ("lora", lambda: exported("static-lora")),
    "diffusers-file": ("lora", lambda: exported("static-lora") / "pytorch_lora_weights.safetensors"),
    "diffusers-text": ("lora", saved_by_diffusers),
    "kohya": ("lora", lambda: exported("kohya")),
    "kohya-file": ("lora", lambda: next(exported("kohya").glob("*.safetensors"))),
    "scheduled": ("scheduled-loras", lambda: scheduled("clock", steps=2)),
    "merged": ("merged", merged),
    "denoiser": ("merged", denoiser),
    "denoiser-file": ("full", denoiser_file),
}
"""Name -> (kind that it is, path)."""


def evaluated(out: Path, adapters: Sequence[Path | str], **changes: Any) -> xr.Dataset:
    """A short evaluation on the tiny model, without networks and data unless they are asked for."""
    settings: dict[str, Any] = {
        "model": model("sd"), "prompts": PROMPTS, "seeds": SEEDS, "networks": ["none"], "steps": 2, "device": "cpu",
        "cache": encodings(),
    }  # fmt: skip
    return evaluate(adapters, out=out, **(settings | changes)).load()


@cache
def two() -> tuple[Path, xr.Dataset]:
    """An evaluation of two adapters that is only looked at."""
    out = place() / "two.zarr"
    return out, evaluated(out, [strong_lora(), merged()], unrelated=["a house"])


def opened(out: Path) -> xr.Dataset:
    return open_evaluation(out).load()


def protocol(found: xr.Dataset) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(found.attrs["protocol"])
    return told


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
