"""What the metrics give back: measures, comparisons and neighbours, as plain frozen records."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from spectra.analysis.statistics import Estimate, json_fields

Better = Literal["lower", "higher", "neutral"]
Kind = Literal["difference", "ratio"]
MOST_RATIO = 10.0
"""A ratio above it, or below one over it, is no finding that a study is made for."""


@dataclass(frozen=True)
class Measure:
    """One number about one adapter, with its interval and what it was measured with.

    `name` is the key, `title` its words for people; `pinned` names pictures, network, resize, quantisation and hash;
    `note` says what the number suffers from (few pictures, covariance without full rank), "" where it does not.
    """

    name: str
    adapter: str
    value: Estimate
    better: Better
    network: str | None
    pinned: str
    title: str
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**json_fields(self), "value": self.value.to_dict()}


@dataclass(frozen=True)
class Comparison:
    """Adapter `a` against adapter `b`, paired: `a - b`, or `a / b` where `kind` is "ratio".

    p             two-sided, of no difference; at the level of the interval it says what the interval says
    p_corrected   the same after looking at all comparisons of the call; `holds` where it is below 1 - confidence
    resolution    the smallest true difference that this many prompts show with 80 % power at the corrected level, in
                  the unit of `difference`; for ratios the change: 0.03 means a ratio of 1.03 (or 1 / 1.03); infinite
                  where no difference that there can be would show
    """

    name: str
    a: str
    b: str
    difference: Estimate
    kind: Kind
    p: float
    p_corrected: float
    holds: bool
    resolution: float
    words: str
    better: Better
    network: str | None
    title: str
    unit: str = ""
    """What `difference.n` counts: "prompts", "held-out pictures"."""
    half: float = 1.0
    """Half of the largest number that was measured, or of a scale with two ends; of ratios, twice or half."""

    @property
    def blind(self) -> bool:
        """True where no difference of any size that matters could have shown; a ratio above 10 is none."""
        return not self.holds and self.resolution >= (MOST_RATIO - 1 if self.kind == "ratio" else math.inf)

    @property
    def coarse(self) -> bool:
        """True where nothing was found and hardly anything could have been: not even such a half would show."""
        return not self.holds and (self.blind or self.resolution > self.half)

    @property
    def favours(self) -> str | None:
        """The adapter that the difference speaks for; None where none holds, or neither direction is better."""
        if not self.holds or self.better == "neutral":
            return None
        a_is_higher = self.difference.value > (1.0 if self.kind == "ratio" else 0.0)
        return self.a if a_is_higher == (self.better == "higher") else self.b

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a number that does not exist is None."""
        plain = {name: value for name, value in json_fields(self).items() if name != "half"}
        return {**plain, "difference": self.difference.to_dict(), "favours": self.favours}


@dataclass(frozen=True)
class Neighbour:
    """A generated picture and the training picture nearest to it.

    `sample` and `reference` are places along these dimensions of the evaluation; `distance` is one minus the cosine of
    the features; `close` where it is below the 5 % quantile of the held-out pictures' own nearest distances.
    """

    sample: int
    reference: int
    distance: float
    close: bool
