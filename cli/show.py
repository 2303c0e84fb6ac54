"""What `spectra show` prints: one row per band, and a figure."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any

from cli.common import count, printable
from spectra.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr
    from rich.table import Table


MOST = 6  # settings that a sentence lists


def chosen(store: str, only: list[str], option: str = "--only") -> xr.Dataset:
    """The cube at `store`, or the runs of it that `NAME=VALUE` of `only` choose; runs of one setting.

    Raises UserError, which lists the settings, where runs of several are left.
    """
    from spectra.analysis import select_runs, settings_in_words, settings_of
    from spectra.cube import open_cube

    cube = open_cube(store)
    for text in only:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"{option} {text!r} is not understood; write NAME=VALUE, such as guidance_scale=3")
        cube = select_runs(cube, **{name.strip(): value})
    words = settings_in_words(settings_of(cube))
    if len(words) < 2:
        return cube
    listed = "; ".join(words[:MOST]) + (f"; and {len(words) - MOST} more" if len(words) > MOST else "")
    raise UserError(
        f"{store} holds runs of {len(words)} settings, which are not averaged together ({listed}): choose one with "
        f"{option} NAME=VALUE, such as {option} {shlex.quote(words[0].split(' ')[0])}"
    )


USEFUL = 6  # prompts from which on an interval over them is narrow enough to say something
ABOUT = (
    "Scales: standard deviations of the two Gaussians that bound the band, in latent pixels.",
    "Frequency: where the band peaks, in cycles per latent pixel.",
    "Share: of the sum of the bands' energies of the latent; bands overlap, so that sum is not the total energy.",
)


def heading(cube: xr.Dataset) -> dict[str, Any]:
    """What was probed, in a few facts."""
    guidance = sorted({float(scale) for scale in cube.guidance_scale.values if math.isfinite(scale)})
    return {
        "model": str(cube.attrs.get("model", "unknown")),
        "model_hash": str(cube.attrs.get("model_hash", "unknown")),
        "runs": cube.sizes["run"],
        "prompts": len({str(prompt) for prompt in cube.prompt.values}),
        "steps": int(cube.step[-1]),
        "guidance": guidance,
    }


def band_rows(cube: xr.Dataset, threshold: float) -> list[dict[str, Any]]:
    """Per band: scales, frequency, share of the latent's energy at start and end, and when it is decided.

    The ends of the interval of a single run, which has none, are NaN.
    """
    from spectra.analysis import emergence, shares
    from spectra.plots.panels import has_coherence

    if not cube.sizes["run"]:
        raise UserError("this cube has no complete run; probe again to finish it")
    share = shares(cube).mean("run")
    columns = {
        "scale_low": cube.scale_low, "scale_high": cube.scale_high, "frequency": cube.frequency,
        "share_start": share.isel(step=0), "share_end": share.isel(step=-1),
    }  # fmt: skip
    if has_coherence(cube):
        found = emergence(cube, threshold)
        low, high = (end.where(found.attrs["n"] > 1) for end in (found.low, found.high))
        columns |= {"decided": found.step, "decided_low": low, "decided_high": high}
        columns |= {"noise_level": found.noise_level}
    values = {name: [float(value) for value in column.values] for name, column in columns.items()}
    return [{"band": band, **{name: row[band] for name, row in values.items()}} for band in range(cube.sizes["band"])]


def band_table(cube: xr.Dataset, rows: list[dict[str, Any]], threshold: float) -> Table:
    """The rows as a table for people."""
    from rich.markup import escape
    from rich.table import Table

    from spectra.plots.style import of_data

    data, facts = of_data(cube), heading(cube)
    caption = [*([] if data else _about_decided(cube, rows, threshold)), *ABOUT]
    if not data:
        caption.append(f"Guidance: {', '.join(f'{scale:g}' for scale in facts['guidance']) or 'none'}.")
    left: dict[str, Any] = {"title_justify": "left", "caption_justify": "left"}
    table = Table(title=escape(f"{printable(facts['model'])}: {_sizes(cube)}"), caption="\n".join(caption), **left)
    ends = ("Share in noise", "Share in data") if data else ("Share at start", "Share at end", "Decided at step")
    for column in ("Band", "Scales", "Frequency", *ends):
        table.add_column(column, justify="right")
    for row in rows:
        name = f"{row['band']}" + {0: " low", len(rows) - 1: " high"}.get(row["band"], "")
        cells = [f"{row['share_start']:.1%}", f"{row['share_end']:.1%}", _decided(row)]
        table.add_row(name, _scales(row), f"{row['frequency']:.3f}", *cells[: len(ends)])
    return table


def _sizes(cube: xr.Dataset) -> str:
    """How much there is: runs, prompts and steps, or of data pictures and noise levels."""
    from spectra.analysis import prompts_of
    from spectra.plots.page import by_picture
    from spectra.plots.style import of_data

    facts = heading(cube)
    sizes = {"run": facts["runs"], "prompt": facts["prompts"], "step": facts["steps"]}
    if of_data(cube):
        pictures = len(set(prompts_of(by_picture(cube))))
        sizes = {"run": facts["runs"], "picture": pictures, "noise level": facts["steps"]}
    return ", ".join(count(size, thing) for thing, size in sizes.items())


def _about_decided(cube: xr.Dataset, rows: list[dict[str, Any]], threshold: float) -> list[str]:
    """Sentences on the step at which a band is decided, and on how far its interval can be trusted."""
    if not any("decided" in row for row in rows):
        return ["Decided: no coherence with a finished sample was recorded."]
    interval = not math.isnan(rows[0]["decided_low"])
    said = (
        "Decided: the step from which on the predicted clean sample agrees with the finished one in this band "
        f"(cosine at least {threshold:g}){', with a 95 % interval' * interval}."
    )
    prompts = heading(cube)["prompts"]
    if not interval or prompts >= USEFUL:
        return [said]
    if prompts == 1:
        return [said, "Intervals over the runs of one prompt say nothing of others; six or more prompts do."]
    return [said, f"Intervals over {prompts} prompts are wide; six or more make them useful."]


def _scales(row: dict[str, Any]) -> str:
    low = "∞" if math.isinf(row["scale_low"]) else f"{row['scale_low']:.3g}"
    return f"{low} to {row['scale_high']:.3g}"


def _decided(row: dict[str, Any]) -> str:
    if "decided" not in row:
        return "unknown"
    step, low, high = (_step(row[name]) for name in ("decided", "decided_low", "decided_high"))
    return step if step == "never" or math.isnan(row["decided_low"]) else f"{step} ({low} to {high})"


def _step(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else "never"


def beside(cube: str) -> Path:
    """Where the figure of a cube goes: next to a folder, and here for what lies elsewhere."""
    from pathlib import Path

    from spectra.storage.stores import local

    place = local(cube)
    return place.with_suffix(".png") if place else Path(Path(cube).name).with_suffix(".png")


def save_figure(cube: xr.Dataset, path: Path, kind: str = "overview") -> Path:
    """Draw a figure of a cube and write it; the ending of the name says the format."""
    from spectra import plots

    draw = {"overview": plots.overview, "multiples": plots.multiples, "guidance": plots.guidance}[kind]
    return plots.save(draw(cube), path)
