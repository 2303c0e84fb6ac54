"""Run directories and a cube -> a report: sentences, numbers, one HTML file."""

from __future__ import annotations

import contextlib
import html
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from reports.arms import Arm, group, reference_of
from reports.base import Base, read_base
from reports.compare import Against, comparisons, error_against_base, gates_of, spectral_distance, to_heldout
from reports.page import render
from reports.runs import read_runs
from reports.warnings import warnings
from reports.words import Said, say
from spectra.errors import UserError


@dataclass(frozen=True)
class Report:
    """A report over runs of one model on one data set."""

    arms: tuple[Arm, ...]
    reference: Arm | None
    pairs: tuple[Against, ...]
    base: Base | None
    said: tuple[Said, ...]
    warnings: tuple[str, ...]
    title: str = field(default="")

    @property
    def sentences(self) -> list[str]:
        """The report in words, the most important sentence first."""
        return [said.text for said in self.said]

    @cached_property
    def _page(self) -> str:
        return render(self)

    def to_html(self) -> str:
        """One self-contained HTML page; equal input gives equal bytes."""
        return self._page

    def _repr_html_(self) -> str:
        """The page in a frame of its own, for notebooks."""
        return f'<iframe srcdoc="{html.escape(self.to_html())}" style="width:100%;height:40rem;border:0"></iframe>'

    def to_dict(self) -> dict[str, Any]:
        """Every number of the report as plain JSON values."""
        record = self.arms[0].runs[0].record
        return {
            "model": record["model"],
            "model_hash": record["model_hash"],
            "data": record["data"],
            "reference": self.reference.label if self.reference else None,
            "sentences": self.sentences,
            "warnings": list(self.warnings),
            "arms": [_arm(arm) for arm in self.arms],
            "comparisons": [_pair(pair) for pair in self.pairs],
            "base": _base(self.base) if self.base else None,
        }


def _plain(value: Any) -> Any:
    """NaN has no place in JSON."""
    return json.loads(json.dumps(value, default=float), parse_constant=lambda _: None)


def _arm(arm: Arm) -> dict[str, Any]:
    keys = ("trainable_parameters", "steps", "seconds_train", "peak_memory_mib")
    heldout = to_heldout(arm)
    gates = [
        {"seed": g.seed, "share": g.share.tolist(), "over_levels": g.over_levels, "over_samples": g.over_samples}
        for g in gates_of(arm)
    ]
    found: dict[str, Any] = _plain({
        "label": arm.label, "method": arm.method, "prior": arm.prior, "seeds": list(arm.seeds),
        "runs": [str(run.record["name"]) for run in arm.runs],
        "final_error": arm.errors().mean(), "error_against_base": error_against_base(arm).to_dict(),
        "energy_against_heldout": [ratio.to_dict() for ratio in heldout],
        "spectral_distance": spectral_distance(heldout), "gates": gates,
        **{key: arm.mean_record(key) for key in keys},
    })  # fmt: skip
    return found


def _pair(pair: Against) -> dict[str, Any]:
    found: dict[str, Any] = _plain({
        "arm": pair.arm.label, "other": pair.other.label, "error": pair.error.to_dict(),
        "levels": [ratio.to_dict() for ratio in pair.levels], "levels_holding_together": pair.holding,
        "steps": pair.steps.to_dict(), "seeds_reaching": pair.reached, "seed_pairs": pair.pairs,
        "energy": [ratio.to_dict() for ratio in pair.energy],
    })  # fmt: skip
    return found


def _base(base: Base) -> dict[str, Any]:
    found: dict[str, Any] = _plain({
        "runs": base.runs, "prompts": base.prompts, "steps": base.steps, "guidance_scales": list(base.guidance),
        "low_to_high": base.low_to_high, "decided": [asdict(band) for band in base.decided],
        "coherence": base.coherence.tolist(), "shares": {k: v.tolist() for k, v in base.shares.items()},
    })  # fmt: skip
    return found


def is_cube(path: Path) -> bool:
    """True for a zarr store that is no run directory."""
    return path.is_dir() and not (path / "run.json").exists() and (path / "zarr.json").is_file()


def sort_out(paths: Sequence[Path], cube: Path | None) -> tuple[list[Path], Path | None]:
    """Run folders and the cube; a cube among the run folders (as in `runs/*`) is taken for what it is."""
    cubes = [path for path in paths if is_cube(path)]
    if cube is None and len(cubes) > 1:
        raise UserError(f"there are {len(cubes)} cubes among the runs ({cubes[0]}, {cubes[1]}); name one with --cube.")
    return [path for path in paths if path not in cubes], cube or (cubes[0] if cubes else None)


def title_of(record: Mapping[str, Any]) -> str:
    """`mini on style`: the last part of each path that says something."""
    data = Path(str(record["data"]))
    named = data.parent.name if data.name in ("train", "") and data.parent.name else data.name
    return f"{Path(str(record['model'])).name or record['model']} on {named or data}"


def build(run_dirs: Sequence[Path | str], cube: Path | str | None = None) -> Report:
    """Compare finished training runs of one model on one data set; `cube` shows what the base model does.

    Raises UserError when there is no run, when a folder is no run or incomplete, when runs of different
    models, data or validation grids are mixed, or when the cube is of another model.
    """
    paths, store = sort_out([Path(path) for path in run_dirs], Path(cube) if cube else None)
    runs = read_runs(paths)
    arms = group(runs)
    reference = reference_of(arms)
    pairs = comparisons(arms, reference)
    base = read_base(store, str(runs[0].record["model_hash"])) if store else None
    title = title_of(runs[0].record)
    said = tuple(say(arms, pairs, base))
    return Report(tuple(arms), reference, tuple(pairs), base, said, tuple(warnings(arms)), title)


def write(report: Report, path: Path | str) -> Path:
    """Write the page to `path`, whole or not at all. Raises UserError when the place cannot be written."""
    path, page = Path(path), report.to_html()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(page, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        why = f"cannot write the report to {path} ({error.strerror}); choose a file in a folder that can be written."
        raise UserError(why) from None
    return path
