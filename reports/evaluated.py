"""Read an evaluation of adapters (`adapt evaluate`) and everything that is measured and compared in it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from reports import metrics
from reports.arms import METHODS, STYLES, Arm
from reports.copies import copies_of
from reports.metrics import Comparison, Measure
from reports.runs import Run
from reports.stores import root_attributes
from spectra.errors import UserError

FORMAT = 1
NEEDED = {
    "image": ("adapter", "sample", "y", "x", "rgb"),
    "energy": ("adapter", "sample", "channel", "band"),
    "spectrum": ("adapter", "sample", "radius"),
    "status": ("adapter",),
}
LABELS = ("adapter", "kind", "path", "digest", "prompt", "seed", "part")
KEPT = ("model", "model_hash", "prompts", "seeds")
ALL_PAIRS = 4
"""Up to so many adapters each is compared with each; of more, all with the first."""
BASE = "base"


class BaseAloneError(UserError):
    """A store that is whole but holds no adapter: left out where there is anything else to report on."""


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation: the base model, adapters, and what is measured of them."""

    path: Path
    data: xr.Dataset = field(repr=False)
    protocol: Mapping[str, Any] = field(repr=False)
    unfinished: tuple[str, ...]
    measures: tuple[Measure, ...] = field(repr=False)
    among: tuple[Comparison, ...] = field(repr=False)
    """Adapters in pairs, one family of comparisons."""
    to_base: tuple[Comparison, ...] = field(repr=False)
    """Every adapter against the base model, another family."""
    absent: tuple[str, ...]
    """Which measures are not there, and why."""
    runs: Mapping[str, Run] = field(default_factory=dict, repr=False)
    """Training runs of adapters, by the adapter's label, where they are in the report too."""
    styles: Mapping[str, int] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)
    """Adapters that are another one once more, by label, and the first of each kind, which stands for them."""
    name: str = ""
    """What it is called where another evaluation of the report has the same store's name."""
    against: str = ""
    """The model that a person chose to compare all adapters with; empty for the usual pairs."""
    asked: str = ""
    """The label that the person gave for it, which may be that of a copy."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The base and the adapters."""
        return tuple(str(label) for label in self.data.adapter.values)

    @property
    def adapters(self) -> tuple[str, ...]:
        """The adapters, in the order in which they were given."""
        return tuple(label for label in self.labels if label != BASE)

    @property
    def distinct(self) -> tuple[str, ...]:
        """The adapters without copies: those that are compared and drawn."""
        return tuple(label for label in self.adapters if label not in self.copies)

    @property
    def shown(self) -> tuple[str, ...]:
        """The base and the distinct adapters."""
        return tuple(label for label in self.labels if label not in self.copies)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The pairs of adapters that are compared, each (a, b); none where all are compared with the base model."""
        return tuple(pairs_of(self.distinct, self.against))

    @property
    def with_base(self) -> tuple[tuple[str, str], ...]:
        """Every distinct adapter with the base model."""
        return tuple((label, BASE) for label in self.distinct)

    @property
    def reference(self) -> str:
        """The model that others are compared with: the one that was chosen, else the first adapter."""
        return self.against or self.adapters[0]

    @property
    def untested(self) -> int:
        """How many pairs of adapters are not compared, as each is compared with the reference alone."""
        return comb(len(self.distinct), 2) - len(self.pairs)

    @property
    def title(self) -> str:
        """The store's name, or the one that tells it from others of a report."""
        return self.name or self.path.stem

    @property
    def unrelated(self) -> int:
        """How many prompts drift stands on."""
        return len({str(self.data.prompt.values[place]) for place in self.part("unrelated")})

    @property
    def pictures(self) -> str:
        """The digest of the held-out pictures; empty where the store does not say it."""
        return str(((self.protocol.get("pictures") or {}).get("heldout") or {}).get("sha256") or "")

    def weights(self, label: str) -> str:
        """What tells a model from others of the same base: the digest of its weights, else its label and store."""
        digest = str(self.data.digest.values[self.labels.index(label)])
        return BASE if label == BASE else digest or f"{label} of {self.path}"

    @property
    def retrained(self) -> tuple[str, ...]:
        """Adapters whose run has other weights by now than those that were evaluated."""
        digests = dict(zip(self.labels, map(str, self.data.digest.values), strict=True))
        return tuple(x for x, run in self.runs.items() if run.digest and digests[x] and run.digest != digests[x])

    def kind(self, label: str) -> str:
        """What an adapter is, in people's words."""
        found = str(self.data.kind.values[self.labels.index(label)])
        return METHODS.get(found, found)

    def part(self, name: str) -> np.ndarray:
        """Places of the samples of a part, "asked" or "unrelated"."""
        return np.flatnonzero(np.array([str(part) == name for part in self.data.part.values]))

    def measured(self, name: str, label: str) -> Measure | None:
        """One measure of one adapter."""
        return next((m for m in self.measures if m.name == name and m.adapter == label), None)


def pairs_of(adapters: Sequence[str], against: str = "") -> list[tuple[str, str]]:
    """Pairs (a, b) with the earlier adapter as b: each with each where they are few, else all with the first.

    With `against` all with that one; none where that is the base model, which has a family of comparisons of its own.
    """
    if against == BASE:
        return []
    if len(adapters) <= ALL_PAIRS and not against:
        return [(b, a) for a, b in combinations(adapters, 2)]
    other = against or adapters[0]
    return [(label, other) for label in adapters if label != other]


def matched(name: str, labels: Sequence[str]) -> str:
    """The label that a person means by `name`: equal, else equal but for case; empty where none or several are.

    The base model goes by "base model" too.
    """
    if name in labels:
        return name
    meant = name.strip().casefold()
    meant = BASE if meant == "base model" else meant
    alike = [label for label in labels if label.casefold() == meant]
    return alike[0] if len(alike) == 1 else ""


def read_protocol(path: Path) -> dict[str, Any]:
    """How an evaluation was made; UserError when it does not say so in a way that is known here."""
    attributes = root_attributes(path)
    if attributes.get("format") != FORMAT:
        raise UserError(f"{path} is not of evaluation format {FORMAT}; it was written by another version or program.")
    try:
        found = json.loads(attributes["protocol"])
        missing = [key for key in KEPT if key not in found]
    except (TypeError, ValueError):
        found, missing = {}, list(KEPT)
    if missing:
        raise UserError(f"{path} does not say its {', '.join(missing)}; evaluate the adapters again.")
    return dict(found)


def opened(path: Path) -> xr.Dataset:
    """The store in memory, with everything that a report needs; UserError says what is missing."""
    try:
        with warnings.catch_warnings():  # an adapter that is being added counts when the consolidated metadata say so
            warnings.filterwarnings("ignore", "Failed to open Zarr store with consolidated", RuntimeWarning)
            data: xr.Dataset = xr.open_zarr(path, chunks=None).load()
    except Exception as error:
        raise UserError(f"{path} cannot be read as a zarr store ({type(error).__name__}); evaluate again.") from None
    for name, dims in NEEDED.items():
        if name not in data or set(data[name].dims) != set(dims):
            raise UserError(f"{path} is incomplete: it has no {name}({', '.join(dims)}); evaluate again.")
        data[name] = data[name].transpose(*dims)
    absent = [name for name in LABELS if name not in data.coords]
    if absent:
        raise UserError(f"{path} is incomplete: it does not say the {absent[0]} of its pictures; evaluate again.")
    return data


def finished_part(path: Path, data: xr.Dataset) -> tuple[xr.Dataset, tuple[str, ...]]:
    """The adapters that are whole, and the names of those that are not; UserError unless the base and one are."""
    whole = data.status.values == 1
    labels = [str(label) for label in data.adapter.values]
    named = [label or f"its adapter {place} (which has no name yet)" for place, label in enumerate(labels)]
    unfinished = tuple(label for label, done in zip(named, whole, strict=True) if not done)
    if labels == [BASE] and not unfinished:
        raise BaseAloneError(
            f"{path} holds the base alone, and a report compares adapters with it; "
            f"add one with `adapt evaluate ADAPTER --out {path}`."
        )
    if BASE not in labels or BASE in unfinished or whole.sum() < 2:
        raise UserError(
            f"{path} is an unfinished evaluation: it has no {'adapter' if whole.any() else BASE} that is whole; "
            f"give its `adapt evaluate` again, which goes on where it stopped."
        )
    data = data.isel(adapter=np.flatnonzero(whole))
    energy = data.energy.values
    if not np.isfinite(energy).all() or (energy < 0).any():
        raise UserError(f"{path} holds an energy that is not a finite positive number; evaluate again.")
    return data, unfinished


def read_evaluation(path: Path, against: str = "") -> Evaluation:
    """Read and measure one evaluation, of which all are compared with `against` where it has that adapter.

    Raises UserError that says what is wrong with it.
    """
    protocol = read_protocol(path)
    return judged(path, *finished_part(path, opened(path)), protocol, against)


def judged(
    path: Path, data: xr.Dataset, unfinished: Sequence[str], protocol: Mapping[str, Any], against: str = ""
) -> Evaluation:  # fmt: skip
    """Everything that is measured and compared of the finished adapters of an evaluation."""
    copies = copies_of(data, BASE)
    asked = matched(against, [str(label) for label in data.adapter.values])
    chosen = copies.get(asked, asked)
    labels = [label for label in map(str, data.adapter.values) if label != BASE and label not in copies]
    measured = metrics.measured(data)
    measures, absent = tuple(metrics.summarise(measured)), tuple(metrics.reasons(measured))
    known = {label for one in measured.quantities for label in one.adapters}
    pairs = [(a, b) for a, b in pairs_of(labels, chosen) if {a, b} <= known]
    to_base = [(label, BASE) for label in labels if {label, BASE} <= known]
    among = tuple(metrics.compare(measured, pairs)) if pairs else ()
    against_base = tuple(metrics.compare(measured, to_base)) if to_base else ()
    families = measures, among, against_base, absent
    found = Evaluation(path, data, protocol, tuple(unfinished), *families, copies=copies, against=chosen, asked=asked)
    return with_runs(found, ())


def run_of(found: Evaluation, label: str, runs: Sequence[Run]) -> Run | None:
    """The training run that made an adapter: by the digest of its weights, else by its path, else by its name."""
    place = found.labels.index(label)
    digest, path = str(found.data.digest.values[place]), Path(str(found.data.path.values[place]))
    for run in runs:
        if digest and digest == run.digest:
            return run
    for run in runs:
        if path.resolve() in (run.path.resolve(), (run.path / "adapter").resolve()):
            return run
    named = [run for run in runs if label in (str(run.record["name"]), run.path.name)]
    return named[0] if len(named) == 1 else None


def with_runs(found: Evaluation, arms: Sequence[Arm]) -> Evaluation:
    """The evaluation with its adapters matched to training runs; each takes its arm's style, others a free one."""
    runs = [run for arm in arms for run in arm.runs]
    matched = {label: run for label in found.adapters if (run := run_of(found, label, runs)) is not None}
    of = {id(run): arm.style for arm in arms for run in arm.runs}
    free = iter([style for style in range(STYLES) if style not in of.values()])
    styles = {
        label: of[id(matched[label])] if label in matched else next(free, place % STYLES)
        for place, label in enumerate(found.adapters)
    }
    return replace(found, runs=matched, styles={BASE: -1, **styles})
