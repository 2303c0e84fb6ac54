"""Everything that stays as it is from adapter to adapter, opened and checked before anything is generated."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adapt.evaluation import places, store
from adapt.evaluation import references as reference_pictures
from adapt.evaluation.adapters import Adapter
from adapt.evaluation.drawing import Tick, pilot
from adapt.evaluation.measuring import STEP, Bench, Fixed, attributes_of, captions_of, features_of
from adapt.evaluation.protocol import Protocol, check_same
from adapt.evaluation.references import References
from adapt.evaluation.request import Request, guidance_of, model_of, settings_of, sizes_of, steps_of
from adapt.evaluation.store import Growing, Pieces
from adapt.methods import check_model
from adapt.octaves import BANDS, coordinates, measured, octaves, stills
from adapt.task import Progress
from spectra.devices import opened
from spectra.recording.provenance import versions

if TYPE_CHECKING:
    from adapt.networks import Network

TEXT = np.dtypes.StringDType()


class Counts:
    """Progress by phase, added up over adapters."""

    def __init__(self, told: Progress, totals: dict[str, int]) -> None:
        self.told, self.totals, self.done = told, totals, dict.fromkeys(totals, 0)

    def of(self, phase: str) -> Tick:
        """What is called with the number of things just done."""

        def tick(count: int) -> None:
            self.done[phase] += count
            self.told(phase, self.done[phase], self.totals[phase])

        return tick


@dataclass(frozen=True)
class Stage:
    """The base, what is asked of every adapter, and what looks at the answers."""

    pipe: Any
    protocol: Protocol
    networks: list[Network]
    references: References
    bench: Bench | None


def prepare(
    request: Request, stored: Protocol | None, out: Path, adapters: Sequence[Adapter], cache: Path | None,
    device: str | None, command: str, told: Progress,
) -> Stage:  # fmt: skip
    """Open the model, the networks and the references, and hold them against the store's protocol if there is one.

    Raises:
        UserError: as `adapt.evaluate` says.
    """
    from spectra.models import check_steps, model_hash
    from spectra.prompts import check_readers, warn_cut

    settings = settings_of(adapters)
    name, steps = model_of(request, stored, adapters), steps_of(request, stored, settings)
    pipe = opened(name, device)
    identity = model_hash(pipe)
    for adapter in adapters:
        if adapter.record is not None:
            check_model(f"the adapter {adapter.path}", adapter.record, name, identity)
    check_steps(pipe, steps)
    check_readers(pipe)
    warn_cut(pipe, [*request.prompts, *request.unrelated], "prompt")
    sizes = sizes_of(pipe, request, stored, settings)
    sources = reference_pictures.sources_of(request, stored, adapters)
    reference_pictures.warn_learned(sources, adapters)
    asked = stored.networks_asked if stored and request.networks == ["auto"] else request.networks
    networks = _networks(asked, name, (sizes["height"], sizes["width"]), pipe)
    config = reference_pictures.config_of(sources, sizes, name, out, cache)
    with places.named_by(out, reference_pictures.taken_from(stored, sources)):
        references = reference_pictures.load(sources, config, pipe, told)
    bench = Bench.of(pipe, config, references, identity)
    protocol = Protocol(
        model=places.of_model(name), model_hash=identity, steps=steps,
        guidance=guidance_of(request, stored, settings), sizes=sizes,
        scheduler={"class": type(pipe.scheduler).__name__, "config": _plain(pipe.scheduler.config)},
        device=str(pipe.device.type), batch=request.batch, prompts=request.prompts, seeds=request.seeds,
        unrelated=request.unrelated, data=sources.data, train=sources.train, reading=_plain(sources.reading or {}),
        pictures=references.facts(), grid=bench.facts() if bench else {},
        networks=[network.to_dict() for network in networks], networks_asked=[*map(places.of_network, asked)],
        versions=versions(),
        command=command,
    )  # fmt: skip
    if stored is not None:
        _compare(stored, protocol, out)
    return Stage(pipe, protocol, networks, references, bench)


def _networks(asked: Sequence[str], model: str, size: tuple[int, int], pipe: Any) -> list[Network]:
    """The feature networks of these names; `none` are none."""
    from adapt.networks import open_networks

    return open_networks(asked, model=model, size=size, device=pipe.device)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON holds them."""
    found: dict[str, Any] = json.loads(json.dumps(dict(settings), default=str))
    return found


def _compare(stored: Protocol, now: Protocol, out: Path) -> None:
    different = check_same(stored, now, str(out))
    if different:
        warnings.warn(
            f"{out} was made a little otherwise, which changes pictures by rounding: {'; '.join(different)}",
            UserWarning, stacklevel=3,
        )  # fmt: skip


def begin(stage: Stage, out: Path, told: Progress) -> None:
    """Make the store: what all adapters share is in it from the start."""
    protocol = stage.protocol
    latents, picture = pilot(stage.pipe, protocol)
    prompts = [prompt for prompt, _, _ in protocol.samples]
    attributes = attributes_of(captions_of(prompts, protocol.model), (picture.shape[1], picture.shape[2]))
    pictures = sum(len(data) for _, data in stage.references.parts)
    tick = Counts(told, {"features": pictures * len(stage.networks)}).of("features")
    fixed = _coordinates(protocol, latents, attributes) | _texts(stage.networks, prompts)
    fixed |= _references(stage, tick) | (stage.bench.fixed() if stage.bench else {})
    bank = json.dumps(octaves(latents).to_dict())
    notes = {"bank": bank, "grid": json.dumps(list(latents.shape[-2:])), "title": f"Adapters of {protocol.model}"}
    store.create(out, protocol, fixed, _growing(stage, latents, picture, attributes), notes)


def _growing(stage: Stage, latents: Tensor, picture: NDArray[np.uint8], attributes: list[str]) -> dict[str, Growing]:
    """The variables of each adapter."""
    count, (height, width) = len(stage.protocol.samples), latents.shape[-2:]
    found = {
        "image": Growing(("sample", "y", "x", "rgb"), (count, *picture.shape[1:]), "uint8"),
        "energy": Growing(("sample", "channel", "band"), (count, latents.shape[1], BANDS)),
        "spectrum": Growing(("sample", "radius"), (count, min(height, width))),
    }
    if attributes:
        found["attribute_right"] = Growing(("sample", "attribute"), (count, len(attributes)))
    for network in stage.networks:
        found[f"feature_{network.name}"] = Growing(("sample", f"dim_{network.name}"), (count, network.dims))
    return found | (stage.bench.growing() if stage.bench else {})


def _coordinates(protocol: Protocol, latents: Tensor, attributes: list[str]) -> Fixed:
    prompts, seeds, parts = zip(*protocol.samples, strict=True)
    return {
        "prompt": (("sample",), np.array(prompts, TEXT)),
        "seed": (("sample",), np.array(seeds, np.int64)),
        "part": (("sample",), np.array(parts, TEXT)),
        **coordinates(latents),
    } | ({"attribute": (("attribute",), np.array(attributes, TEXT))} if attributes else {})


def _texts(networks: Sequence[Network], prompts: list[str]) -> Fixed:
    """What networks that read say of each sample's prompt; equal prompts are read once."""
    found: Fixed = {}
    for network in networks:
        if network.reads_text:
            each = list(dict.fromkeys(prompts))
            read = dict(zip(each, network.texts(each), strict=True))
            found[f"text_{network.name}"] = (
                ("sample", f"dim_{network.name}"),
                np.stack([read[one] for one in prompts]),
            )
    return found


def _references(stage: Stage, tick: Tick) -> Fixed:
    """The reference pictures, and what is measured of them as of generated ones."""
    parts = stage.references.parts
    if not parts:
        return {}
    rows = [(data, row) for _, data in parts for row in range(len(data))]
    found: Fixed = {
        "reference_image": (("reference", "y", "x", "rgb"), Pieces(len(rows), lambda i: _picture(*rows[i]))),
        "reference_caption": (("reference",), np.array([data.captions[row] for data, row in rows], TEXT)),
        "reference_part": (("reference",), np.array([name for name, data in parts for _ in range(len(data))], TEXT)),
    }
    several = [
        measured(data.latents(range(len(data))[at : at + STEP]))
        for _, data in parts
        for at in range(0, len(data), STEP)
    ]
    for name, dims in (("energy", ("channel", "band")), ("spectrum", ("radius",))):
        found[f"reference_{name}"] = (("reference", *dims), np.concatenate([one[name] for one in several]))
    for network in stage.networks:
        features = np.concatenate([features_of(data, network, tick) for _, data in parts])
        found[f"reference_feature_{network.name}"] = (("reference", f"dim_{network.name}"), features)
    return found


def _picture(data: Any, row: int) -> NDArray[np.uint8]:
    picture: NDArray[np.uint8] = stills(data.picture(row), lead=0)
    return picture
