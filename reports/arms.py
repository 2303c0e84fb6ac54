"""Arms: runs that differ in nothing but their training seed, and the cells in which two arms are paired."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Any

import numpy as np

from reports.runs import Run
from reports.statistics import Array
from spectra.errors import UserError

METHODS = {
    "fera": "FeRA", "lora": "LoRA", "dora": "DoRA", "adalora": "AdaLoRA", "ia3": "IA3", "loha": "LoHa", "lokr": "LoKr",
    "oft": "OFT", "full": "full training",
}  # fmt: skip
VARIANTS = {
    ("router", "energy+snr"): "router of energy and SNR", ("router", "energy+clock"): "router of energy and clock",
    ("router", "clock"): "clock router", ("router", "uniform"): "uniform gates",
    ("fera_mode", "published"): "published mode", ("expert", "ia3"): "IA3 experts", ("expert", "dora"): "DoRA experts",
    ("expert", "loha"): "LoHa experts",
    ("router_start", "random"): "random start",
}  # fmt: skip
"""Settings that make another method of FeRA, whose name says so even where it is the only one of its kind."""
NO_PART_OF_AN_ARM = {
    "seed", "out", "name", "prior", "threads", "device", "cache", "overwrite", "resume", "checkpoint_every",
    "keep_checkpoints", "trackers", "project", "preview_every", "preview_prompts",
}  # fmt: skip
"""Settings in which the runs of one arm may differ; whether there is a prior counts, its path does not."""

FIRST_NAMED = (
    "lr", "steps", "rank", "alpha", "batch", "targets", "experts", "router", "router_start", "fera_mode", "expert",
    "bands", "fecl_weight",
)  # fmt: skip
"""Settings that labels name first; all others that shape what is trained follow by name."""
NAMED_LAST = {
    "eval_every", "eval_samples", "eval_draws", "eval_levels", "ablate", "sample_prompts", "sample_seeds",
    "sample_steps", "guidance", "accumulate", "checkpointing", "compile",
}  # fmt: skip
"""Settings of what is measured and of how it is computed: labels name them only where nothing else tells arms apart."""
MOST_NAMED = 3
"""How many settings a label names where so many tell all arms apart."""
LETTERS = 24
"""Letters of a setting in a label, unless only the rest of it tells arms apart."""

STYLES = 8
"""How many colours for arms the page has."""
FIXED_STYLES = {("lora", False): 0, ("fera", False): 1, ("fera", True): 2}
"""Method and prior of the arms whose colour never depends on the other arms."""


@dataclass(frozen=True)
class Arm:
    """Runs of one method and one configuration, by ascending training seed."""

    label: str
    method: str
    prior: bool
    runs: tuple[Run, ...]
    style: int = 0
    """Which colour, dashes and marker the arm has in every figure."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The training seeds."""
        return tuple(run.seed for run in self.runs)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that the runs share."""
        return {k: v for k, v in self.runs[0].config.items() if k not in NO_PART_OF_AN_ARM}

    def mean_record(self, key: str) -> float:
        """The mean over runs of a number of `run.json`; nan where it was not recorded."""
        values = [run.record.get(key) for run in self.runs]
        return float(np.mean([np.nan if v is None else float(v) for v in values]))

    def errors(self, seeds: Sequence[int] | None = None, at: int = -1) -> Array:
        """Validation error (seeds, level, sample) at evaluation `at`, averaged over noise draws."""
        chosen = [run for run in self.runs if seeds is None or run.seed in seeds]
        return np.stack([run.errors[at] for run in chosen])

    def curves(self) -> tuple[Array, Array]:
        """Training steps (evals,) and validation error (seeds, evals, sample), over levels and draws averaged."""
        steps = self.runs[0].metrics.eval_step.values.astype(np.float64)
        kept = [run.errors.mean(axis=1) for run in self.runs]
        shortest = min(len(curve) for curve in kept)
        return steps[:shortest], np.stack([curve[:shortest] for curve in kept])

    def energies(self, source: str = "adapter") -> Array:
        """Band energies of the final latents (seeds, prompt, band): sums over channels, means over sampling seeds."""
        return np.stack([run.energies[source] for run in self.runs])


def arm_key(run: Run) -> str:
    """What the runs of an arm have in common, as text."""
    config = {k: v for k, v in run.config.items() if k not in NO_PART_OF_AN_ARM}
    shared = [run.record["method"], run.record["prior"] is not None, run.record["steps"], config]
    return json.dumps(shared, sort_keys=True, default=str)


def plain_label(run: Run) -> str:
    """The name of a method as people write it; FeRA says whether it had a prior, and what is unusual about it."""
    method = str(run.record["method"])
    name = METHODS.get(method.lower(), method)
    prior = run.record["prior"] is not None
    if method.lower() == "fera":
        variants = [words for (key, value), words in VARIANTS.items() if run.config.get(key) == value]
        return extended(f"{name} {'with' if prior else 'without'} prior", variants)
    return f"{name} with prior" if prior else name


def tell_apart(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Labels of groups that share a plain label: settings in which they differ are added, as few as tell them apart.

    Up to `MOST_NAMED` of what shapes the training are named in any case, so that none of them is hidden.
    """
    plain = plain_label(groups[0][0])
    if len(groups) == 1:
        return [plain]
    configs = [{"steps": g[0].record["steps"], **g[0].config} for g in groups]
    keys = sorted({key for config in configs for key in config} - NO_PART_OF_AN_ARM)
    keys = [key for key in keys if len({json.dumps(c.get(key), default=str, sort_keys=True) for c in configs}) > 1]
    for letters in (LETTERS, None):
        named: list[list[str]] = [[] for _ in configs]
        for key in sorted(keys, key=naming):
            if all_apart(named) and (key in NAMED_LAST or len(named[0]) >= MOST_NAMED):
                break
            named = [[*words, worded(key, c.get(key), letters)] for words, c in zip(named, configs, strict=True)]
        if all_apart(named):
            break
    return [extended(plain, words) for words in named]


def naming(key: str) -> tuple[bool, int, str]:
    """The order in which labels name settings."""
    return key in NAMED_LAST, FIRST_NAMED.index(key) if key in FIRST_NAMED else len(FIRST_NAMED), key


def all_apart(named: Sequence[Sequence[str]]) -> bool:
    """True where no two arms have the same words."""
    return len(set(map(tuple, named))) == len(named)


def worded(key: str, value: Any, letters: int | None) -> str:
    """A setting for a label: `lr 0.002`, `targets to_q, to_k, to_v…`, `rank default`."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else "default" if value is None else str(value)
    if letters is not None and len(text) > letters:
        text = f"{text[: letters - 1].rstrip(', ')}…"
    return f"{key} {text}"


def extended(label: str, more: Sequence[str]) -> str:
    """`label (more, ...)`, in the label's own brackets where it has some."""
    if not more:
        return label
    begin = f"{label[:-1]}, " if label.endswith(")") else f"{label} ("
    return f"{begin}{', '.join(more)})"


def rank_of(arm: Arm) -> tuple[int, int, str]:
    """The order of arms in a report: LoRA first, FeRA without and with prior last."""
    order = {"lora": 0, "fera": 2}.get(arm.method.lower(), 1)
    return order, int(arm.prior), arm.label


def styled(arms: Sequence[Arm]) -> list[Arm]:
    """Arms with their styles: those that nearly every report has keep theirs, others take the next that is free."""
    names = [(arm.method.lower(), arm.prior) for arm in arms]
    first = {name: names.index(name) for name in FIXED_STYLES if name in names}
    fixed = {place: FIXED_STYLES[name] for name, place in first.items()}
    spare = [style for name, style in FIXED_STYLES.items() if name not in first]
    others = chain(range(len(FIXED_STYLES), STYLES), spare, count(STYLES))
    return [replace(arm, style=fixed[i] if i in fixed else next(others)) for i, arm in enumerate(arms)]


def group(runs: Sequence[Run]) -> list[Arm]:
    """Group runs into arms, in the order of the report."""
    groups: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.seed, str(run.path))):
        members = groups.setdefault(arm_key(run), [])
        if members and members[-1].seed == run.seed:
            raise UserError(
                f"{members[-1].path} and {run.path} are the same arm with the same seed; leave one of them out."
            )
        members.append(run)
    alike: dict[str, list[list[Run]]] = {}
    for members in groups.values():
        alike.setdefault(plain_label(members[0]), []).append(members)
    arms = []
    for same_label in alike.values():
        for label, members in zip(tell_apart(same_label), same_label, strict=True):
            record = members[0].record
            arms.append(Arm(label, str(record["method"]), record["prior"] is not None, tuple(members)))
    return styled(sorted(arms, key=rank_of))


def reference_of(arms: Sequence[Arm], against: str = "") -> Arm | None:
    """The arm that others are compared with: `against`, else LoRA (the best, if several), else FeRA without prior.

    None where an arm is alone.
    """
    lora = [arm for arm in arms if arm.method.lower() == "lora"]
    if len(arms) < 2:
        return None
    if chosen := [arm for arm in arms if arm.label == against]:
        return chosen[0]
    if lora:
        return min(lora, key=lambda arm: float(arm.errors().mean()))
    bare = [arm for arm in arms if not arm.prior]
    return (bare or list(arms))[0]


def paired(a: Arm, b: Arm) -> tuple[Array, Array]:
    """Final errors (seeds, level, sample) of two arms over the training seeds that both have.

    Without a common seed each arm is first averaged over its seeds: one row, paired over samples alone.
    """
    common = sorted(set(a.seeds) & set(b.seeds))
    if common:
        return a.errors(common), b.errors(common)
    return a.errors().mean(axis=0, keepdims=True), b.errors().mean(axis=0, keepdims=True)
