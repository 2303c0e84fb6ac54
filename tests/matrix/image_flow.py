"""Tiny pipelines of the picture families that are trained by flow matching and keep plain latents."""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers import FlowMatchEulerDiscreteScheduler

from tests.matrix.parts import autoencoder, quiet, randomised


def _flow(**options: Any) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(**options)


def z_image() -> Any:
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[64, 32, 32],
    )
    parts = {"vae": autoencoder(), "scheduler": _flow(), "transformer": randomised(transformer)}
    return quiet(diffusers.ZImagePipeline(text_encoder=None, tokenizer=None, **parts))


def lumina() -> Any:
    """Lumina-Next: the transformer predicts x0 - eps, and a variance beside it."""
    transformer = diffusers.LuminaNextDiT2DModel(
        sample_size=8,
        hidden_size=16,
        num_layers=1,
        num_attention_heads=2,
        num_kv_heads=2,
        multiple_of=16,
        cross_attention_dim=16,
    )
    parts = {"vae": autoencoder(), "scheduler": _flow(), "transformer": randomised(transformer)}
    return quiet(diffusers.LuminaPipeline(text_encoder=None, tokenizer=None, **parts))


def lumina2() -> Any:
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=16,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=2,
        multiple_of=16,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(32, 32, 32),
        cap_feat_dim=16,
    )
    parts = {"vae": autoencoder(), "scheduler": _flow(), "transformer": randomised(transformer)}
    return quiet(diffusers.Lumina2Pipeline(text_encoder=None, tokenizer=None, **parts))


def hidream() -> Any:
    transformer = diffusers.HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_channels=[16, 16],
        text_emb_dim=32,
        num_routed_experts=2,
        num_activated_experts=1,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(32, 32),
        llama_layers=(0, 1),
    )
    absent = {f"{part}{number}": None for part in ("text_encoder", "tokenizer") for number in ("", "_2", "_3", "_4")}
    parts = {"vae": autoencoder(), "scheduler": _flow(), "transformer": randomised(transformer)}
    pipe = diffusers.HiDreamImagePipeline(**absent, **parts)
    pipe.default_sample_size = 8  # sizes are scaled to this area
    return quiet(pipe)


def aura_flow() -> Any:
    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=16,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pos_embed_max_size=256,
    )
    parts = {"vae": autoencoder(), "scheduler": _flow(shift=1.7), "transformer": randomised(transformer)}
    return quiet(diffusers.AuraFlowPipeline(text_encoder=None, tokenizer=None, **parts))


def cogview4() -> Any:
    transformer = diffusers.CogView4Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=16,
        time_embed_dim=8,
        condition_dim=4,
        sample_size=8,
    )
    parts = {"vae": autoencoder(), "scheduler": _flow(), "transformer": randomised(transformer)}
    return quiet(diffusers.CogView4Pipeline(text_encoder=None, tokenizer=None, **parts))


def _sana(name: str, scheduler: Any, **options: Any) -> Any:
    transformer = diffusers.SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=4,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=16,
        **options,
    )
    blocks = ("ResBlock",) * 4
    vae = diffusers.AutoencoderDC(
        latent_channels=4,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(4,) * 4,
        decoder_block_out_channels=(4,) * 4,
        encoder_layers_per_block=(1,) * 4,
        decoder_layers_per_block=(1,) * 4,
        encoder_qkv_multiscales=((),) * 4,
        decoder_qkv_multiscales=((),) * 4,
        upsample_block_type="interpolate",
        downsample_block_type="conv",
        scaling_factor=0.7,
    ).eval()
    parts = {"vae": vae, "scheduler": scheduler, "transformer": randomised(transformer)}
    return quiet(getattr(diffusers, name)(text_encoder=None, tokenizer=None, **parts))


def sana() -> Any:
    """Sana with its own solver: DPM-Solver++ on flow matching."""
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    return _sana("SanaPipeline", diffusers.DPMSolverMultistepScheduler(**flow))


def sana_sprint() -> Any:
    """Sana-Sprint steps along angles, at half the scale of the latents."""
    return _sana("SanaSprintPipeline", diffusers.SCMScheduler(), guidance_embeds=True)


def kandinsky5() -> Any:
    """Kandinsky 5 keeps channels last, and a frame axis for pictures too."""
    transformer = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=16,
        in_text_dim2=16,
        time_dim=16,
        model_dim=16,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(1, 1, 2),
    )
    parts = {"vae": autoencoder(), "scheduler": _flow(shift=7.0), "transformer": randomised(transformer)}
    absent = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipe = diffusers.Kandinsky5T2IPipeline(**absent, **parts)
    pipe.resolutions = [(96, 64)]  # others are brought to the nearest of these
    return quiet(pipe)
