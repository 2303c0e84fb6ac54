"""Pictures as a model's training sees them: a folder with captions, cut to the model's size, encoded into latents."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spectra.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from spectra.families import Family

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
CAPTIONS = ("text", "caption", "prompt")


class Picture(NamedTuple):
    """A picture file and its caption, empty if it has none."""

    path: Path
    caption: str


def find_pictures(folder: str | Path) -> list[Picture]:
    """The pictures of a folder in order of name, captioned by `x.txt` beside `x.png` or by a `metadata.jsonl`.

    Raises UserError for a folder that is missing or has no pictures, and for captions that cannot be read.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"the data folder {folder} {what}; give a folder of pictures")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise UserError(f"the data folder {folder} has no pictures ({', '.join(SUFFIXES)}); {_elsewhere(folder)}")
    table = _table(folder / "metadata.jsonl")
    return [Picture(path, table.get(path.name) or _beside(path)) for path in paths]


def _elsewhere(folder: Path) -> str:
    """What to do where a folder has no pictures: those of its own folders may be meant."""
    inner = sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    found = [str(one) for one in inner if any(path.suffix.lower() in SUFFIXES for path in one.iterdir())]
    return f"there are some in {' and in '.join(found[:3])}: give one of these" if found else "put some there"


def _beside(path: Path) -> str:
    text = path.with_suffix(".txt")
    return " ".join(_read(text).split()) if text.exists() else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the captions in {path}; save it as UTF-8 text") from error


def _table(path: Path) -> dict[str, str]:
    """File name -> caption."""
    found = {}
    for number, line in enumerate(_read(path).splitlines() if path.exists() else [], start=1):
        if line.strip():
            row = _row(line)
            if row is None:
                raise UserError(f'{path}, line {number} is not {{"file_name": ..., "text": ...}}; correct or remove it')
            found[row[0]] = row[1]
    return found


def _row(line: str) -> tuple[str, str] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        return None
    caption = next((row[name] for name in CAPTIONS if name in row), "")
    return (row["file_name"], " ".join(caption.split())) if isinstance(caption, str) else None


def digest(pictures: list[Picture]) -> str:
    """32 hex digits over pictures and captions: which data these are, wherever they lie.

    Raises UserError for a file that is no whole picture.
    """
    found = sha256()
    for picture in pictures:
        found.update(sha256(_checked(picture.path)).digest() + sha256(picture.caption.encode()).digest())
    return found.hexdigest()[:32]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the picture {path}: {error.strerror}") from error


def _checked(path: Path) -> bytes:
    """The bytes of a file that is a whole picture, as far as that can be told without decoding it."""
    from PIL import Image

    data = _bytes(path)
    with _whole(path), Image.open(io.BytesIO(data)) as opened:
        opened.verify()
    return data


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Pillow's complaints about a file, in one sentence."""
    from PIL import Image

    try:
        yield
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"the picture {path} is damaged or of an unknown kind; replace or remove it") from error


def pixels(path: Path, size: tuple[int, int]) -> NDArray[np.float32]:
    """A picture (3, h, w) in -1..1: turned upright, on white, made to cover `size` = (h, w) and cropped at its centre.

    Raises UserError for a file that is no whole picture.
    """
    from PIL import Image, ImageOps

    data = _bytes(path)
    with _whole(path), Image.open(io.BytesIO(data)) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGBA")
    white = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    fitted = ImageOps.fit(white, (size[1], size[0]), Image.Resampling.LANCZOS)
    return np.asarray(fitted, np.float32).transpose(2, 0, 1) / 127.5 - 1


def native_size(pipe: Any, family: Family) -> tuple[int, int]:
    """Picture size (h, w) that the denoiser was made for. Raises UserError where it does not say."""
    size = getattr(getattr(family.denoiser(pipe), "config", None), "sample_size", None)
    scale = getattr(pipe, "vae_scale_factor", None)
    if not size or not scale:
        raise UserError(f"{type(pipe).__name__} does not say which size of picture it was made for; give size=(h, w)")
    height, width = (size, size) if isinstance(size, int) else size
    return int(height * scale), int(width * scale)


def latents(pipe: Any, family: Family, batch: NDArray[np.float32]) -> Tensor:
    """Plain latents (n, c, h, w), float32, of pixels (n, 3, H, W) in -1..1: what noise is added to in training.

    The mode of the encoder's posterior, so that a picture has one latent; normalised by the inverse of what takes
    latents to the decoder. Raises UserError for a pipeline whose encoder is missing or takes no pictures.
    """
    import torch

    vae, name = getattr(pipe, "vae", None), type(pipe).__name__
    if vae is None:
        raise UserError(f"{name} has no VAE, so pictures are not its data; give (latents, caption) pairs instead")
    try:
        with torch.no_grad():
            encoded = vae.encode(torch.from_numpy(batch).to(vae.device, vae.dtype))
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"the VAE of {name} does not encode single pictures: {str(error).splitlines()[0]}") from error
    found = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latent
    return family.from_vae(found.float(), pipe)
