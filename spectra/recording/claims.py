"""A pipeline has one recorder at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from spectra.errors import UserError

_recorded: dict[int, Any] = {}  # by id; the pipelines are held, so that an id stays its own
_lock = threading.Lock()


@contextmanager
def claimed(pipe: Any) -> Iterator[None]:
    """Hold the pipeline for one recorder. Raises UserError if there is one."""
    with _lock:
        if id(pipe) in _recorded:
            raise UserError(f"this {type(pipe).__name__} is being recorded already; end that first")
        _recorded[id(pipe)] = pipe
    try:
        yield
    finally:
        with _lock:
            del _recorded[id(pipe)]
