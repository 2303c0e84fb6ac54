"""Tiny pipelines of the picture families that predict noise, or v, where variance is preserved or explodes."""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel
from transformers import CLIPTextModelWithProjection

from tests.matrix.parts import autoencoder, quiet, randomised
from tests.tiny import text_config, tokenizer


def _ddpm(**options: Any) -> diffusers.DDPMScheduler:
    return diffusers.DDPMScheduler(clip_sample=False, **options)


def sdxl() -> Any:
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=(2, 2),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=16 + 6 * 4,
    )
    vae = autoencoder()
    vae.register_to_config(latents_mean=[0.3, -0.4, 0.1, 0.8], latents_std=[0.6, 1.4, 0.9, 2.0], force_upcast=False)
    made = diffusers.StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        unet=randomised(unet),
        scheduler=diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear", timestep_spacing="leading"),
        add_watermarker=False,
    )
    return quiet(made)


def pixart(name: str = "PixArtAlphaPipeline") -> Any:
    """PixArt predicts a variance beside the noise, which the pipeline drops."""
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=16,
        cross_attention_dim=16,
        out_channels=8,
    )
    parts = {"vae": autoencoder(), "transformer": randomised(transformer)}
    solver = diffusers.DPMSolverMultistepScheduler()
    return quiet(getattr(diffusers, name)(text_encoder=None, tokenizer=None, scheduler=solver, **parts))


def hunyuan_dit() -> Any:
    """HunyuanDiT predicts v, and a variance that the pipeline drops."""
    transformer = diffusers.HunyuanDiT2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        cross_attention_dim=16,
        cross_attention_dim_t5=16,
        pooled_projection_dim=8,
        hidden_size=16,
        text_len=5,
        text_len_t5=5,
    )
    made = diffusers.HunyuanDiTPipeline(
        vae=autoencoder(),
        text_encoder=None,
        tokenizer=None,
        transformer=randomised(transformer),
        scheduler=_ddpm(beta_schedule="scaled_linear", prediction_type="v_prediction"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return quiet(made)


def _movq() -> diffusers.VQModel:
    return diffusers.VQModel(
        block_out_channels=(32,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
    ).eval()


def kandinsky22() -> Any:
    """The decoder of Kandinsky 2.2: `step` is given noise and variance, twice the channels of the latents."""
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=8,
        addition_embed_type="image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(32, 32),
        layers_per_block=1,
        encoder_hid_dim=16,
        encoder_hid_dim_type="image_proj",
        cross_attention_dim=8,
        attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
    )
    scheduler = _ddpm(variance_type="learned_range", beta_schedule="linear")
    return quiet(diffusers.KandinskyV22Pipeline(unet=randomised(unet), scheduler=scheduler, movq=_movq()))


def kandinsky3() -> Any:
    unet = diffusers.Kandinsky3UNet(
        time_embedding_dim=8,
        groups=4,
        attention_head_dim=4,
        layers_per_block=3,
        block_out_channels=(32, 64),
        cross_attention_dim=8,
        encoder_hid_dim=16,
    )
    scheduler = _ddpm(beta_schedule="squaredcos_cap_v2")
    parts = {"unet": randomised(unet), "scheduler": scheduler, "movq": _movq()}
    return quiet(diffusers.Kandinsky3Pipeline(text_encoder=None, tokenizer=None, **parts))


def cogview3() -> Any:
    transformer = diffusers.CogView3PlusTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=16,
        time_embed_dim=8,
        condition_dim=4,
        pos_embed_max_size=16,
        sample_size=8,
    )
    scheduler = diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    parts = {"vae": autoencoder(), "scheduler": scheduler, "transformer": randomised(transformer)}
    return quiet(diffusers.CogView3PlusPipeline(text_encoder=None, tokenizer=None, **parts))


def _cascade(**options: Any) -> Any:
    return diffusers.StableCascadeUNet(
        in_channels=4,
        out_channels=4,
        conditioning_dim=16,
        block_out_channels=(16, 16),
        num_attention_heads=(2, 2),
        down_num_layers_per_block=(1, 1),
        up_num_layers_per_block=(1, 1),
        clip_text_pooled_in_channels=16,
        **options,
    )


def stable_cascade_prior() -> Any:
    prior = _cascade(switch_level=(False,), clip_image_in_channels=16, clip_text_in_channels=16)
    made = diffusers.StableCascadePriorPipeline(
        tokenizer=tokenizer(),
        text_encoder=CLIPTextModelWithProjection(text_config()),
        prior=randomised(prior),
        scheduler=diffusers.DDPMWuerstchenScheduler(),
        resolution_multiple=8,
    )
    return quiet(made)


def stable_cascade_decoder() -> Any:
    made = diffusers.StableCascadeDecoderPipeline(
        decoder=randomised(_cascade(effnet_in_channels=4)),
        tokenizer=tokenizer(),
        text_encoder=CLIPTextModelWithProjection(text_config()),
        scheduler=diffusers.DDPMWuerstchenScheduler(),
        vqgan=PaellaVQModel(bottleneck_blocks=1, num_vq_embeddings=2, embed_dim=8).eval(),
        latent_dim_scale=2.0,
    )
    return quiet(made)
