"""Checkpoints of an unfinished run: written aside, marked complete, renamed; only then are older ones removed.

`state/step-000120/` holds the state after 120 steps: `adapter/` (a PEFT folder that `load_adapter` reads), the tensors
and numbers of `adapt.checkpoint_tree`, and `complete.json`, written last, with the size and SHA-256 of every file.  A
folder without its marker, or whose files are not the marked ones, is torn and never resumed from.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from adapt import state
from spectra.errors import UserError

FORMAT = 1
MARKER = "complete.json"
NAME = re.compile(r"step-(\d+)")


class TornError(Exception):
    """A checkpoint is not what was written; the message says why."""


@dataclass(frozen=True)
class Found:
    """The newest complete checkpoint, if there is one, and what was passed over."""

    path: Path | None
    step: int
    """Training steps done; 0 without a checkpoint."""
    torn: tuple[str, ...]
    """A clause for every newer checkpoint that could not be used."""


def name_of(step: int) -> str:
    """Folder of the state after so many steps."""
    return f"step-{step:06d}"


def write(states: Path, step: int, fill: Callable[[Path], None]) -> Path:
    """Write the checkpoint of a step, whole or not at all; `fill` puts the files into the folder that it is given.

    Raises:
        UserError: the disk is full or the folder cannot be written; earlier checkpoints are then as they were.
    """
    try:
        return state.place(states, name_of(step), lambda partial: _fill(partial, step, fill))
    except (OSError, SafetensorError, UserError) as error:
        reason = getattr(error, "strerror", None) or error
        kept = newest(states, check=False).path
        others = f"{kept} is whole: make room and give the same command again" if kept else "nothing was kept before"
        raise UserError(f"cannot save the state of step {step} in {states}: {reason}; {others}") from error


def _fill(partial: Path, step: int, fill: Callable[[Path], None]) -> None:
    partial.mkdir()
    fill(partial)
    state.sync(partial)
    _mark(partial, step)


def _mark(folder: Path, step: int) -> None:
    """Write the marker: what the folder holds, now that all of it is on the disk."""
    files = {str(path.relative_to(folder).as_posix()): _seal(path) for path in _files(folder)}
    state.write_json(folder / MARKER, {"format": FORMAT, "step": step, "files": files})


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MARKER)


def _seal(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def verify(folder: Path) -> None:
    """TornError unless the folder holds exactly what its marker says."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        files = marker["files"]
        known = marker["format"] == FORMAT and name_of(marker["step"]) == folder.name
    except FileNotFoundError:
        raise TornError(f"{folder.name} has no {MARKER}") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise TornError(f"{MARKER} of {folder.name} cannot be read") from None
    if not known:
        raise TornError(f"{MARKER} of {folder.name} is that of another state or format")
    found = {str(path.relative_to(folder).as_posix()): _seal(path) for path in _files(folder)}
    wrong = sorted(name for name in files.keys() | found.keys() if files.get(name) != found.get(name))
    if wrong:
        raise TornError(f"{wrong[0]} in {folder.name} is not what was written")


def check_names(states: Path) -> None:
    """UserError if a complete checkpoint lies under a name of its own, where training would not find it."""
    for marker in sorted(states.glob(f"*/{MARKER}")):
        folder = marker.parent
        if not (folder.name.startswith(".") or NAME.fullmatch(folder.name)):
            raise UserError(
                f"{folder} holds a state under a name that is not a state's; call it step- and the step that its "
                f"{MARKER} says, six digits wide, or move it elsewhere"
            )


def steps_of(states: Path) -> list[tuple[int, Path]]:
    """(step, folder) of everything with the name of a checkpoint, newest first."""
    named = [(NAME.fullmatch(path.name), path) for path in states.glob("step-*")]
    return sorted(((int(found[1]), path) for found, path in named if found), reverse=True)


def newest(states: Path, *, check: bool = True) -> Found:
    """The newest complete checkpoint; `check` reads every byte of it, else the marker's presence is enough."""
    torn: list[str] = []
    for step, path in steps_of(states):
        try:
            if check:
                verify(path)
            elif not (path / MARKER).is_file():
                continue
        except TornError as error:
            torn.append(str(error))
            continue
        return Found(path, step, tuple(torn))
    return Found(None, 0, tuple(torn))


def prune(states: Path, step: int, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints up to `step`, which is complete; torn newer ones and drafts too."""
    every = [path for _, path in steps_of(states)]
    whole = [path for found, path in steps_of(states) if found <= step and (path / MARKER).is_file()]
    drafts = list(states.glob(f".*{state.PARTIAL}"))
    for path in drafts + every:
        if path not in whole[:keep]:
            state.remove(path)
