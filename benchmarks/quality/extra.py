"""Further arms, beyond those whose results were planned: where FeRA might gain more, and why it does or does not.

`python -m benchmarks.quality.run --arms fera-shared fera-tau0.35 ...` runs them like the planned ones, in the same
folder.  They were chosen after results of the planned arms were seen, so what they show is a lead, not a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.quality.design import ARMS as PLANNED
from benchmarks.quality.design import Arm, _fera

LONG, SHORT = 360, 84
"""Training steps: three times the planned ones, and 70 % of them."""


@dataclass(frozen=True)
class Idea:
    """One change to try, the planned or further arm that it is judged against, and what it would show."""

    arm: Arm
    against: str
    question: str


WIDE = (1.6e-2, 3.2e-2, 6.4e-2)
"""The rates that LoHa's sweep begins with."""
FINE = (5.7e-3, 8e-3, 1.13e-2, 1.6e-2)
"""A finer grid of learning rates around those that were best on the planned one."""


def _idea(question: str, name: str, against: str = "fera-prior", prior: bool = True, **settings: Any) -> Idea:
    return Idea(_fera(name, prior=prior, **settings), against, question)


def _lora(question: str, name: str, **settings: Any) -> Idea:
    return Idea(Arm(name, {"method": "lora", "rank": 12, **settings}, prior="timesteps" in settings), "lora", question)


IDEAS = (
    _idea("the prior's bands and scaling, but a random router", "fera-scaled", router_start="random"),
    _idea("half of the rank is always on", "fera-shared", shared_rank=6),
    _idea("half of the rank is always on, random start", "fera-shared-random", "fera-random", False, shared_rank=6),
    _idea("a quarter of the rank is always on", "fera-shared3", shared_rank=3),
    _idea("three quarters of the rank are always on", "fera-shared9", shared_rank=9),
    _idea("half is always on, and every expert is kept in use", "fera-shared-balance", "fera-shared", shared_rank=6,
          balance_weight=0.01),
    _idea("half is always on, gates of energies and noise level", "fera-shared-clock", "fera-shared", shared_rank=6,
          router="energy+clock"),
    _idea("a clock, started from the prior", "fera-clock-prior", "fera-clock", router="clock"),
    _idea("the prior's start, a clock instead of energies", "fera-clock-prior", router="clock"),
    _idea("a clock with sharper gates", "fera-clock-tau0.35", "fera-clock-prior", router="clock", tau=0.35),
    _idea("a clock, half of the rank always on", "fera-clock-shared", "fera-clock", False, router="clock",
          shared_rank=6),
    _idea("the prior's experts overlap less", "fera-overlap0.5", overlap=0.5),
    _idea("the prior's experts overlap more", "fera-overlap2", overlap=2.0),
    _idea("sharper gates", "fera-tau0.35", tau=0.35),
    _idea("softer gates", "fera-tau1.4", tau=1.4),
    _idea("sharper gates from a random start", "fera-random-tau0.35", "fera-random", False, tau=0.35),
    _idea("gates that sharpen during training", "fera-anneal", tau=1.4, tau_end=0.35),
    _idea("a router that learns ten times as fast", "fera-router10", router_lr=10.0),
    _idea("a router that hardly moves", "fera-router0.1", router_lr=0.1),
    _idea("gates of the energies relative to the noise too", "fera-snr", router="energy+snr"),
    _idea("gates of energies and noise level", "fera-energy-clock", router="energy+clock"),
    _idea("the energies beside the clock", "fera-energy-clock", "fera-clock-prior", router="energy+clock"),
    _idea("noise levels of training where bands emerge", "fera-timesteps", timesteps="prior"),
    _lora("the same noise levels for LoRA", "lora-timesteps", timesteps="prior"),
    _idea("a fifth of the consistency loss", "fera-fecl0.02", fecl_weight=0.02),
    _idea("the consistency loss on every fourth step", "fera-fecl-every4", "fera-fecl", fecl_weight=0.1, fecl_every=4),
    _idea("every expert is kept in use", "fera-balance", balance_weight=0.01),
    _idea("experts with DoRA's magnitudes", "fera-dora", "dora", expert="dora"),
    _idea("experts of LoHa's kind, of equal parameters", "fera-loha", rates=WIDE, expert="loha", rank=6),
    _idea("FeRA with LoHa's kind of experts instead of LoHa", "fera-loha", "loha", rates=WIDE, expert="loha", rank=6),
    _idea("the same, by the clock", "fera-loha-clock", "loha", rates=WIDE, expert="loha", rank=6, router="clock"),
    _idea("the clock instead of the energies, experts of LoHa's kind", "fera-loha-clock", "fera-loha", rates=WIDE,
          expert="loha", rank=6, router="clock"),
    _lora("a quarter of the parameters", "lora-rank3", rank=3),
    _idea("FeRA instead of LoRA, both with a quarter of the parameters", "fera-rank3", "lora-rank3", rank=3),
    _idea("FeRA by the clock instead of LoRA, both with a quarter of the parameters", "fera-clock-rank3", "lora-rank3",
          router="clock", rank=3),
    _lora("the rank of a single expert, a third of the parameters", "lora-rank4", rank=4),
    _lora("twice the parameters", "lora-rank24", rank=24),
    _lora("four times the parameters", "lora-rank48", rank=48),
    _lora("attention alone, twice the rank", "lora-attention", targets=["attention"], rank=24),
    _idea("FeRA instead of LoRA, both on attention alone", "fera-attention", "lora-attention", targets=["attention"],
          rank=24),
    _lora("its own schedule in 70 % of the steps", "lora-short", steps=SHORT),
    _idea("FeRA in 70 % of LoRA's steps, with a schedule of its own", "fera-short", "lora", steps=SHORT),
    Idea(Arm("lora-fine", {"method": "lora", "rank": 12}, FINE), "lora", "a finer sweep of the learning rate"),
    _idea("FeRA instead of LoRA, both with the finer sweep", "fera-fine", "lora-fine", rates=FINE),
    _lora("three times as many steps", "lora-long", steps=LONG),
    _idea("FeRA instead of LoRA, both with three times as many steps", "fera-long", "lora-long", steps=LONG),
    _idea("three times as many steps, half always on", "fera-shared-long", "fera-long", steps=LONG, shared_rank=6),
)  # fmt: skip
"""Ideas in the order in which they are best tried; an arm may be judged against several that differ in one thing."""

EXTRA = {idea.arm.name: idea.arm for idea in IDEAS}
ARMS = PLANNED | EXTRA
"""Every arm that can be run."""
