"""Functions that run in a fork of this process and may be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

PATIENCE = 300.0  # seconds that one life may take at most


def live(body: Callable[[], None], seconds: float = PATIENCE) -> int:
    """Run a function in a fork, killed when its time is up -> its exit code, negative for signals."""
    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    process.join(seconds)
    if process.is_alive() and process.pid:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def answer(body: Callable[[], Any]) -> Any:
    """What a function returns in a fork: this process stays without the threads of the store's library."""
    here, there = multiprocessing.Pipe(duplex=False)
    code = live(lambda: there.send(body()))
    assert code == 0, f"a look at what was kept failed with exit code {code}"
    return here.recv()
