"""A picture or clip and its captions, before anything is decoded; and how lists of names are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from spectra.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
CLIP_SUFFIXES = (".gif", ".apng", ".webp", ".png")
"""Files that may hold several frames."""
FRAMES = ".frames"
"""Ending of a folder whose numbered pictures are the frames of one clip."""
CAPTION_FIELDS = ("text", "caption", "prompt")
"""Where captions are looked for, in this order, when the column asked for is the default one."""

Loader = Callable[[], tuple[bytes, ...]]


class BadPicture(UserError):  # noqa: N818
    """A picture that cannot be trained on, with the reason on its own."""

    def __init__(self, name: object, reason: str, sentence: str | None = None) -> None:
        super().__init__(sentence or f"the picture {name} {reason}; replace or remove it")
        self.name, self.reason = str(name), reason


@dataclass(frozen=True)
class Reading:
    """How sources are read; the fields are the settings of `adapt.settings.data`."""

    split: str = "train"
    image_column: str = "image"
    caption_column: str = CAPTION_FIELDS[0]
    default_caption: str | None = None
    """Caption of pictures that have none; None makes such a picture an error."""
    clips: bool = False
    """True if animations and folders of frames are read as clips."""
    tables: Path | None = None
    """Where tar and parquet files are unpacked for random access; default: the cache of `datasets`."""


@dataclass(frozen=True)
class Item:
    """One picture or clip and its captions."""

    path: Path
    """The file, or a name for a picture that lies in another file: `shard.tar/000.png`."""
    captions: tuple[str, ...]
    load: Loader | None = field(default=None, compare=False, repr=False)
    """Gives the bytes of what is no file of its own."""

    @property
    def caption(self) -> str:
        """The first caption."""
        return self.captions[0]

    @property
    def source(self) -> Path:
        """The file that a person opens to change the caption, or the picture where a table has it."""
        beside = self.path.with_suffix(".txt")
        return beside if beside.exists() else self.path

    def read(self) -> tuple[bytes, ...]:
        """Bytes of the picture; of each frame, where the frames are files. UserError where they cannot be read."""
        if self.load is not None:
            return self.load()
        if self.path.is_dir():
            return tuple(read_bytes(frame) for frame in frames_of(self.path))
        return (read_bytes(self.path),)


def read_bytes(path: Path) -> bytes:
    """The bytes of a picture file; UserError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        sentence = f"cannot read the picture {path}: {error.strerror}"
        raise BadPicture(path, f"cannot be read ({error.strerror})", sentence) from None


def frames_of(folder: Path) -> list[Path]:
    """The numbered pictures of a clip's folder, by number. BadPicture where one has no number, or two have the same."""
    frames = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != "."]
    unnumbered = sorted(path for path in frames if not path.stem.isdecimal())
    if unnumbered:
        raise BadPicture(folder, f"has frames without a number in their names ({names(unnumbered)})")
    if len({int(path.stem) for path in frames}) < len(frames):
        raise BadPicture(folder, "has several frames of one number")
    return sorted(frames, key=lambda path: int(path.stem))


def names(paths: Iterable[Path | str], most: int = 5) -> str:
    """A few file names for a message: `a.png, b.png and 7 more`."""
    return listed((Path(path).name for path in paths), most)


def listed(texts: Iterable[str], most: int = 5) -> str:
    """A few texts for a message: `one, two and 7 more`."""
    every = list(texts)
    rest = len(every) - most
    return ", ".join(every[:most]) + (f" and {rest} more" if rest > 0 else "")


def tidy(value: object) -> tuple[str, ...]:
    """The captions in a value of a table: a text, or a list of texts; empty ones are left out.

    Raises TypeError for anything else.
    """
    texts = [value] if isinstance(value, str) or value is None else value
    if not isinstance(texts, list | tuple) or not all(text is None or isinstance(text, str) for text in texts):
        raise TypeError(f"a value of type {type(value).__name__} is neither a text nor a list of texts")
    return tuple(caption for text in texts if text and (caption := " ".join(text.split())))
