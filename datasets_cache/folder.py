"""Image folders: `x.png` beside `x.txt`, or pictures with a `metadata.jsonl`."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from spectra.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
METADATA = "metadata.jsonl"
CAPTION_FIELDS = ("text", "caption", "prompt")


@dataclass(frozen=True)
class Item:
    """One picture file and its caption."""

    path: Path
    caption: str

    @property
    def source(self) -> Path:
        """The file that a person opens to change the caption, or the picture where a `metadata.jsonl` has it."""
        beside = self.path.with_suffix(".txt")
        return beside if beside.exists() else self.path


def open_dataset(folder: Path | str, *, apart: Iterable[Path | str] = ()) -> list[Item]:
    """List the captioned pictures of a folder, in order of file name.

    Args:
        folder: where the pictures lie; those of sub-folders are not read.
        apart: sub-folders that are read as a data set of their own, such as the held-out one.

    Raises:
        UserError: not a folder, no pictures, pictures in another sub-folder, a picture without a caption or a caption
            without a picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"the data folder {folder} {what}; give a folder of pictures with captions")
    below = _below(folder, {Path(other).resolve() for other in apart})
    if below is not None:
        raise UserError(
            f"the data folder {folder} has pictures in its sub-folder {below}, and sub-folders are not read; "
            f"move them into {folder} or give their folder"
        )
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not pictures:
        raise UserError(
            f"the data folder {folder} has no pictures ({', '.join(SUFFIXES)}); put some there, with captions"
        )
    metadata = folder / METADATA
    return _from_metadata(metadata, pictures) if metadata.exists() else _from_text_files(folder, pictures)


def find_splits(folder: Path | str) -> tuple[Path, Path | None]:
    """The training folder and the held-out folder, if one lies beside it.

    `data` with `data/train` and `data/heldout` inside works, and so does `data/train` itself.
    """
    folder = Path(folder)
    train = folder / "train" if (folder / "train").is_dir() else folder
    heldout = train.parent / "heldout"
    return train, heldout if train.name == "train" and heldout.is_dir() else None


def _below(folder: Path, apart: set[Path]) -> Path | None:
    """A folder inside `folder` that holds pictures, hidden ones and those `apart` left out."""
    for root, inner, files in os.walk(folder):
        here = Path(root)
        inner[:] = sorted(name for name in inner if name[0] != "." and (here / name).resolve() not in apart)
        if here != folder and any(Path(file).suffix.lower() in SUFFIXES and file[0] != "." for file in files):
            return here
    return None


def names(paths: Iterable[Path | str], most: int = 5) -> str:
    """A few file names for a message: `a.png, b.png and 7 more`."""
    listed = [Path(path).name for path in paths]
    rest = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {rest} more" if rest > 0 else "")


def _from_text_files(folder: Path, pictures: list[Path]) -> list[Item]:
    captions = {path.stem: path for path in sorted(folder.glob("*.txt"))}
    twice = [stem for stem, count in Counter(path.stem for path in pictures).items() if count > 1]
    if twice:
        raise UserError(f"{folder} has several pictures of one name ({names(twice)}), so their caption is ambiguous")
    bare = [path for path in pictures if path.stem not in captions]
    if bare:
        raise UserError(f"{folder} has pictures without a caption file: {names(bare)}; write x.txt beside x.png")
    stray = sorted(captions.keys() - {path.stem for path in pictures})
    if stray:
        raise UserError(f"{folder} has captions without a picture: {names(captions[stem] for stem in stray)}")
    return [Item(path, _read_caption(captions[path.stem])) for path in pictures]


def _read_caption(path: Path) -> str:
    caption = " ".join(_read_text(path).split())
    if not caption:
        raise UserError(f"the caption {path} is empty; write what the picture shows")
    return caption


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"cannot read the captions in {path}: {error.strerror}") from None


def _from_metadata(metadata: Path, pictures: list[Path]) -> list[Item]:
    folder = metadata.parent
    if any(folder.glob("*.txt")):
        raise UserError(f"{folder} has both {METADATA} and caption files (*.txt); keep one of the two")
    captions: dict[Path, str] = {}
    for number, line in enumerate(_read_text(metadata).splitlines(), start=1):
        if line.strip():
            name, caption = _metadata_row(metadata, number, line)
            if folder / name in captions:
                raise UserError(f"{metadata}, line {number}: {name!r} is listed twice")
            captions[folder / name] = caption
    stray = sorted(captions.keys() - set(pictures))
    if stray:
        raise UserError(f"{metadata} has captions without a picture in {folder}: {names(stray)}")
    bare = [path for path in pictures if path not in captions]
    if bare:
        raise UserError(f"{folder} has pictures without a caption in {METADATA}: {names(bare)}")
    return [Item(path, captions[path]) for path in pictures]


def _metadata_row(metadata: Path, number: int, line: str) -> tuple[str, str]:
    """`(file name, caption)` of one line; the name stays inside the folder."""
    where = f"{metadata}, line {number}"
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        raise UserError(f"{where} is not JSON; write one object a line") from None
    name = row.get("file_name") if isinstance(row, dict) else None
    if not isinstance(name, str) or Path(name).name != name:
        raise UserError(f"{where} needs a 'file_name' that names a picture in the same folder")
    caption = next((row[field] for field in CAPTION_FIELDS if isinstance(row.get(field), str)), "")
    if not caption.strip():
        raise UserError(f"{where} has no caption for {name!r}; write it under 'text'")
    return name, " ".join(caption.split())
