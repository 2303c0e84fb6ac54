"""What an encoded data set is made of, for a person to look at before training."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from datasets_cache.buckets import table
from datasets_cache.cached import CachedData
from datasets_cache.items import listed
from datasets_cache.picture import is_small
from spectra.prompts import cut, plural


def describe(data: CachedData, pipe: Any) -> dict[str, Any]:
    """Plain values about a data set.

    Returns:
        `pictures`, `captions` (in all, per picture at least and most, words in the longest), `cut` (captions longer
        than the model reads, its tokens, the first such picture), `sizes` (smallest and largest picture, enlarged
        ones), `buckets` (shape, pictures and mean crop loss of each), `crop_loss` (mean share of a picture's area that
        is cropped away, and the picture that loses most), `duplicates` (groups of names with equal bytes), `frames`,
        `hits`, `misses`, `first_miss`, `notes`.
    """
    losses = [fit.lost for fit in data.fits]
    worst = max(range(len(data)), key=losses.__getitem__)
    return {
        "pictures": len(data),
        "frames": data.fits[0].frames,
        "captions": _captions(data),
        "cut": _cut(data, pipe),
        "sizes": _sizes(data),
        "buckets": [
            {"height": shape[0], "width": shape[1], "pictures": count, "crop_loss": loss}
            for shape, count, loss in table([fit.original for fit in data.fits], [fit.size for fit in data.fits])
        ],
        "crop_loss": {"mean": sum(losses) / len(losses), "most": losses[worst], "picture": str(data.paths[worst])},
        "duplicates": duplicates(data),
        "hits": data.hits,
        "misses": data.misses,
        "first_miss": data.first_miss,
        "notes": list(data.notes),
    }


def lines(found: dict[str, Any], most: int = 5) -> list[str]:
    """The findings of `describe` in sentences."""
    captions, sizes, crop = found["captions"], found["sizes"], found["crop_loss"]
    said = [
        f"{found['pictures']} pictures with {captions['all']} captions, "
        f"from {_by(sizes['smallest'])} to {_by(sizes['largest'])} pixels",
        f"cropping takes {crop['mean']:.1%} of a picture on average, at most {crop['most']:.1%} ({crop['picture']})",
        f"cache: {found['hits']} found, {found['misses']} encoded"
        + (f" (first: {found['first_miss']})" if found["first_miss"] else ""),
    ]
    shapes = [f"{_by((one['height'], one['width']))}: {one['pictures']}" for one in found["buckets"]]
    said += [f"pictures by shape: {listed(shapes, 12)}"] if len(shapes) > 1 else []
    said += [f"{plural(sizes['enlarged'], 'picture')} enlarged"] if sizes["enlarged"] else []
    said += [_cut_words(found["cut"])] if found["cut"] else []
    said += [f"equal pictures: {listed(' = '.join(group) for group in found['duplicates'])}"] * bool(
        found["duplicates"]
    )
    return [*said, *found["notes"]]


def duplicates(*sets: CachedData) -> list[list[str]]:
    """Names of pictures with equal bytes, group by group, within and between data sets."""
    groups: dict[str, list[str]] = defaultdict(list)
    for data in sets:
        for digest, path in zip(data.digests, data.paths, strict=True):
            groups[digest].append(str(path))
    return [group for group in groups.values() if len(group) > 1]


def shared(train: CachedData, heldout: CachedData) -> list[str]:
    """Names of held-out pictures that are also trained on, so that errors measured on them say too little."""
    known = Counter(train.digests)
    return [str(path) for digest, path in zip(heldout.digests, heldout.paths, strict=True) if known[digest]]


def _captions(data: CachedData) -> dict[str, int]:
    words = [len(caption.split()) for captions in data.caption_lists for caption in captions]
    counts = data.caption_counts
    return {"all": len(words), "fewest": min(counts), "most": max(counts), "longest": max(words)}


def _cut(data: CachedData, pipe: Any) -> dict[str, Any] | None:
    every = [(caption, item) for item in data.items for caption in item.captions]
    found = cut(pipe, [caption for caption, _ in every])
    if not found.rows:
        return None
    return {"captions": len(found.rows), "tokens": found.limit, "first": str(every[found.rows[0]][1].source)}


def _cut_words(found: dict[str, Any]) -> str:
    return f"{plural(found['captions'], 'caption')} cut after {found['tokens']} tokens (first: {found['first']})"


def _sizes(data: CachedData) -> dict[str, Any]:
    seen = sorted((fit.original for fit in data.fits), key=lambda size: size[0] * size[1])
    small = sum(is_small(fit.original, fit.size) for fit in data.fits)
    return {"smallest": seen[0], "largest": seen[-1], "enlarged": small}


def _by(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
