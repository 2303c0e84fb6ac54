"""The page: sections of prose, panels and tables, given to one autoescaping template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reports import panels, panels_base, tables
from reports.arms import Arm
from reports.base import Base
from reports.compare import gates_of
from reports.figures import arm_colour, band_colour, dash, variable
from reports.panels import Panel
from reports.pictures import rows_of
from reports.tables import Table
from reports.words import (
    Said,
    about_bands,
    about_base,
    about_distance,
    about_levels,
    about_spectrum,
    about_steps,
    brief,
)

if TYPE_CHECKING:
    from reports.report import Report

TEMPLATES = Path(__file__).parent / "templates"
MOST_GATES = 6
VERDICTS = 3
"""How many sentences stand at the top in large type; the others follow."""


@dataclass(frozen=True)
class Key:
    """One entry of a figure's key: a line (with its dashes) or a filled square, and what it stands for."""

    label: str
    colour: str
    dashes: str = ""
    filled: bool = False


def arm_keys(arms: Sequence[Arm]) -> list[Key]:
    """The key of all figures that show arms."""
    styles = [dash(arm.style) for arm in arms]
    dashes = ["" if style == "solid" else " ".join(str(1.8 * length) for length in style[1]) for style in styles]
    return [Key(arm.label, variable(arm_colour(arm.style)), dashes[i]) for i, arm in enumerate(arms)]


def band_keys(base: Base) -> list[Key]:
    """The key of all figures that show bands."""
    count = len(base.decided)
    where = ["lowest", *[""] * (count - 2), "highest"]
    labels = [f"band {k}" + (f", {name}" if name else "") for k, name in enumerate(where)]
    return [Key(label, variable(band_colour(k, count)), filled=True) for k, label in enumerate(labels)]


def base_section(base: Base) -> dict[str, Any]:
    """What the base model does."""
    found = [
        panels_base.coherence(base),
        *(panels_base.shares(base, s) for s in ("x0", "latent") if s in base.shares),
        *([panels_base.radial(base)] if base.spectrum is not None else []),
    ]
    return {
        "said": [about_bands(base)], "keys": band_keys(base), "panels": found, "tables": [tables.decided(base)],
        "runs": base.runs, "prompts": base.prompts, "steps": base.steps, "guided": any(g > 1 for g in base.guidance),
        "model": base.cube.attrs.get("model"), "command": tables.command_of(base.cube.attrs.get("command", "–")),
    }  # fmt: skip


def comparison_sections(report: Report) -> dict[str, Any]:
    """Noise levels and learning curves."""
    arms, pairs = report.arms, report.pairs
    limits = panels.limits_of([r for pair in pairs for r in pair.levels])
    per_level: list[Panel] = [panels.level_errors(arms), *(panels.level_ratios(arms, pair, limits) for pair in pairs)]
    first = [pair for pair in pairs if pair.other is report.reference]
    curves = [panels.learning(arms, report.reference)] + ([panels.learning_ratio(first)] if first else [])
    return {
        "levels": {
            "said": brief([about_levels(p) for p in pairs]), "panels": per_level,
            "tables": [tables.levels(arms, pairs)],
        },
        "learning": {
            "said": brief([about_steps(p) for p in pairs]) or [about_base(arms)], "panels": curves,
            "tables": [tables.speeds(pairs)] if pairs else [],
        },
    }  # fmt: skip


def gates_section(arms: Sequence[Arm]) -> dict[str, Any] | None:
    """Gates of the FeRA arms; None where there are none."""
    found = [gates for arm in arms for gates in gates_of(arm)]
    if not found:
        return None
    noise = arms[0].runs[0].metrics.noise_level.values
    shown = [panels.gates(g, noise, i) for i, g in enumerate(found[:MOST_GATES])]
    return {"panels": shown, "tables": [tables.routing(found)], "left_out": len(found) - len(shown)}


def picture_section(arms: Sequence[Arm]) -> dict[str, Any]:
    """The image grid, and what the attribute reader says of it."""
    found = tables.attributes(arms)
    rows = rows_of(arms)
    total = arms[0].runs[0].evaluation.sizes["sample"]
    return {"rows": rows, "total": total, "seed": arms[0].runs[0].seed, "tables": [found] if found else []}


def spectrum_section(report: Report) -> dict[str, Any]:
    """Generated against held-out pictures, by band."""
    return {
        "said": [about_spectrum(report.arms), about_distance(report.arms)],
        "panels": [panels.band_ratios(report.arms), panels.spectra(report.arms)],
        "tables": [tables.bands(report.arms, report.pairs)],
    }


def provenance(report: Report) -> dict[str, Any]:
    """Where every number comes from."""
    runs = [run for arm in report.arms for run in arm.runs]
    return {
        "record": runs[0].record,
        "commands": [tables.command_of(run.record["command"]) for run in runs],
        "configs": [(arm.label, json.dumps(arm.config, indent=1, sort_keys=True, default=str)) for arm in report.arms],
        "tables": [tables.runs(report.arms), tables.versions(report.arms)],
    }


def split_verdict(report: Report) -> tuple[list[Said], list[Said]]:
    """The sentences at the top, and those below them that no section repeats."""
    first = VERDICTS if report.pairs else 1
    return list(report.said[:first]), list(report.said[first:])


def context(report: Report) -> dict[str, Any]:
    """Everything that the template draws."""
    arms, pairs = report.arms, report.pairs
    top, rest = split_verdict(report)
    runs = [run for arm in arms for run in arm.runs]
    finished = [str(run.record["finished"]) for run in runs if run.record.get("finished")]
    summary: list[Table] = [tables.summary(arms, pairs, report.reference)]
    return {
        "title": report.title, "arms": arms, "runs": len(runs), "finished": max(finished, default=""),
        "reference": report.reference, "top": top, "rest": rest, "warnings": report.warnings, "keys": arm_keys(arms),
        "keys_with_base": [*arm_keys(arms), Key("base model", "var(--muted)", "1.8 3.6")],
        "verdict": panels.verdict(pairs) if pairs else None, "summary": summary,
        "base": base_section(report.base) if report.base else None, **comparison_sections(report),
        "gates": gates_section(arms), "pictures": picture_section(arms), "spectrum": spectrum_section(report),
        "cost": [tables.cost(arms)], "provenance": provenance(report),
        "style": Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
    }  # fmt: skip


def tight(text: str) -> str:
    """Keep a per cent sign with its number, by a narrow space that does not break."""
    return text.replace(" %", "\N{NARROW NO-BREAK SPACE}%")


def sentence(text: str) -> str:
    """A support on its own line starts like a sentence."""
    return tight(text[:1].upper() + text[1:])


def render(report: Report) -> str:
    """The whole page."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(tight=tight, sentence=sentence)
    return environment.get_template("report.html.j2").render(context(report))
