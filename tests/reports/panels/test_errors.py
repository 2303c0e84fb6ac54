"""Curves of errors over training have the marks that the key has for their arms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from reports import Report, panels
from reports.figures import marker
from reports.panels.errors import MOST_MARKERS


def test_each_mean_curve_has_its_arms_mark_at_the_evaluations(report: Report, drawn: list[Figure]) -> None:
    panels.learning(report.arms, report.reference)
    marked = [line for line in drawn[0].axes[0].lines if line.get_marker() not in ("None", "", None)]
    assert [line.get_marker() for line in marked] == [marker(arm.style) for arm in report.arms]
    for arm, line in zip(report.arms, marked, strict=True):
        np.testing.assert_array_equal(np.asarray(line.get_xdata()), arm.curves()[0])
        assert line.get_markevery() == 1


def test_many_evaluations_leave_marks_apart(report: Report, drawn: list[Figure]) -> None:
    arm = report.arms[0]
    run = arm.runs[0]
    many = run.metrics.isel(eval_step=np.arange(50) % 9).assign_coords(eval_step=np.arange(50))
    panels.learning([replace(arm, runs=(replace(run, metrics=many),))], None)
    every = drawn[0].axes[0].lines[-1].get_markevery()
    assert isinstance(every, int)
    assert 50 / MOST_MARKERS <= every <= 6
