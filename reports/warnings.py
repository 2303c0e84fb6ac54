"""What a reader should know before believing the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from reports.arms import Arm
from reports.budget import UNEQUAL, thousands, unequal_parameters
from reports.words import FEW_SEEDS, count


def seeds(arms: Sequence[Arm]) -> list[str]:
    """Too few seeds, or seeds that do not match."""
    said = []
    fewest = min(len(arm.runs) for arm in arms)
    if fewest < FEW_SEEDS:
        said.append(f"Few training seeds: the smallest arm has {count(fewest, 'seed')}; five or more are advisable.")
    if len({arm.seeds for arm in arms}) > 1:
        listed = "; ".join(f"{arm.label}: {', '.join(map(str, arm.seeds))}" for arm in arms)
        said.append(
            f"The arms were not trained with the same seeds ({listed}); only seeds that two arms share are compared."
        )
    return said


def budget(arms: Sequence[Arm]) -> list[str]:
    """Arms that differ in more than the method."""
    said = []
    steps = {arm.label: arm.runs[0].record["steps"] for arm in arms}
    if len(set(steps.values())) > 1:
        said.append(
            "The arms were trained for different numbers of steps: "
            + "; ".join(f"{k} {v}" for k, v in steps.items())
            + "."
        )
    parameters = {arm.label: arm.mean_record("trainable_parameters") for arm in arms}
    if unequal_parameters(list(parameters.values())):
        listed = "; ".join(f"{k} {thousands(v)}" for k, v in parameters.items())
        said.append(f"The arms differ in trainable parameters by more than {UNEQUAL:.0%}: {listed}.")
    batches = {arm.label: arm.config.get("batch") for arm in arms}
    if len(set(map(str, batches.values()))) > 1:
        said.append("The batch sizes differ: " + "; ".join(f"{k} {v}" for k, v in batches.items()) + ".")
    return said


def tuning(arms: Sequence[Arm]) -> list[str]:
    """One learning rate per method is no tuned comparison; a best-of-several reference is chosen on the same data."""
    said = []
    lora = [arm for arm in arms if arm.method.lower() == "lora"]
    if len(lora) > 1:
        said.append(
            "Of several LoRA arms the reference is the one with the lowest final error, chosen on the same data."
        )
    rates = {
        method: {str(a.config.get("lr")) for a in arms if a.method == method} for method in {a.method for a in arms}
    }
    if len(rates) > 1 and all(len(values) == 1 for values in rates.values()):
        said.append(
            "Each method was trained at one learning rate: part of a difference may be a difference of effective "
            "learning rate. Compare methods at the best rate of each."
        )
    return said


def software(arms: Sequence[Arm]) -> list[str]:
    """Runs made by different versions."""
    records = [run.record["versions"] for arm in arms for run in arm.runs]
    mixed = sorted(
        {str(k) for record in records for k in record if any(other.get(k) != record[k] for other in records)}
    )
    return [f"The runs were made with different versions of {', '.join(mixed)}."] if mixed else []


def pictures(arms: Sequence[Arm]) -> list[str]:
    """Few pictures behind the spectra."""
    samples = arms[0].runs[0].evaluation.sizes["sample"]
    few = f"Spectra and pictures stand on {count(samples, 'generated picture')} per run: only large differences show."
    return [few] if samples < 16 else []


def evaluations(arms: Sequence[Arm]) -> list[str]:
    """Evaluations too far apart for steps-to-target to mean much."""
    fewest = min(arm.runs[0].metrics.sizes["eval_step"] for arm in arms)
    coarse = f"Validation ran only {fewest} times per run: steps to a target error are coarse."
    return [coarse] if fewest < 6 else []


def comparisons(arms: Sequence[Arm]) -> list[str]:
    """Several comparisons, none of them corrected for their number."""
    alone = (
        f"{len(arms)} arms are compared and each 95 % interval stands by itself: one that only just excludes "
        "no difference may be chance."
    )
    return [alone] if len(arms) > 2 else []


def warnings(arms: Sequence[Arm]) -> list[str]:
    """All warnings, the weightiest first."""
    checks = (seeds, budget, comparisons, tuning, evaluations, pictures, software)
    return [text for check in checks for text in check(arms)]
