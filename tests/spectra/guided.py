"""Tiny random pipelines of families that guide in different ways; prompts are given as embeddings."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from diffusers.modular_pipelines.wan.modular_blocks_wan import WanCoreDenoiseStep

from spectra.families import family_of
from spectra.recording.split import Split, Watcher
from spectra.recording.tap import tap
from tests.tiny import autoencoder, tiny_sd, tiny_sd3

COMMON = {"num_inference_steps": 3, "output_type": "latent"}


def _text(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def sd(**call: Any) -> tuple[Any, dict[str, Any]]:
    return tiny_sd("epsilon"), COMMON | {"prompt": ["a dot", "a line"], "guidance_scale": 5.0} | call


def sd3(**call: Any) -> tuple[Any, dict[str, Any]]:
    return tiny_sd3(), COMMON | {"prompt": ["a dot", "a line"], "guidance_scale": 5.0} | call


def flux(**call: Any) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(0)
    sizes = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2}
    widths = {"in_channels": 16, "joint_attention_dim": 32, "pooled_projection_dim": 32, "guidance_embeds": True}
    model = FluxTransformer2DModel(**sizes, **widths, axes_dims_rope=(4, 6, 6))
    pipe = FluxPipeline(FlowMatchEulerDiscreteScheduler(), autoencoder(), None, None, None, None, model)
    words = {"prompt_embeds": _text(1, 5, 32), "pooled_prompt_embeds": _text(1, 32)}
    negative = {"negative_prompt_embeds": -_text(1, 5, 32), "negative_pooled_prompt_embeds": 0.5 * _text(1, 32)}
    return pipe, COMMON | words | negative | {"height": 64, "width": 64, "true_cfg_scale": 4.0} | call


def wan(**call: Any) -> tuple[Any, dict[str, Any]]:
    """Two transformers: the second one takes over at lower noise."""
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4, "text_dim": 32}
    models = [WanTransformer3DModel(**sizes, freq_dim=32, ffn_dim=32, num_layers=1) for _ in range(2)]
    vae = AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.0] * 4,
                           latents_std=[1.0] * 4)  # fmt: skip
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    pipe = WanPipeline(None, None, vae, scheduler, models[0], models[1], boundary_ratio=0.8)
    words = {"prompt_embeds": _text(1, 5, 32), "negative_prompt_embeds": _text(1, 6, 32)}
    size = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 4}
    return pipe, COMMON | words | size | {"guidance_scale": 5.0, "guidance_scale_2": 3.0} | call


def modular_wan(guider: Any) -> tuple[Any, dict[str, Any]]:
    """The denoising blocks of a modular pipeline, whose guider calls the network for each prediction."""
    whole, call = wan()
    pipe = WanCoreDenoiseStep().init_pipeline()
    pipe.update_components(transformer=whole.transformer, scheduler=whole.scheduler, guider=guider)
    words = {"prompt_embeds": call["prompt_embeds"], "negative_prompt_embeds": call["negative_prompt_embeds"][:, :5]}
    size = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 4}
    return pipe, words | size | {"latents": _text(1, 4, 2, 4, 4)}


def z_image(**call: Any) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(0)
    sizes = {"in_channels": 4, "dim": 32, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2}
    model = ZImageTransformer2DModel(**sizes, cap_feat_dim=16, axes_dims=[4, 6, 6], axes_lens=[256, 32, 32])
    for parameter in model.parameters():  # some are left as allocated
        torch.nn.init.normal_(parameter, std=0.2)
    pipe = ZImagePipeline(FlowMatchEulerDiscreteScheduler(), autoencoder(), None, None, model)
    words = {"prompt_embeds": [_text(5, 16), _text(7, 16)], "negative_prompt_embeds": [_text(6, 16), _text(8, 16)]}
    return pipe, COMMON | words | {"height": 64, "width": 64, "guidance_scale": 3.0} | call


def qwen(**call: Any) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(0)
    sizes = {"in_channels": 16, "out_channels": 4, "num_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2}
    model = QwenImageTransformer2DModel(**sizes, joint_attention_dim=32, axes_dims_rope=(4, 6, 6))
    pipe = QwenImagePipeline(FlowMatchEulerDiscreteScheduler(), None, None, None, model)
    one = torch.ones(1, 5, dtype=torch.long)
    words = {"prompt_embeds": _text(1, 5, 32), "prompt_embeds_mask": one}
    words |= {"negative_prompt_embeds": -_text(1, 5, 32), "negative_prompt_embeds_mask": one}
    return pipe, COMMON | words | {"height": 64, "width": 64, "true_cfg_scale": 4.0} | call


def lumina2(**call: Any) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(0)
    sizes = {"sample_size": 16, "in_channels": 4, "hidden_size": 24, "num_layers": 1, "num_refiner_layers": 1}
    heads = {"num_attention_heads": 3, "num_kv_heads": 1, "multiple_of": 4, "scaling_factor": 1.0}
    model = Lumina2Transformer2DModel(**sizes, **heads, axes_dim_rope=(4, 2, 2), axes_lens=(32, 32, 32), cap_feat_dim=8)
    pipe = Lumina2Pipeline(model, FlowMatchEulerDiscreteScheduler(), autoencoder(), None, None)
    one = torch.ones(1, 5, dtype=torch.long)
    words = {"prompt_embeds": _text(1, 5, 8), "prompt_attention_mask": one}
    words |= {"negative_prompt_embeds": -_text(1, 5, 8), "negative_prompt_attention_mask": one}
    return pipe, COMMON | words | {"height": 64, "width": 64, "cfg_normalization": False} | call


def pixart(**call: Any) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(0)
    sizes = {"sample_size": 8, "num_layers": 1, "patch_size": 2, "attention_head_dim": 8, "num_attention_heads": 3}
    widths = {"in_channels": 4, "out_channels": 8, "cross_attention_dim": 24, "caption_channels": 32}
    model = PixArtTransformer2DModel(**sizes, **widths)
    scheduler = tiny_sd("epsilon").scheduler
    pipe = PixArtAlphaPipeline(None, None, autoencoder(), model, scheduler)
    one = torch.ones(1, 5)
    words = {"prompt_embeds": _text(1, 5, 32), "prompt_attention_mask": one, "negative_prompt": None}
    words |= {"negative_prompt_embeds": -_text(1, 5, 32), "negative_prompt_attention_mask": one}
    size = {"height": 32, "width": 32, "use_resolution_binning": False}
    return pipe, COMMON | words | size | {"guidance_scale": 4.5} | call


class Watched:
    """A call of a pipeline as a watcher saw it: what `take` gave at each step, and what the scheduler was given."""

    def __init__(self, pipe: Any, call: dict[str, Any]) -> None:
        pipe.set_progress_bar_config(disable=True)
        parameters = inspect.signature(type(pipe).__call__).parameters.values()
        defaults = {one.name: one.default for one in parameters if one.default is not one.empty}
        self.watcher = Watcher(pipe, family_of(pipe), defaults | call)
        self.taken: list[Split | str] = []
        self.given: list[torch.Tensor] = []
        with self.watcher.watching(), tap(pipe.scheduler, "step", self._step):
            pipe(**call, generator=torch.Generator().manual_seed(0))
        self.verdict = self.watcher.verdict()

    def _step(self, original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = args[0] if args else kwargs["model_output"]
        self.given.append(output.clone())
        self.taken.append(self.watcher.take(output))
        return original(*args, **kwargs)

    def splits(self) -> list[Split]:
        assert all(isinstance(one, Split) for one in self.taken), self.taken
        return [one for one in self.taken if isinstance(one, Split)]

    def errors(self) -> list[float]:
        """How far each split is from reproducing what the scheduler was given, relative to it."""
        pairs = zip(self.splits(), self.given, strict=True)
        return [float((s.uncond + s.scale * (s.cond - s.uncond) - m).norm() / m.norm()) for s, m in pairs]
