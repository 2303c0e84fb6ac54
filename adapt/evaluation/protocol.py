"""What all adapters of an evaluation have in common, as its store keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from spectra.errors import UserError
from spectra.storage.creation import differences

STRICT = ("model_hash", "steps", "guidance", "sizes", "scheduler", "prompts", "seeds", "unrelated", "pictures", "grid")
"""What has to agree before adapters are added."""
ASKED = {name: name for name in ("steps", "guidance", "prompts", "seeds")} | {
    "sizes": "the resolution", "unrelated": "the unrelated prompts",
}  # fmt: skip
"""What is as in the store wherever it is not given, and how it is called."""
BEGUN_WITH = {
    "heldout": "held-out pictures (--data)", "train": "training pictures (--train)",
    "unrelated": "unrelated prompts (--unrelated)",
}  # fmt: skip
"""What every adapter of a store is measured on, or none: how it is called."""
ROUNDING = ("device", "batch", "versions")
"""What changes pictures by rounding alone."""


@dataclass(frozen=True)
class Protocol:
    """Everything that pictures and errors depend on, but for the adapter."""

    model: str
    model_hash: str
    steps: int
    guidance: float
    sizes: dict[str, int]
    """`height`, `width` in pixels and, for videos, `num_frames`."""
    scheduler: dict[str, Any]
    """{class, config}"""
    device: str
    batch: int
    prompts: list[str]
    seeds: list[int]
    unrelated: list[str]
    data: str | None
    """Where the held-out pictures are from."""
    train: str | None
    """Where the training pictures are from."""
    reading: dict[str, Any]
    """How these sources are read: settings of `adapt.TrainConfig`."""
    pictures: dict[str, Any]
    """Part (heldout, train) -> {count, of, sha256} of the reference pictures."""
    grid: dict[str, int]
    """{pictures, draws, levels, bands} of the validation errors; empty without any."""
    networks: list[dict[str, Any]]
    networks_asked: list[str]
    """The names by which these were opened."""
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""

    def to_json(self) -> str:
        """As the store's attribute `protocol`."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True, default=str)

    @property
    def samples(self) -> list[tuple[str, int, str]]:
        """(prompt, seed, part) of every sample, seeds innermost."""
        parts = [(prompt, "asked") for prompt in self.prompts] + [(prompt, "unrelated") for prompt in self.unrelated]
        return [(prompt, seed, part) for prompt, part in parts for seed in self.seeds]


def read(text: str) -> Protocol:
    """A protocol from a store; ValueError, KeyError or TypeError where it is none."""
    return Protocol(**json.loads(text))


def check_same(stored: Protocol, now: Protocol, place: str) -> list[str]:
    """What differs by rounding alone, in words; UserError for any other difference."""
    missing = not_measured(now)
    if late := [words for words in not_measured(stored) if words not in missing]:
        raise UserError(
            f"{place} was begun without {', '.join(late)}, which cannot be added later; leave them out, or begin a new "
            "store at another place"
        )
    before, after = (json.loads(one.to_json()) for one in (stored, now))
    found = differences(_named(before), _named(after))
    if found:
        raise UserError(f"cannot add to {place}, which was made otherwise: {'; '.join(found)}; {_way_out(found)}")
    return differences({name: before[name] for name in ROUNDING}, {name: after[name] for name in ROUNDING})


def not_measured(protocol: Protocol) -> list[str]:
    """Which of `BEGUN_WITH` an evaluation was begun without, and so never has."""
    held = {**protocol.pictures, "unrelated": protocol.unrelated}
    return [words for name, words in BEGUN_WITH.items() if not held.get(name)]


def _way_out(found: Sequence[str]) -> str:
    """What to do about differences; those of `ASKED` alone are there because somebody gave another value."""
    names = dict.fromkeys(one.partition(" ")[0].partition(".")[0] for one in found)
    if not set(names) <= ASKED.keys():
        return "choose another place"
    return f"leave {' and '.join(ASKED[name] for name in names)} out to take what it has, or choose another place"


def _named(facts: Mapping[str, Any]) -> dict[str, Any]:
    networks = {one["name"]: one["sha256"] for one in facts["networks"]}
    return {name: facts[name] for name in STRICT} | {"networks": networks}
