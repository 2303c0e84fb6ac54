"""The table of `spectra show`: what it says of intervals, of data, and of its own columns."""

import numpy as np
import pytest
import xarray as xr

from cli.show import band_rows, band_table
from tests.spectra.synthetic import synthetic_cube


def shown(cube: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """The lines below the table, and its columns."""
    table = band_table(cube, band_rows(cube, 0.8), 0.8)
    assert table.caption_justify == table.title_justify == "left"
    return str(table.caption).splitlines(), [
        [str(table.title), str(c.header), *map(str, c._cells)] for c in table.columns
    ]


@pytest.mark.parametrize(("prompts", "warned"), [(2, True), (5, True), (6, False)])
def test_intervals_over_fewer_than_six_prompts_are_said_to_be_wide(prompts: int, warned: bool) -> None:
    lines, _ = shown(synthetic_cube(prompts, 1, 6))
    assert (f"Intervals over {prompts} prompts are wide; six or more make them useful." in lines) == warned


def test_a_single_run_has_a_step_without_an_interval() -> None:
    cube = synthetic_cube(1, 1, 6)
    lines, columns = shown(cube)
    assert columns[-1][1] == "Decided at step"
    assert all(cell.isdigit() or cell == "never" for cell in columns[-1][2:])
    assert "0" in columns[-1][2:]
    assert "interval" not in " ".join(lines).lower()
    assert np.isnan(band_rows(cube, 0.8)[0]["decided_low"])
    _, two = shown(synthetic_cube(1, 2, 6))
    assert "(" in two[-1][2]


def test_each_sentence_below_the_table_is_a_line() -> None:
    lines, _ = shown(synthetic_cube(3, 1, 6))
    assert len(lines) == 6
    assert all(line.endswith(".") and ". " not in line for line in lines)
    assert [line.split(":")[0] for line in lines if ":" in line] == [
        "Decided", "Scales", "Frequency", "Share", "Guidance",
    ]  # fmt: skip


def test_data_are_pictures_at_noise_levels() -> None:
    cube = synthetic_cube(3, 1, 6).assign_attrs(sampler="forward").assign_coords(draw=("run", np.arange(3)))
    cube = cube.assign(coherence=cube.coherence * np.nan)
    lines, columns = shown(cube)
    assert columns[0][0] == "synthetic: 3 runs, 3 pictures, 6 noise levels"
    assert [column[1] for column in columns[3:]] == ["Share in noise", "Share in data"]
    assert not any(word in " ".join(lines) for word in ("Guidance", "Decided", "prompt"))
