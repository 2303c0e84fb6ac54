"""Pictures of one adapter, watched by `spectra.record` while they are generated."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adapt.evaluation.protocol import Protocol
from adapt.evaluation.store import Row
from adapt.generating import animates, first_frames, generate, pictures
from adapt.octaves import measured, stills
from spectra.record import record
from spectra.storage import stores
from spectra.storage.stored import open_stored

if TYPE_CHECKING:
    from adapt.export import ScheduledLoras

SIGNALS = ("latent", "x0", "eps", "prediction")
PILOT_STEPS = 2

Tick = Callable[[int], None]


def pilot(pipe: Any, protocol: Protocol) -> tuple[Tensor, NDArray[np.uint8]]:
    """The first sample in a step or two: latents (1, c, [t], h, w) and picture (1, y, x, 3), to know shapes by.

    What the pipeline has to say against prompts and sizes, it says here.
    """
    steps = min(PILOT_STEPS, protocol.steps)
    latents = _generated(pipe, protocol, slice(0, 1), steps)
    return latents, stills(pictures(pipe, latents))


def draw(
    pipe: Any, protocol: Protocol, row: Row, label: str, probe: Path, tick: Tick,
    player: ScheduledLoras | None,
) -> None:  # fmt: skip
    """Generate every sample with the pipeline as it is, or as it is played, and write pictures and energies by batch.

    The runs of the cube `probe` are labelled with `label`; its model is the protocol's, whatever takes its place.
    """
    notes = {"model": protocol.model}
    with record(pipe, probe, signals=SIGNALS, adapter=label, attrs=notes, model_hash=protocol.model_hash):
        for start in range(0, len(protocol.samples), protocol.batch):
            latents = _generated(pipe, protocol, slice(start, start + protocol.batch), protocol.steps, player)
            for name, values in measured(latents).items():
                row.put(name, values, start)
            row.put("image", stills(pictures(pipe, latents)), start)
            tick(len(latents))


def _generated(
    pipe: Any, protocol: Protocol, chosen: slice, steps: int, player: ScheduledLoras | None = None
) -> Tensor:  # fmt: skip
    prompts, seeds, _ = zip(*protocol.samples[chosen], strict=True)
    images = first_frames(prompts) if animates(pipe) else None
    return generate(
        pipe, prompts, seeds, steps=steps, guidance=protocol.guidance, sizes=protocol.sizes, images=images,
        batch=protocol.batch, on_step_end=player,
    )  # fmt: skip


def forget(probe: Path, whole: Collection[str]) -> None:
    """Take runs out of the cube whose adapter did not become whole, which are the last ones.

    A writer that was killed may have left arrays of different lengths; afterwards they are alike. The status is cut
    first, so that it never counts rows that others lack.
    """
    if not stores.exists(probe):
        return
    with stores.writing(probe):
        arrays = open_stored(probe, "r+").growing()
        complete = np.asarray(arrays["status"][...]) == 1
        labels = np.asarray(arrays["adapter"][: len(complete)]).tolist()
        kept = complete & np.array([str(label) in whole for label in labels], bool)
        length = int(np.flatnonzero(kept)[-1]) + 1 if kept.any() else 0
        if {length} == {array.shape[0] for array in arrays.values()}:
            return
        arrays["status"][length:] = 0  # what is cut off comes back when an array grows within its last chunk
        for array in arrays.values():
            array.resize((length, *array.shape[1:]))
