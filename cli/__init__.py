"""The commands `spectra` and `adapt`: they parse, call the library and print. Nothing heavy is imported here."""

from __future__ import annotations

import sys


def main_spectra() -> None:
    """Entry point of the command `spectra`."""
    from cli import spectra_app
    from cli.common import run

    sys.exit(run(spectra_app.app, "spectra"))


def main_adapt() -> None:
    """Entry point of the command `adapt`."""
    from cli import adapt_app
    from cli.common import run

    sys.exit(run(adapt_app.app, "adapt"))
