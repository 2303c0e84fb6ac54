"""Instruments that look into a trained adapter: gradients, updates, experts, gates."""

from __future__ import annotations

from adapt.instruments.examining import examine, examine_task
from adapt.instruments.gradients import LevelGradients, cosines, level_gradients, norms_of_experts
from adapt.instruments.opening import learned, open_run
from adapt.instruments.routing import Routing, effect_cosines, routing, variance_split, worth_of_gates
from adapt.instruments.updates import Factors, effective_rank, experts_of, inner_products, mixed, owners

__all__ = [
    "Factors",
    "LevelGradients",
    "Routing",
    "cosines",
    "effect_cosines",
    "effective_rank",
    "examine",
    "examine_task",
    "experts_of",
    "inner_products",
    "learned",
    "level_gradients",
    "mixed",
    "norms_of_experts",
    "open_run",
    "owners",
    "routing",
    "variance_split",
    "worth_of_gates",
]
