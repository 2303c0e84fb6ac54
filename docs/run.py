"""Run pages of this folder: every shell and Python block in order, in an empty folder for each page.

    python docs/run.py docs/tour.md docs/howto/train.md --pictures docs/images

Blocks marked ```sh hold commands that are run, those marked ```python share their names. Blocks marked ```bash and
```py need a GPU, several devices or a large model: they are not run, and the tests check syntax and options.
A command whose comment says `exit code 1` has to end with it. A page shows its pictures as
`images/NAME`; a run that writes one of that name renews it with --pictures.
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
from collections.abc import Iterator, Sequence
from pathlib import Path

BLOCK = re.compile(r"^```(sh|python|bash|py)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PICTURE = re.compile(r"!\[[^\]]+\]\((?:\.\./)?images/([\w.-]+)\)")
INLINE = re.compile(r"(?<!`)`((?:spectra|adapt) [a-z][^`\n]*)`(?!`)")
CODE = re.compile(r"#.*exit code (\d+)")
PROGRAMS = ("spectra", "adapt")


def blocks(page: Path) -> list[tuple[str, str]]:
    """The blocks of a page as (language, code)."""
    return [(found[1], found[2]) for found in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def pictures(page: Path) -> list[str]:
    """Names of the pictures that a page shows."""
    return PICTURE.findall(page.read_text(encoding="utf-8"))


def made(page: Path) -> list[str]:
    """Names of the pictures that a page shows and its own blocks write."""
    code = "".join(code for language, code in blocks(page) if language in ("sh", "python"))
    return [name for name in pictures(page) if name in code]


def lines(code: str) -> Iterator[tuple[list[str], int]]:
    """The commands of a shell block as words, and the exit code that each has to end with."""
    for line in code.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            said = CODE.search(line)
            yield words, int(said[1]) if said else 0


def own_command(words: Sequence[str]) -> list[str]:
    """The part of a command that our programs read: `accelerate launch ... -m cli adapt train x` -> adapt train x."""
    start = words.index("cli") + 1 if "cli" in words and words[0] not in PROGRAMS else 0
    return list(words[start:]) if words[start : start + 1] and words[start] in PROGRAMS else []


def commands(page: Path) -> list[list[str]]:
    """Every whole command of our programs in the blocks of a page, run there or not."""
    shells = (code for language, code in blocks(page) if language in ("sh", "bash"))
    return [own for code in shells for words, _ in lines(code) if (own := own_command(words))]


def mentions(page: Path) -> list[list[str]]:
    """Commands that the text of a page mentions, which may lack their arguments."""
    return [shlex.split(found) for found in INLINE.findall(page.read_text(encoding="utf-8"))]


def run(page: Path, folder: Path) -> str:
    """Run the blocks of a page in `folder` -> what they printed. Raises RuntimeError where a command fails."""
    names: dict[str, object] = {}
    said = []
    for language, code in blocks(page):
        if language == "sh":
            said += [_command(words, ends, folder) for words, ends in lines(code)]
        elif language == "python":
            said.append(_python(code, folder, names))
    return "".join(said)


def _command(words: list[str], ends: int, folder: Path) -> str:
    command = [sys.executable, "-m", "cli", *words] if words[0] in PROGRAMS else words
    command = [sys.executable, *words[1:]] if words[0] == "python" else command
    done = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode != ends:
        raise RuntimeError(f"{shlex.join(words)} ended with {done.returncode}: {done.stderr}")
    return done.stdout + (done.stderr if ends else "")


def _python(code: str, folder: Path, names: dict[str, object]) -> str:
    out = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        exec(compile(code, "a block of the page", "exec"), names)
    return out.getvalue()


def main() -> None:
    """Run pages, print what they printed, and copy their pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, nargs="+")
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    for page in given.pages:
        with tempfile.TemporaryDirectory() as name:
            print(f"== {page}\n{run(page, Path(name))}", flush=True)
            for picture in made(page) if given.pictures else []:
                shutil.copy(Path(name) / picture, given.pictures / picture)


if __name__ == "__main__":
    main()
