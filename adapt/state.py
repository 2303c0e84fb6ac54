"""Run directories: what lies at `out` while a run trains, and how that becomes a finished run.

While it trains, `out` holds `config.json` (the resolved settings) and `state/` (checkpoints, see `adapt.checkpoint`).
A finished run has `run.json`, written last, after everything that it speaks of; `config.json` and `state/` are then
removed.  A run that replaces a finished one trains under a hidden name beside it and takes its place at the end.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectra.errors import UserError

FORMAT = 1
RECORD, CONFIG = "run.json", "config.json"
STATE, ADAPTER, PREVIEWS, LOGS = "state", "adapter", "previews", "logs"
STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG, errno.ESTALE}
"""Numbers of errors of disks."""
PARTIAL = ".partial"
"""Ending of hidden files and folders that are being written."""


@dataclass(frozen=True)
class Home:
    """Where a run is written: `folder` is `out` itself, or a hidden place beside the finished run that it replaces."""

    out: Path
    folder: Path

    @property
    def states(self) -> Path:
        """The folder of its checkpoints."""
        return self.folder / STATE


def claim(out: Path, *, overwrite: bool = False, resume: bool = True) -> Home:
    """The place for a run, made and writable; what an unfinished run of that name has kept stays in it.

    Raises:
        UserError: there is a finished run (without `overwrite`), an unfinished one (without `resume` and `overwrite`),
            or something that is no run; or the place cannot be written.
    """
    if not out.name:
        raise UserError(f"{str(out)!r} is no name for a run directory; give a path such as runs/style-fera")
    try:
        spare = _settle(out)
        replaces = is_finished(out)
        if replaces and not overwrite:
            raise UserError(
                f"{out} exists; choose another name, remove it, or give --overwrite; "
                "to train it further, name it as start_from of a new run"
            )
        folder = spare if replaces else out
        _check_free(folder, overwrite, resume)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STATE).mkdir(exist_ok=True)
        if not os.access(folder / STATE, os.W_OK):  # an unfinished run on a disk that has become read-only
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another place for the run") from None
    return Home(out, folder)


def _check_free(folder: Path, overwrite: bool, resume: bool) -> None:
    """UserError unless the folder is absent, empty, or an unfinished run; that one is removed if it may be."""
    if not (folder.exists() or folder.is_symlink()) or is_bare(folder):
        return
    if read_begun(folder) is None:
        words = " and is not a finished run, so it will not be overwritten" if overwrite else ""
        raise UserError(f"{folder} exists{words}; choose another name")
    if not resume:
        if not overwrite:
            raise UserError(
                f"{folder} holds an unfinished run; let it go on (resume = true), choose another name, "
                "or give --overwrite to begin it anew"
            )
        with held(folder):
            shutil.rmtree(folder)


def is_bare(folder: Path) -> bool:
    """True for a folder in which no run has begun: nothing inside, or an empty `state` and a file half written."""
    inside = list(folder.iterdir()) if folder.is_dir() else [folder]
    return all(
        path.name == f".{CONFIG}{PARTIAL}" or (path.name == STATE and path.is_dir() and not any(path.iterdir()))
        for path in inside
    )


def _settle(out: Path) -> Path:
    """Finish a replacement that was interrupted; returns the hidden place of the next one."""
    spare, old = out.with_name(f".{out.name}.replacing"), out.with_name(f".{out.name}.replaced")
    if is_finished(spare):
        _swap(spare, out, old)
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
    return spare


def _swap(spare: Path, out: Path, old: Path) -> None:
    """Put `spare` in the place of `out`; an old run steps aside first and comes back if the rename fails."""
    if not out.exists():
        spare.rename(out)
        return
    shutil.rmtree(old, ignore_errors=True)
    out.rename(old)
    try:
        spare.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def held(folder: Path, doing: str = "training") -> Iterator[None]:
    """Inside, no other process may train (or do what `doing` says) in the folder; UserError if one does.

    The lock is the operating system's and ends with the process.  Where there is none (Windows, some network file
    systems) nothing is locked.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is {doing} {folder}; wait for it, or choose another name") from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def begin(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write `config.json`: from now on the folder is an unfinished run."""
    write_json(folder / CONFIG, {"format": FORMAT, "status": "training", **settings})


def read_begun(folder: Path) -> dict[str, Any] | None:
    """What `config.json` of an unfinished run says; None where there is no such run."""
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


def give_up(folder: Path) -> None:
    """Remove an unfinished run that has kept no state: all that it wrote, and nothing else."""
    kept = (path for path in (folder / STATE).glob("*") if not path.name.startswith("."))
    if is_finished(folder) or any(kept):
        return
    for name in (STATE, PREVIEWS, LOGS):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / CONFIG).unlink(missing_ok=True)
    with suppress(OSError):  # something of somebody else's is in it
        folder.rmdir()


def place(folder: Path, name: str, write: Callable[[Path], object]) -> Path:
    """Let `write` make a file or folder under a hidden name, then give it its name; an older one is replaced."""
    partial, final = folder / f".{name}{PARTIAL}", folder / name
    remove(partial)
    try:
        write(partial)
        sync(partial)
        if partial.is_dir():
            remove(final)  # a folder cannot be renamed onto another one
        partial.replace(final)
    except BaseException:
        _discard(partial)
        raise
    _sync_one(folder)
    return final


def unwritable(error: Exception, folder: Path) -> str | None:
    """What could not be written and why, where the error is one of storage; None for any other error."""
    number: int | None = getattr(error, "errno", None)
    name: str | bytes | None = getattr(error, "filename", None)
    place = None if name is None else Path(os.fsdecode(name))
    inside = place is None or place.is_relative_to(folder)
    full = number in STORAGE or (number is None and "os error" in str(error))  # the latter by safetensors
    if not (full or (place is not None and inside)):
        return None
    what = f"the run in {folder}" if inside else str(place)
    return f"{what}: {getattr(error, 'strerror', None) or error}"


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _discard(path: Path) -> None:
    """Remove a file or a folder as far as it can be: what went wrong before is what has to be told."""
    with suppress(OSError):  # threads of `write` may still be at work inside
        remove(path)


def publish(home: Home, record: Mapping[str, Any]) -> None:
    """Make a finished run of the home: `run.json` first, then what is not needed any more goes, then the swap."""
    write_record(home.folder, record)
    shutil.rmtree(home.states, ignore_errors=True)
    (home.folder / CONFIG).unlink(missing_ok=True)
    if home.folder != home.out:
        _swap(home.folder, home.out, home.out.with_name(f".{home.out.name}.replaced"))


def sync(path: Path) -> None:
    """Push a file, or a folder with everything in it, to the disk."""
    for inner in [*path.rglob("*"), path] if path.is_dir() else [path]:
        _sync_one(inner)


def _sync_one(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # folders cannot be opened there
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    place(path.parent, path.name, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `run.json`, the last file of a run."""
    write_json(folder / RECORD, {"format": FORMAT, "status": "complete", **record})


def is_finished(run: Path) -> bool:
    """True for the directory of a finished run, of any format."""
    return (run / RECORD).is_file()


def read_record(run: Path) -> dict[str, Any]:
    """The record of a finished run; UserError where there is none."""
    path = run / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        kept = "; its training is unfinished: give the same `adapt train` again" if read_begun(run) else ""
        raise UserError(f"{run} is not a finished run: it has no {RECORD}{kept}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); train this run again") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("status") != "complete":
        raise UserError(f"{path} is not the record of a finished run of format {FORMAT}")
    return record
