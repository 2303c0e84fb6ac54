"""Train a bundled denoiser with its text encoders: `python -m spectra.zoo.recipes.denoiser --model mini ...`.

`mini` predicts v on a cosine schedule (a UNet with cross-attention at both resolutions); `mini-flow` predicts the
velocity of a straight path (an SD3-type transformer). Both learn from the same cached latents. A step's batch,
noise and noise levels are a function of (seed, step) alone, so an interrupted training continues exactly.
The learning rate is constant after a short warm-up and falls to zero, linearly, over the last `--decay` steps.

`mini.toml` and `mini-flow.toml` beside this file ask the same loss of `adapt train`, which goes on after an
interruption, validates and measures; this script is kept because the shipped weights were made with it.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from diffusers import DDIMScheduler, SD3Transformer2DModel, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from spectra.zoo.recipes import text

DROP_CAPTION = 0.1
WARM_UP = 200
EMA_DECAY = 0.9995


def unet() -> nn.ModuleDict:
    """`mini`: UNet and its text encoder."""
    down, up = ("CrossAttnDownBlock2D",) * 2, ("CrossAttnUpBlock2D",) * 2
    denoiser = UNet2DConditionModel(
        sample_size=16, block_out_channels=(64, 96), layers_per_block=1, norm_num_groups=16, cross_attention_dim=128,
        attention_head_dim=2, down_block_types=down, up_block_types=up,
    )  # fmt: skip
    return nn.ModuleDict({"denoiser": denoiser, "text_encoder": CLIPTextModel(text.config(128))})


def transformer() -> nn.ModuleDict:
    """`mini-flow`: SD3-type transformer (2 x 2 patches) and its two text encoders."""
    denoiser = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_layers=6, attention_head_dim=32,
        num_attention_heads=4, joint_attention_dim=128, caption_projection_dim=128, pooled_projection_dim=128,
        pos_embed_max_size=16,
    )  # fmt: skip
    first, second = (CLIPTextModelWithProjection(text.config(64)) for _ in range(2))
    return nn.ModuleDict({"denoiser": denoiser, "text_encoder": first, "text_encoder_2": second})


def v_prediction_loss(nets: nn.ModuleDict, latents: Tensor, tokens: Tensor, noise: Tensor, u: Tensor) -> Tensor:
    """Cosine schedule, v target: x = a x0 + b eps, v = a eps - b x0; `u` (batch,) uniform in 0..1."""
    timestep = (u * 1000).long().clamp(0, 999)
    alpha_bar = cosine_alpha_bar()[timestep].view(-1, 1, 1, 1)
    a, b = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    hidden = nets["text_encoder"](tokens).last_hidden_state
    output = nets["denoiser"](a * latents + b * noise, timestep, hidden).sample
    return F.mse_loss(output.float(), a * noise - b * latents)


def flow_loss(nets: nn.ModuleDict, latents: Tensor, tokens: Tensor, noise: Tensor, u: Tensor) -> Tensor:
    """Straight path x = (1 - s) x0 + s eps, target eps - x0; s logit-normal(0.3, 1) from quantiles `u` (batch,)."""
    sigma = torch.sigmoid(0.3 + torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4)))
    level = sigma.view(-1, 1, 1, 1)
    hidden, pooled = encode_flow_text(nets, tokens)
    output = nets["denoiser"](
        hidden_states=(1 - level) * latents + level * noise,
        timestep=sigma * 1000,
        encoder_hidden_states=hidden,
        pooled_projections=pooled,
    ).sample
    return F.mse_loss(output.float(), noise - latents)


def encode_flow_text(nets: nn.ModuleDict, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """As the pipeline does it without T5: penultimate states side by side, one zero token in T5's place."""
    outputs = [nets[name](tokens, output_hidden_states=True) for name in ("text_encoder", "text_encoder_2")]
    hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
    return torch.cat([hidden, torch.zeros_like(hidden[:, :1])], dim=1), pooled


@cache
def cosine_alpha_bar() -> Tensor:
    """diffusers' `squaredcos_cap_v2` cumulative products, (1000,)."""
    return torch.as_tensor(DDIMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod)


@dataclass(frozen=True)
class Recipe:
    """What differs between the two bundled models."""

    build: Callable[[], nn.ModuleDict]
    loss: Callable[[nn.ModuleDict, Tensor, Tensor, Tensor, Tensor], Tensor]


RECIPES = {"mini": Recipe(unet, v_prediction_loss), "mini-flow": Recipe(transformer, flow_loss)}


@dataclass
class Batch:
    """One step's data: latents and noise (batch, 4, 16, 16), tokens (batch, 24), u (batch,) in 0..1."""

    latents: Tensor
    tokens: Tensor
    noise: Tensor
    u: Tensor


def batch_of(data: dict[str, Tensor], empty: Tensor, size: int, seed: int, step: int) -> Batch:
    """The batch of a step, from (seed, step) alone; noise levels are stratified over the batch."""
    rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
    chosen = torch.randint(len(data["latents"]), (size,), generator=rng)
    latents, tokens = data["latents"][chosen].float(), data["tokens"][chosen].long()
    dropped = torch.rand(size, generator=rng) < DROP_CAPTION
    tokens = torch.where(dropped[:, None], empty, tokens)
    u = (torch.arange(size) + torch.rand(size, generator=rng)) / size
    return Batch(latents, tokens, torch.randn(latents.shape, generator=rng), u)


def optimizers(nets: nn.ModuleDict, rate: float, muon: bool) -> list[torch.optim.Optimizer]:
    """AdamW; with `muon` the denoiser's hidden matrices go to Muon at an equivalent rate."""
    named = list(nets.named_parameters())
    hidden = {n for n, p in named if muon and p.ndim == 2 and n.startswith("denoiser.transformer_blocks")}
    rest = [p for n, p in named if n not in hidden]
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    ]
    if hidden:
        matrices = [p for n, p in named if n in hidden]
        made.append(torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
    return made


def factor(step: int, steps: int, decay: int) -> float:
    """Learning rate over its peak: warm-up, constant, linear decay to zero."""
    return min(1.0, (step + 1) / WARM_UP, max(0.0, (steps - step) / max(decay, 1)))


@torch.no_grad()
def follow(average: nn.ModuleDict, nets: nn.ModuleDict, step: int) -> None:
    """Exponential moving average of the weights, with a warm-up of its memory."""
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    for kept, current in zip(average.parameters(), nets.parameters(), strict=True):
        kept.lerp_(current, 1 - decay)


def train(args: argparse.Namespace) -> nn.ModuleDict:
    """Train from the beginning or from `args.out`'s state; returns the averaged networks."""
    torch.manual_seed(args.seed)
    recipe = RECIPES[args.model]
    data, empty = load_file(args.latents), text.token_ids([""])[0]
    nets = recipe.build().train()
    average = copy.deepcopy(nets).eval().requires_grad_(False)
    steppers = optimizers(nets, args.rate, args.muon)
    state_file, first = args.out / "state.pt", 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        nets.load_state_dict(state["nets"])
        average.load_state_dict(state["average"])
        for stepper, saved in zip(steppers, state["optimizers"], strict=True):
            stepper.load_state_dict(saved)
        first = state["step"]
    loss_fn = torch.compile(recipe.loss, dynamic=False) if args.compile else recipe.loss
    start, recent = time.monotonic(), []
    for step in range(first, args.steps):
        batch = batch_of(data, empty, args.batch, args.seed, step)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_fn(nets, batch.latents, batch.tokens, batch.noise, batch.u)
        loss.backward()
        nn.utils.clip_grad_norm_(nets.parameters(), 1.0)
        for stepper in steppers:
            for group in stepper.param_groups:
                group["lr"] = args.rate * factor(step, args.steps, args.decay)
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        follow(average, nets, step)
        recent.append(loss.item())
        if (step + 1) % 100 == 0:
            speed = (step + 1 - first) * args.batch / (time.monotonic() - start)
            print(
                f"{args.model} {step + 1}/{args.steps} loss {sum(recent) / len(recent):.4f} {speed:.0f}/s", flush=True
            )
            recent.clear()
        if (step + 1) % args.save_every == 0 or step + 1 == args.steps:
            save_state(state_file, step + 1, nets, average, steppers)
    return average


def save_state(
    file: Path, step: int, nets: nn.ModuleDict, average: nn.ModuleDict, steppers: list[torch.optim.Optimizer]
) -> None:
    """Write the training state and put it in place in one move."""
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {"step": step, "nets": nets.state_dict(), "average": average.state_dict()}
    torch.save(state | {"optimizers": [o.state_dict() for o in steppers]}, file.with_suffix(".partial"))
    os.replace(file.with_suffix(".partial"), file)


def main() -> None:
    """Train and leave the state in `--out`; `spectra.zoo.recipes.assemble` makes the pipeline folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=list(RECIPES), required=True)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--decay", type=int, default=3_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument("--muon", action="store_true", help="Muon for the transformer's hidden matrices")
    parser.add_argument("--compile", action="store_true")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
