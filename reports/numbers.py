"""A report as plain JSON values: stable names, a format number, None for what does not exist."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from reports.arms import Arm
from reports.base import Base
from reports.cells import Cells
from reports.compare import Against, error_against_base, gates_of
from reports.evaluated import Evaluation
from reports.spectral import spectral_distance, to_heldout
from reports.switching import effects_of

if TYPE_CHECKING:
    from reports.report import Report

FORMAT = 2
COST = ("trainable_parameters", "steps", "seconds_train", "peak_memory_mib")


def plain(value: Any) -> Any:
    """NaN and infinity have no place in JSON."""
    return json.loads(json.dumps(value, default=float), parse_constant=lambda _: None)


def of_arm(arm: Arm) -> dict[str, Any]:
    """An arm's own numbers."""
    gates = [
        {"seed": g.seed, "share": g.share.tolist(), "over_levels": g.over_levels, "over_samples": g.over_samples}
        for g in gates_of(arm)
    ]
    experts = [
        {
            "seed": one.seed, "effect": one.effect.tolist(), "error": None if one.error is None else one.error.tolist(),
            "noise_level": one.noise.tolist(),
        }
        for one in effects_of(arm)
    ]  # fmt: skip
    return {
        "label": arm.label, "method": arm.method, "prior": arm.prior, "seeds": list(arm.seeds),
        "runs": [str(run.record["name"]) for run in arm.runs],
        "final_error": arm.errors().mean(), "error_against_base": error_against_base(arm).to_dict(),
        "energy_against_heldout": [ratio.to_dict() for ratio in to_heldout(arm)],
        "spectral_distance": spectral_distance(arm).to_dict(), "gates": gates, "experts": experts,
        **{key: arm.mean_record(key) for key in COST},
    }  # fmt: skip


def of_pair(pair: Against) -> dict[str, Any]:
    """A comparison of two arms."""
    return {
        "arm": pair.arm.label, "other": pair.other.label, "error": pair.error.to_dict(),
        "levels": [ratio.to_dict() for ratio in pair.levels], "levels_holding_together": pair.holding,
        "steps": pair.steps.to_dict(), "seeds_reaching": pair.reached, "seed_pairs": pair.pairs,
        "energy": [ratio.to_dict() for ratio in pair.energy], "spectral_distance": pair.distance.to_dict(),
    }  # fmt: skip


def of_base(base: Base) -> dict[str, Any]:
    """The base model while it generates."""
    return {
        "runs": base.runs, "prompts": base.prompts, "steps": base.steps, "guidance_scales": list(base.guidance),
        "low_to_high": base.low_to_high, "decided": [asdict(band) for band in base.decided],
        "coherence": base.coherence.tolist(), "shares": {k: v.tolist() for k, v in base.shares.items()},
        "settings_left_out": list(base.left_out), "sampler_keeps": None if base.kept is None else base.kept.tolist(),
    }  # fmt: skip


def of_cells(one: Cells) -> dict[str, Any]:
    """A pair's held-out errors."""
    return {
        "a": one.a, "b": one.b, "levels": [r.to_dict() for r in one.levels],
        "bands": [[r.to_dict() for r in line] for line in one.bands],
    }  # fmt: skip


def of_evaluation(found: Evaluation, cells: list[Cells]) -> dict[str, Any]:
    """An evaluation's measures and comparisons."""
    return {
        "name": found.title, "protocol": dict(found.protocol), "unfinished": list(found.unfinished),
        "adapters": [
            {"label": x, "kind": str(found.data.kind.values[i]), "digest": str(found.data.digest.values[i]),
             "run": str(found.runs[x].record["name"]) if x in found.runs else None,
             "identical_to": found.copies.get(x)}
            for i, x in enumerate(found.labels)
        ],
        "measures": [m.to_dict() for m in found.measures], "comparisons": [c.to_dict() for c in found.among],
        "against_base": [c.to_dict() for c in found.to_base], "absent": list(found.absent),
        "errors": [of_cells(one) for one in cells],
    }  # fmt: skip


def task_facts(report: Report) -> dict[str, Any]:
    """Which model and data a report is about."""
    keys = ("model", "model_hash", "data")
    if report.arms:
        return {key: report.arms[0].runs[0].record[key] for key in keys}
    return {key: report.evaluations[0].protocol.get(key) if report.evaluations else None for key in keys}


def reference_label(report: Report) -> str | None:
    """What others are compared with: the reference of runs, else an evaluation's first adapter, or its base model."""
    if report.reference is not None:
        return report.reference.label
    pairs = next(((one.pairs or one.with_base) for one in report.evaluations), ())
    return pairs[0][1] if pairs else None


def numbers(report: Report) -> dict[str, Any]:
    """Every number of a report. Of several tasks: what is said over all of them, and each task in the same form."""
    found: dict[str, Any] = {"format": FORMAT, "title": report.title, "sentences": report.sentences}
    found["warnings"] = list(report.warnings)
    if report.tasks:
        from reports.tasks import overview_numbers

        found |= {"overview": overview_numbers(report), "tasks": [numbers(task) for task in report.tasks]}
        return dict(plain(found))
    found |= {
        **task_facts(report), "reference": reference_label(report),
        "arms": [of_arm(arm) for arm in report.arms], "comparisons": [of_pair(pair) for pair in report.pairs],
        "base": of_base(report.base) if report.base else None,
        "evaluations": [of_evaluation(e, c) for e, c in zip(report.evaluations, report.cells, strict=True)],
        "quantities": [q.to_dict() for q in report.quantities],
    }  # fmt: skip
    return dict(plain(found))
