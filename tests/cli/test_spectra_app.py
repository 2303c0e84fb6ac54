"""`spectra probe`, `spectra show` and `spectra models`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import xarray as xr

from tests.conftest import Command

ROOT = Path(__file__).parents[2]


def python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("argv", [["spectra", "--help"], ["spectra", "probe", "--help"], ["adapt", "train", "--help"]])
def test_help_imports_nothing_heavy(argv: list[str]) -> None:
    code = (
        f"import sys; sys.argv = {argv!r}\n"
        f"from cli import main_{argv[0]} as main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'numpy', 'xarray', 'zarr', 'diffusers', 'transformers', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_a_bare_command_shows_its_help(command: Command) -> None:
    shown = command("spectra")
    assert shown.code == 0
    assert "probe" in shown.out


def test_probing_writes_a_cube_and_says_so_on_stdout_alone(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "cube.zarr"
    done = python(
        "-m", "cli", "spectra", "probe", "--model", str(model), "--prompt", "a dot", "--seeds", "0:2", "--steps", "3",
        "--out", str(out), "--json",
    )  # fmt: skip
    assert done.stderr == ""
    facts = json.loads(done.stdout)
    assert (facts["runs"], facts["steps"], facts["store"]) == (2, 3, str(out))
    with xr.open_zarr(out, chunks=None, consolidated=False) as cube:
        assert cube.energy.dims == ("run", "step", "signal", "channel", "band")
        assert cube.sizes["step"] == 4


def test_probing_again_adds_only_what_is_missing(command: Command, model: Path, tmp_path: Path) -> None:
    words = ["probe", "--model", model, "--prompt", "a dot", "--steps", "2", "--out", tmp_path / "c.zarr", "--json"]
    assert json.loads(command("spectra", *words, "--seeds", "0:1").out)["runs"] == 1
    assert json.loads(command("spectra", *words, "--seeds", "0:3").out)["runs"] == 3
    assert "exists" in command("spectra", *words, "--resume", "never").refused()


def test_prompts_are_read_from_a_file(command: Command, model: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a dot\ntwo dots\n")
    words = ["--prompts", tmp_path / "p.txt", "--seeds", "5", "--steps", "1", "--out", tmp_path / "c.zarr"]
    shown = command("spectra", "probe", "--model", model, *words)
    assert (shown.code, shown.err) == (0, "")
    assert "2 runs of 1 step;" in shown.out


def test_a_cube_is_shown_as_a_table_and_a_figure(command: Command, probed: Path, tmp_path: Path) -> None:
    figure = tmp_path / "new" / "figure.png"
    shown = command("spectra", "show", probed, "--figure", figure)
    assert (shown.code, shown.err) == (0, "")
    assert "2 runs, 1 prompt, 3 steps" in shown.out
    assert "∞" in shown.out
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in figure.parent.iterdir()] == ["figure.png"]


def test_the_table_as_json_has_shares_that_sum_to_one(command: Command, probed: Path, tmp_path: Path) -> None:
    shown = json.loads(command("spectra", "show", probed, "--figure", tmp_path / "f.png", "--json").out)
    bands = shown["bands"]
    assert [row["band"] for row in bands] == list(range(len(bands)))
    for share in ("share_start", "share_end"):
        assert sum(row[share] for row in bands) == pytest.approx(1, abs=1e-5)
    assert bands[0]["scale_low"] is None  # the lowest band has no lower end
    assert all(a["frequency"] < b["frequency"] for a, b in pairwise(bands))


def test_by_default_the_figure_is_beside_the_cube(command: Command, probed: Path) -> None:
    assert command("spectra", "show", probed).code == 0
    assert probed.with_suffix(".png").is_file()


def test_models_are_listed_for_people_and_for_scripts(command: Command) -> None:
    table, rows = command("spectra", "models").out, json.loads(command("spectra", "models", "--json").out)
    assert "FLUX.1 [dev]" in table  # square brackets are text, not markup
    assert {"mini", "mini-flow", "sd15", "sdxl", "sd3", "flux", "wan", "svd"} <= {row["name"] for row in rows}
    assert all(row["name"] in table for row in rows)
    assert "stabilityai/stable-diffusion-xl-base-1.0" in table


def test_a_cube_of_a_pipeline_without_guidance_says_none(probed: Path) -> None:
    from cli.show import band_rows, band_table, heading
    from spectra.cube import open_cube

    cube = open_cube(probed)
    cube = cube.assign_coords(guidance_scale=cube.guidance_scale * float("nan"))
    assert heading(cube)["guidance"] == []
    assert "guidance none" in str(band_table(cube, band_rows(cube, 0.8), 0.8).caption)
