"""What a reader should know before believing the numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from reports.arms import Arm
from reports.base import Base
from reports.budget import UNEQUAL, thousands, unequal_parameters
from reports.chosen import chosen_arm, lacking, of_arms, one_reference
from reports.compare import FEW_SAMPLES, UNUSED, gates_of
from reports.evaluated import Evaluation
from reports.training_words import say_unused
from reports.words import FEW_SEEDS, count, listed

FEW_PICTURES = 16
PROBE = "probe"
"""The cube inside an evaluation, which has the evaluation's own sampler."""
LOSS = 0.05
"""Part of a band's energy that a sampler may lose before a reader has to know."""


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


def samples(arms: Sequence[Arm]) -> list[str]:
    """Held-out samples so few that intervals over them say nothing."""
    fewest = arms[0].runs[0].metrics.sizes["sample"]
    if fewest == 1:
        return ["There is one held-out sample: intervals are over training seeds alone and hold for that sample only."]
    few = (
        f"Few held-out samples: {fewest}. Intervals over them are wide, and steps to a target have none with one seed."
    )
    return [few] if fewest < FEW_SAMPLES else []


def differing(what: str, values: Mapping[str, Any]) -> list[str]:
    """A sentence where values differ between arms."""
    if len(set(map(str, values.values()))) < 2:
        return []
    return [f"{what} " + "; ".join(f"{k} {v}" for k, v in values.items()) + "."]


def budget(arms: Sequence[Arm]) -> list[str]:
    """Arms that differ in more than the method."""
    steps = {arm.label: arm.runs[0].record["steps"] for arm in arms}
    said = differing("The arms were trained for different numbers of steps:", steps)
    parameters = {arm.label: arm.mean_record("trainable_parameters") for arm in arms}
    if unequal_parameters(list(parameters.values())):
        listed = "; ".join(f"{k} {thousands(v)}" for k, v in parameters.items())
        said.append(f"The arms differ in trainable parameters by more than {UNEQUAL:.0%}: {listed}.")
    return said + differing("The batch sizes differ:", {arm.label: arm.config.get("batch") for arm in arms})


def generation(arms: Sequence[Arm]) -> list[str]:
    """Pictures that were not generated with the same sampler."""
    said = []
    for key, what in (("sample_steps", "sampling steps"), ("guidance", "guidance"), ("scheduler", "schedulers")):
        values = {arm.label: arm.config.get(key) for arm in arms}
        said += differing(f"The pictures of the arms were made with different {what}:", values)
    return said


def tuning(arms: Sequence[Arm]) -> list[str]:
    """One learning rate per method is no tuned comparison."""
    rates = {
        method: {str(a.config.get("lr")) for a in arms if a.method == method} for method in {a.method for a in arms}
    }
    if len(rates) < 2 or any(len(values) > 1 for values in rates.values()):
        return []
    return [
        "Each method was trained at one learning rate: part of a difference may be a difference of effective "
        "learning rate. Compare methods at the best rate of each."
    ]


def best_of_several(arms: Sequence[Arm]) -> list[str]:
    """A reference that is the best of several arms is chosen on the same data."""
    several = sum(arm.method.lower() == "lora" for arm in arms) > 1
    said = "Of several LoRA arms the reference is the one with the lowest final error, chosen on the same data."
    return [said] if several else []


def software(records: Sequence[Mapping[str, Any]], what: str = "runs") -> list[str]:
    """Runs made by different versions."""
    mixed = sorted(
        {str(k) for record in records for k in record if any(other.get(k) != record[k] for other in records)}
    )
    return [f"The {what} were made with different versions of {', '.join(mixed)}."] if mixed else []


def versions(arms: Sequence[Arm]) -> list[str]:
    """Runs made by different versions."""
    return software([run.record["versions"] for arm in arms for run in arm.runs])


def pictures(arms: Sequence[Arm]) -> list[str]:
    """Few pictures behind the spectra."""
    made = arms[0].runs[0].evaluation.sizes["sample"]
    few = f"Spectra and pictures stand on {count(made, 'generated picture')} per run: only large differences show."
    return [few] if made < FEW_PICTURES else []


def experts(arms: Sequence[Arm]) -> list[str]:
    """Experts that the gates of a run leave out at every noise level."""
    found = [unused for arm in arms for gates in gates_of(arm) if (unused := say_unused(gates))]
    part = f"(gates below {UNUSED:.0%} of an even share)".replace("%", " %")
    return [f"Hardly used on held-out pictures at any noise level {part}: {'; '.join(found)}."] if found else []


def evaluations(arms: Sequence[Arm]) -> list[str]:
    """Evaluations too far apart for steps-to-target to mean much."""
    fewest = min(arm.runs[0].metrics.sizes["eval_step"] for arm in arms)
    coarse = f"Validation ran only {fewest} times per run: steps to a target error are coarse."
    return [coarse] if fewest < 6 else []


def of_training(arms: Sequence[Arm], against: str = "") -> list[str]:
    """All warnings of runs, the weightiest first; `against` is the arm that was chosen as the reference."""
    chosen = of_arms(against, arms)
    reference = (lambda _: chosen_arm(against, arms)) if chosen else best_of_several
    checks = (seeds, samples, budget, generation, reference, tuning, experts, evaluations, pictures, versions)
    return [text for check in checks for text in check(arms)] if arms else []


def pooled(base: Base) -> list[str]:
    """Settings that a cube holds beside those that are shown."""
    if not base.left_out:
        return []
    return [
        f"{base.path.name} holds runs of several settings; those of {base.setting} are shown, left out are "
        f"{', '.join(base.left_out)}."
    ]


def loss(base: Base) -> str:
    """What a sampler loses whatever the model; empty where that is little or not known."""
    lost = np.flatnonzero(np.abs(base.kept - 1) > LOSS) if base.kept is not None else np.array([], int)
    if base.kept is None or not lost.size:
        return ""
    bands = ", ".join(f"{100 * base.kept[k]:.0f} % in band {k}" for k in lost)
    without = ", guidance left out," if any(g > 1 for g in base.guidance) else ""
    return (
        f"With a perfect model of Gaussian data{without} {base.steps} steps of this sampler alone keep {bands} of "
        f"the energy: no adapter is to blame for that part of a spectral difference."
    )


def losses(watched: Mapping[str, Base]) -> list[str]:
    """What each sampler of a task loses: of several each that differs, named by the cube or the evaluations it made."""
    said = {name: text for name, base in watched.items() if (text := loss(base))}
    if len(watched) < 2:
        return list(said.values())
    texts = dict.fromkeys(said.values())
    return [f"{listed([name for name in said if said[name] == text])}: {text}" for text in texts]


def of_evaluation(found: Evaluation) -> list[str]:
    """Unfinished adapters, and few prompts, seeds or pictures."""
    said = []
    if not found.measures:
        why = "; ".join(found.absent)
        said.append(f"{found.title} measured nothing that says which adapter is better ({why}).")
    if found.unfinished:
        names = ", ".join(found.unfinished)
        said.append(f"{found.path.name} has not finished {names}, left out here; give its `adapt evaluate` again.")
    if found.retrained:
        names = ", ".join(found.retrained)
        said.append(
            f"{found.title} evaluated other weights of {names} than the training runs hold now; evaluate again."
        )
    said += one_reference(found)
    prompts, runs = len(found.protocol["prompts"]), len(found.protocol["seeds"])
    if prompts < FEW_SEEDS:
        said.append(
            f"{found.title} asked for {count(prompts, 'prompt')}: intervals over prompts are wide or not there."
        )
    if (apart := found.unrelated) and apart < FEW_SEEDS:
        said.append(f"{found.title} measured drift on {count(apart, 'unrelated prompt')}: how far it goes is not sure.")
    if runs == 1:
        said.append(f"{found.title} used one seed per prompt, so diversity and chance of the sampler are not seen.")
    if 1 <= found.data.sizes.get("heldout", 0) < FEW_SAMPLES:
        said.append(
            f"{found.title} has {count(found.data.sizes['heldout'], 'held-out picture')}: errors hold for them only."
        )
    return said


def one_training(found: Sequence[Evaluation]) -> list[str]:
    """Adapters are compared, not methods: each is one training."""
    names = [one.title for one in found if len(one.distinct) > 1]
    after = "what holds for these adapters says nothing of other training seeds, nor of their methods"
    return [f"Each adapter of {listed(names)} is one training: {after}."] if names else []


def one_test(arms: Sequence[Arm], found: Sequence[Evaluation]) -> list[str]:
    """Evaluations on the same held-out pictures, or of the runs themselves, whose errors are no second test."""
    several = [one.title for one in found if "validation_error" in one.data]
    again = [one.title for one in found if arms and one.runs and "validation_error" in one.data]
    if again:
        return [
            f"Held-out errors stand here twice, as the runs and as {listed(again)} measured them: of the same adapters "
            "that is one test, not two; each is corrected for its own number of comparisons."
        ]
    if len(several) < 2:
        return []
    return [f"Held-out errors of {listed(several)} are on the same pictures: they are one test, not {len(several)}."]


def scheduler_class(text: Any) -> str | None:
    """The class of a scheduler from a cube's JSON; None where the cube does not say it."""
    try:
        return str(json.loads(text)["class"])
    except (TypeError, ValueError, KeyError):
        return None


def samplers(arms: Sequence[Arm], base: Base | None, found: Sequence[Evaluation]) -> list[str]:
    """Schedulers or numbers of steps that differ between a cube, runs and evaluations."""
    steps: dict[str, Any] = {f"{one.title}": one.protocol.get("steps") for one in found}
    classes = {one.title: (one.protocol.get("scheduler") or {}).get("class") for one in found}
    if base is not None and base.path.name != PROBE:
        steps[base.path.name] = base.steps
        classes[base.path.name] = scheduler_class(base.cube.attrs.get("scheduler"))
    if arms:
        steps["the pictures of the runs"] = arms[0].config.get("sample_steps")
    steps, classes = ({k: v for k, v in d.items() if v is not None} for d in (steps, classes))
    return differing("Numbers of sampling steps differ, and with them spectra:", steps) + differing(
        "Schedulers differ, and with them spectra:", classes
    )


def other_cubes(shown: xr.Dataset, others: Mapping[str, xr.Dataset]) -> list[str]:
    """Cubes that were given but are not shown, and how they differ from the one that is."""
    said = []
    for name, cube in others.items():
        differ = [k for k in ("scheduler", "num_inference_steps") if cube.attrs.get(k) != shown.attrs.get(k)]
        why = f"; its {' and '.join(differ)} differ from those of the cube that is shown" if differ else ""
        said.append(f"The cube {name} is not shown: a report shows one{why}.")
    return said


def warnings(
    arms: Sequence[Arm], base: Base | None = None, found: Sequence[Evaluation] = (),
    watched: Mapping[str, Base] | None = None, against: str = "",
) -> list[str]:  # fmt: skip
    """All warnings, the weightiest first.

    `watched` are the base models of the cube and of the evaluations, by name; `against` the name that was chosen to
    compare with, if any.
    """
    said = lacking(against, arms, found) + of_training(arms, against) + one_test(arms, found) + one_training(found)
    said += [text for one in found for text in of_evaluation(one)]
    said += samplers(arms, base, found) + (pooled(base) if base is not None else []) + losses(watched or {})
    strangers = [one.title for one in found if arms and not one.runs]
    return said + [
        f"None of the adapters in {name} is one of these runs: they stand side by side." for name in strangers
    ]
