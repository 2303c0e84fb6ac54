"""Networks by name: `auto`, `none`, `world`, `clip`, `dino`, `inception`, and `clip=` or `dino=` of a folder or id."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.networks.network import Network
from spectra.errors import UserError

if TYPE_CHECKING:
    import torch

NAMES = ("auto", "none", "world", "clip", "dino", "inception")
PLACES = {"clip": "openai/clip-vit-large-patch14", "dino": "facebook/dinov2-base"}
"""Where these come from unless a folder or hub id is named."""


def open_networks(
    names: Sequence[str] = ("auto",),
    *,
    model: str | Path | None = None,
    size: tuple[int, int] | None = None,
    device: str | torch.device = "cpu",
) -> list[Network]:
    """Open networks in the order of `names`, each once; a second one of a kind is called `clip_2` and so on.

    `auto` is the network of the bundled world where `model` (name or folder of the base model) is a bundled one and
    `size` (height and width of its pictures in pixels) is 64 x 64, and nothing for other models. `none` is nothing.
    Raises UserError, one sentence, for an unknown name and for a network that cannot be had.
    """
    opened: list[Network] = []
    for spec in resolve(names, model=model, size=size):
        network = _open(spec, device)
        taken = sum(spec.partition("=")[0] == other.name.partition("_")[0] for other in opened)
        opened.append(replace(network, name=f"{network.name}_{taken + 1}") if taken else network)
    return opened


def resolve(names: Sequence[str], *, model: str | Path | None = None, size: tuple[int, int] | None = None) -> list[str]:
    """The names with `auto` and `none` worked out, each once: "world", "inception", "clip=PLACE", "dino=PLACE".

    Cheap: nothing is opened. Raises UserError for names that are not understood.
    """
    from adapt.networks import bundled

    asked = [_checked(name) for name in names]
    if "none" in asked and len(set(asked)) > 1:
        raise UserError(
            f'the network name "none" stands alone, not beside {", ".join(n for n in asked if n != "none")}'
        )
    automatic = ["world"] if bundled.fits(model, size) else []
    plain = [one for name in asked for one in ({"auto": automatic, "none": []}.get(name, [name]))]
    return list(dict.fromkeys(plain))


def _checked(name: str) -> str:
    """A name as `resolve` gives it, with the default place of clip and dino."""
    kind, equals, place = name.strip().partition("=")
    if kind not in NAMES:
        close = difflib.get_close_matches(kind.lower(), NAMES, n=1)
        hint = f'did you mean "{close[0]}"?' if close else f"the names are {', '.join(NAMES)}, clip=PLACE, dino=PLACE"
        raise UserError(f"there is no feature network {name!r}; {hint}")
    if equals and (kind not in PLACES or not place):
        wants = "give a folder or a hub id after the =" if kind in PLACES else "write it without ="
        raise UserError(f"the network {name!r} is not understood; {wants}")
    return f"{kind}={place or PLACES[kind]}" if kind in PLACES else kind


def _open(spec: str, device: str | torch.device) -> Network:
    kind, _, place = spec.partition("=")
    if kind == "clip":
        from adapt.networks.clip import open_clip

        return open_clip(place, device)
    if kind == "dino":
        from adapt.networks.dino import open_dino

        return open_dino(place, device)
    if kind == "inception":
        from adapt.networks.inception import open_inception

        return open_inception(device)
    from adapt.networks.bundled import open_world

    return open_world(device)
