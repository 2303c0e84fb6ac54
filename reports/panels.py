"""The panels of the report: each a title, a small figure as SVG, and what it shows in words for who cannot see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.arms import Arm
from reports.compare import Against, Gates, error_over_training, to_heldout
from reports.figures import (
    INK,
    MARKERS,
    MUTED,
    RULE,
    SIZE,
    arm_colour,
    as_percent,
    dash,
    expert_colour,
    over_levels,
    panel,
    to_svg,
)  # fmt: skip
from reports.statistics import Array, Ratio
from reports.words import digits_of, signed

LONGEST = 52
"""Letters that fit into the width of a panel; longer words are drawn smaller."""


@dataclass(frozen=True)
class Panel:
    """A figure with its heading and, where needed, a note below."""

    title: str
    svg: Markup
    note: str = ""


def made(name: str, title: str, text: str, figure: Figure, note: str = "") -> Panel:
    """Wrap a figure up as a panel."""
    return Panel(title, to_svg(figure, name, title, text), note)


def whiskers(axes: Axes, x: Array, ratios: Sequence[Ratio], colour: str, marker: str, horizontal: bool = False) -> None:
    """Points with intervals; hollow where the interval includes no difference."""
    for at, ratio in zip(x, ratios, strict=True):
        ends = (ratio.low, ratio.high) if ratio.bounded else (ratio.value, ratio.value)
        place = (ends, (at, at)) if horizontal else ((at, at), ends)
        axes.plot(*place, color=colour, linewidth=1.6)
        point = (ratio.value, at) if horizontal else (at, ratio.value)
        face = colour if ratio.differs else "none"
        axes.plot(*point, marker=marker, markersize=5.5, color=colour, markerfacecolor=face, linestyle="none")


def no_difference(axes: Axes, horizontal: bool = False) -> None:
    """The line of no difference."""
    line = axes.axhline if horizontal else axes.axvline
    line(1, color=INK, linewidth=0.9, zorder=0.5)


def ratio_scale(axes: Axes) -> None:
    """A logarithmic vertical axis of ratios, with ticks that people read as factors."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    wide = high / low > 20
    marks = (0.01, 0.1, 0.5, 1, 2, 10, 100) if wide else (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5)
    ticks = [mark for mark in marks if low <= mark <= high]
    axes.set_yticks(ticks, [f"× {mark:g}" for mark in ticks])
    axes.minorticks_off()


def verdict(pairs: Sequence[Against]) -> Panel:
    """One glance: final error of every pair of arms, with intervals."""

    def draw(axes: Axes) -> None:
        places = np.arange(len(pairs), dtype=np.float64)[::-1]
        for at, pair in zip(places, pairs, strict=True):
            style = pair.arm.style
            whiskers(axes, np.array([at]), [pair.error], arm_colour(style), MARKERS[style % 8], horizontal=True)
            label = f"{pair.arm.label} against {pair.other.label}: {signed(pair.error.value, digits_of(pair.error))}"
            axes.plot([1, 1], [at - 0.25, at + 0.16], color=MUTED, linewidth=0.9, zorder=0.5)
            size = 10.5 * min(1.0, LONGEST / len(label))
            axes.text(0.0, at + 0.2, label, transform=axes.get_yaxis_transform(), va="bottom", fontsize=size)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_ylim(-0.6, len(pairs) - 0.3)
        axes.xaxis.set_major_formatter(as_percent)
        axes.set_xlabel("change of final validation error (left is better)")

    told = "; ".join(
        f"{p.arm.label} against {p.other.label} {signed(p.error.value, digits_of(p.error))}" for p in pairs
    )
    figure = panel(draw, (SIZE[0], 1.0 + 0.55 * len(pairs)))
    return made("verdict", "Final validation error, ratio of means", f"Points with 95 % intervals: {told}.", figure)


def level_errors(arms: Sequence[Arm]) -> Panel:
    """Validation error of the base and of every arm at every noise level."""
    levels = np.argsort(-arms[0].runs[0].metrics.noise_level.values, kind="stable")
    noise = arms[0].runs[0].metrics.noise_level.values[levels]

    def draw(axes: Axes) -> None:
        x = np.arange(len(levels))
        untrained = arms[0].errors(at=0).mean(axis=(0, 2))[levels]
        axes.plot(x, untrained, color=MUTED, linewidth=1.2, linestyle=(0, (1, 2)))
        axes.annotate(
            "untrained", (x[-1], untrained[-1]), xytext=(0, 6), textcoords="offset points", ha="right", color=MUTED
        )
        for arm in arms:
            mean, i = arm.errors().mean(axis=(0, 2))[levels], arm.style
            axes.plot(x, mean, color=arm_colour(i), linestyle=dash(i), marker=MARKERS[i % 8], markersize=4.5)
        over_levels(axes, noise)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("validation error")

    return made(
        "levels",
        "Mean validation error",
        "One line per arm over the noise levels, and the untrained model above them.",
        panel(draw),
    )


def level_ratios(arms: Sequence[Arm], pair: Against, limits: tuple[float, float]) -> Panel:
    """One arm against another at every noise level."""
    levels = np.argsort(-arms[0].runs[0].metrics.noise_level.values, kind="stable")
    noise = arms[0].runs[0].metrics.noise_level.values[levels]
    style = pair.arm.style

    def draw(axes: Axes) -> None:
        ratios = [pair.levels[k] for k in levels]
        whiskers(axes, np.arange(len(levels), dtype=np.float64), ratios, arm_colour(style), MARKERS[style % 8])
        no_difference(axes, horizontal=True)
        over_levels(axes, noise)
        axes.set_ylim(*limits)
        axes.yaxis.set_major_formatter(as_percent)
        axes.set_ylabel("change of error")

    told = ", ".join(f"{noise[i]:.2g}: {signed(pair.levels[k].value)}" for i, k in enumerate(levels))
    name = f"level-{list(arms).index(pair.arm)}-{list(arms).index(pair.other)}"
    return made(
        name, f"{pair.arm.label} against {pair.other.label}", f"Change of error by noise level. {told}.", panel(draw)
    )


def limits_of(ratios: Sequence[Ratio]) -> tuple[float, float]:
    """Shared limits for panels of ratios, 1 included; one very wide interval does not flatten the rest."""
    values = [r.value for r in ratios] + [1.0]
    ends = [e for r in ratios if r.bounded for e in (r.low, r.high)]
    reach = 4 * max(abs(np.log(v)) for v in values) + 0.02
    low, high = min([*values, *ends]), max([*values, *ends])
    low, high = max(low, float(np.exp(-reach))), min(high, float(np.exp(reach)))
    pad = 0.06 * (high - low) + 1e-3
    return low - pad, high + pad


def learning(arms: Sequence[Arm], reference: Arm | None) -> Panel:
    """Validation error over training, mean and seeds."""

    def draw(axes: Axes) -> None:
        for arm in arms:
            (steps, curves), i = arm.curves(), arm.style
            per_seed = curves.mean(axis=2)
            if len(per_seed) > 1:
                axes.plot(steps, per_seed.T, color=arm_colour(i), linewidth=0.7, alpha=0.45)
            axes.plot(steps, per_seed.mean(axis=0), color=arm_colour(i), linestyle=dash(i))
        if reference is not None:
            final = float(reference.errors().mean())
            axes.axhline(final, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)))
            axes.annotate(
                f"final error of {reference.label}",
                (0.01, final),
                xycoords=("axes fraction", "data"),
                xytext=(0, -4),
                textcoords="offset points",
                va="top",
                color=MUTED,
            )
        axes.set_xlabel("training steps")
        axes.set_ylabel("validation error")
        bottom, top = axes.get_ylim()
        axes.set_ylim(bottom - 0.08 * (top - bottom), top)

    told = "; ".join(f"{a.label} from {a.errors(at=0).mean():.3g} to {a.errors().mean():.3g}" for a in arms)
    return made(
        "learning",
        "Validation error over training",
        f"Thick lines are means, thin lines single seeds: {told}.",
        panel(draw),
    )


def learning_ratio(pairs: Sequence[Against]) -> Panel:
    """Ratio of mean errors over training against the reference, with intervals."""
    found = [(p.arm.style, p, *error_over_training(p.arm, p.other)) for p in pairs]

    def draw(axes: Axes) -> None:
        for i, _, steps, ratios in found:
            mean, low, high = (np.array([getattr(r, k) for r in ratios]) for k in ("value", "low", "high"))
            axes.plot(steps, mean, color=arm_colour(i), linestyle=dash(i), marker=MARKERS[i % 8], markersize=4)
            axes.fill_between(steps, low, high, color=arm_colour(i), alpha=0.15, linewidth=0)
        no_difference(axes, horizontal=True)
        axes.set_ylim(*limits_of([r for *_, ratios in found for r in ratios]))
        axes.yaxis.set_major_formatter(as_percent)
        axes.set_xlabel("training steps")
        axes.set_ylabel("change of error")

    told = "; ".join(f"{p.arm.label} ends at {signed(ratios[-1].value)}" for _, p, _, ratios in found)
    title = f"Against {pairs[0].other.label} after the same number of steps"
    return made("learning-ratio", title, f"Shaded 95 % intervals. {told}.", panel(draw))


def gates(found: Gates, noise_level: Array, number: int) -> Panel:
    """Shares of the experts over noise levels for one run."""
    order = np.argsort(-noise_level, kind="stable")
    share = found.share[order]

    def draw(axes: Axes) -> None:
        experts = share.shape[1]
        axes.stackplot(
            np.arange(len(share)), share.T, colors=[expert_colour(e) for e in range(experts)], alpha=0.8, linewidth=0
        )
        middle = np.cumsum(share, axis=1) - share / 2
        for e in range(experts):
            at = int(share[:, e].argmax())
            side = "left" if at == 0 else "right" if at == len(share) - 1 else "center"
            if share[at, e] > 0.12:
                axes.text(
                    at + 0.08 * (side == "left") - 0.08 * (side == "right"),
                    middle[at, e],
                    f"expert {e}",
                    ha=side,
                    va="center",
                )
        over_levels(axes, noise_level[order])
        axes.set_xlim(0, len(share) - 1)
        axes.set_ylim(0, 1)
        axes.set_ylabel("share of gates")

    text = (
        "Stacked shares of the experts from the noisiest level to the cleanest, mean over validation samples: "
        + "; ".join(f"expert {e} from {share[0, e]:.0%} to {share[-1, e]:.0%}" for e in range(share.shape[1]))
    )
    return made(
        f"gates-{number}", f"{found.arm.label}, training seed {found.seed}", text + ".", panel(draw, (SIZE[0], 2.7))
    )


def band_ratios(arms: Sequence[Arm]) -> Panel:
    """Energy per band, generated over held-out, for the base and every arm."""
    rows = [("base", to_heldout(arms[0], "base"), MUTED, ".")]
    rows += [(arm.label, to_heldout(arm), arm_colour(arm.style), MARKERS[arm.style % 8]) for arm in arms]
    bands = len(rows[0][1])

    def draw(axes: Axes) -> None:
        for j, (_, ratios, colour, marker) in enumerate(rows):
            offset = 0.6 * (j - (len(rows) - 1) / 2) / max(len(rows) - 1, 1)
            whiskers(axes, np.arange(bands, dtype=np.float64) + offset, ratios, colour, marker)
        for edge in np.arange(bands - 1) + 0.5:
            axes.axvline(edge, color=RULE, linewidth=0.8)
        no_difference(axes, horizontal=True)
        ratio_scale(axes)
        axes.set_xticks(range(bands), [f"band {k}" for k in range(bands)])
        axes.set_xlim(-0.5, bands - 0.5)
        axes.set_ylabel("generated / held-out")

    told = "; ".join(f"{name} " + ", ".join(f"{r.value:.2f}" for r in ratios) for name, ratios, *_ in rows)
    return made(
        "band-ratios",
        "Band energies, generated over held-out",
        f"1 is a match. By band from low to high: {told}.",
        panel(draw),
    )


def spectra(arms: Sequence[Arm]) -> Panel:
    """Radial spectrum over that of the held-out pictures."""

    def mean(arm: Arm, source: str) -> Array:
        found = [run.evaluation.spectrum.sel(source=source).mean("sample").values for run in arm.runs]
        return np.asarray(np.mean(found, axis=0), np.float64)

    real = np.maximum(mean(arms[0], "reference"), 1e-12)
    bins = np.arange(len(real))
    store = arms[0].runs[0].evaluation
    x = store.radius.values if "radius" in store.coords else (bins + 0.5) / len(bins)

    def draw(axes: Axes) -> None:
        axes.plot(x, mean(arms[0], "base") / real, color=MUTED, linewidth=1.2, linestyle=(0, (1, 2)))
        for arm in arms:
            axes.plot(x, mean(arm, "adapter") / real, color=arm_colour(arm.style), linestyle=dash(arm.style))
        no_difference(axes, horizontal=True)
        ratio_scale(axes)
        axes.set_xlabel(
            "frequency, cycles per latent pixel" if "radius" in store.coords else "frequency, relative to the highest"
        )
        axes.set_ylabel("generated / held-out")

    return made(
        "spectra",
        "Radial spectra, generated over held-out",
        "Ratios of mean spectra; 1 is a match; dotted is the base model.",
        panel(draw),
    )
