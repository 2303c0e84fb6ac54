"""Held-out and training pictures: what generated ones are compared with, and where errors are measured."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt.config import TrainConfig
from adapt.evaluation import places
from adapt.evaluation.adapters import Adapter
from adapt.evaluation.protocol import Protocol
from adapt.evaluation.request import Request
from adapt.task import Progress, check_sources, load_data, load_one
from datasets_cache import CachedData
from datasets_cache.sources import decide, splits_of
from spectra.errors import UserError

LARGEST = 1000
"""Reference pictures of a part at most: enough for distances between distributions, and bounded on the disk."""
SAME = (
    "data", "heldout", "split", "image_column", "caption_column", "default_caption", "frames", "skip_bad", "smallest",
)  # fmt: skip
"""Settings that say which pictures a run learned from, and which it held out."""


@dataclass(frozen=True)
class Sources:
    """Where reference pictures are from."""

    data: str | None = None
    """The held-out pictures; where runs hold out some of their own, the same as `train`."""
    train: str | None = None
    reading: Mapping[str, Any] | None = None
    """Settings of a run that reads them; None for nothing to read."""


@dataclass(frozen=True)
class References:
    """Encoded pictures by part."""

    heldout: CachedData | None
    train: CachedData | None

    @property
    def parts(self) -> list[tuple[str, CachedData]]:
        """(name, pictures) of the parts that there are."""
        named = (("heldout", self.heldout), ("train", self.train))
        return [(name, data) for name, data in named if data is not None]

    def facts(self) -> dict[str, Any]:
        """Part -> {count, sha256}: by which the pictures are known."""
        return {name: {"count": len(data), "sha256": _digest(data)} for name, data in self.parts}


def sources_of(request: Request, stored: Protocol | None, adapters: Sequence[Adapter]) -> Sources:
    """Where the references are: as asked, as in the store, or the runs' own where all adapters are runs on the same."""
    found = _sources_of(request, stored, adapters)
    reading = None if found.reading is None else dict(found.reading)
    for name in ("data", "heldout"):
        if reading and reading.get(name) is not None:
            reading[name] = places.of_data(str(reading[name]))
    return Sources(found.data and places.of_data(found.data), found.train and places.of_data(found.train), reading)


def taken_from(stored: Protocol | None, sources: Sources) -> list[str]:
    """Those of the sources that an evaluation names that is there already."""
    said = set() if stored is None else {stored.data, stored.train}
    return [place for place in (sources.data, sources.train) if place is not None and place in said]


def _sources_of(request: Request, stored: Protocol | None, adapters: Sequence[Adapter]) -> Sources:
    if request.data is not None or request.train is not None:
        return _given(request.data, request.train)
    if stored is not None:
        return Sources(stored.data, stored.train, stored.reading) if stored.reading else Sources()
    records = [adapter.record for adapter in adapters]
    configs = [{name: one["config"].get(name) for name in SAME} for one in records if one is not None]
    if not configs or len(configs) != len(adapters) or any(one != configs[0] for one in configs):
        return Sources()
    return _of_runs(configs[0])


def _given(data: str | None, train: str | None) -> Sources:
    if data is None:
        assert train is not None
        source = splits_of(train)[0]
        return Sources(None, source, {"data": source})
    source, beside = splits_of(data)
    held = beside or source
    learned = splits_of(train)[0] if train is not None else (source if beside else None)
    return Sources(held, learned, {"data": learned, "heldout": held} if learned else {"data": held})


def _of_runs(config: Mapping[str, Any]) -> Sources:
    """The data of runs; none, with a warning, where they are not there any more."""
    reading = {name: value for name, value in config.items() if value is not None}
    source, beside = splits_of(reading["data"])
    sources = Sources(reading.get("heldout") or beside or source, source, reading)
    try:
        for named in (sources.data, sources.train):
            if named is not None:
                decide(named)
    except UserError as gone:
        warnings.warn(f"without held-out pictures: {gone}; give data=", UserWarning, stacklevel=2)
        return Sources()
    return sources


def config_of(sources: Sources, sizes: Mapping[str, int], model: str, out: Path, cache: Path | None) -> TrainConfig:
    """The settings by which pictures are read, encoded and validated on, as a run would."""
    square = {"resolution": sizes["height"]} if sizes["height"] == sizes["width"] else {}
    clips = {"frames": sizes["num_frames"]} if "num_frames" in sizes else {}
    reading = {name: value for name, value in (sources.reading or {"data": "."}).items() if name in SAME}
    return TrainConfig(model=model, out=out, method="lora", cache=cache, **(reading | square | clips))


def load(sources: Sources, config: TrainConfig, pipe: Any, progress: Progress) -> References:
    """Read and encode the references, through the encoding cache.

    Raises:
        UserError: sources that are not there or cannot be read.
    """
    if sources.reading is None:
        return References(None, None)
    check_sources(config)
    if sources.data is not None and sources.train is not None:
        train, heldout = load_data(config, pipe, progress)
        return References(_bounded(heldout, "held-out"), _bounded(train, "training"))
    data = load_one(config, str(config.data), config.default_caption, pipe, progress)
    if sources.train is None:
        return References(_bounded(data, "held-out"), None)
    return References(None, _bounded(data, "training"))


def _bounded(data: CachedData, what: str) -> CachedData:
    """At most `LARGEST` pictures, spread evenly over all."""
    if len(data) <= LARGEST:
        return data
    warnings.warn(f"{LARGEST} of the {len(data)} {what} pictures are kept as references", UserWarning, stacklevel=3)
    return data.take([row * len(data) // LARGEST for row in range(LARGEST)])


def warn_learned(sources: Sources, adapters: Sequence[Adapter]) -> None:
    """Warn where held-out pictures are those that a run learned from."""
    if sources.data is None or sources.data == sources.train:
        return
    held = Path(sources.data).expanduser().resolve()
    for adapter in adapters:
        learned = adapter.record and adapter.record["config"].get("data")
        if learned and Path(splits_of(learned)[0]).expanduser().resolve() == held:
            warnings.warn(
                f"{adapter.path} was trained on pictures of {sources.data}: its errors there say too little",
                UserWarning, stacklevel=3,
            )  # fmt: skip


def _digest(data: CachedData) -> str:
    """SHA-256 over the pictures' own digests and captions, in their order."""
    rows = "".join(f"{digest} {caption!r}\n" for digest, caption in zip(data.digests, data.captions, strict=True))
    return hashlib.sha256(rows.encode()).hexdigest()
