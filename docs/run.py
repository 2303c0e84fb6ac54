"""Run a page of this folder: every shell and Python block in order, in an empty folder.

    python docs/run.py docs/probe.md --pictures docs/images

Blocks marked ```sh hold commands of `spectra` and `adapt`; those marked ```python share their names. A page shows its
pictures as `images/NAME`; a run writes them as NAME, and --pictures copies them to where the page finds them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PICTURE = re.compile(r"!\[[^\]]+\]\(images/([\w.-]+)\)")


def blocks(page: Path) -> list[tuple[str, str]]:
    """The blocks of a page as (language, code)."""
    return [(found[1], found[2]) for found in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def pictures(page: Path) -> list[str]:
    """Names of the pictures that a page shows."""
    return PICTURE.findall(page.read_text(encoding="utf-8"))


def run(page: Path, folder: Path) -> str:
    """Run all blocks of a page in `folder` -> what they printed. Raises RuntimeError where a command fails."""
    names: dict[str, object] = {}
    said = []
    for language, code in blocks(page):
        said.append(_shell(code, folder) if language == "sh" else _python(code, folder, names))
    return "".join(said)


def _shell(code: str, folder: Path) -> str:
    said = []
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            command = [sys.executable, "-m", "cli", *words] if words[0] in ("spectra", "adapt") else words
            command = [sys.executable, *words[1:]] if words[0] == "python" else command
            done = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{line!r} ended with {done.returncode}: {done.stderr}")
            said.append(done.stdout)
    return "".join(said)


def _python(code: str, folder: Path, names: dict[str, object]) -> str:
    out = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        exec(compile(code, "a block of the page", "exec"), names)
    return out.getvalue()


def main() -> None:
    """Run a page, print what it printed, and copy its pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(run(given.page, Path(name)))
        for picture in pictures(given.page) if given.pictures else []:
            shutil.copy(Path(name) / picture, given.pictures / picture)


if __name__ == "__main__":
    main()
