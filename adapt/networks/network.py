"""One feature network: what it computes, and everything that its numbers depend on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra.errors import UserError

Pictures = NDArray[np.uint8]
"""(n, height, width, 3), uint8, sRGB."""
Features = NDArray[np.float32]
"""(n, dims), float32, as the network gives them: not normalised to length one."""


@dataclass(frozen=True)
class Network:
    """A network that turns pictures, and for some kinds texts, into feature vectors.

    `name` has letters, digits and underscores (it names variables of a store), `what` says it to people, `sha256` is
    over configuration and weights by value, `size` is the side in pixels of what the network sees. `resize` and
    `quantisation` say in words how pictures come to that size.
    """

    name: str
    what: str
    source: str
    sha256: str
    size: int
    resize: str
    quantisation: str
    dims: int
    reads_text: bool
    see: Callable[[Pictures], Features] = field(repr=False, compare=False)
    read: Callable[[list[str]], Features] | None = field(default=None, repr=False, compare=False)

    def pictures(self, images: Pictures, batch: int = 32) -> Features:
        """Features (n, dims) of pictures (n, height, width, 3) uint8, `batch` at a time. Raises UserError."""
        images = self._checked(images)
        parts = [self.see(images[at : at + batch]) for at in range(0, len(images), batch)]
        return self._whole(np.concatenate(parts) if parts else np.empty((0, self.dims)))

    def texts(self, texts: Sequence[str], batch: int = 32) -> Features:
        """Features (n, dims) of texts, in the space of the pictures. UserError for a network that reads none."""
        if self.read is None:
            raise UserError(
                f"the network {self.name!r} ({self.what}) reads pictures only; text needs clip=FOLDER_OR_ID"
            )
        parts = [self.read(list(texts[at : at + batch])) for at in range(0, len(texts), batch)]
        return self._whole(np.concatenate(parts) if parts else np.empty((0, self.dims)))

    def to_dict(self) -> dict[str, Any]:
        """What pins the network's numbers, ready for JSON."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("see", "read")}

    def _checked(self, images: Pictures) -> Pictures:
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise UserError(
                f"the network {self.name!r} sees pictures (n, height, width, 3) of uint8, "
                f"not {images.shape} of {images.dtype}"
            )
        return np.ascontiguousarray(images)

    def _whole(self, features: NDArray[Any]) -> Features:
        if not np.isfinite(features).all():
            raise UserError(f"the network {self.name!r} gave features that are not finite; its weights are damaged")
        return np.ascontiguousarray(features, dtype=np.float32)
