"""What the data of a run hold and how much of them is encoded already, without encoding anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from adapt.config import TrainConfig
from adapt.preservation import check_draws, not_drawn
from adapt.task import held_out, items_of, preparation_of, reading_of
from datasets_cache.encoder import Encoder, Planned, Preparation
from datasets_cache.encoding import left_out, look
from datasets_cache.items import Item
from datasets_cache.picture import Size
from datasets_cache.sources import open_dataset
from spectra.errors import UserError


@dataclass(frozen=True)
class Looked:
    """Pictures that were opened and measured, and the encoder that would encode them."""

    encoder: Encoder
    train: list[Planned]
    heldout: list[Planned]
    classes: list[Planned]
    """Pictures of a subject's class that a person gives (DreamBooth)."""
    to_draw: int | None
    """How many class pictures the base still has to draw; None where it draws none."""
    notes: list[str]
    """Which pictures are left out, in sentences."""

    def facts(self) -> dict[str, Any]:
        """Counts and the reason of the first picture that has to be encoded."""
        every = {one.key: one for one in (*self.train, *self.heldout, *self.classes)}
        missing = [one for one in every.values() if one.shape is None]
        shapes = sorted({one.fit.size for one in self.train})
        return {
            "pictures": len(self.train), "heldout": len(self.heldout), "class_pictures": len(self.classes),
            "to_draw": self.to_draw, "encoded": len(every) - len(missing), "missing": len(missing),
            "reason": self.encoder.why(missing[0]) if missing else None,
            "sizes": [f"{width} x {height}" for height, width in shapes],
            "notes": self.notes, "shared": self.shared(),
        }  # fmt: skip

    def shared(self) -> list[str]:
        """Names of held-out pictures that are trained on, too."""
        known = {one.digest for one in self.train}
        return [str(one.item.path) for one in self.heldout if one.digest in known]


def look_at_data(config: TrainConfig, pipe: Any) -> Looked:
    """Open and measure every training, held-out and class picture.

    Raises:
        UserError: nothing to read, too few to hold one out, or bad pictures where they may not be left out.
    """
    items, kept = items_of(config)
    preparation = preparation_of(config)
    encoder, notes = Encoder(pipe, config.cache), list[str]()
    encoder.check(preparation)

    def measured(items: list[Item], how: Preparation) -> list[Planned]:
        planned, bad = look(items, encoder, how)
        if note := left_out(planned, bad, config.skip_bad):
            notes.append(note)
        return planned

    whole = replace(preparation, buckets=False)
    train = measured(items, preparation)
    if kept is not None:
        heldout = measured(kept, whole)
    else:
        rows, apart = held_out([o.digest for o in train], [o.item.caption for o in train], [o.item.path for o in train])
        heldout = measured([train[row].item for row in apart], whole)
        train = [train[row] for row in rows]
    classes = []
    if config.class_data is not None:
        about_class = replace(reading_of(config), default_caption=config.class_caption)
        classes = measured(open_dataset(config.class_data, about_class), preparation)
    to_draw = _to_draw(config, pipe)
    _check_sizes(train, [one.fit.size for one in classes] + [whole_size(encoder, whole)] * (to_draw is not None))
    return Looked(encoder, train, heldout, classes, to_draw, notes)


def whole_size(encoder: Encoder, whole: Preparation) -> Size:
    """The size (h, w) of pictures without buckets."""
    return encoder.target((0, 0), whole)


def _to_draw(config: TrainConfig, pipe: Any) -> int | None:
    if config.class_data is not None or config.class_caption is None:
        return None
    check_draws(pipe)
    return len(not_drawn(config, pipe))


def _check_sizes(train: list[Planned], classes: list[Size]) -> None:
    """UserError unless there is a class picture of each size of the subject's, if there are any at all."""
    lacking = [one for one in train if classes and one.fit.size not in classes]
    if lacking:
        height, width = lacking[0].fit.size
        raise UserError(
            f"no class picture becomes {width} x {height} pixels, as {lacking[0].item.path} does: add class pictures "
            "of that shape, or turn buckets off"
        )
