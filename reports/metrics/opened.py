"""The evaluation Dataset, read for metrics: which rows are samples of what, what the references are, what is pinned."""

from __future__ import annotations

import json
from collections.abc import Hashable
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectra.errors import UserError

if TYPE_CHECKING:
    import xarray as xr

Rows = NDArray[np.int64]
PARTS = {"heldout": "held-out", "train": "training"}


class Group(NamedTuple):
    """Samples of one part: places along `sample`, the cluster of each, and what the clusters are."""

    rows: Rows
    labels: tuple[Hashable, ...]
    unit: str

    @property
    def clusters(self) -> int:
        """The number of clusters."""
        return len(set(self.labels))

    @property
    def words(self) -> str:
        """`32 pictures of 16 prompts`."""
        return f"{len(self.rows)} pictures of {self.clusters} {self.unit}"

    def take(self, kept: NDArray[np.bool_]) -> Group:
        """Some of the samples."""
        return Group(self.rows[kept], tuple(np.array(self.labels, object)[kept].tolist()), self.unit)


class References(NamedTuple):
    """Reference pictures of one part, in places along `reference`."""

    rows: Rows
    words: str


class Opened:
    """An evaluation with its labels taken apart.  Raises UserError where it is none."""

    def __init__(self, evaluation: xr.Dataset) -> None:
        missing = [name for name in ("adapter", "prompt", "seed", "part") if name not in evaluation.coords]
        if missing:
            raise UserError(f"this is no evaluation of adapters: it has no {', '.join(missing)}; make one with `adapt "
                            "evaluate`")  # fmt: skip
        self.data = evaluation
        self.adapters = tuple(str(name) for name in evaluation.adapter.values)
        if len(set(self.adapters)) < len(self.adapters):
            raise UserError(
                "two adapters of this evaluation have the same label: evaluate them under names of their own"
            )

    def group(self, part: str) -> Group:
        """The samples of "asked" or "unrelated" prompts; clusters are prompts, or seeds where there is one prompt."""
        rows = np.flatnonzero([str(p) == part for p in self.data.part.values])
        prompts = tuple(str(p) for p in self.data.prompt.values[rows])
        if len(set(prompts)) == 1:
            return Group(rows, tuple(int(s) for s in self.data.seed.values[rows]), "seeds of one prompt")
        return Group(rows, prompts, "prompts")

    @cached_property
    def asked(self) -> Group:
        """Samples of the prompts that were asked for."""
        return self.group("asked")

    @cached_property
    def unrelated(self) -> Group:
        """Samples of prompts that have nothing to do with what was trained."""
        return self.group("unrelated")

    def part(self, name: str) -> References:
        """The reference pictures of part "heldout" or "train"."""
        parts = self.data.reference_part.values if "reference_part" in self.data else []
        rows = np.flatnonzero([str(part) == name for part in parts])
        return References(rows, f"{len(rows)} {PARTS[name]} pictures")

    @cached_property
    def references(self) -> References:
        """What pictures are compared to: the held-out ones, or the training ones where there are no others."""
        held = self.part("heldout")
        return held if len(held.rows) else self.part("train")

    @property
    def networks(self) -> list[str]:
        """The feature networks that were used."""
        return [str(name)[8:] for name in self.data.data_vars if str(name).startswith("feature_")]

    def values(self, name: str, *order: str) -> NDArray[Any]:
        """A variable in an order of its dimensions."""
        return np.asarray(self.data[name].transpose(*order).values)

    def features(self, network: str, group: Group) -> NDArray[Any]:
        """Features (adapter, sample, dim) of a group."""
        return self.values(f"feature_{network}", "adapter", "sample", f"dim_{network}")[:, group.rows]

    def reference_features(self, network: str, references: References) -> NDArray[Any]:
        """Features (reference, dim)."""
        return self.values(f"reference_feature_{network}", "reference", f"dim_{network}")[references.rows]

    def pinned(self, network: str) -> str:
        """What a network is, with what pins it down."""
        about = next((one for one in self._described if one.get("name") == network), {})
        said = [str(about[key]) for key in ("what", "resize", "quantisation") if about.get(key)]
        size = [f"{about['size']} px"] if about.get("size") else []
        sha256 = [f"sha256 {str(about['sha256'])[:16]}"] if about.get("sha256") else []
        return ", ".join([*said[:1], *size, *said[1:], *sha256]) or f"network {network}"

    @cached_property
    def _described(self) -> list[dict[str, Any]]:
        protocol = self.data.attrs.get("protocol", "{}")
        found = json.loads(protocol) if isinstance(protocol, str) else protocol
        return list(found.get("networks") or [])
