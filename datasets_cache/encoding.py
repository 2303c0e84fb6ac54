"""Captioned pictures -> latents and text embeddings, each made once and kept by content."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from datasets_cache import store
from datasets_cache.cached import CachedData, Shelf, pixels_of
from datasets_cache.encoder import Encoder, Planned, Preparation, ahead, digest_of, shape_of
from datasets_cache.items import BadPicture, Item, Reading, listed, read_bytes
from datasets_cache.picture import is_small
from datasets_cache.sources import open_dataset
from spectra.errors import UserError
from spectra.prompts import plural, warn_cut

__all__ = ["CachedData", "Preparation", "Reading", "encode", "encode_all", "encode_items", "read_bytes"]

Progress = Callable[[int, int], None]
PIXELS = 2**30
"""Bytes of decoded pictures that are kept from the check to the encoding; what is more is decoded twice."""


def encode(
    data: Path | str,
    pipe: Any,
    cache_dir: Path | None = None,
    *,
    reading: Reading | None = None,
    preparation: Preparation | None = None,
    progress: Progress | None = None,
) -> CachedData:
    """Encode a source of captioned pictures for a pipeline, through the cache.

    A picture that is not of the size asked for is resized, its proportions kept, until it covers that size, and cropped
    at its centre. Every picture is checked before the first is encoded, and nothing is returned before all
    are; what was encoded before an interruption is found again. Several processes may encode at once: for one model,
    one of them works while the others wait, and then find what it made.

    Warns once about captions that are longer than the model reads (see `spectra.prompts.cut`), and once about pictures
    that are smaller than the size in both directions, which are enlarged; whether they are in the cache or not.

    Args:
        data: what `datasets_cache.open_dataset` reads.
        pipe: a diffusers pipeline; its autoencoder and text encoders do the work where the cache has no answer.
        cache_dir: where to keep results; default `$SPECTRA_CACHE` or the user's cache folder.
        reading: columns, split, default caption.
        preparation: size, buckets, frames, and what is done with bad pictures.
        progress: called with (pictures done, pictures in all).

    Raises:
        UserError: nothing to read, damaged pictures, values that are not finite, a cache that cannot be written.
    """
    found = encode_all([data], pipe, cache_dir, reading=reading, preparation=preparation, progress=progress)
    return found[0]


def encode_all(
    sources: Sequence[Path | str],
    pipe: Any,
    cache_dir: Path | None = None,
    *,
    reading: Reading | None = None,
    preparation: Preparation | None = None,
    progress: Progress | None = None,
) -> list[CachedData]:
    """Encode several sources as `encode` does one, with one warning of a kind for all; one may lie in another."""
    root = cache_dir or store.cache_directory()
    chosen = reading or Reading()
    chosen = replace(chosen, tables=chosen.tables or root / "tables")
    items = [open_dataset(source, chosen, apart=[other for other in sources if other != source]) for source in sources]
    return encode_items(
        items, pipe, cache_dir, preparations=[preparation or Preparation()] * len(items), progress=progress
    )


def encode_items(
    sets: Sequence[Sequence[Item]],
    pipe: Any,
    cache_dir: Path | None = None,
    *,
    preparations: Sequence[Preparation],
    progress: Progress | None = None,
) -> list[CachedData]:
    """Encode lists of pictures, each list with a preparation of its own, as `encode_all` does sources."""
    encoder, shelf, made = Encoder(pipe, cache_dir), Shelf(), []
    for items, preparation in zip(sets, preparations, strict=True):
        encoder.reset()
        encoder.check(preparation)
        made.append(_encode(items, encoder, preparation, shelf, progress or (lambda done, total: None)))
    _warn_captions(pipe, [item for data in made for item in data.items])
    _warn_small(made)
    return made


def _encode(
    items: Sequence[Item], encoder: Encoder, preparation: Preparation, shelf: Shelf, progress: Progress
) -> CachedData:
    planned, bad = look(items, encoder, preparation)
    if sentence := left_out(planned, bad, preparation.skip_bad):
        encoder.note(sentence)
    _pictures(planned, encoder, progress)
    every = dict.fromkeys(caption for one in planned for caption in one.item.captions)
    texts = _captions(every, encoder)
    if encoder.damaged:
        encoder.note(f"damaged in the cache, and made again: {listed(encoder.damaged)}")
    return CachedData(
        items=tuple(one.item for one in planned),
        fits=tuple(one.fit for one in planned),
        digests=tuple(one.digest for one in planned),
        keys=tuple(one.key for one in planned),
        places=tuple(one.place for one in planned),
        texts=tuple(tuple(texts[caption] for caption in one.item.captions) for one in planned),
        shapes=tuple(one.shape or () for one in planned),
        empty={name: value[None].clone() for name, value in shelf.get(texts[None]).items()},
        hits=encoder.hits,
        misses=encoder.misses,
        first_miss=encoder.first_miss,
        notes=tuple(encoder.notes),
        shelf=shelf,
    )


def look(items: Sequence[Item], encoder: Encoder, preparation: Preparation) -> tuple[list[Planned], list[BadPicture]]:
    """Read, measure and check every picture and look for it in the cache: those that can be trained on, and others."""

    def plan(item: Item) -> Planned | BadPicture:
        try:
            return encoder.plan(item, preparation)
        except BadPicture as bad:
            return bad

    planned: list[Planned] = []
    bad: list[BadPicture] = []
    kept = 0
    for found in ahead(plan, items):
        if isinstance(found, BadPicture):
            bad.append(found)
            continue
        size = 0 if found.pixels is None else found.pixels.nbytes
        found.pixels, kept = (found.pixels, kept + size) if kept + size <= PIXELS else (None, kept)
        planned.append(found)
    return planned, bad


def left_out(planned: Sequence[Planned], bad: Sequence[BadPicture], skip: bool) -> str | None:
    """Which pictures are left out, in a sentence, if some are; UserError where they may not be, or none is left."""
    if not bad:
        return None
    if not skip and len(bad) == 1:
        raise UserError(
            f"the picture {bad[0].name} {bad[0].reason}; replace or remove it, or leave it out with skip_bad"
        )
    said = listed(f"{Path(one.name).name} {one.reason}" for one in bad)
    pictures = plural(len(bad), "picture").rpartition(" ")[0]
    if not skip:
        raise UserError(
            f"{pictures} cannot be trained on: {said}; replace or remove them, or leave them out with skip_bad"
        )
    if not planned:
        raise UserError(f"no picture is left: {said}; replace them")
    return f"{plural(len(bad), 'picture')} left out: {said}"


def _pictures(planned: Sequence[Planned], encoder: Encoder, progress: Progress) -> None:
    """Encode what is not in the cache; equal pictures once."""
    missing = {one.key: one for one in reversed(planned) if one.shape is None}
    total, done = len(planned), len(planned) - len(missing)
    encoder.hits += done
    progress(done, total)
    if missing:
        with encoder.alone():
            for one in ahead(_decoded, [one for one in planned if missing.get(one.key) is one]):
                if one.shape is None:
                    one.shape = encoder.picture(one)
                else:  # another process was faster
                    encoder.hits += 1
                one.pixels, done = None, done + 1
                progress(done, total)
    for one in planned:
        one.shape, one.pixels = one.shape or missing[one.key].shape, None


def _decoded(one: Planned) -> Planned:
    """The picture with its pixels, unless another process has encoded it by now."""
    one.shape = shape_of(one.place)
    if one.shape is None and one.pixels is None:
        parts, name = one.item.read(), str(one.item.path)
        if digest_of(parts) != one.digest:
            raise UserError(f"the picture {name} changed while the data were being encoded; start again")
        one.pixels = pixels_of(parts, one.fit, name)
    return one


def _captions(texts: Iterable[str], encoder: Encoder) -> dict[str | None, Path]:
    """The entries of captions, and of the empty prompt under None."""
    with torch.no_grad():
        return {**{text: encoder.caption(text) for text in texts}, None: encoder.nothing()}


def _warn_captions(pipe: Any, items: Sequence[Item]) -> None:
    every = [(caption, item.source) for item in items for caption in item.captions]
    warn_cut(pipe, [caption for caption, _ in every], "caption", [source for _, source in every])


def _warn_small(made: Sequence[CachedData]) -> None:
    small = [fit for data in made for fit in data.fits if is_small(fit.original, fit.size)]
    if small:
        sizes = {fit.size for fit in small}
        height, width = small[0].size
        than = f"{width} x {height}" if len(sizes) == 1 else "their bucket"
        be = "is" if len(small) == 1 else "are"
        warnings.warn(
            f"{plural(len(small), 'picture')} smaller than {than} and {be} enlarged", UserWarning, stacklevel=3
        )
