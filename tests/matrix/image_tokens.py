"""Tiny pipelines of the picture families that keep their latents as a row of tokens."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from tests.matrix.parts import autoencoder, quiet, randomised


def _flow(**options: Any) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(**options)


def flux(name: str = "FluxPipeline", in_channels: int = 16) -> Any:
    """FLUX.1 and pipelines around its transformer, which may take more channels than it predicts."""
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=in_channels,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    )
    made = getattr(diffusers, name)(
        scheduler=_flow(use_dynamic_shifting=True),
        vae=autoencoder(),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=randomised(transformer),
    )
    return quiet(made)


def flux2(name: str = "Flux2Pipeline") -> Any:
    """FLUX.2 and Klein: the statistics of the autoencoder's normalisation are no longer zero and one."""
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=name == "Flux2Pipeline",
    )
    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(4,) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        mid_block_add_attention=False,
    ).eval()
    generator = torch.Generator().manual_seed(7)
    vae.bn.running_mean.copy_(torch.randn(16, generator=generator))
    vae.bn.running_var.copy_(0.2 + torch.rand(16, generator=generator))
    parts = {"vae": vae, "scheduler": _flow(use_dynamic_shifting=True), "transformer": randomised(transformer)}
    return quiet(getattr(diffusers, name)(text_encoder=None, tokenizer=None, **parts))


def chroma() -> Any:
    transformer = diffusers.ChromaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 4, 8),
        approximator_hidden_dim=32,
        approximator_layers=1,
        approximator_num_channels=16,
    )
    parts = {"vae": autoencoder(), "scheduler": _flow(), "transformer": randomised(transformer)}
    return quiet(diffusers.ChromaPipeline(text_encoder=None, tokenizer=None, **parts))


def _qwen_vae() -> diffusers.AutoencoderKLQwenImage:
    return diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.3, -0.4, 0.1, 0.8],
        latents_std=[0.6, 1.4, 0.9, 2.0],
    ).eval()


def qwen() -> Any:
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(8, 4, 4),
    )
    parts = {"vae": _qwen_vae(), "scheduler": _flow(use_dynamic_shifting=True), "transformer": randomised(transformer)}
    return quiet(diffusers.QwenImagePipeline(text_encoder=None, tokenizer=None, **parts))


def krea2() -> Any:
    transformer = diffusers.Krea2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=16,
        timestep_embed_dim=8,
        text_hidden_dim=16,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=1,
        text_intermediate_size=16,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 2, 2),
    )
    parts = {"vae": _qwen_vae(), "scheduler": _flow(use_dynamic_shifting=True), "transformer": randomised(transformer)}
    return quiet(diffusers.Krea2Pipeline(text_encoder=None, tokenizer=None, **parts))


def nucleus() -> Any:
    """Nucleus: the pipeline negates what the transformer predicts."""
    transformer = diffusers.NucleusMoEImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(8, 4, 4),
        moe_enabled=False,
        capacity_factors=[8.0],
    )
    parts = {"vae": _qwen_vae(), "scheduler": _flow(), "transformer": randomised(transformer)}
    return quiet(diffusers.NucleusMoEImagePipeline(text_encoder=None, processor=None, **parts))


def ovis() -> Any:
    transformer = diffusers.OvisImageTransformer2DModel(
        in_channels=16,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 4, 8),
    )
    parts = {
        "vae": autoencoder(),
        "scheduler": _flow(use_dynamic_shifting=True),
        "transformer": randomised(transformer),
    }
    return quiet(diffusers.OvisImagePipeline(text_encoder=None, tokenizer=None, **parts))


def bria() -> Any:
    """Bria counts the pixels of a token, not of a latent pixel, as its scale."""
    transformer = diffusers.BriaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=[0, 4, 4],
    )
    parts = {"vae": autoencoder(), "scheduler": _flow(), "transformer": randomised(transformer)}
    return quiet(diffusers.BriaPipeline(text_encoder=None, tokenizer=None, **parts))
