"""The loss of one training step: draws -> noisy latents -> prediction -> weighted error, and what is added to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adapt.config import TrainConfig
from adapt.coupling import coupled
from adapt.draws import Draws
from adapt.fera.loss import fecl
from adapt.methods import NAME
from adapt.preservation import class_draws
from adapt.sampling import sampler_of
from adapt.task import Task
from datasets_cache.encoding import CachedData
from datasets_cache.families import Conditioning


class StepLoss(NamedTuple):
    """The loss of a step and what it is made of."""

    loss: Tensor
    """Scalar, to be differentiated."""
    error: Tensor
    """(batch,) mean squared error of each sample's prediction, unweighted, without gradient."""
    quantile: Tensor
    """(batch,) quantiles of the noise range: 0 clean, 1 noise."""
    parts: dict[str, Tensor]
    """Name -> scalar without gradient; they sum to `loss`."""


@dataclass(frozen=True)
class Batch:
    """What a denoiser is asked in one call; row i of everything belongs to sample i."""

    noisy: Tensor
    """(batch, c, [t], h, w)"""
    target: Tensor
    """(batch, c, [t], h, w): what it should answer."""
    timestep: Tensor
    """(batch,)"""
    quantile: Tensor
    """(batch,) of the noise range."""
    conditioning: Conditioning

    def take(self, samples: Tensor) -> Batch:
        """The given samples, in that order."""
        told = {name: value[samples.to(value.device)] for name, value in self.conditioning.items()}
        return Batch(
            self.noisy[samples], self.target[samples], self.timestep[samples], self.quantile[samples], told
        )  # fmt: skip

    def followed_by(self, other: Batch) -> Batch:
        """The samples of both."""
        told = {name: torch.cat([value, other.conditioning[name]]) for name, value in self.conditioning.items()}
        return Batch(
            torch.cat([self.noisy, other.noisy]), torch.cat([self.target, other.target]),
            torch.cat([self.timestep, other.timestep]), torch.cat([self.quantile, other.quantile]), told,
        )  # fmt: skip


def step_loss(task: Task, denoiser: nn.Module, draws: Draws, consistency: float = 0.0) -> StepLoss:
    """The loss of a step: means over samples, so that equal parts of a batch give the whole's by their mean.

    Of the terms only `balance` is no such mean: it looks at the noise levels of the part that it is given.

        mean(w error) + class_weight mean(w class error) + consistency FECL + balance_weight balance + penalty

    `w` is the objective's weight; the class pictures (DreamBooth's prior preservation), FeRA's consistency and balance
    terms and the method's own penalty (AdaLoRA) are there where the configuration asks for them.
    """
    own = batch_of(task, task.train, draws)
    asked, classes = own, task.class_data
    if classes is not None:
        asked = own.followed_by(batch_of(task, classes, class_draws(task, classes, draws)))
    chosen = chosen_of(draws, task.config.fecl_share) if consistency > 0 else torch.empty(0, dtype=torch.long)
    base = base_answer(task, own.take(chosen)) if len(chosen) else None
    prediction = task.answer(denoiser, asked.noisy, asked.timestep, asked.conditioning)
    target = asked.target.to(prediction)
    error = (prediction - target).square().flatten(1).mean(1)
    weighted, size = task.objective.weight(asked.timestep).to(error) * error, len(own.timestep)

    parts = {"error": weighted[:size].mean()}
    if classes is not None:
        parts["class"] = task.config.class_weight * weighted[size:].mean()
    if base is not None:
        found = consistency_loss(task, prediction[chosen], base, target[chosen])
        parts["consistency"] = consistency * share_of(draws, task.config.fecl_share) * found
    parts |= own_terms(task, asked.quantile)
    kept = {name: part.detach() for name, part in parts.items()}
    return StepLoss(torch.stack([*parts.values()]).sum(), error[:size].detach(), own.quantile, kept)


def batch_of(task: Task, data: CachedData, draws: Draws) -> Batch:
    """Noisy latents, targets and conditioning of the samples that were drawn from `data`."""
    objective, x0 = task.objective, data.latents(draws.rows)
    quantile = sampler_of(task.config, objective, task.prior)(draws.quantiles)
    timestep = objective.timestep(quantile)
    noise = coupled(x0, draws.noise) if task.config.ot_coupling else draws.noise
    return Batch(
        noisy=objective.add_noise(x0, noise, timestep),
        target=objective.target(x0, noise, timestep),
        timestep=timestep,
        quantile=quantile,
        conditioning=conditioning_of(task, draws, data),
    )


def conditioning_of(task: Task, draws: Draws, data: CachedData | None = None) -> Conditioning:
    """What the denoiser is told of the samples, that of the empty prompt where the caption is dropped.

    Names that the empty prompt has nothing to say of, such as the size of a picture or its first frame, stay.  Where
    text encoders learn, captions are encoded anew, by the encoders as they are now.
    """
    data = task.train if data is None else data
    told, empty = told_of(task, data, draws.rows, picks(task.config, data, draws)), data.empty
    if task.config.text_encoder and bool(draws.dropped.any()):
        empty = empty | empty_now(task.pipe)

    def dropped(name: str, value: Tensor) -> Tensor:
        mask = draws.dropped.to(value.device).reshape(-1, *(1,) * (value.ndim - 1))
        return torch.where(mask, empty[name].to(value), value)

    return {name: dropped(name, value) if name in empty else value for name, value in told.items()}


def told_of(task: Task, data: CachedData, rows: Sequence[int], pick: Sequence[int]) -> Conditioning:
    """What the denoiser is told of pictures under their captions `pick`, (rows, ...) each."""
    told = data.conditioning(rows, pick)
    if not task.config.text_encoder:
        return told
    from adapt.methods.text_encoders import encode_now
    from spectra.models import call_defaults

    captions = [data.caption_lists[row][one] for row, one in zip(rows, pick, strict=True)]
    return told | encode_now(task.pipe, captions, call_defaults(task.pipe))


def empty_now(pipe: Any) -> Conditioning:
    """Conditioning (1, ...) of a dropped caption by the text encoders of a pipeline, with gradients."""
    from datasets_cache.families import encoding_family
    from spectra.models import call_defaults

    family, defaults = encoding_family(pipe), call_defaults(pipe)
    empty = family.empty(pipe, defaults) if family.empty else family.text(pipe, "", defaults)
    return {name: value.float() for name, value in empty.items()}


def picks(config: TrainConfig, data: CachedData, draws: Draws) -> list[int]:
    """Which of its captions each sample is trained with."""
    if config.caption_choice == "first":
        return [0] * len(draws.rows)
    counts = [len(data.caption_lists[row]) for row in draws.rows]
    return [int(choice * count) for choice, count in zip(draws.choice.tolist(), counts, strict=True)]


@torch.no_grad()
def base_answer(task: Task, batch: Batch) -> Tensor:
    """What the model answers without its adapter.

    Asked before the pass that learns, so that the gates of that pass are the last ones set.
    """
    with task.method.base(task.denoiser):
        return task.answer(task.denoiser, batch.noisy, batch.timestep, batch.conditioning)


def consistency_loss(task: Task, prediction: Tensor, base: Tensor, target: Tensor) -> Tensor:
    """FeRA's consistency loss in the form that the configuration asks for, unweighted."""
    if task.config.fecl_form == "published":
        from adapt.fera.published import consistency_loss as published

        return published(prediction, base, target, task.denoiser.peft_config[NAME].bands, 1.0)
    return fecl(prediction, base, target, task.denoiser.peft_config[NAME].bank)


def own_terms(task: Task, quantile: Tensor) -> dict[str, Tensor]:
    """What the method adds after the pass that learns: use of all experts over `quantile` (batch,), and its penalty."""
    terms: dict[str, Tensor] = {}
    gates = task.method.gates(task.denoiser) if task.config.balance_weight > 0 else None
    if gates is not None:
        from adapt.fera.health import balance

        terms["balance"] = task.config.balance_weight * balance(gates, quantile.to(gates.device))
    penalty = task.method.penalty(task.denoiser)
    if penalty is not None:
        terms["penalty"] = penalty
    return terms


def chosen_of(draws: Draws, share: float) -> Tensor:
    """Positions of the samples that the consistency loss is applied to: `share` of a whole batch, over all levels.

    A part of a batch without any takes its first, which `share_of` counts as none, so that all processes make the same
    calls.
    """
    chosen = (draws.lot < share).nonzero()[:, 0]
    return chosen if len(chosen) or share == 0 else torch.zeros(1, dtype=torch.long)


def share_of(draws: Draws, share: float) -> float:
    """What the mean over the chosen samples counts for: 1 on average, and their number relative to the expected one."""
    return float((draws.lot < share).sum()) / (share * len(draws.lot))


def fecl_weight(config: TrainConfig, step: int) -> float:
    """Weight of the consistency loss at a step: zero on the steps that leave it out, rising over the warm-up."""
    if config.fecl_weight == 0 or step % config.fecl_every:
        return 0.0
    return config.fecl_weight * min(1.0, (step + 1) / max(1.0, config.fecl_warmup * config.steps))
