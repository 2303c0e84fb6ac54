"""Tiny video pipelines with random weights, without text encoders and mostly without VAEs."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from tests.matrix.parts import TOKENS, randomised

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def _euler_flow(**options: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**options)


def wan(second: bool = False) -> Any:
    def transformer() -> Any:
        return randomised(
            diffusers.WanTransformer3DModel(
                patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
                text_dim=16, freq_dim=16, ffn_dim=16, num_layers=1, rope_max_seq_len=32,
            )
        )  # fmt: skip

    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    parts = {"transformer": transformer(), "transformer_2": transformer() if second else None}
    if second:
        with torch.no_grad():
            for parameter in parts["transformer_2"].parameters():
                parameter.mul_(-1)
    nothing = dict.fromkeys(("tokenizer", "text_encoder", "vae"))
    return diffusers.WanPipeline(scheduler=scheduler, boundary_ratio=0.8 if second else None, **parts, **nothing)


def wan_image() -> Any:
    """From a picture, which goes into the channels of every frame; no frame is left out of the latents."""
    torch.manual_seed(0)
    transformer = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=36, out_channels=16,
        text_dim=16, freq_dim=16, ffn_dim=16, num_layers=1, rope_max_seq_len=32,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLWan(base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0)
    nothing = dict.fromkeys(("tokenizer", "text_encoder", "image_encoder", "image_processor"))
    return diffusers.WanImageToVideoPipeline(
        scheduler=scheduler, transformer=randomised(transformer), vae=vae.eval(), **nothing
    )


def svd() -> Any:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    unet = diffusers.UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 32), layers_per_block=1, sample_size=8, in_channels=8, out_channels=4,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), cross_attention_dim=16,
        num_attention_heads=(2, 2), projection_class_embeddings_input_dim=24, addition_time_embed_dim=8, num_frames=3,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4
    )
    vision = CLIPVisionConfig(
        hidden_size=16, projection_dim=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16,
        intermediate_size=16,
    )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction", timestep_type="continuous", use_karras_sigmas=True, sigma_min=0.002,
        sigma_max=700.0, timestep_spacing="leading", steps_offset=1, interpolation_type="linear", **BETAS,
    )  # fmt: skip
    return diffusers.StableVideoDiffusionPipeline(
        vae=vae.eval(), image_encoder=CLIPVisionModelWithProjection(vision).eval(), unet=unet.eval(),
        scheduler=scheduler, feature_extractor=CLIPImageProcessor(crop_size=32, size=32),
    )  # fmt: skip


def ltx() -> Any:
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
        num_layers=1, caption_channels=16,
    )  # fmt: skip
    nothing = dict.fromkeys(("tokenizer", "text_encoder", "vae"))
    scheduler = _euler_flow(use_dynamic_shifting=True, shift_terminal=0.1)
    return diffusers.LTXPipeline(scheduler=scheduler, transformer=randomised(transformer), **nothing)


def ltx2() -> Any:
    """Video and audio: the latter is stepped by a copy of the scheduler."""
    from diffusers.pipelines.ltx2 import LTX2TextConnectors

    transformer = diffusers.LTX2VideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
        audio_in_channels=4, audio_out_channels=4, audio_num_attention_heads=2, audio_attention_head_dim=4,
        audio_cross_attention_dim=8, num_layers=1, caption_channels=16, rope_double_precision=False,
    )  # fmt: skip
    heads = {
        f"{kind}_connector_{name}": value
        for kind in ("video", "audio")
        for name, value in {
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_layers": 1,
            "num_learnable_registers": None,
        }.items()
    }
    connectors = LTX2TextConnectors(
        caption_channels=16, text_proj_in_factor=1, connector_rope_base_seq_len=32, rope_double_precision=False,
        causal_temporal_positioning=False, **heads,
    )  # fmt: skip
    one = {"block_out_channels": (8,), "decoder_block_out_channels": (8,), "layers_per_block": (1,)}
    vae = diffusers.AutoencoderKLLTX2Video(
        latent_channels=4, **one, decoder_layers_per_block=(1, 1), spatio_temporal_scaling=(True,),
        decoder_spatio_temporal_scaling=(True,), decoder_inject_noise=(False, False), downsample_type=("spatial",),
        upsample_residual=(False,), upsample_factor=(1,), patch_size=1,
    )  # fmt: skip
    audio = diffusers.AutoencoderKLLTX2Audio(
        base_channels=4, output_channels=2, ch_mult=(1,), num_res_blocks=1, in_channels=2, resolution=32,
        latent_channels=2, mel_bins=8,
    )  # fmt: skip
    return diffusers.LTX2Pipeline(
        scheduler=_euler_flow(), transformer=randomised(transformer), connectors=randomised(connectors), vae=vae,
        audio_vae=audio, **dict.fromkeys(("tokenizer", "text_encoder", "vocoder")),
    )  # fmt: skip


def cogvideox(scheduler: type) -> Any:
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=2,
        text_embed_dim=16, num_layers=1, sample_width=5, sample_height=4, sample_frames=9, max_text_seq_length=TOKENS,
    )  # fmt: skip
    nothing = dict.fromkeys(("tokenizer", "text_encoder", "vae"))
    made = scheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", snr_shift_scale=3.0
    )
    return diffusers.CogVideoXPipeline(scheduler=made, transformer=randomised(transformer), **nothing)


def hunyuan() -> Any:
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1,
        num_single_layers=1, num_refiner_layers=1, patch_size=1, patch_size_t=1, guidance_embeds=True,
        text_embed_dim=16, pooled_projection_dim=8, rope_axes_dim=(2, 4, 4),
    )  # fmt: skip
    nothing = dict.fromkeys(("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2", "vae"))
    scheduler = _euler_flow(shift=7.0)
    return diffusers.HunyuanVideoPipeline(scheduler=scheduler, transformer=randomised(transformer), **nothing)


def mochi() -> Any:
    transformer = diffusers.MochiTransformer3DModel(
        patch_size=2, num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16,
        in_channels=12, text_embed_dim=16, time_embed_dim=4, max_sequence_length=TOKENS,
    )  # fmt: skip
    nothing = dict.fromkeys(("tokenizer", "text_encoder", "vae"))
    return diffusers.MochiPipeline(
        scheduler=_euler_flow(invert_sigmas=True), transformer=randomised(transformer), **nothing
    )


def latte() -> Any:
    transformer = diffusers.LatteTransformer3DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=3, caption_channels=16,
        in_channels=4, cross_attention_dim=24, out_channels=8, attention_bias=True,
        activation_fn="gelu-approximate", num_embeds_ada_norm=1000, norm_type="ada_norm_single",
        norm_elementwise_affine=False, norm_eps=1e-6, video_length=3,
    )  # fmt: skip
    nothing = dict.fromkeys(("tokenizer", "text_encoder", "vae"))
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    return diffusers.LattePipeline(scheduler=scheduler, transformer=randomised(transformer), **nothing)


def allegro() -> Any:
    transformer = diffusers.AllegroTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, num_layers=1,
        cross_attention_dim=24, sample_width=8, sample_height=8, sample_frames=8, caption_channels=16,
    )  # fmt: skip
    nothing = dict.fromkeys(("tokenizer", "text_encoder", "vae"))
    scheduler = diffusers.EulerAncestralDiscreteScheduler(**BETAS)
    return diffusers.AllegroPipeline(scheduler=scheduler, transformer=randomised(transformer), **nothing)


def animatediff() -> Any:
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, sample_size=8, cross_attention_dim=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
    )  # fmt: skip
    adapter = diffusers.MotionAdapter(
        block_out_channels=(8, 8), motion_layers_per_block=1, motion_norm_num_groups=2, motion_num_attention_heads=2
    )
    nothing = dict.fromkeys(("tokenizer", "text_encoder", "vae"))
    scheduler = diffusers.DDIMScheduler(clip_sample=False, beta_schedule="linear")
    return diffusers.AnimateDiffPipeline(unet=unet, motion_adapter=adapter, scheduler=scheduler, **nothing)


class Unguarded(torch.nn.Module):
    """Cosmos wants a guard; embeddings need none."""

    device, dtype = torch.device("cpu"), torch.float32

    def check_text_safety(self, prompt: str) -> bool:
        return True


def cosmos() -> Any:
    transformer = diffusers.CosmosTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1, mlp_ratio=2,
        text_embed_dim=16, adaln_lora_dim=4, max_size=(4, 16, 16), patch_size=(1, 2, 2), rope_scale=(2.0, 1.0, 1.0),
        concat_padding_mask=False, extra_pos_embed_type="learnable",
    )  # fmt: skip
    nothing = dict.fromkeys(("tokenizer", "text_encoder", "vae"))
    return diffusers.CosmosTextToWorldPipeline(
        scheduler=diffusers.EDMEulerScheduler(), transformer=randomised(transformer), safety_checker=Unguarded(),
        **nothing,
    )  # fmt: skip


def kandinsky() -> Any:
    transformer = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4, out_visual_dim=4, in_text_dim=16, in_text_dim2=8, time_dim=16, patch_size=(1, 2, 2),
        model_dim=16, ff_dim=16, num_text_blocks=1, num_visual_blocks=1, axes_dims=(4, 6, 6),
    )  # fmt: skip
    nothing = dict.fromkeys(("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2", "vae"))
    return diffusers.Kandinsky5T2VPipeline(scheduler=_euler_flow(), transformer=randomised(transformer), **nothing)


def skyreels() -> Any:
    transformer = diffusers.SkyReelsV2Transformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
        text_dim=16, freq_dim=16, ffn_dim=16, num_layers=1, rope_max_seq_len=32,
    )  # fmt: skip
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0
    )
    nothing = dict.fromkeys(("tokenizer", "text_encoder", "vae"))
    return diffusers.SkyReelsV2Pipeline(scheduler=scheduler, transformer=randomised(transformer), **nothing)


def sana() -> Any:
    transformer = diffusers.SanaVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=1,
        num_cross_attention_heads=2, cross_attention_head_dim=12, cross_attention_dim=24, caption_channels=16,
        rope_max_seq_len=32, sample_size=8,
    )  # fmt: skip
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0
    )
    nothing = dict.fromkeys(("tokenizer", "text_encoder", "vae"))
    return diffusers.SanaVideoPipeline(scheduler=scheduler, transformer=randomised(transformer), **nothing)
