"""Reports: adapters side by side, with intervals, in one HTML file that opens offline."""

from reports.building import build, compare_tasks
from reports.checks import Failure
from reports.report import Report, write, write_text
from reports.statistics import Ratio

__all__ = ["Failure", "Ratio", "Report", "build", "compare_tasks", "write", "write_text"]
