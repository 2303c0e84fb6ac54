"""What a prior says, in plain sentences with its own numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from adapt.prior.experts import MOST
from adapt.prior.parts import BankScore, Floats, Number
from adapt.trajectory import FEWEST

if TYPE_CHECKING:
    from adapt.prior.prior import Prior

_FORGIVING = (
    " This does not gainsay the nats above: they ask for the very step and the content, and a few guesses that are far "
    "off outweigh all others there, while they lower a mean of probabilities little. Probe more to be sure of both."
)
NAMES = {"shares": "the bands' shares", "snr": "the bands' energies over the noise's", "log_snr": "the noise level"}


def sentences(prior: Prior) -> list[str]:
    """All that a prior says."""
    return [*_bands(prior), *_experts(prior), *_levels(prior)]


def subject(prior: Prior) -> str:
    """What the prior was learned from, without a full stop."""
    from_what, steps, more = prior.provenance, len(prior.noise_level), prior.provenance.get("data")
    model, runs = from_what.get("model") or "an unnamed model", from_what.get("runs", "?")
    units = f"{from_what.get('units', '?')} {from_what.get('unit', 'run')}s"
    if from_what.get("source") == "data":
        return f"{runs} latents of {units} as {model} is trained with them, at {steps} noise levels each"
    beside = f", and {more['runs']} latents of {more['units']} {more['unit']}s under noise" if more else ""
    return f"{runs} samples of {model} ({units}), {steps} denoising steps each{beside}"


def listed(values: Floats) -> str:
    """Scales in a row."""
    return ", ".join(f"{value:.3g}" for value in values)


def with_interval(found: Number) -> str:
    """A number with its interval."""
    ends = "" if found.low is None or found.high is None else f" ({found.low:.2f} to {found.high:.2f})"
    return f"{found.value:.2f}{ends}"


def _bands(prior: Prior) -> list[str]:
    choice, bands, top = prior.bank, prior.bands, prior.shares
    return [
        f"Learned from {subject(prior)}.",
        f"The latent ({prior.grid[0]} x {prior.grid[1]}) is split into {bands} bands by Gaussians of "
        f"{listed(prior.scales)} latent pixels.",
        _why(prior),
        *([] if choice.chosen is None else [_told(choice.chosen, choice.unit)]),
        _exactness(prior),
        f"From the noise to the last step, the lowest band's share of the energy goes from {top[0][0]:.0%} to "
        f"{top[-1][0]:.0%}, the highest band's from {top[0][-1]:.0%} to {top[-1][-1]:.0%}.",
    ]


def _why(prior: Prior) -> str:
    choice = prior.bank
    if choice.default is None or choice.chosen is None:
        these = "These bands were asked for" if choice.reason == "asked" else f"These are {choice.against}"
        return f"{these}: there are too few samples to compare them with others, so probe {FEWEST} prompts or more."
    other = f"those of {choice.against} ({listed(choice.default.scales)}) {with_interval(choice.default.total)}"
    if choice.gain is None:
        mine = with_interval(choice.chosen.total)
        return f"These bands were asked for; guesses of noise level and content gain {mine} nats by them, {other}."
    judged = f"the gain is {with_interval(choice.gain)} nats, judged on {choice.unit} that had no say in the choice"
    beats = f"choosing among {choice.candidates} candidates"
    if choice.reason == "kept":
        return f"These are {choice.against}, because {beats} does not beat them beyond doubt: {judged}."
    return f"They were chosen, because {beats} beats {choice.against} beyond doubt: {judged}."


def _doubtful(score: BankScore) -> bool:
    """True unless the bands help to guess noise level and content beyond doubt."""
    return score.total.low is None or score.total.low <= 0


def _told(score: BankScore, unit: str) -> str:
    total, nat = with_interval(score.total), "a nat makes the odds of a right guess 2.7 times as good"
    parts = f"{with_interval(score.level)} about the noise level and {with_interval(score.content)} about the content"
    if _doubtful(score):
        return (
            f"That their log shares help to guess noise level and content is not beyond doubt: {total} nats, {parts}, "
            f"on {unit} that were held out ({nat}; below 0 they mislead): probe more {unit}."
        )
    return (
        f"Their log shares hold {total} nats: {parts} at known noise level, on {unit} that were held out ({nat}; 0 "
        "is a guess without them)."
    )


def _exactness(prior: Prior) -> str:
    choice = prior.bank
    if choice.inexact == 0:
        return "The cube was recorded in these bands, so their energies are exact."
    return (
        f"Their energies are estimated from the recorded radial spectrum, which tells them to {choice.inexact:.1%} at "
        f"worst; in the recorded bands, where both are known, the estimate of a share is off by "
        f"{np.expm1(choice.check):.1%} in the worst band (root mean square)."
    )


def _experts(prior: Prior) -> list[str]:
    gates = np.array(prior.gates)
    reads = " and ".join(NAMES[name] for name in prior.features)
    return [
        f"The router reads {reads}.",
        *(_expert(prior, m) for m in range(prior.experts)),
        f"At the start an expert's gate moves by up to {np.ptp(gates, axis=0).max():.0%} over the noise levels; with "
        f"an overlap of {prior.overlap:g} no expert's average falls below {gates.min():.0%} at any of them.",
        f"The fitted router is {prior.gate_error:.1%} away from the intended gates on average and "
        f"{prior.gate_error_max:.1%} at worst.",
        _advice(prior),
    ]


def _expert(prior: Prior, m: int) -> str:
    leads = [level for level, row in zip(prior.noise_level, prior.gates, strict=True) if max(row) == row[m]]
    if not leads:
        return f"Expert {m} leads at no noise level at the start."
    if len(leads) == 1:
        return f"Expert {m} leads at noise level {leads[0]:.3g}."
    return f"Expert {m} leads at noise levels {max(leads):.3g} to {min(leads):.3g}."


def _advice(prior: Prior) -> str:
    sure, advised = prior.advice.sure, prior.advice.advised
    if advised is None:
        return "There are too few samples to advise a number of experts."
    words = f"The shares speak for {advised} expert{'s' * (advised > 1)}"
    tried = range(max(advised, 2), min(advised + 1, len(sure)) + 1)
    parts = [f"{_percent(sure[m - 1])} with {m} parts" for m in tried]
    limit = "" if advised < len(sure) else f", and no more were tried, for {_why_no_more(len(sure))}"
    told = (
        f"{words}: cut the trajectory into equal parts, and they put a latent's own part at {' and '.join(parts)}; an "
        f"expert should have more than half beyond doubt{limit}."
    )
    return told + _FORGIVING * (advised > 1 and prior.bank.chosen is not None and _doubtful(prior.bank.chosen))


def _why_no_more(tried: int) -> str:
    return f"{MOST} are enough" if tried == MOST else "each needs a step of its own"


def _percent(found: Number) -> str:
    ends = "" if found.low is None or found.high is None else f" ({found.low:.0%} to {min(found.high, 1):.0%})"
    return f"{found.value:.0%}{ends}"


def _levels(prior: Prior) -> list[str]:
    found, data = prior.density, prior.provenance.get("source") == "data"
    levels, (low, high) = (tuple(noise_level(prior, x) for x in some) for some in (found.emergence[0], found.middle))
    table = "; their range is interpolated between the probed ones" if found.table == "levels" else ""
    return [
        f"From low to high, the bands emerge from the noise at noise levels {', '.join(levels)}.",
        f'With timesteps = "prior", {found.floor:.0%} of the training noise levels are spread evenly and the rest '
        f"where bands emerge{table}.",
        f"Half of what emerges does so between noise levels {high} and {low}: {found.visited:.0%} of "
        f"the {'probed levels' if data else 'sampler steps'}, {found.uniform:.0%} of uniform training and "
        f"{found.given:.0%} of this density fall there.",
    ]


def noise_level(prior: Prior, log_snr: float) -> str:
    """The noise level of a log SNR, in two digits; of one beyond the probed levels, on which side of them it lies."""
    level = np.exp(np.interp(log_snr, prior.log_snr, np.log(prior.noise_level)))  # its logarithm is nearly straight
    side = "above " if log_snr < prior.log_snr[0] else "below " if log_snr > prior.log_snr[-1] else ""
    return f"{side}{level:.2g}"
