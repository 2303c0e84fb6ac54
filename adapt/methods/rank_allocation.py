"""AdaLoRA's allocation of ranks (Zhang et al. 2023, arXiv 2303.10512), by PEFT's own allocator.

PEFT keeps the allocator in its wrapper `AdaLoraModel`, which a diffusers model does not have; here it is kept in the
denoiser's PEFT configuration of the adapter, and what it has learned can be saved with a checkpoint.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.adalora.layer import RankAllocator
from torch import Tensor

from adapt.methods.base import NAME

_AVERAGES = ("exp_avg_ipt", "exp_avg_unc")
_PATTERN = "rank_pattern"
_HOME = "_rank_allocator"


def allocate(denoiser: Any, step: int, total: int) -> None:
    """Lower the budget of ranks after step 0 .. total - 1: ranks of least importance get the singular value zero."""
    settings, done = denoiser.peft_config[NAME], step + 1
    last = settings.total_step - settings.tfinal
    if done > last:
        if settings.rank_pattern:
            allocator(denoiser).mask_using_rank_pattern(denoiser, settings.rank_pattern)
        return
    found = allocator(denoiser)
    for parameter in denoiser.parameters():  # of layers on which the answer does not depend, as in Qwen-Image's last
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    if done == last:
        found.update_ipt(denoiser)
    _, pattern = found.update_and_allocate(denoiser, done, force_mask=done == last)
    settings.rank_pattern = pattern or settings.rank_pattern
    if done == last:
        found.reset_ipt()


def allocator(denoiser: Any) -> Any:
    """The adapter's allocator, made when it is first asked for."""
    settings = denoiser.peft_config[NAME]
    if _HOME not in vars(settings):
        setattr(settings, _HOME, RankAllocator(denoiser, settings, NAME))
    return getattr(settings, _HOME)


def orthogonality(denoiser: Any) -> Tensor | None:
    """Weighted mean distance of A A^T and B^T B from the identity, so that singular values mean importance."""
    pairs = [(name, p) for name, p in denoiser.named_parameters() if p.requires_grad and f".{NAME}" in name]
    grams = [p @ p.T if ".lora_A." in name else p.T @ p for name, p in pairs if ".lora_E." not in name]
    if not grams:
        return None
    distances = [torch.linalg.norm(gram - torch.eye(len(gram), device=gram.device)) for gram in grams]
    weight: float = denoiser.peft_config[NAME].orth_reg_weight
    return weight * torch.stack(distances).mean()


def state(denoiser: Any) -> dict[str, Tensor]:
    """Averages of importance and the present pattern, by name."""
    found = {
        f"{average}/{name}": value for average in _AVERAGES
        for name, value in getattr(allocator(denoiser), average).items()
    }  # fmt: skip
    pattern = denoiser.peft_config[NAME].rank_pattern or {}
    return found | {f"{_PATTERN}/{name}": torch.tensor(kept) for name, kept in pattern.items()}


def restore(denoiser: Any, saved: dict[str, Tensor]) -> None:
    """Put a saved state back."""
    found, settings = allocator(denoiser), denoiser.peft_config[NAME]
    found.reset_ipt()
    pattern: dict[str, list[bool]] = {}
    for key, value in saved.items():
        kind, _, name = key.partition("/")
        if kind == _PATTERN:
            pattern[name] = value.tolist()
        else:
            getattr(found, kind)[name] = value
            found.ipt[name] = torch.zeros_like(value)  # overwritten before it is read; its presence says "known"
    settings.rank_pattern = pattern or None
