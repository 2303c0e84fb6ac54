"""What a training would do, before it does anything: `make_plan`."""

from adapt.plan.figure import write_figure
from adapt.plan.making import explain_prior, make_plan
from adapt.plan.plan import Plan

__all__ = ["Plan", "explain_prior", "make_plan", "write_figure"]
