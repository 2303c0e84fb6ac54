from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from benchmarks.quality import control, numbers, why
from tests.benchmarks.quality.synthetic import experiment


def examined() -> xr.Dataset:
    """What `examine` would say of three experts at four levels: a clock that leaves the last expert unused."""
    square = np.array([[1.0, 0.5, 0.2], [0.5, 1.0, 0.5], [0.2, 0.5, 1.0]])
    return xr.Dataset(
        {
            "gradient_agreement": (
                ("level", "level2"),
                [[1.0, 0.9, np.nan, -0.4], [0.9, 1.0, 0.7, -0.2], [np.nan, 0.7, 1.0, 0.5], [-0.4, -0.2, 0.5, 1.0]],
            ),
            "gradient_energy": (("level", "band"), [[1.0, 3.0], [2.0, 2.0], [1.0, 3.0], [2.0, 2.0]]),
            "gates": (("level", "expert"), [[2.0, 0.9, 0.1], [1.5, 1.4, 0.1], [1.5, 1.4, 0.1], [1.0, 1.9, 0.1]]),
            "effect_cosine": (("level", "expert", "expert2"), np.stack(4 * [square])),
            "gate_variance": (("source", "expert"), [[3.0, 3.0, 0.0], [1.0, 0.5, 0.0], [0.5, 0.0, 0.0]]),
            "update_cosine": (("level", "level2"), 0.96 + 0.04 * np.eye(4)),
            "error_by_gates": (
                ("gating", "level", "sample"), np.array([0.5, 0.49, 0.55, 1.0])[:, None, None] * np.ones((4, 4, 3))
            ),
        },
        {"source": ["level", "picture", "draw"], "gating": ["own", "level_mean", "other_picture", "uniform"]},
    )  # fmt: skip


def test_what_is_kept_of_a_run_is_what_its_names_say() -> None:
    assert why.summarise(examined()) == pytest.approx({
        "near": 0.7, "far": -0.3, "top_band": (0.75 + 0.5) / 2, "update_ends": 0.96, "gate_range": 2 / 3, "quiet": 1,
        "effects": 0.4, "clock": 6 / 8, "level_mean": 0.98, "other_picture": 1.1, "uniform": 2.0,
    })  # fmt: skip


def test_a_method_without_gates_has_gradients_alone() -> None:
    found = why.summarise(examined()[["gradient_agreement", "gradient_energy"]])
    assert set(found) == {"near", "far", "top_band"}


def test_rows_are_read_back_and_shown_as_means_over_seeds(tmp_path: Path) -> None:
    rows = [
        {"model": "mini", "task": "style", "arm": "fera-prior", "rate": 0.008, "seed": seed}
        | why.summarise(examined()) | {"level_mean": 0.98 + 0.02 * seed} for seed in (1, 0)
    ]  # fmt: skip
    lora = {"arm": "lora", "near": 0.6, "far": -0.5, "top_band": 0.9}
    rows.append({"model": "mini", "task": "style", "rate": 0.008, "seed": 0} | lora)
    why.write(rows, tmp_path / "why.csv")
    found = why.read(tmp_path / "why.csv")
    assert [why.place_of(row) for row in found] == sorted(why.place_of(row) for row in rows)
    other, prior = why.table(found).splitlines()[2:]
    assert "| mini, style | `lora` | 1 | 0.60 | -0.50 | 0.90 | - |" in other
    assert "| 2 | 0.70 | -0.30 |" in prior
    assert "| 0.990 | 1.100 | 2.000 |" in prior
    assert why.read(tmp_path / "none.csv") == []
    assert why.table([]) == ""


def test_only_runs_that_the_table_lacks_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, seen = experiment(tmp_path / "runs", {"lora": 1.0, "fera-prior": 0.9}, 2, ("mini",)), []

    def look(runs: Path, place: numbers.Place, cache: Path) -> dict[str, object]:
        seen.append(control.label(place))
        return {key: getattr(place, key) for key in why.KEYS} | {"near": 0.1, "far": 0.1, "top_band": 0.9}

    monkeypatch.setattr(why, "look", look)
    assert why.examined(runs, ["mini"], ["lora"], [0], tmp_path / "why.csv") == 2  # both tasks
    assert why.examined(runs, ["mini"], ["lora", "fera-prior"], [0], tmp_path / "why.csv") == 4
    assert seen == ["lora seed 0"] * 2 + ["fera-prior seed 0"] * 2
