"""`adapt.evaluate`: check everything, then one adapter after another, each whole in the store before the next."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from adapt.evaluation import places, store
from adapt.evaluation.adapters import BASE, Adapter, base, find
from adapt.evaluation.attaching import Attached, attached, check_fit
from adapt.evaluation.drawing import draw, forget
from adapt.evaluation.measuring import captions_of, look
from adapt.evaluation.request import Request, labels_of, repeated, unrepeated
from adapt.evaluation.stage import Counts, Stage, begin, prepare
from adapt.task import Progress, silent
from spectra.storage import stores


def evaluate(
    adapters: Sequence[str | Path],
    *,
    model: str | Path | None = None,
    prompts: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    out: str | Path,
    unrelated: Sequence[str] | None = None,
    data: str | Path | None = None,
    train: str | Path | None = None,
    networks: Sequence[str] = ("auto",),
    steps: int | None = None,
    guidance: float | None = None,
    resolution: int | None = None,
    batch: int | None = None,
    names: Sequence[str] | None = None,
    device: str | None = None,
    progress: Progress | None = None,
    frames: int | None = None,
    cache: str | Path | None = None,
    command: str = "",
) -> xr.Dataset:
    """Generate with the base and with every adapter, from the same prompts, seeds and noise, and measure all of it.

    The store at `out` grows adapter by adapter, and one is whole or is not there: repeat a call that was killed and it
    goes on; give more adapters and they are added; give the same ones and nothing changes.  What is left out is as the
    store has it, so that `evaluate([another], out=...)` is enough.  After each adapter the base is what it was, bit by
    bit.  Generating is watched by `spectra.record`: the cube is `OUT/probe`.

    Args:
        adapters: what is compared with the base, which is always the first: run directories, PEFT folders, LoRA files
            of diffusers or kohya, exports as scheduled LoRAs, merged checkpoints.  Content tells which; only
            safetensors are read.  An empty list measures the base alone.
        model: the base, by bundled name, folder or hub id; default: that of the runs, which have to agree.
        prompts: what is asked of every adapter, every seed for each; an adapter is judged by these.  Only a new store
            needs them.
        seeds: each fixes the initial noise of a sample, whatever the prompt, batch and adapter; default: 0, 1, 2, 3.
        out: the store, a folder such as runs/eval.zarr (zarr v3, opened by `xr.open_zarr`).
        unrelated: prompts that have nothing to do with what was learned, to see how far an adapter drifts.
        data: held-out captioned pictures, for validation errors and as references; default: the runs' own held-out
            pictures, where all adapters are runs on the same data.
        train: the pictures that the adapters learned from, to look for copies; default: as for `data`.
        networks: feature networks, as `adapt.networks.open_networks` names them: "auto", "none", "world",
            "clip=FOLDER", "dino=FOLDER", "inception".
        steps, guidance: of the sampler; default: those of the runs where they agree, else 20 and 3.
        resolution, frames: side of the pictures in pixels, and frames of each clip, for video models; default: as the
            runs were trained, else the model's own.
        batch: pictures generated at once, by default 8.  Noise belongs to a seed alone, so only rounding depends on it.
        names: labels of the adapters; default: the names of their folders (a run is its folder) or files.
        device: such as "cuda:1"; default: the accelerator that is there, else the CPU.
        progress: called with (phase, done, total) of "encode", "sample", "validate" and "features".
        cache: folder of the encoding cache; default: the user's.
        command: how this was called, for the record; the store keeps that of each adapter.

    Returns:
        The finished adapters, as `open_evaluation` gives them: image(adapter, sample, y, x, rgb) uint8, energy(adapter,
        sample, channel, band) and spectrum(adapter, sample, radius) of final latents, features, errors, references.

    Raises:
        UserError: before anything is generated: nothing to draw, an adapter that is not there, is pickled, or belongs
            to another model, a network or a place that cannot be had, or a store of other prompts, seeds, steps, model
            or networks, or one in which an adapter of the same path had other weights.
    """
    place, told, kept = Path(out).expanduser(), progress or silent, None if cache is None else Path(cache)
    stored = store.read_protocol(place) if store.exists(place) else None
    given = {
        "model": model, "prompts": prompts, "seeds": seeds, "unrelated": unrelated, "data": data, "train": train,
        "networks": networks, "steps": steps, "guidance": guidance, "resolution": resolution, "frames": frames,
        "batch": batch,
    }  # fmt: skip
    request = Request.of(given, stored)
    request.check()
    stores.check_writable(place)
    known = store.known_in(place) if stored else []
    named = _labelled(adapters, names, known)
    stage = prepare(request, stored, place, list(named.values()), kept, device, command, told)
    every = {BASE: base()} | named
    new = [(label, one) for label, one in every.items() if label not in {before.label for before in known}]
    _grow(stage, place, new, told)
    return store.open_evaluation(place)


def _labelled(
    adapters: Sequence[str | Path], names: Sequence[str] | None, known: Sequence[store.Known]
) -> dict[str, Adapter]:
    """The adapters that were named, each once, by label; warns of those that were given more than once."""
    found = [find(one) for one in unrepeated(adapters)]
    labels = labels_of(found, names, known, twice := repeated(adapters))
    if twice:
        warnings.warn(f"given more than once, counted once: {', '.join(twice)}", UserWarning, stacklevel=3)
    return dict(zip(labels, found, strict=True))


def _grow(stage: Stage, place: Path, new: Sequence[tuple[str, Adapter]], told: Progress) -> None:
    """Put every adapter on once, to see whether it fits; make the store if there is none; add to it."""
    for _, adapter in new:
        check_fit(stage.pipe, adapter)
    if not store.exists(place):
        begin(stage, place, told)
    with store.held(place):
        _add(stage, place, new, told)


def _add(stage: Stage, place: Path, new: Sequence[tuple[str, Adapter]], told: Progress) -> None:
    """Evaluate one adapter after another that is not in the store, as it is found now."""
    store.repair(place)
    known = {one.label for one in store.known_in(place)}
    forget(place / store.PROBE, known)
    missing = [(label, adapter) for label, adapter in new if label not in known]
    samples = len(stage.protocol.samples)
    counts = Counts(told, {
        "sample": samples * len(missing),
        "validate": len(missing),
        "features": samples * len(missing) * len(stage.networks),
    })  # fmt: skip
    if missing:
        counts.of("sample")(0)
    for label, adapter in missing:
        with attached(stage.pipe, adapter) as on:
            row = store.Row(place)
            row.put("adapter", label)  # so that readers can name what is not finished
            _measure(stage, row, label, place, on, counts)
        path = adapter.path and places.whole(adapter.path)
        row.finish(store.Known(label, adapter.kind, path, adapter.digest), stage.protocol.command)


def _measure(stage: Stage, row: store.Row, label: str, place: Path, on: Attached, counts: Counts) -> None:
    """Everything that is known of the adapter on the pipeline."""
    draw(stage.pipe, stage.protocol, row, label, place / store.PROBE, counts.of("sample"), on.player)
    if stage.bench is not None:
        stage.bench.measure(row, stage.pipe, on)
        counts.of("validate")(1)
    captions = captions_of([prompt for prompt, _, _ in stage.protocol.samples], stage.protocol.model)
    look(row, stage.networks, captions, "attribute_right" in row.arrays, counts.of("features"))
