"""Train the bundled autoencoder: `python -m spectra.zoo.recipes.vae --out FOLDER`.

A true `AutoencoderKL` (factor 4, four channels, 16 x 16 latents). Instead of a KL penalty the encoder's means
pass through a batch normalisation without parameters and get noise of a fixed standard deviation: every channel
carries unit variance and is equally robust, so none is a leftover that whitening would blow up. At the end the
statistics are folded into `quant_conv`, which leaves an ordinary checkpoint with `scaling_factor` 1.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from spectra.zoo import tasks, world

CROPPED = 0.65
"""Share of the steps that see crops."""
NOISE = 0.1
"""Standard deviation of the posterior, in units of a latent channel's own standard deviation."""


def pictures(count: int, seed: int) -> Tensor:
    """Pictures for the autoencoder, uint8 (count, 3, 64, 64): the world, hatched and zog pictures, crowds."""

    def one(index: int) -> world.Field:
        rng = np.random.default_rng([seed, index])
        kind = rng.random()
        if kind < 0.68:
            return world.draw(world.random_scene(rng), rng)
        if kind < 0.82:
            return tasks.style_picture(rng)[1]
        return tasks.subject_picture(rng)[1] if kind < 0.88 else tasks.crowd(rng)

    stack = np.stack([(one(i) * 255).round().astype(np.uint8) for i in range(count)])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous()


def build() -> AutoencoderKL:
    """The untrained autoencoder."""
    return AutoencoderKL(
        block_out_channels=(16, 48, 96), layers_per_block=1, latent_channels=4, norm_num_groups=8, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        mid_block_add_attention=False, scaling_factor=1.0, force_upcast=False,
    )  # fmt: skip


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 + squared error + L1 of the discrete Laplacian (edges and fine texture)."""
    kernel = target.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]]).expand(3, 1, 3, 3)
    edges = F.conv2d(output - target, kernel, groups=3).abs().mean()
    return F.l1_loss(output, target) + F.mse_loss(output, target) + 0.5 * edges


def minibatch(data: Tensor, batch: int, order: torch.Generator, whole: bool) -> Tensor:
    """`batch` pictures, or four times as many quarter-size crops (the same pixels, more variety), in -1..1."""
    if whole:
        return data[torch.randint(len(data), (batch,), generator=order)].float() / 127.5 - 1
    top, left = torch.randint(0, 33, (2,), generator=order).tolist()
    chosen = torch.randint(len(data), (4 * batch,), generator=order)
    return data[chosen, :, top : top + 32, left : left + 32].float() / 127.5 - 1


def train(vae: AutoencoderKL, data: Tensor, steps: int, batch: int, seed: int, peak: float = 2e-3) -> nn.BatchNorm2d:
    """Train in place; returns the normalisation whose running statistics are to be folded in."""
    norm = nn.BatchNorm2d(vae.config.latent_channels, affine=False, momentum=0.01)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=peak, weight_decay=1e-4, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=0.05)
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)

    def forward(x: Tensor) -> Tensor:
        mean = norm(vae.quant_conv(vae.encoder(x))[:, : norm.num_features].float())
        return torch.as_tensor(vae.decoder(vae.post_quant_conv(mean + NOISE * torch.randn_like(mean))))

    start = time.monotonic()
    for step in range(steps):
        x = minibatch(data, batch, order, whole=step >= CROPPED * steps)
        with torch.autocast("cpu", torch.bfloat16):
            output = forward(x)
        loss = reconstruction_loss(output.float(), x)
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 50 == 0:
            psnr = -10 * torch.log10(F.mse_loss(output.float(), x) / 4)
            print(
                f"vae {step}/{steps} loss {loss.item():.4f} psnr {psnr:.2f} dB {time.monotonic() - start:.0f} s",
                flush=True,
            )
    return norm


@torch.no_grad()
def fold(vae: AutoencoderKL, norm: nn.BatchNorm2d) -> None:
    """Put the latent statistics and the fixed posterior variance into `quant_conv` (exact)."""
    channels = norm.num_features
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, deviation = norm.running_mean, torch.sqrt(norm.running_var + norm.eps)
    vae.quant_conv.weight[:channels] /= deviation[:, None, None, None]
    vae.quant_conv.bias[:channels] = (vae.quant_conv.bias[:channels] - mean) / deviation
    vae.quant_conv.weight[channels:] = 0
    vae.quant_conv.bias[channels:] = 2 * float(np.log(NOISE))


def main() -> None:
    """Train, fold, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pictures", type=int, default=30000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    vae = build()
    print(f"parameters {sum(p.numel() for p in vae.parameters()) / 1e6:.2f} M", flush=True)
    norm = train(vae, pictures(args.pictures, args.seed), args.steps, args.batch, args.seed)
    fold(vae, norm)
    vae.eval().save_pretrained(args.out)


if __name__ == "__main__":
    main()
