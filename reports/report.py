"""What was measured, as one object: sentences, numbers, gates, and one HTML file."""

from __future__ import annotations

import contextlib
import html
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from reports.arms import Arm
from reports.base import Base
from reports.cells import Cells, cells_of
from reports.checks import Failure, check
from reports.compare import Against
from reports.evaluated import BASE, Evaluation
from reports.junit import to_junit
from reports.numbers import numbers
from reports.page import render
from reports.quantities import Quantity, quantities
from reports.sections import Said
from spectra.errors import UserError


@dataclass(frozen=True)
class Report:
    """A report over runs and evaluations of one model on one data set, or, with `tasks`, over several such reports."""

    arms: tuple[Arm, ...] = ()
    reference: Arm | None = None
    pairs: tuple[Against, ...] = ()
    base: Base | None = None
    said: tuple[Said, ...] = ()
    warnings: tuple[str, ...] = ()
    title: str = field(default="")
    evaluations: tuple[Evaluation, ...] = ()
    tasks: tuple[Report, ...] = ()
    against: str = ""
    """The name that was chosen to compare all with; empty where none was, or where nothing here has it."""

    @property
    def sentences(self) -> list[str]:
        """The report in words, the most important sentence first."""
        return [said.text for said in self.said]

    @cached_property
    def cells(self) -> list[list[Cells]]:
        """For each evaluation the ratios of held-out errors of its pairs, by noise level and band."""
        return [cells_of(found) for found in self.evaluations]

    @cached_property
    def quantities(self) -> list[Quantity]:
        """Every number that a gate may ask for."""
        return quantities(self)

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
        """Every number of the report as plain JSON values, format 2."""
        return numbers(self)

    def to_junit(self, gates: Sequence[str] = ()) -> str:
        """JUnit XML: a test case per gate, or per comparison where there is no gate. Raises UserError as `check`."""
        return to_junit(self, gates)

    def check(self, gate: str) -> list[Failure]:
        """What a gate such as "drift>0.1" finds: `METRIC[.low|.high][@ARM] OP NUMBER`; empty where it is met by no arm.

        The base model counts only where it is named. Raises UserError for what is no gate, and for a metric or an arm
        that this report does not have.
        """
        to_base = any(one.against == BASE for task in (self, *self.tasks) for one in task.evaluations)
        return check(gate, self.quantities, to_base)


def write(report: Report, path: Path | str) -> Path:
    """Write the page to `path`, whole or not at all. Raises UserError when the place cannot be written."""
    return write_text(report.to_html(), path)


def write_text(text: str, path: Path | str) -> Path:
    """Write text to `path`, whole or not at all. Raises UserError when the place cannot be written."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        why = f"cannot write the report to {path} ({error.strerror}); choose a file in a folder that can be written."
        raise UserError(why) from None
    return path
