"""`gaussian`: a pipeline without weights whose denoiser is exact, for Gaussian random fields.

A prompt stands for a `GaussianField`: independent DCT-II coefficients, whose mean is drawn from the prompt's text. The
denoiser returns the best prediction there is, so all that a recording of it shows has a closed form
(`spectra.gaussian`): a probe, a scheduler and an analysis can be checked to rounding error.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, DiffusionPipeline, FlowMatchEulerDiscreteScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from spectra.bands import coefficients, from_coefficients
from spectra.errors import UserError
from spectra.gaussian import GaussianField, Guided

SPEC = re.compile(r"gaussian(?::(\d{1,4})x(\d{1,4})x(\d{1,4})(?::([^:]+)(?::([^:]+))?)?)?")
LARGEST = 1 << 24  # values in one field
LIMITS = {"exponent": 8.0, "offset": 1e3}  # beyond them float32 has nothing left to say of the weaker modes
PREDICTIONS = {
    "epsilon": (0, 0, 0, 1),
    "sample": (1, 0, 0, 0),
    "v_prediction": (0, -1, 1, 0),
    "flow_prediction": (-1, 0, 0, 1),
}
"""Weights (p, q, r, s) of a prediction `(p + q b) x0 + (r a + s) eps`."""


class GaussianDenoiser(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """E[x0 | x], E[eps | x] or a velocity for Gaussian fields (channels, height, width).

    Power falls as 1 / f^`exponent`, with unit variance on average; the mean of the empty prompt is `offset`. Another
    prompt's mean differs by a field of its own, whose power is `spread`^2 of the data's, and its exponent by a draw of
    standard deviation `tilt`.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        channels: int = 4,
        height: int = 16,
        width: int = 16,
        exponent: float = 2.0,
        offset: float = 0.0,
        spread: float = 0.5,
        tilt: float = 0.0,
    ) -> None:
        super().__init__()
        # It has no weights, and says by this where and in which precision the pipeline works.
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    def field(self, prompt: str) -> GaussianField:
        """The distribution that a prompt stands for."""
        given: Any = self.config
        shape = (given.channels, given.height, given.width)
        if not prompt:
            return GaussianField.power_law(shape, given.exponent, given.offset)
        random = np.random.default_rng(list(sha256(prompt.encode()).digest()))
        exponent = given.exponent + given.tilt * random.standard_normal()
        base = GaussianField.power_law(shape, exponent, given.offset)
        mean = base.mean + given.spread * np.sqrt(base.variance) * random.standard_normal(shape)
        return GaussianField(mean, base.variance)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        level: tuple[float, float],
        prediction_type: str,
    ) -> tuple[Tensor]:
        """States (b, c, h, w) at `level` (a, b), fields (b, 2, c, h, w) of means and variances -> the prediction."""
        a, b = level
        mean, variance = encoder_hidden_states.unbind(1)
        X = coefficients(hidden_states.double())
        P = a * a * variance + b * b
        surprise = torch.where(P > 0, (X - a * mean) / P, 0)
        x0, eps = mean + a * variance * surprise, b * surprise
        p, q, r, s = PREDICTIONS[prediction_type]
        return (from_coefficients((p + q * b) * x0 + (r * a + s) * eps).to(hidden_states.dtype),)


class GaussianPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Samples of Gaussian fields by any scheduler of diffusers, guided as other pipelines are."""

    model_cpu_offload_seq = "transformer"
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012 -- diffusers looks for a list

    def __init__(self, transformer: GaussianDenoiser, scheduler: Any) -> None:
        super().__init__()
        self.transformer: GaussianDenoiser
        self.scheduler: Any
        self.register_modules(transformer=transformer, scheduler=scheduler)

    @property
    def num_timesteps(self) -> int:
        """Scheduler calls of the last call of the pipeline."""
        return len(self.scheduler.timesteps)

    def field(self, prompt: str = "") -> GaussianField:
        """The distribution that a prompt stands for."""
        return self.transformer.field(prompt)

    def guided(self, prompt: str, guidance_scale: float, negative_prompt: str = "") -> GaussianField:
        """What the pipeline samples with under this guidance: the oracle of its recording."""
        field = self.field(prompt)
        return Guided.of(field, self.field(negative_prompt), guidance_scale) if guidance_scale > 1 else field

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] = "",
        negative_prompt: str | list[str] | None = None,
        num_inference_steps: int = 30,
        guidance_scale: float = 1.0,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "latent",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, Any, dict[str, Tensor]], dict[str, Tensor]] | None = None,
    ) -> Any:
        """One field (channels, height, width) for each prompt, as `images` (b, c, h, w).

        `latents`, if given, are unit noise. Guidance is off at a scale of 1 or less. `eta` is DDIM's. `output_type` is
        "latent", a tensor, or "np". Raises UserError for other ones and for a scheduler whose levels are unknown.
        """
        if output_type not in ("latent", "np"):
            raise UserError(f'a Gaussian field is no picture: output_type is "latent" or "np", not {output_type!r}')
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        fields = self._embed(prompts, negative_prompt, guidance_scale > 1)
        self.scheduler.set_timesteps(num_inference_steps, device=self.device)
        x = self._noise(len(prompts), generator, latents) * getattr(self.scheduler, "init_noise_sigma", 1.0)
        extra = _accepted(self.scheduler.step, {"eta": eta, "generator": generator})
        for call, t in enumerate(self.progress_bar(self.scheduler.timesteps)):
            out = self._predict(x, t, call, fields, guidance_scale)
            x = self.scheduler.step(out, t, x, **extra, return_dict=False)[0]
            if callback_on_step_end is not None:
                x = callback_on_step_end(self, call, t, {"latents": x}).get("latents", x)
        images = x if output_type == "latent" else x.float().cpu().numpy()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _predict(self, x: Tensor, t: Tensor, call: int, fields: Tensor, guidance_scale: float) -> Tensor:
        """The prediction that the scheduler gets: with guidance, both halves of one batch, uncond first."""
        level = network_level(self.scheduler, t, call)
        kind = getattr(self.scheduler.config, "prediction_type", "flow_prediction")
        if kind not in PREDICTIONS:
            raise UserError(f"the Gaussian model predicts one of {', '.join(PREDICTIONS)}, not {kind!r}")
        inputs = torch.cat([x] * (len(fields) // len(x)))
        if hasattr(self.scheduler, "scale_model_input"):
            inputs = self.scheduler.scale_model_input(inputs, t)
        out: Tensor = self.transformer(inputs, t.expand(len(inputs)), fields, level=level, prediction_type=kind)[0]
        if len(inputs) == len(x):
            return out
        uncond, cond = out.chunk(2)
        out = uncond + guidance_scale * (cond - uncond)
        return out

    def _embed(self, prompts: list[str], negative: str | list[str] | None, guided: bool) -> Tensor:
        """Means and variances of all prompts, (b, 2, c, h, w), the negative ones first."""
        negatives = [negative or ""] * len(prompts) if not isinstance(negative, list) else negative
        if guided and len(negatives) != len(prompts):
            raise UserError(f"{len(prompts)} prompts need as many negative prompts, not {len(negatives)}")
        texts = negatives + prompts if guided else prompts
        fields = {text: self.field(text) for text in dict.fromkeys(texts)}
        pairs = {text: np.stack([field.mean, field.variance]) for text, field in fields.items()}
        return torch.tensor(np.stack([pairs[text] for text in texts]), device=self.device)

    def _noise(self, count: int, generator: Any, latents: Tensor | None) -> Tensor:
        given: Any = self.transformer.config
        shape = (count, given.channels, given.height, given.width)
        if latents is None:
            drawn: Tensor = randn_tensor(shape, generator=generator, device=self.device, dtype=self.dtype)
            return drawn
        if tuple(latents.shape) != shape:
            raise UserError(f"latents of this model and these prompts have the shape {shape}, not {(*latents.shape,)}")
        return latents.to(self.device)


def network_level(scheduler: Any, t: Any, call: int) -> tuple[float, float]:
    """(a, b) of what the network is given at this call: `a x0 + b eps`, with a^2 + b^2 = 1 unless the model flows.

    Schedulers with a variance exploding state scale it for the network, so here it preserves the variance too.
    """
    config, sigmas = scheduler.config, getattr(scheduler, "sigmas", None)
    flow = type(scheduler).__name__.startswith("FlowMatch") or getattr(config, "use_flow_sigmas", False)
    unknown = not (flow or hasattr(scheduler, "alphas_cumprod")) or hasattr(scheduler, "sigmas_interpol")
    if unknown or getattr(config, "invert_sigmas", False):
        raise UserError(f"the noise levels of this {type(scheduler).__name__} are unknown to the Gaussian model")
    if sigmas is None:
        square = float(scheduler.alphas_cumprod[int(t)])
        return math.sqrt(square), math.sqrt(1 - square)
    sigma = float(sigmas[call])
    return (1 - sigma, sigma) if flow else (1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma))


def _accepted(function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    known = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in known}


def gaussian_pipeline(spec: str = "gaussian", dtype: torch.dtype = torch.float32, **options: Any) -> GaussianPipeline:
    """The pipeline of "gaussian", "gaussian:4x24x32", "gaussian:4x24x32:2.0" or "gaussian:4x24x32:2.0:0.5".

    A specification holds channels, height and width, then the exponent of the spectrum and the mean of the data.
    `options` are more of `GaussianDenoiser`'s. The scheduler is rectified flow by Euler's method; set another one as
    for any pipeline. Raises UserError for a specification that is none, and for others.
    """
    unknown = sorted(options.keys() - inspect.signature(GaussianDenoiser.__init__).parameters.keys())
    if unknown:
        raise UserError(f"the Gaussian model is a formula, for which {unknown[0]!r} means nothing; leave it out")
    denoiser = GaussianDenoiser(**parse_spec(spec) | options)
    denoiser.anchor = denoiser.anchor.to(dtype)
    pipe = GaussianPipeline(denoiser, FlowMatchEulerDiscreteScheduler())
    pipe.register_to_config(_name_or_path=spec)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def parse_spec(spec: str) -> dict[str, Any]:
    """The denoiser's options of a specification. Raises UserError if it is not understood."""
    found = SPEC.fullmatch(spec)
    if not found:
        raise UserError(f"{spec!r} is not understood; a Gaussian model is given as gaussian:4x24x32:2.0")
    sizes = {
        name: int(size) for name, size in zip(("channels", "height", "width"), found.groups(), strict=False) if size
    }
    numbers = {
        name: _number(text) for name, text in zip(("exponent", "offset"), found.groups()[3:], strict=True) if text
    }
    if sizes and not 0 < math.prod(sizes.values()) <= LARGEST:
        raise UserError(f"{spec!r} has no fields of 1 to {LARGEST} values; a Gaussian model is like gaussian:4x24x32")
    if not all(abs(number) <= LIMITS[name] for name, number in numbers.items()):
        raise UserError(
            f"{spec!r} needs an exponent from -8 to 8 and a mean from -1000 to 1000, as in gaussian:4x24x32:2.0:0.5"
        )
    return sizes | numbers


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
