"""The network of the bundled world, and whether it fits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from adapt.networks.network import Features, Network, Pictures
from adapt.networks.resizing import BICUBIC, ROUNDED, to_square
from adapt.networks.weights import weights_hash
from spectra.models import MODELS
from spectra.zoo.world import SIDE

if TYPE_CHECKING:
    import torch


def fits(model: str | Path | None, size: tuple[int, int] | None) -> bool:
    """True where a bundled model (by name or folder) makes pictures of the size of its world."""
    if model is None or size is None or tuple(size) != (SIDE, SIDE):
        return False
    bundled = {name: Path(known.location) for name, known in MODELS.items() if known.bundled}
    return str(model) in bundled or Path(model).expanduser().resolve() in {p.resolve() for p in bundled.values()}


def open_world(device: str | torch.device) -> Network:
    """The small feature network of the bundled world."""
    from copy import deepcopy

    from spectra.zoo.embedder import DIMS, WEIGHTS, embed, load

    embedder = deepcopy(load()).to(device)

    def see(images: Pictures) -> Features:
        return embed(to_square(images, SIDE), embedder=embedder)

    return Network(
        name="world",
        what="small feature network of the bundled world",
        source=f"bundled: spectra/zoo/weights/{WEIGHTS.name}",
        sha256=weights_hash(embedder),
        size=SIDE,
        resize=BICUBIC.format(SIDE),
        quantisation=ROUNDED,
        dims=DIMS,
        reads_text=False,
        see=see,
    )
