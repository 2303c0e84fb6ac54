"""JUnit XML of a report: what CI systems show beside the results of tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree as Tree

from reports.checks import Failure

if TYPE_CHECKING:
    from reports.report import Report

FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no place for, even escaped."""


def clean(text: str) -> str:
    """Text that may stand in XML."""
    return FORBIDDEN.sub("\ufffd", text)


def case(name: str, title: str, failures: Sequence[Failure] = (), said: str = "") -> Tree.Element:
    """One test case, with a failure where a gate was met."""
    element = Tree.Element("testcase", {"classname": clean(title), "name": clean(name), "time": "0"})
    if failures:
        words = "; ".join(failure.words for failure in failures)
        Tree.SubElement(element, "failure", {"message": clean(words), "type": "gate"}).text = clean(words)
    if said:
        Tree.SubElement(element, "system-out").text = clean(said)
    return element


def comparisons(report: Report) -> list[tuple[str, str, str]]:
    """Every comparison of a report, of all its tasks: title, name, sentence."""
    from reports.evaluation_words import detail
    from reports.training_words import about_error

    found = [(report.title, f"{p.arm.label} against {p.other.label}", about_error(p).text) for p in report.pairs]
    for one in report.evaluations:
        of = f" ({one.title})" * (len(report.evaluations) > 1)
        compared = one.among or one.to_base
        found += [(report.title, f"{c.name}: {c.a} against {c.b}{of}", detail(c).text) for c in compared]
    return found + [line for task in report.tasks for line in comparisons(task)]


def to_junit(report: Report, expressions: Sequence[str] = ()) -> str:
    """One test case per gate; without gates one per comparison, none of which can fail."""
    if expressions:
        cases = [case(expression, report.title, report.check(expression)) for expression in expressions]
    else:
        cases = [case(name, title, said=said) for title, name, said in comparisons(report)]
    failed = sum(element.find("failure") is not None for element in cases)
    counts = {"tests": str(len(cases)), "failures": str(failed), "errors": "0", "time": "0"}
    suites = Tree.Element("testsuites", {"name": "adapt report", **counts})  # the schema has no `skipped` here
    suite = Tree.SubElement(suites, "testsuite", {"name": clean(report.title), **counts, "skipped": "0"})
    suite.extend(cases)
    Tree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Tree.tostring(suites, encoding="unicode") + "\n"
