"""Adapters side by side: the same prompts, seeds, noise and validation grid for all, in one store.

`adapt.evaluate` makes and extends evaluations, `adapt.open_evaluation` reads them, `reports.metrics` compares.
"""
