"""What a data set holds and how much of it is encoded already, without encoding it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adapt.config import TrainConfig
from adapt.task import HELDOUT_SHARE, preparation_of, reading_of
from datasets_cache.encoder import Encoder, Planned
from datasets_cache.encoding import left_out, look
from datasets_cache.items import BadPicture
from datasets_cache.sources import open_dataset, splits_of


@dataclass(frozen=True)
class Looked:
    """Pictures that were opened and measured, and the encoder that would encode them."""

    encoder: Encoder
    planned: list[Planned]
    bad: list[BadPicture]
    heldout: int
    """Pictures of a held-out source; 0 where some of `planned` will be held out."""
    note: str | None
    """Which pictures are left out, in a sentence, if some are."""

    @property
    def apart(self) -> int:
        """How many of the pictures will be measured on instead of trained on, as nothing else is held out."""
        return 0 if self.heldout else max(1, len(self.planned) // HELDOUT_SHARE)

    def facts(self) -> dict[str, Any]:
        """Counts and the reason of the first picture that has to be encoded."""
        missing = [one for one in self.planned if one.shape is None]
        shapes = sorted({one.fit.size for one in self.planned})
        return {
            "pictures": len(self.planned) - self.apart, "heldout": self.heldout or self.apart,
            "encoded": len(self.planned) - len(missing), "missing": len(missing),
            "reason": self.encoder.why(missing[0]) if missing else None,
            "sizes": [f"{width} x {height}" for height, width in shapes],
            "note": self.note,
        }  # fmt: skip


def look_at_data(config: TrainConfig, pipe: Any) -> Looked:
    """Open and measure every training picture.

    Raises:
        UserError: nothing to read, or bad pictures where they may not be left out.
    """
    source, beside = splits_of(config.data)
    held, reading, preparation = config.heldout or beside, reading_of(config), preparation_of(config)
    items = open_dataset(source, reading, apart=[held] if held else [])
    heldout = len(open_dataset(held, reading, apart=[source])) if held else 0
    encoder = Encoder(pipe, config.cache)
    encoder.check(preparation)
    planned, bad = look(items, encoder, preparation)
    return Looked(encoder, planned, bad, heldout, left_out(planned, bad, config.skip_bad))
