"""Image folders: `x.png` beside `x.txt`, or pictures with a table of captions; clips where they are asked for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from datasets_cache.items import CLIP_SUFFIXES, FRAMES, SUFFIXES, Item, Reading, names
from datasets_cache.metadata import find_metadata, from_metadata, read_text
from spectra.errors import UserError


def open_folder(folder: Path, reading: Reading, apart: Iterable[Path | str] = ()) -> list[Item]:
    """List the captioned pictures of a folder, in order of file name.

    Args:
        folder: where the pictures lie; those of sub-folders are not read.
        reading: which captions are taken, and whether clips are read.
        apart: sub-folders that are read as a data set of their own, such as the held-out one.

    Raises:
        UserError: no pictures, pictures in another sub-folder, a picture without a caption or a caption without a
            picture.
    """
    below = _below(folder, {Path(other).resolve() for other in apart}, reading.clips)
    if below is not None:
        clip = " (a clip, which needs the setting frames)" if below.suffix == FRAMES and below.parent == folder else ""
        raise UserError(
            f"the data folder {folder} has pictures in its sub-folder {below}{clip}, and sub-folders are not read; "
            f"move them into {folder} or give their folder"
        )
    pictures = pictures_in(folder, reading.clips)
    if not pictures:
        raise UserError(_nothing(folder, reading))
    metadata = find_metadata(folder)
    if metadata is None:
        return _from_text_files(folder, pictures, reading)
    return from_metadata(metadata, pictures, reading)


def pictures_in(folder: Path, clips: bool) -> list[Path]:
    """Pictures of a folder by name; with `clips`, also animations and folders of frames."""
    known = {*SUFFIXES, *(CLIP_SUFFIXES if clips else ())}
    return sorted(
        path
        for path in folder.iterdir()
        if path.name[0] != "."
        and ((path.suffix.lower() in known and path.is_file()) or (clips and path.suffix == FRAMES and path.is_dir()))
    )


def find_splits(folder: Path | str) -> tuple[Path, Path | None]:
    """The training folder and the held-out folder, if one lies beside it.

    `data` with `data/train` and `data/heldout` inside works, and so does `data/train` itself.
    """
    folder = Path(folder)
    train = folder / "train" if (folder / "train").is_dir() else folder
    heldout = train.parent / "heldout"
    return train, heldout if train.name == "train" and heldout.is_dir() else None


def _nothing(folder: Path, reading: Reading) -> str:
    clips = "" if reading.clips or not pictures_in(folder, True) else "; it has clips, which need the setting frames"
    return f"the data folder {folder} has no pictures ({', '.join(SUFFIXES)}){clips}; put some there, with captions"


def _below(folder: Path, apart: set[Path], clips: bool) -> Path | None:
    """A folder inside `folder` that holds pictures, hidden ones, clips and those `apart` left out."""
    for root, inner, files in os.walk(folder):
        here = Path(root)
        inner[:] = sorted(name for name in inner if name[0] != "." and (here / name).resolve() not in apart)
        if clips and here == folder:
            inner[:] = [name for name in inner if not name.endswith(FRAMES)]
        if here != folder and any(Path(file).suffix.lower() in SUFFIXES and file[0] != "." for file in files):
            return here
    return None


def _from_text_files(folder: Path, pictures: list[Path], reading: Reading) -> list[Item]:
    captions = {path.stem: path for path in sorted(folder.glob("[!.]*.txt"))}
    twice = [stem for stem, count in Counter(path.stem for path in pictures).items() if count > 1]
    if twice:
        raise UserError(f"{folder} has several pictures of one name ({names(twice)}), so their caption is ambiguous")
    bare = [path for path in pictures if path.stem not in captions]
    if bare and reading.default_caption is None:
        raise UserError(
            f"{folder} has pictures without a caption file: {names(bare)}; "
            "write x.txt beside x.png, or give a default_caption"
        )
    stray = sorted(captions.keys() - {path.stem for path in pictures})
    if stray:
        raise UserError(f"{folder} has captions without a picture: {names(captions[stem] for stem in stray)}")
    return [Item(path, (_read_caption(captions.get(path.stem), reading),)) for path in pictures]


def _read_caption(path: Path | None, reading: Reading) -> str:
    caption = " ".join(read_text(path).split()) if path else ""
    if not caption and reading.default_caption is None:
        raise UserError(f"the caption {path} is empty; write what the picture shows")
    return caption or reading.default_caption or ""
