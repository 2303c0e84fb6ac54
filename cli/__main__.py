"""`python -m cli spectra ...` or `python -m cli adapt ...`: the commands without their scripts."""

from __future__ import annotations

import sys

from cli import main_adapt, main_spectra

COMMANDS = {"spectra": main_spectra, "adapt": main_adapt}

if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
    sys.exit("usage: python -m cli spectra|adapt ...")
COMMANDS[sys.argv.pop(1)]()
