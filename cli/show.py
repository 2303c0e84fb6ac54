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
    """Per band: scales, frequency, share of the latent's energy at start and end, and when it is decided."""
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
        columns |= {"decided": found.step, "decided_low": found.low, "decided_high": found.high}
        columns |= {"noise_level": found.noise_level}
    values = {name: [float(value) for value in column.values] for name, column in columns.items()}
    return [{"band": band, **{name: row[band] for name, row in values.items()}} for band in range(cube.sizes["band"])]


def band_table(cube: xr.Dataset, rows: list[dict[str, Any]], threshold: float) -> Table:
    """The rows as a table for people."""
    from rich.markup import escape
    from rich.table import Table

    facts = heading(cube)
    sizes = ", ".join(count(facts[f"{thing}s"], thing) for thing in ("run", "prompt", "step"))
    title = f"{printable(facts['model'])}: {sizes}"
    guided = ", ".join(f"{scale:g}" for scale in facts["guidance"]) or "none"
    caption = (
        f"{_about_decided(rows, threshold)} Scales in latent pixels, frequency in cycles per latent pixel (where the "
        f"band peaks), guidance {guided}. Share: of the latent's energy."
    )
    table = Table(title=escape(title), caption=caption)
    for column in ("Band", "Scales", "Frequency", "Share at start", "Share at end", "Decided at step"):
        table.add_column(column, justify="right")
    for row in rows:
        name = f"{row['band']}" + {0: " low", len(rows) - 1: " high"}.get(row["band"], "")
        shares = (f"{row['share_start']:.1%}", f"{row['share_end']:.1%}")
        table.add_row(name, _scales(row), f"{row['frequency']:.3f}", *shares, _decided(row))
    return table


def _about_decided(rows: list[dict[str, Any]], threshold: float) -> str:
    if not any("decided" in row for row in rows):
        return "Decided: no coherence with a finished sample was recorded."
    return (
        "Decided: the step from which on the predicted clean sample agrees with the finished one in this band "
        f"(cosine at least {threshold:g}), with a 95 % interval."
    )


def _scales(row: dict[str, Any]) -> str:
    low = "∞" if math.isinf(row["scale_low"]) else f"{row['scale_low']:.3g}"
    return f"{low} to {row['scale_high']:.3g}"


def _decided(row: dict[str, Any]) -> str:
    if "decided" not in row:
        return "unknown"
    step, low, high = (_step(row[name]) for name in ("decided", "decided_low", "decided_high"))
    return step if step == "never" else f"{step} ({low} to {high})"


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
