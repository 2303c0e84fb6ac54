"""What a person may call data: a folder, parquet or tar files, a saved data set, a name on the hub."""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from datasets_cache.folder import find_splits, open_folder, pictures_in
from datasets_cache.items import Item, Reading, listed
from spectra.errors import UserError

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
FILE_KINDS = {".parquet": "parquet", ".tar": "webdataset"}
"""Ending of a file -> its builder in `datasets`."""


def open_dataset(data: Path | str, reading: Reading | None = None, *, apart: Iterable[Path | str] = ()) -> list[Item]:
    """List the captioned pictures of a source; nothing is decoded yet.

    Args:
        data: a folder of pictures with captions, a folder of parquet or tar files, a folder that
            `datasets.Dataset.save_to_disk` wrote, parquet or tar files (`*` and `{000..012}` stand for several), or the
            name of a data set on the Hugging Face hub.
        reading: columns, split and default caption.
        apart: sub-folders of a folder of pictures that are data sets of their own, such as the held-out one.

    Raises:
        UserError: nothing of that name, nothing in it, a missing column, pictures without captions.
    """
    reading = reading or Reading()
    kind, files = decide(str(data))
    if kind == "pictures":
        return open_folder(files[0], reading, apart)
    from datasets_cache import tables

    openers: dict[str, Callable[[], list[Item]]] = {
        "saved": lambda: tables.open_saved(files[0], reading),
        "files": lambda: tables.open_folder_of_files(files[0], reading),
        "hub": lambda: tables.open_hub(str(data), reading),
    }
    return openers[kind]() if kind in openers else tables.open_files(kind, files, str(data), reading)


def decide(data: str) -> tuple[str, list[Path]]:
    """What kind of source a text names, and its folder or files.

    The kinds are `saved`, `files` and `pictures` (folders), `parquet` and `webdataset` (files), and `hub`. What names a
    file (`.parquet`, `.tar`) is never one of the hub, nor `owner/name` where `owner` is a folder on this machine.
    """
    folder = Path(data).expanduser()
    if folder.is_dir():
        return next(kind for kind, fits in FOLDER_KINDS if fits(folder)), [folder]
    if files := matching(data):
        kinds = {FILE_KINDS.get(file.suffix.lower(), "") for file in files}
        if len(kinds) > 1 or "" in kinds:
            known = " or ".join(FILE_KINDS)
            raise UserError(f"the data {data} is not a folder, nor files of one kind ({known}); give one of them")
        return kinds.pop(), files
    if HUB_NAME.fullmatch(data) and not _is_here(folder):
        return "hub", []
    raise UserError(
        f"the data folder {data} does not exist{_near(folder)}; give a folder of pictures with captions, parquet or "
        "tar files, or the name of a data set on the hub (owner/name)"
    )


def _is_here(path: Path) -> bool:
    """True if a name can only be meant for this machine, though `owner/name` of the hub looks alike."""
    return path.parent.is_dir() or path.suffix.lower() in FILE_KINDS


def _near(path: Path) -> str:
    """What a name that is not there may have been meant for."""
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    return f" (is it {path.parent / near[0]}?)" if near else ""


def splits_of(data: Path | str) -> tuple[str, str | None]:
    """The source to train on and the held-out folder beside it, if the source is a folder with both (`find_splits`)."""
    folder = Path(data).expanduser()
    if not folder.is_dir() or _is_saved(folder):
        return str(data), None
    train, heldout = find_splits(folder)
    return str(train), None if heldout is None else str(heldout)


def matching(pattern: str) -> list[Path]:
    """The files that a name with `*`, `?`, `[...]`, `{a,b}` and `{000..012}` stands for, in order.

    Raises UserError if some of them are there and others are not.
    """
    names = [str(Path(name).expanduser()) for name in expand(pattern)]
    found = [sorted(glob.glob(name)) if glob.has_magic(name) and not Path(name).exists() else [name] for name in names]
    missing = [name for name, files in zip(names, found, strict=True) if not files or not Path(files[0]).exists()]
    if len(missing) == len(names):
        return []
    if missing:
        raise UserError(f"some files of {pattern} do not exist: {listed(missing)}; correct the range")
    return [Path(file) for files in found for file in files]


def expand(pattern: str) -> list[str]:
    """`a-{00..02}.tar` -> three names; `{a,b}.tar` -> two. Numbers keep the width of the first."""
    brace = re.search(r"\{([^{}]*)\}", pattern)
    if brace is None:
        return [pattern]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", brace[1])
    if numbers:
        first, last, width = int(numbers[1]), int(numbers[2]), len(numbers[1])
        options = [f"{number:0{width}d}" for number in range(first, last + 1)]
    else:
        options = brace[1].split(",")
    ends = expand(pattern[brace.end() :])
    return [pattern[: brace.start()] + option + end for option in options for end in ends]


def _is_saved(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()
    )


def _has_files(folder: Path) -> bool:
    return not pictures_in(folder, True) and any(
        file for suffix in FILE_KINDS for file in folder.rglob(f"*{suffix}") if not file.name.startswith("metadata.")
    )


FOLDER_KINDS: tuple[tuple[str, Callable[[Path], bool]], ...] = (
    ("saved", _is_saved),
    ("files", _has_files),
    ("pictures", lambda folder: True),
)
"""Kinds of folder; the first that fits is taken."""
