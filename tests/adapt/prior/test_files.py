"""A prior on the disk: it comes back equal, or is refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapt import Prior
from spectra.errors import UserError
from tests.adapt.prior.worlds import both, cube, usual


@pytest.fixture(scope="module")
def prior() -> Prior:
    return usual()


def test_a_saved_prior_comes_back_equal(prior: Prior, tmp_path: Path) -> None:
    path = prior.save(tmp_path / "deep" / "prior.json")
    assert Prior.load(path) == prior
    assert [file.name for file in path.parent.iterdir()] == ["prior.json"]


@pytest.mark.parametrize("made", [
    lambda: Prior.from_cube(cube(), experts=2, features=("snr", "log_snr"), bands=3),
    both,
    lambda: Prior.from_cube(cube().isel(run=slice(1)), experts=1),
])  # fmt: skip
def test_priors_of_all_kinds_come_back_equal(made: Any, tmp_path: Path) -> None:
    prior = made()
    assert Prior.load(prior.save(tmp_path / "prior.json")) == prior


def test_a_prior_that_cannot_be_written_says_where(prior: Prior, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the prior to .*prior\.json"):
        prior.save(tmp_path / "file" / "prior.json")


def changed(prior: Prior, path: Path, change: dict[str, Any]) -> Path:
    """The saved prior with some fields changed; a dotted name goes into a field."""
    saved = json.loads(prior.save(path).read_text())
    for name, value in change.items():
        *parents, last = name.split(".")
        inner = saved
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    path.write_text(json.dumps(saved))
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "cube"}, "is not a prior"),
        ({"format": 1}, r"prior of format 1, and this version reads format 2: make it again from its cube"),
        ({"format": 3}, "prior of format 3"),
        ({"surprise": 1}, "surprise"),
        ({"density.surprise": 1}, "density.surprise"),
        ({"statistics.shares.mean": [0.0]}, "feature_mean of shares"),
        ({"statistics.shares.mean": [0.0, 0.0, 0.0, None]}, "statistics.shares.mean"),
        ({"statistics.snr.std": [1.0, 1.0, 1.0, 0.0]}, "feature_std"),
        ({"statistics": {}}, "statistics of"),
        ({"scales": [1.0, 1.0, 2.0]}, "distinct"),
        ({"scales": ["1", "2", "3"]}, "scales"),
        ({"features": ["colour"]}, "features of a prior"),
        ({"router": {"w1": []}}, "weights"),
        ({"router.b1": [[1.0]]}, "router b1"),
        ({"experts": 2}, "gates"),
        ({"experts": 0}, "at least 1 expert"),
        ({"tau": "hot"}, "tau"),
        ({"timestep_log_snr": [0.0, 1.0]}, "does not fall"),
        ({"timestep_log_snr": []}, "does not fall"),
        ({"bank.gain": "large"}, "bank.gain"),
        ({"density.timestep": [1.0]}, "density"),
        ({"provenance": {}}, "which model"),
    ],
)
def test_a_damaged_prior_is_refused(prior: Prior, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Prior.load(changed(prior, tmp_path / "prior.json", change))


def test_a_missing_field_is_named(prior: Prior, tmp_path: Path) -> None:
    path = prior.save(tmp_path / "prior.json")
    saved = json.loads(path.read_text())
    del saved["advice"]
    path.write_text(json.dumps(saved))
    with pytest.raises(UserError, match="advice"):
        Prior.load(path)


def test_a_torn_or_missing_file_is_refused(prior: Prior, tmp_path: Path) -> None:
    path = prior.save(tmp_path / "prior.json")
    path.write_bytes(path.read_bytes()[:-200])
    for name in ("prior.json", "nothing.json", "."):
        with pytest.raises(UserError, match="cannot be read as a prior"):
            Prior.load(tmp_path / name)
