"""Reports: adapters side by side, with intervals, in one HTML file that opens offline."""

from reports.report import Report, build, write
from reports.statistics import Ratio

__all__ = ["Ratio", "Report", "build", "write"]
