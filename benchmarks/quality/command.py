"""What the commands of the experiment have in common: how options are read, and errors told in one sentence."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from spectra.errors import UserError


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the module's own text, line by line."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)


def ended(name: str, work: Callable[[], object]) -> int:
    """Do the work of a command -> its exit code: 2, with a sentence on stderr, for what the person can mend."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes that it starts inherit this
    try:
        work()
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    return 0
