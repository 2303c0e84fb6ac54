"""A folder of captioned pictures -> latents and text embeddings, each made once and kept by content."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets_cache import store
from datasets_cache.families import (
    Conditioning,
    encode_caption,
    encode_pixels,
    native_size,
    text_identity,
    vae_identity,
)
from datasets_cache.folder import Item, open_dataset
from datasets_cache.picture import TRANSFORM, decode, is_small
from spectra.errors import UserError
from spectra.prompts import plural, quiet_cuts, warn_cut

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CachedData:
    """An encoded data set; row i of everything belongs to picture i."""

    every_latent: tuple[Tensor, ...]
    """(c, h, w) or (c, t, h, w) float32 each, as the denoiser sees them; shapes may differ."""
    every_conditioning: tuple[Conditioning, ...]
    """Denoiser argument -> (...) float32, of each caption."""
    empty: Conditioning
    """Denoiser argument -> (1, ...) float32: the empty prompt, for caption dropout."""
    captions: tuple[str, ...]
    paths: tuple[Path, ...]
    keys: tuple[str, ...]
    """Content key of each picture (bytes, transform, autoencoder)."""
    hits: int
    misses: int

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each latent."""
        return tuple(tuple(latent.shape) for latent in self.every_latent)

    def latents(self, rows: Sequence[int]) -> Tensor:
        """Latents (rows, c, [t], h, w) of pictures of equal shape."""
        return torch.stack([self.every_latent[row] for row in rows])

    def conditioning(self, rows: Sequence[int]) -> Conditioning:
        """Denoiser argument -> (rows, ...)."""
        return {name: torch.stack([self.every_conditioning[row][name] for row in rows]) for name in self.empty}

    def take(self, rows: list[int]) -> CachedData:
        """The data set of the given rows, in that order."""
        return replace(
            self,
            every_latent=tuple(self.every_latent[i] for i in rows),
            every_conditioning=tuple(self.every_conditioning[i] for i in rows),
            captions=tuple(self.captions[i] for i in rows),
            paths=tuple(self.paths[i] for i in rows),
            keys=tuple(self.keys[i] for i in rows),
        )


class Encoder:
    """A pipeline and a cache folder, with counts of what was found and what was made."""

    def __init__(self, pipe: Any, cache: Path | None = None) -> None:
        from spectra.models import call_defaults

        self.pipe, self.cache = pipe, cache or store.cache_directory()
        self.defaults = dict(call_defaults(pipe))
        self.size = native_size(pipe)
        self.vae, self.text = vae_identity(pipe), text_identity(pipe, self.defaults)
        self.hits = self.misses = 0
        self.small = 0
        """Pictures so far that were smaller than the model's size."""

    def picture_key(self, data: bytes) -> str:
        """Content key of a picture: its bytes, the transform, the size, the autoencoder."""
        return _key(self.vae, TRANSFORM, str(self.size), data)

    def latent(self, path: Path) -> tuple[str, Tensor]:
        """Content key and latent (c, h, w) of a picture file, from the cache or encoded now."""
        data = read_bytes(path)
        key = self.picture_key(data)
        latent = self._get("latents", key, lambda: self._encode_picture(data, path))["latent"]
        self.small += is_small(data, self.size)
        return key, latent

    def caption(self, text: str) -> Conditioning:
        """Embeddings of a caption, from the cache or encoded now."""
        key = _key(self.text, text.encode())
        with quiet_cuts():
            return self._get("text", key, lambda: _finite(encode_caption(self.pipe, text, self.defaults), repr(text)))

    def _encode_picture(self, data: bytes, path: Path) -> Conditioning:
        # One picture at a time: a latent must not depend, in its last bits, on what shared its batch.
        pixels = torch.from_numpy(decode(data, self.size, str(path)).astype(np.float32) / 127.5 - 1)
        return _finite({"latent": encode_pixels(self.pipe, pixels.permute(2, 0, 1)[None])[0].cpu()}, str(path))

    def _get(self, kind: str, key: str, make: Callable[[], Conditioning]) -> Conditioning:
        path = store.entry(self.cache, kind, key)
        found = store.read(path)
        if found is not None:
            self.hits += 1
            return {name: torch.from_numpy(array) for name, array in found.items()}
        self.misses += 1
        made = make()
        store.write(path, {name: value.numpy() for name, value in made.items()})
        return made


def encode(
    folder: Path | str, pipe: Any, cache_dir: Path | None = None, *, progress: Progress | None = None
) -> CachedData:
    """Encode a folder of captioned pictures for a pipeline, through the cache.

    A picture that is not of the model's size is resized, its proportions kept, until it covers that size, and cropped
    at its centre. Pictures of sub-folders are not read, and are refused.

    Warns once about captions that are longer than the model reads (see `spectra.prompts.cut`), and once about pictures
    that are smaller than its size in both directions, which are enlarged; whether they are in the cache or not.

    Args:
        folder: pictures `x.png` with captions `x.txt`, or with a `metadata.jsonl`.
        pipe: a diffusers pipeline; its autoencoder and text encoders do the work where the cache has no answer.
        cache_dir: where to keep results; default `$SPECTRA_CACHE` or the user's cache folder.
        progress: called with (pictures done, pictures in all).

    Raises:
        UserError: nothing to read, a damaged picture, values that are not finite, a cache that cannot be written.
    """
    return encode_all([folder], pipe, cache_dir, progress=progress)[0]


def encode_all(
    folders: Sequence[Path | str], pipe: Any, cache_dir: Path | None = None, *, progress: Progress | None = None
) -> list[CachedData]:
    """Encode several folders as `encode` does one, with one warning of a kind for all; one may lie in another."""
    every: list[Item] = []
    made: list[CachedData] = []
    small = 0
    for folder in folders:
        items, encoder = open_dataset(folder, apart=folders), Encoder(pipe, cache_dir)
        made.append(_encode_items(items, encoder, progress))
        every += items
        small += encoder.small
    warn_cut(pipe, [item.caption for item in every], "caption", [item.source for item in every])
    if small:
        height, width = native_size(pipe)
        be = "is" if small == 1 else "are"
        warnings.warn(
            f"{plural(small, 'picture')} smaller than {width} x {height} and {be} enlarged", UserWarning, stacklevel=2
        )
    return made


def _encode_items(items: list[Item], encoder: Encoder, progress: Progress | None) -> CachedData:
    pictures: list[tuple[str, Tensor]] = []
    for done, item in enumerate(items, start=1):
        pictures.append(encoder.latent(item.path))
        if progress:
            progress(done, len(items))
    texts = {caption: encoder.caption(caption) for caption in dict.fromkeys(item.caption for item in items)}
    return _collect(items, pictures, texts, encoder)


def _collect(
    items: list[Item], pictures: list[tuple[str, Tensor]], texts: dict[str, Conditioning], encoder: Encoder
) -> CachedData:
    empty = encoder.caption("")
    return CachedData(
        every_latent=tuple(latent for _, latent in pictures),
        every_conditioning=tuple(texts[item.caption] for item in items),
        empty={name: value[None] for name, value in empty.items()},
        captions=tuple(item.caption for item in items),
        paths=tuple(item.path for item in items),
        keys=tuple(key for key, _ in pictures),
        hits=encoder.hits,
        misses=encoder.misses,
    )


def read_bytes(path: Path) -> bytes:
    """The bytes of a picture file; UserError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the picture {path}: {error.strerror}") from None


def _finite(arrays: Conditioning, what: str) -> Conditioning:
    if not all(bool(torch.isfinite(value).all()) for value in arrays.values()):
        raise UserError(f"{what} encodes to values that are not finite; load the model in float32 or remove it")
    return arrays


def _key(*parts: str | bytes) -> str:
    digest = sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
