"""One picture or caption -> one entry of the cache."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from math import lcm
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from datasets_cache import store
from datasets_cache.buckets import bucket_of, bucket_shapes
from datasets_cache.cached import LATENT, pixels_of
from datasets_cache.clips import CLIP, count_frames, frame_rate
from datasets_cache.families import (
    Conditioning,
    check_pixels,
    encode_caption,
    encode_empty,
    encode_picture,
    native_size,
    size_step,
    text_identity,
    vae_identity,
)
from datasets_cache.history import History
from datasets_cache.items import BadPicture, Item
from datasets_cache.picture import TRANSFORM, Fit, Size, measure
from spectra.errors import UserError
from spectra.prompts import quiet_cuts

WORKERS = 4
"""Threads that decode pictures while the autoencoder works."""
AHEAD = 16
"""Pictures that are decoded before they are asked for, at most."""

One = TypeVar("One")
Other = TypeVar("Other")


@dataclass(frozen=True)
class Preparation:
    """How pictures become latents; the fields are the settings of `adapt.settings.data`."""

    resolution: int | None = None
    """Side of a square; None: the model's own size."""
    buckets: bool = False
    bucket_step: int = 64
    smallest: int = 1
    skip_bad: bool = False
    frames: int = 1


@dataclass
class Planned:
    """A picture that is whole, and its place in the cache."""

    item: Item
    fit: Fit
    digest: str
    key: str
    place: Path
    shape: tuple[int, ...] | None
    """Of the latent; None while it is not in the cache."""
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False)


class Encoder:
    """A pipeline and a cache folder, with a record of what was found and what was made."""

    def __init__(self, pipe: Any, cache: Path | None = None) -> None:
        from spectra.models import call_defaults

        self.pipe, self.cache = pipe, cache or store.cache_directory()
        self.defaults = dict(call_defaults(pipe))
        self.vae, self.text = vae_identity(pipe), text_identity(pipe, self.defaults)
        self.model = str(getattr(pipe, "name_or_path", "") or type(pipe).__name__)
        self.history = History(self.cache)
        self.reset()

    def reset(self) -> None:
        """Begin to count anew."""
        self.hits = self.misses = 0
        self.first_miss: str | None = None
        self.notes: list[str] = []
        self.damaged: list[str] = []
        """Names of what had an entry that could not be read."""

    def note(self, sentence: str) -> None:
        """Say something that a person should know, now and in the data set's notes."""
        self.notes.append(sentence)
        warnings.warn(sentence, UserWarning, stacklevel=2)

    def check(self, preparation: Preparation) -> None:
        """UserError unless the model can learn from pictures or clips as they are prepared."""
        size = self.target(native_size(self.pipe), preparation)
        check_pixels(self.pipe, (3, *(() if preparation.frames == 1 else (preparation.frames,)), *size))

    def target(self, seen: Size, preparation: Preparation) -> Size:
        """The size (h, w) that a picture of a size gets."""
        side = preparation.resolution
        size = native_size(self.pipe) if side is None else (side, side)
        if not preparation.buckets:
            return size
        return bucket_of(seen, bucket_shapes(size[0] * size[1], lcm(preparation.bucket_step, size_step(self.pipe))))

    def plan(self, item: Item, preparation: Preparation) -> Planned:
        """Read a picture, check it and look for its latent. BadPicture where it cannot be trained on."""
        parts, name = item.read(), str(item.path)
        if preparation.frames == 1 and len(parts) != 1:
            raise BadPicture(name, "is a clip; set frames to train on clips")
        if not parts:
            raise BadPicture(name, "has no frames")
        seen = measure(parts[0], name)
        if min(seen) < preparation.smallest:
            raise BadPicture(name, f"is {seen[1]} x {seen[0]} pixels, with a side below {preparation.smallest}")
        if preparation.frames > 1 and (there := count_frames(parts, name)) < preparation.frames:
            raise BadPicture(name, f"has {there} frame{'s' * (there != 1)} of the {preparation.frames} that are needed")
        rate = frame_rate(parts, preparation.frames, name) if preparation.frames > 1 else None
        fit = Fit(seen, self.target(seen, preparation), preparation.frames, rate)
        key = self.picture_key(parts, fit)
        place = store.entry(self.cache, "latents", key)
        shape = shape_of(place)
        store.touch(place)
        pixels = pixels_of(parts, fit, name) if shape is None else None
        return Planned(item, fit, digest_of(parts), key, place, shape, pixels)

    def picture_key(self, parts: tuple[bytes, ...], fit: Fit) -> str:
        """Content key of a picture: its bytes, the transform, the size, the frames, the autoencoder."""
        clip = () if fit.frames == 1 else (f"{CLIP}; {fit.frames}",)
        return _key(self.vae, TRANSFORM, str(fit.size), *clip, *parts)

    def picture(self, planned: Planned) -> tuple[int, ...]:
        """Encode a picture that is not in the cache; the shape of its latent."""
        assert planned.pixels is not None
        # One picture at a time: a latent must not depend, in its last bits, on what shared its batch.
        pixels = torch.from_numpy(planned.pixels.astype(np.float32) / 127.5 - 1).movedim(-1, 0)[None]
        name = str(planned.item.path)
        latent, told = encode_picture(self.pipe, pixels, planned.fit.told())
        made = _finite({**told, LATENT: latent}, name)
        self._keep(planned.place, made, self._parts(planned), name)
        planned.pixels = None
        return tuple(made[LATENT].shape)

    def why(self, planned: Planned) -> str:
        """Which picture is not in the cache, and why not."""
        return f"{planned.item.path}: {self.history.why(self._parts(planned))}"

    def _parts(self, planned: Planned) -> dict[str, Any]:
        """What the key of a picture is made of, for the history."""
        return {
            "kind": "latents", "name": str(planned.item.path.absolute()), "digest": planned.digest, "vae": self.vae,
            "transform": TRANSFORM, "size": _shown(planned.fit.size), "frames": planned.fit.frames,
        }  # fmt: skip

    def caption(self, text: str) -> Path:
        """The entry of a caption's embeddings, found or made now."""
        return self._text(_key(self.text, text.encode()), text, lambda: encode_caption(self.pipe, text, self.defaults))

    def nothing(self) -> Path:
        """The entry of what stands in the place of a caption that is dropped, found or made now."""
        return self._text(
            _key(self.text, "dropped", ""), "the empty prompt", lambda: encode_empty(self.pipe, self.defaults)
        )

    def _text(self, key: str, text: str, make: Callable[[], Conditioning]) -> Path:
        place = store.entry(self.cache, "text", key)
        if store.look(place) is None:
            with self.alone(), quiet_cuts():
                if store.look(place) is None:  # another process may have been faster
                    digest = sha256(text.encode()).hexdigest()
                    parts = {"kind": "text", "name": digest, "digest": digest, "encoder": self.text}
                    self._keep(place, _finite(make(), repr(text)), parts, shortened(text))
                    return place
        store.touch(place)
        self.hits += 1
        return place

    def _keep(self, place: Path, made: Conditioning, parts: dict[str, Any], name: str) -> None:
        self.misses += 1
        if self.first_miss is None:
            self.first_miss = f"{name}: {self.history.why(parts)}"
        if place.exists():
            self.damaged.append(name)
        told = {name: value for name, value in parts.items() if name != "kind"} | {"model": self.model}
        store.write(place, {name: value.numpy() for name, value in made.items()}, told)
        self.history.add(parts)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process makes entries for this model in this cache."""
        from filelock import FileLock

        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.cache / f".{_key(self.vae, self.text)[:16]}.lock")
            lock.acquire()
        except OSError as error:
            raise UserError(
                f"cannot write to the cache {self.cache}: {error.strerror}; set SPECTRA_CACHE to a writable folder"
            ) from None
        try:
            yield
        finally:
            lock.release()


def ahead(function: Callable[[One], Other], every: Iterable[One]) -> Iterator[Other]:
    """`map` in a few threads, a few results ahead of the one that is asked for, in order."""
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="decode") as pool:
        waiting: deque[Future[Other]] = deque()
        for one in every:
            waiting.append(pool.submit(function, one))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def shape_of(place: Path) -> tuple[int, ...] | None:
    """Shape of the latent in an entry, or None where there is none."""
    return (store.look(place) or {}).get(LATENT)


def digest_of(parts: tuple[bytes, ...]) -> str:
    """SHA-256 of a picture's bytes."""
    return sha256(parts[0]).hexdigest() if len(parts) == 1 else _key(*parts)


def shortened(text: str, most: int = 40) -> str:
    """A text in quotes, its beginning where it is long."""
    return repr(text if len(text) <= most else text[:most].rstrip() + "...")


def _shown(size: Size) -> str:
    return f"{size[1]} x {size[0]}"


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
