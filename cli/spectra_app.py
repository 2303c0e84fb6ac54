"""`spectra`: watch a diffusion model generate, and show what was seen."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.common import (
    Json,
    Progress,
    application,
    collect_prompts,
    count,
    emit,
    kept,
    parse_seeds,
    printable,
    progress_bar,
)
from cli.options import (
    ABOUT_FIGURE,
    OFF,
    SIGNALS,
    Adapter,
    Bands,
    Batch,
    CallArguments,
    Data,
    Device,
    Dtype,
    Guidance,
    GuidanceScale,
    ModelName,
    Only,
    OnlyA,
    OnlyB,
    Prompt,
    Prompts,
    Resume,
    Scheduler,
    Seeds,
    Signals,
    Steps,
)
from cli.tables import WIDE, console, finding_table, model_table, print_table
from spectra.errors import UserError

app = application("See how a diffusion model's latents spread their energy over frequency bands while it generates.")


@app.command()
def probe(
    model: ModelName,
    out: Annotated[str, typer.Option("--out", help="Cube to write: a folder such as runs/mini.zarr, or a URL.")],
    prompt: Prompt = None,
    prompts: Prompts = None,
    seeds: Seeds = None,
    steps: Steps = 30,
    scheduler: Scheduler = None,
    guidance_scale: GuidanceScale = None,
    guidance: Guidance = None,
    bands: Bands = None,
    signals: Signals = None,
    adapter: Adapter = None,
    call: CallArguments = None,
    dtype: Dtype = None,
    device: Device = None,
    data: Data = None,
    batch: Batch = 8,
    resume: Resume = "allow",
    as_json: Json = False,
) -> None:
    """Generate samples and record their band energies at every step, into a cube (zarr).

    What a cube holds already is not generated again. With --data, pictures are recorded at --steps noise levels.
    """
    from cli.probing import attaching, leads, parse_bands, parse_call, parse_signals, runs_in

    numbers = parse_seeds(seeds or ("0:8" if data is None else "0:1"))
    bank, start, before = parse_bands(bands), time.monotonic(), runs_in(out)
    seen: list[int] = []  # of this process's share of the runs, how many are there: at the start, after each batch
    with kept(lambda: _left(out, seen)), progress_bar(f"probing {printable(model)}", show=leads()) as progress:
        shared: dict[str, Any] = {"bank": bank, "batch": batch, "device": device, "resume": resume}
        shared["progress"] = lambda done, total: _note(seen, progress, done, total)
        if data is not None:
            _refuse_sampling(prompt, prompts, scheduler, guidance, adapter, signals, guidance_scale, call, dtype)
            from spectra.forward import probe_data

            cube = probe_data(model, data, out, levels=steps, seeds=numbers, **shared)
        else:
            texts, names = collect_prompts(prompt, prompts), parse_signals(signals or SIGNALS)
            attached, own = attaching(adapter), parse_call(call or [])
            from spectra.probe import probe as record_runs

            cube = record_runs(
                model, texts, numbers, steps, out, guidance_scale=OFF if guidance_scale is None else guidance_scale,
                guidance=guidance, scheduler=scheduler, signals=names, call=own, dtype=dtype, **attached, **shared,
            )  # fmt: skip
    if not leads():
        return
    facts = {
        "store": out,
        "model": model,
        "model_hash": cube.attrs.get("model_hash"),
        "runs": cube.sizes["run"],
        "runs_before": before,
        "runs_new": cube.sizes["run"] - before,
        "steps": steps,
        "bands": cube.sizes["band"],
        "seconds": round(time.monotonic() - start, 2),
    }
    if as_json:
        emit(facts)
    else:
        held = f"{count(cube.sizes['run'], 'run')} of {count(steps, 'step')}"
        there = f" ({before} there before, {facts['runs_new']} new)" if before else ""
        place = printable(out)
        typer.echo(f"{place} holds {held}{there}; see them with: spectra show {shlex.quote(place)}")


def _refuse_sampling(*options: object) -> None:
    """Options about sampling have no meaning for pictures."""
    if any(option is not None for option in options):
        raise UserError(
            "--data records pictures, not samples: leave out --prompt, --prompts, --signals, --scheduler, --adapter, "
            "--guidance, --guidance-scale, --call and --dtype"
        )


def _note(seen: list[int], progress: Progress, done: int, total: int) -> None:
    seen.append(done)
    progress("sample", done, total)


def _left(out: str, seen: list[int]) -> str:
    """What an interrupted probe leaves; each batch is written when it ends."""
    if seen and seen[-1] > seen[0]:
        return f"{out} keeps {count(seen[-1] - seen[0], 'new run')}, and the same command goes on from there"
    return "no new run was finished" + (f", and what {out} held is kept" if Path(out).exists() else "")


@app.command()
def show(
    cube: Annotated[str, typer.Argument(help="Cube that `spectra probe` wrote.")],
    figure: Annotated[Path | None, typer.Option("--figure", help=ABOUT_FIGURE)] = None,
    kind: Annotated[
        Literal["overview", "multiples", "guidance"],
        typer.Option("--kind", help="Figure: all on a page, each signal's shares by step, or what guidance adds."),
    ] = "overview",
    threshold: Annotated[
        float, typer.Option("--threshold", min=0, max=1, help="Coherence from which on a band counts as decided.")
    ] = 0.8,
    only: Only = None,
    as_json: Json = False,
) -> None:
    """Show a cube: where the energy is at start and end, and at which step each band is decided.

    Runs of several settings (adapter, guidance) are not averaged together: choose with --only.
    """
    from cli.show import band_rows, band_table, beside, chosen, heading, save_figure

    data = chosen(cube, only or [])
    rows = band_rows(data, threshold)
    place = figure or (None if as_json else beside(cube))
    picture = save_figure(data, place, kind) if place else None
    if as_json:
        emit({"store": cube, **heading(data), "threshold": threshold, "bands": rows, "figure": picture})
        return
    print_table(band_table(data, rows, threshold))
    typer.echo(f"The figure is in {printable(str(picture))}")


@app.command()
def models(as_json: Json = False) -> None:
    """List the models that have a short name: the bundled ones, and aliases of public checkpoints."""
    from spectra.models import MODELS

    if as_json:
        emit([{"name": name, **vars(model), "location": model.location} for name, model in MODELS.items()])
        return
    print_table(model_table(narrow=console().width < WIDE))


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="Cube to compare.")],
    b: Annotated[str, typer.Argument(help="Cube that it is compared with: the same prompts and seeds.")],
    signal: Annotated[
        list[str] | None, typer.Option("--signal", help="Signal to compare; repeat it for more. Default: all of both.")
    ] = None,
    fail_above: Annotated[
        float | None,
        typer.Option("--fail-above", min=0, help="Exit code 1 if a band's largest difference, sure or not, is more."),
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="JUnit file to write, with --fail-above.")] = None,
    figure: Annotated[Path | None, typer.Option("--figure", help="Picture to write: .png, .svg or .pdf.")] = None,
    only_a: OnlyA = None,
    only_b: OnlyB = None,
    as_json: Json = False,
) -> None:
    """Compare two cubes run by run: by how much each band's energy in A differs from B, at which step, how surely.

    The table shows each band's largest difference whose interval excludes none, if there is one. With --fail-above it
    is a regression gate: the same prompts and seeds, before and after a change. It looks at the largest difference of
    each band, whether sure or not (a log ratio: .05 is 5 %), and fails too if a run has no partner in the other cube.
    """
    from cli.compare import about, compared_cubes, document, failures, lonely, table, telling, worst, write_junit

    if junit and fail_above is None:
        raise UserError("--junit says what failed, so it needs a limit: give --fail-above, such as 0.05")
    start = time.monotonic()
    compared = compared_cubes(a, b, list(dict.fromkeys(signal or ())), only_a or [], only_b or [])
    rows, unpaired = worst(compared), lonely(compared) if fail_above is not None else ""
    failed = failures(rows, fail_above)
    if junit and fail_above is not None:
        write_junit(junit, rows, fail_above, time.monotonic() - start, unpaired)
    if figure:
        from spectra.plots import heatmap, save

        save(heatmap(compared, f"{printable(Path(a).name)} against {printable(Path(b).name)}", about(compared)), figure)
    if as_json:
        emit({"a": a, "b": b, **document(compared, rows, fail_above), "junit": junit, "figure": figure})
    else:
        print_table(table(compared, telling(compared), f"A: {printable(a)}, B: {printable(b)}"))
        if fail_above is not None:
            typer.echo(f"{len(failed)} of {count(len(rows), 'band')} differ by more than {fail_above:g} (log ratio).")
        if unpaired:
            typer.echo(f"The gate fails, for there are {unpaired}.")
    if failed or unpaired:
        raise typer.Exit(1)


@app.command()
def compact(
    cube: Annotated[str, typer.Argument(help="Cube with many runs.")],
    out: Annotated[str, typer.Argument(help="Cube to write.")],
    as_json: Json = False,
) -> None:
    """Rewrite a cube with many runs per file, so that thousands of runs are read quickly. Values stay as they are."""
    from spectra.cube import compact as rewrite
    from spectra.cube import count_runs

    rewrite(cube, out)
    runs = count_runs(out)
    if as_json:
        emit({"store": out, "runs": runs})
    else:
        typer.echo(f"{printable(out)} holds the {count(runs, 'run')} of {printable(cube)}.")


@app.command()
def doctor(
    model: Annotated[str | None, typer.Option("--model", help="Also say what can be recorded of this model.")] = None,
    cube: Annotated[str | None, typer.Option("--cube", help="Also read every value of this cube.")] = None,
    as_json: Json = False,
) -> None:
    """Look whether everything is in order: libraries, device, filter bank, disk, bundled models.

    Ends with exit code 1 if something is not.
    """
    from spectra.doctor import examine

    found = examine(model, cube)
    if as_json:
        emit([finding._asdict() for finding in found])
    else:
        print_table(finding_table(found))
    if any(finding.state == "fault" for finding in found):
        raise typer.Exit(1)
