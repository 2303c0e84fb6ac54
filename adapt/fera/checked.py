"""Values of settings in the types that they should have; a UserError names the setting where they cannot be had."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from spectra.errors import UserError

Floats = tuple[float, ...]


def whole(name: str, value: Any, least: int) -> int:
    """A whole number of at least `least`."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or value < least:
        raise UserError(f"FeraConfig: {name} is a whole number of at least {least}, got {value!r}")
    return int(value)


def number(name: str, value: Any) -> float:
    """A number above 0."""
    found = _real(value)
    if found is None or found <= 0:
        raise UserError(f"FeraConfig: {name} is a number above 0, got {value!r}")
    return found


def share(name: str, value: Any) -> float:
    """A number from 0 up to, but not including, 1."""
    found = _real(value)
    if found is None or not 0 <= found < 1:
        raise UserError(f"FeraConfig: {name} is a number in [0, 1), got {value!r}")
    return found


def numbers(name: str, values: Any) -> Floats | None:
    """A row of numbers, which may be infinite; None stays."""
    if values is None:
        return None
    try:
        found = None if isinstance(values, str) else tuple(float(value) for value in values)
    except (TypeError, ValueError):
        found = None
    if found is None:
        raise UserError(f"FeraConfig: {name} is a list of numbers, got {values!r}")
    return found


def grid(value: Any) -> tuple[int, int] | None:
    """Height and width in latent pixels; None stays."""
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Iterable) or len(sides := tuple(value)) != 2:
        raise UserError(f"FeraConfig: grid is (height, width) in latent pixels, got {value!r}")
    return whole("each side of grid", sides[0], 1), whole("each side of grid", sides[1], 1)


def texts(name: str, value: Any) -> tuple[str, ...]:
    """Texts in their order; one alone need not be in a list."""
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (None,)
    if not all(isinstance(text, str) for text in found):
        raise UserError(f"FeraConfig: {name} is a list of names, got {value!r}")
    return found


def shapes(name: str, value: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of nested lists of numbers, by their names."""
    try:
        return {str(key): np.asarray(item, dtype=np.float64).shape for key, item in value.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"FeraConfig: {name} holds matrices of numbers by their names: {error}") from error


def _real(value: Any) -> float | None:
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return float(value) if real and math.isfinite(value) else None
