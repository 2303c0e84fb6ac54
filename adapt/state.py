"""Run directories: written under a hidden name, renamed when whole, so that what has the name of a run is one."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spectra.errors import UserError

FORMAT = 1
RECORD = "run.json"
ADAPTER = "adapter"


@contextmanager
def run_directory(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a hidden folder beside `out`; rename it to `out` on success, remove it on any exception.

    Raises:
        UserError: `out` exists (with `overwrite`: and is not a finished run), or cannot be written.
    """
    check_free(out, overwrite)
    scratch = _scratch(out)
    try:
        yield scratch
        _sync(scratch)
        _publish(scratch, out, overwrite)
    except OSError as error:
        raise UserError(f"cannot write the run {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_free(out: Path, overwrite: bool) -> None:
    """UserError unless a run may be written at `out`."""
    if not out.name:
        raise UserError(f"{str(out)!r} is no name for a run directory; give a path such as runs/style-fera")
    if not (out.exists() or out.is_symlink()):
        return
    if not overwrite:
        raise UserError(f"{out} exists; choose another name, remove it, or give --overwrite")
    if not (out / RECORD).is_file():
        raise UserError(f"{out} exists and is not a finished run, so it will not be overwritten; choose another name")


def _scratch(out: Path) -> Path:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{out.name}.unfinished-", dir=out.parent))
    except OSError as error:
        raise UserError(f"cannot write to {out.parent}: {error.strerror}; choose another place for the run") from None


def _publish(scratch: Path, out: Path, overwrite: bool) -> None:
    """Rename; an old run steps aside first and comes back if the rename fails."""
    check_free(out, overwrite)
    scratch.chmod(0o777 & ~_umask())
    if not out.exists():
        scratch.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.replaced-", dir=out.parent))
    out.rename(old / out.name)
    try:
        scratch.rename(out)
    except OSError:
        (old / out.name).rename(out)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    """The process's file mask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync(folder: Path) -> None:
    """Push every file to the disk before the rename makes the run visible."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `run.json`, the last file of a run."""
    whole = {"format": FORMAT, "status": "complete", **record}
    text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def read_record(run: Path) -> dict[str, Any]:
    """The record of a finished run; UserError where there is none."""
    path = run / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{run} is not a finished run: it has no {RECORD}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); train this run again") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("status") != "complete":
        raise UserError(f"{path} is not the record of a finished run of format {FORMAT}")
    return record
