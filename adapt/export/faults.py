"""What is wrong with a schedule of gates that was read from a file, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from adapt.export.watching import SURE

FORMAT = 1
LEVELS = {"timestep": (0.0, 1e6), "noise_level": (0.0, 1e6), "log_snr": (-SURE, SURE)}
"""What says where the gates of each step hold -> what its values lie between."""
NAMES = ("experts", "shared")
NEEDED = ("format", *NAMES, "adapters", *LEVELS, "gates")


def faults(saved: Any) -> Iterator[str]:
    """What is wrong with a schedule; each sentence takes for granted that none came before it."""
    if not isinstance(saved, dict):
        yield "it is no JSON object"
    if saved.get("format", FORMAT) != FORMAT:
        yield f"it is of format {saved['format']}, and this version reads {FORMAT}"
    if missing := [name for name in NEEDED if name not in saved]:
        yield f"it has no {', '.join(missing)}"
    yield from _of_files(saved)
    yield from _of_levels(saved)
    yield from _of_gates(saved)


def _of_files(saved: Mapping[str, Any]) -> Iterator[str]:
    """Every LoRA has one file of its own, beside the schedule."""
    for part in NAMES:
        if not (isinstance(saved[part], list) and all(isinstance(name, str) for name in saved[part])):
            yield f"its {part} are no list of names"
    names, files = [*saved["experts"], *saved["shared"]], saved["adapters"]
    if not saved["experts"]:
        yield "it names no expert"
    if len(set(names)) < len(names):
        yield "it names an expert twice"
    if not isinstance(files, dict) or files.keys() != set(names):
        yield "its adapters are not one file for each expert"
    for name, file in files.items():
        if not _is_plain(file):
            yield f"its file for {name}, {file!r}, is no plain file name, and only files of its own folder are read"
    if len(set(files.values())) < len(files):
        yield "it names one file for two experts"


def _is_plain(file: object) -> bool:
    """True for the name of a file in the folder itself, on any system."""
    return isinstance(file, str) and file not in ("", ".", "..") and not set(file) & set("/\\:\0")


def _of_levels(saved: Mapping[str, Any]) -> Iterator[str]:
    """Levels are there, of one length, in range, and never turn."""
    for name, (low, high) in LEVELS.items():
        values = saved[name]
        if not _are_numbers(values):
            yield f"its {name} is no list of numbers"
        if not values:
            yield f"its {name} is empty"
        if not all(low <= value <= high for value in values):
            yield f"its {name} goes beyond {low:g} to {high:g}"
        steps = np.sign(np.diff(values))
        if steps.min(initial=0) < 0 < steps.max(initial=0):
            yield f"its {name} does not run in one direction"
    if len({len(saved[name]) for name in LEVELS}) > 1:
        yield f"its {', '.join(LEVELS)} have different lengths"


def _of_gates(saved: Mapping[str, Any]) -> Iterator[str]:
    """A gate for each expert at each level."""
    gates, steps, experts = saved["gates"], len(saved["log_snr"]), len(saved["experts"])
    if not isinstance(gates, list) or not all(_are_numbers(row) for row in gates):
        yield "its gates are no lists of numbers"
    if len({len(row) for row in gates}) > 1:
        yield "its gates have different lengths"
    if (len(gates), *map(len, gates[:1])) != (steps, experts):
        held = f"gates of {len(gates)} steps and {len(gates[0]) if gates else 0} experts"
        yield f"it has {held}, and levels of {steps} steps and {experts} experts"


def _are_numbers(values: object) -> bool:
    """True for a list of finite numbers that a float holds."""
    return isinstance(values, list) and all(
        isinstance(one, int | float) and not isinstance(one, bool) and abs(one) < 1e300 for one in values
    )
