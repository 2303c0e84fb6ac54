"""`spectra probe`, `spectra show` and `spectra models`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import xarray as xr

from spectra.cube import open_cube
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
    for seeds, held in (("0:1", (1, 0, 1)), ("0:3", (3, 1, 2)), ("0:2", (3, 3, 0))):
        facts = json.loads(command("spectra", *words, "--seeds", seeds).out)
        assert (facts["runs"], facts["runs_before"], facts["runs_new"]) == held
    assert "3 runs of 2 steps (3 there before, 0 new)" in command("spectra", *words[:-1], "--seeds", "0:3").out
    assert "--resume allow" in command("spectra", *words, "--resume", "never").refused()


def test_an_empty_prompt_is_refused(command: Command, model: Path, tmp_path: Path) -> None:
    said = command("spectra", "probe", "--model", model, "--prompt", " ", "--out", tmp_path / "c.zarr").refused()
    assert "a prompt is empty" in said


@pytest.mark.parametrize("batches", [0, 1])
def test_an_interrupted_probe_says_what_is_kept(
    command: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    from spectra.recording.call import Call as _Call

    calls: list[int] = []
    finish = _Call.finish

    def stop(call: _Call) -> None:
        if len(calls) == batches:
            raise KeyboardInterrupt
        calls.append(1)
        finish(call)

    monkeypatch.setattr(_Call, "finish", stop)
    words = ["--prompt", "a", "--seeds", "0:2", "--steps", "1", "--batch", "1", "--out", tmp_path / "c.zarr"]
    stopped = command("spectra", "probe", "--model", model, *words)
    assert stopped.code == 130
    assert ("no new run was finished" if batches == 0 else "keeps 1 new run") in stopped.err
    assert (tmp_path / "c.zarr").exists() == bool(batches)


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
    words = " ".join(shown.out.split())
    assert "where the band peaks" in words
    assert "Share: of the sum of the bands' energies" in words
    assert "standard deviations" in words
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


def test_for_scripts_the_figure_is_drawn_only_when_asked(command: Command, probed: Path, tmp_path: Path) -> None:
    cube = Path(shutil.copytree(probed, tmp_path / "c.zarr"))
    assert json.loads(command("spectra", "show", cube, "--json").out)["figure"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["c.zarr"]


def test_a_narrow_list_of_models_breaks_no_hub_id() -> None:
    from rich.console import Console

    from cli.tables import model_table
    from spectra.models import MODELS

    console = Console(width=80)
    with console.capture() as shown:
        console.print(model_table(narrow=True))
    lines = shown.get().splitlines()
    assert lines[0].startswith("Models")
    assert all(any(model.source in line for line in lines) for model in MODELS.values() if not model.bundled)
    assert not any("0 GB" in line.split(", ") for line in lines)


def test_models_are_listed_for_people_and_for_scripts(command: Command) -> None:
    table, rows = command("spectra", "models").out, json.loads(command("spectra", "models", "--json").out)
    assert "FLUX.1 [dev]" in table  # square brackets are text, not markup
    assert {"mini", "mini-flow", "sd15", "sdxl", "sd3", "flux", "wan", "svd"} <= {row["name"] for row in rows}
    assert all(row["name"] in table for row in rows)
    assert "stabilityai/stable-diffusion-xl-base-1.0" in table


def test_a_model_that_is_a_formula_has_neither_a_hub_id_nor_memory(command: Command) -> None:
    table, rows = command("spectra", "models").out, json.loads(command("spectra", "models", "--json").out)
    (line,) = (line for line in table.splitlines() if line.split("│")[1:2] and line.split("│")[1].strip() == "gaussian")
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert cells[1] == "analytic"
    assert cells[4] == ""
    (row,) = (row for row in rows if row["analytic"])
    assert row["location"] == row["name"] == "gaussian"
    assert row["memory"] is None


def test_a_cube_of_a_pipeline_without_guidance_says_none(probed: Path) -> None:
    from cli.show import band_rows, band_table, heading
    from spectra.cube import open_cube

    cube = open_cube(probed)
    cube = cube.assign_coords(guidance_scale=cube.guidance_scale * float("nan"))
    assert heading(cube)["guidance"] == []
    assert "Guidance: none" in str(band_table(cube, band_rows(cube, 0.8), 0.8).caption)


GAUSSIAN = ("spectra", "probe", "--model", "gaussian:2x8x8", "--prompt", "a", "--seeds", "0", "--steps", "1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "c.zarr", "--bands", "1000000000"), "ask for 256 at most"),
        (("--out", "c.zarr", "--steps", "100000000"), "more than a cube holds"),
        (("--out", "c.zarr", "--seeds", "0:1000001"), "more than 1000000 seeds"),
        (("--out", "c.zarr", "--prompt", "caf\udce9"), "not UTF-8"),
        (("--out", "."), "a folder of its own"),
        (("--out", "link"), "a link to nothing"),
        (("--out", "memory://c.zarr"), "would be gone"),
        (("--out", "icechunk://file"), "file is a file"),
        (("--out", "c.zarr", "--adapter", "file"), "no .safetensors file"),
        (("--out", "c.zarr", "--adapter", "torn"), "adapter_config.json cannot be read"),
        (("--out", "c.zarr", "--adapter", "list"), "not the configuration of an adapter"),
    ],
)
def test_a_probe_that_cannot_be_made_is_one_sentence_and_leaves_nothing(
    command: Command, words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    for name, text in (("torn", "{"), ("list", "[1]")) if "--adapter" in words else ():
        (work / name).mkdir(parents=True)
        (work / name / "adapter_config.json").write_text(text)
    work.mkdir(exist_ok=True)
    monkeypatch.chdir(work)
    if "." not in words:
        (work / "file").write_text("")
        (work / "link").symlink_to("nowhere")
    before = sorted(work.rglob("*"))
    assert said in command(*GAUSSIAN, *words).refused()
    assert sorted(work.rglob("*")) == before


@pytest.mark.parametrize("option", [("--signals", "latent"), ("--guidance-scale", "7"), ("--scheduler", "DDIM")])
def test_pictures_are_recorded_without_options_about_sampling(
    command: Command, option: tuple[str, str], pictures: Path, tmp_path: Path
) -> None:
    words = ("spectra", "probe", "--model", "mini", "--data", pictures / "train", "--out", tmp_path / "c.zarr")
    assert f"{option[0]}" in command(*words, *option).refused()
    assert not list(tmp_path.iterdir())


def test_control_characters_in_a_place_are_not_printed(command: Command, probed: Path, tmp_path: Path) -> None:
    place = tmp_path / "\x1b[31m[red].zarr"
    shown = [
        command("spectra", "compact", probed, place),
        command("spectra", "show", place),
        command("spectra", "compare", place, place),
        command("spectra", "doctor", "--cube", place),
        command("spectra", "probe", *GAUSSIAN[2:], "--out", tmp_path / "\x1b[31mother.zarr"),
    ]
    assert all(outcome.code == 0 and "\x1b" not in outcome.out + outcome.err for outcome in shown)
    assert all("[red]" in outcome.out for outcome in shown[:2])


@pytest.mark.parametrize("place", ["file://{}", "~/c.zarr"])
def test_a_folder_may_be_given_as_a_url_or_from_home(
    command: Command, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert command(*GAUSSIAN, "--out", place.format(tmp_path / "c.zarr")).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["c.zarr"]


def test_a_compact_cube_makes_the_folders_on_its_way(command: Command, probed: Path, tmp_path: Path) -> None:
    assert command("spectra", "compact", probed, tmp_path / "new" / "deep" / "c.zarr").code == 0


def launched(processes: int, *words: object) -> subprocess.CompletedProcess[str]:
    """A probe by so many processes; accelerate's own launcher starts them so where there are several devices."""
    argv = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "-m", "cli"]
    return subprocess.run([*argv, *map(str, words)], capture_output=True, text=True, timeout=240, check=False, cwd=ROOT)


@pytest.mark.slow
def test_two_processes_speak_once_and_fill_the_cube_that_one_would_have_filled(
    command: Command, tmp_path: Path
) -> None:
    words = (*GAUSSIAN[:5], "a", "--prompt", "b", "--seeds", "0:3", "--steps", "2", "--batch", "2", "--out")
    first, again = (launched(2, *words, tmp_path / "two.zarr", "--json") for _ in range(2))
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert [json.loads(done.stdout)["runs_new"] for done in (first, again)] == [6, 0]
    assert command(*words, tmp_path / "one.zarr").code == 0
    one, two = (open_cube(tmp_path / f"{name}.zarr").drop_attrs() for name in ("one", "two"))
    xr.testing.assert_identical(one, two)
    other = launched(2, *words, tmp_path / "two.zarr", "--steps", "3")
    assert other.returncode != 0
    assert "num_inference_steps was 2, is 3" in other.stderr
    assert other.stdout == ""


def test_runs_of_several_settings_are_not_averaged_together(command: Command, mixed: Path) -> None:
    said = command("spectra", "show", mixed, "--json").refused()
    assert "holds runs of 2 settings, which are not averaged together (adapter=one; adapter=two)" in said
    assert "--only adapter=one" in said
    assert json.loads(command("spectra", "show", mixed, "--only", "adapter=two", "--json").out)["runs"] == 2
    words = ["--only", "adapter=two", "--only", "seed=1", "--json"]
    assert json.loads(command("spectra", "show", mixed, *words).out)["runs"] == 1


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ("adapter", "write NAME=VALUE"),
        ("adapter=three", "this cube has one, two"),
        ("seed=x", "seed is a number"),
        ("colour=red", "runs have no label 'colour'"),
    ],
)
def test_a_choice_of_runs_that_cannot_be_made_is_one_sentence(
    command: Command, mixed: Path, only: str, said: str
) -> None:
    assert said in command("spectra", "show", mixed, "--only", only).refused()


def test_the_help_names_every_guidance_rule(command: Command) -> None:
    from spectra.guidance import RULES

    words = "".join(command("spectra", "probe", "--help").out.replace("│", "").split())
    assert all(name in words for name in RULES)


def test_signals_of_guidance_without_guidance_are_refused(command: Command, model: Path, tmp_path: Path) -> None:
    words = ["--prompt", "a", "--out", tmp_path / "c.zarr", "--signals", "latent,cond"]
    said = command("spectra", "probe", "--model", model, *words).refused()
    assert "guidance, which is off" in said
    assert "--guidance-scale" in said
    assert not list(tmp_path.iterdir())


def test_comments_in_a_file_of_prompts_are_left_out(command: Command, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("# dots\na dot\n  # more\n")
    words = ["--prompts", tmp_path / "p.txt", "--seeds", "0", "--steps", "1", "--out", tmp_path / "c.zarr", "--json"]
    assert json.loads(command("spectra", "probe", "--model", "gaussian:2x8x8", *words).out)["runs"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--call", "height"), "write NAME=VALUE"),
        (("--call", "a=1", "--call", "a=2"), "gives a twice"),
        (("--call", "height=8"), "give height and width together"),
        (("--call", "colour=red"), "is not called with 'colour'"),
        (("--call", "generator=1"), "set by the probe itself"),
        (("--dtype", "int8"), "'int8' is not one of"),
        (("--guidance", "cfg-zero-star(zero_init"), "is not understood"),
    ],
)
def test_arguments_of_the_call_that_make_no_sense_are_one_sentence(
    command: Command, words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    assert said in command(*GAUSSIAN, "--out", tmp_path / "c.zarr", *words).refused()
    assert not list(tmp_path.iterdir())


def test_the_call_has_the_arguments_that_were_given_and_a_cube_keeps_to_them(
    command: Command, model: Path, tmp_path: Path
) -> None:
    words = ["probe", "--model", model, "--prompt", "a", "--prompt", "b", "--seeds", "0", "--steps", "1"]
    words += ["--guidance-scale", "3", "--out", tmp_path / "c.zarr"]
    given = ["--call", "height=32", "--call", "width=64", "--call", "negative_prompt=dull"]
    assert command("spectra", *words, *given).code == 0
    with xr.open_zarr(tmp_path / "c.zarr", chunks=None, consolidated=False) as cube:
        assert json.loads(cube.attrs["grid"])[0] * 2 == json.loads(cube.attrs["grid"])[1]
        assert set(cube.negative_prompt.values.tolist()) == {"dull"}
        assert json.loads(cube.attrs["call_arguments"]) == {"height": 32, "width": 64, "negative_prompt": "dull"}
    assert command("spectra", *words, *given).code == 0
    said = command("spectra", *words, *given[:4], "--call", "negative_prompt=dark").refused()
    assert 'call.negative_prompt was "dull", is "dark"' in said


def test_pictures_one_folder_further_down_are_pointed_out(command: Command, pictures: Path, tmp_path: Path) -> None:
    said = command("spectra", "probe", "--model", "mini", "--data", pictures, "--out", tmp_path / "c.zarr").refused()
    assert str(pictures / "train") in said
    assert str(pictures / "heldout") in said


@pytest.mark.slow
def test_pictures_get_one_seed_by_default(command: Command, pictures: Path, tmp_path: Path) -> None:
    words = ["--data", pictures / "heldout", "--steps", "2", "--out", tmp_path / "c.zarr", "--json"]
    assert json.loads(command("spectra", "probe", "--model", "mini", *words).out)["runs"] == 2


def test_an_adapter_inside_a_run_is_called_as_the_run(tmp_path: Path) -> None:
    from cli.probing import attaching

    (tmp_path / "night" / "adapter").mkdir(parents=True)
    assert attaching(tmp_path / "night" / "adapter")["label"] == "night"
    assert attaching(tmp_path / "night")["label"] == "night"


@pytest.mark.parametrize("kind", ["FERA", "LORA"])
def test_an_adapter_of_another_model_says_of_which(kind: str, tmp_path: Path, command: Command, model: Path) -> None:
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    settings = {"peft_type": kind, "target_modules": ["nowhere"], "base_model_name_or_path": "owner/other"}
    (tmp_path / "run" / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    words = ["--prompt", "a", "--out", tmp_path / "c.zarr", "--adapter", tmp_path / "run"]
    said = command("spectra", "probe", "--model", model, *words).refused()
    assert "was made for owner/other, and does not fit this StableDiffusionPipeline" in said


def test_the_memory_of_models_is_said_to_double(command: Command) -> None:
    words = " ".join(command("spectra", "models").out.split())
    assert "models open in float32, which takes twice that" in words
