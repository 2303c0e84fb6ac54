"""Is everything here in order: libraries, device, bundled models, filter bank; and what can be recorded of a model.

Each check is a function that returns findings; a fault names what to do.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from spectra.errors import UserError

if TYPE_CHECKING:
    from spectra.families import Family

State = Literal["ok", "note", "fault"]
DISTRIBUTION = "spectra-adapt"
ROOM = 1 << 30  # free bytes below which a long probe may fill the disk


class Finding(NamedTuple):
    """One thing that was looked at: what, how it stands, and in words."""

    what: str
    state: State
    words: str


def examine(model: str | None = None, cube: str | os.PathLike[str] | None = None) -> list[Finding]:
    """All findings: about a model, if one is given, about this installation, and about a cube, if one is given."""
    found = [] if model is None else _guarded(f"model {model}", lambda: about_model(model))
    found += [*_guarded("libraries", libraries), *_guarded("device", devices), *_guarded("filter bank", bank)]
    found += [*_guarded("disk", room), *_guarded("bundled models", bundled)]
    if cube is not None:
        found += _guarded(f"cube {cube}", lambda: about_cube(cube))
    return found


def _guarded(what: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """The findings of a check; one that fails is a finding itself."""
    try:
        return check()
    except Exception as error:  # a broken installation shows itself as anything
        words = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        return [Finding(what, "fault", " ".join(words.split()))]


def libraries() -> list[Finding]:
    """Each library that this package requires, against what it asks for."""
    found = [Finding("Python", "ok", platform.python_version())]
    for text in importlib.metadata.requires(DISTRIBUTION) or []:
        if "extra ==" not in text:
            found.append(_library(text))
    return found


def _library(text: str) -> Finding:
    from packaging.requirements import Requirement

    wanted = Requirement(text)
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(wanted.name, "fault", f"not installed; pip install '{wanted}'")
    if not wanted.specifier.contains(version, prereleases=True):
        return Finding(wanted.name, "fault", f"{version}, but {wanted.specifier} is needed; pip install '{wanted}'")
    return Finding(wanted.name, "ok", version)


def devices() -> list[Finding]:
    """What generates: an accelerator, or processor threads."""
    import torch

    from spectra.models import usable_device

    device = usable_device()
    if device.type == "cuda":
        return [Finding("device", "ok", torch.cuda.get_device_name(device))]
    words = f"{torch.get_num_threads()} threads of {os.cpu_count()} processors, no accelerator"
    return [Finding("device", "ok" if device.type != "cpu" else "note", str(device) if device.type != "cpu" else words)]


def bank() -> list[Finding]:
    """The filter bank against scipy on this machine: the largest relative error of a band's energy in float32."""
    import numpy as np
    import torch
    from scipy.ndimage import gaussian_filter

    from spectra.bands import FilterBank

    x = np.random.default_rng(0).standard_normal((24, 40))
    own = FilterBank((0.8, 1.6, 3.2))
    blurred = [gaussian_filter(x, scale, mode="reflect") for scale in reversed(own.scales)]
    fields = np.diff(np.stack([np.zeros_like(x), *blurred, x]), axis=0)
    expected = (fields**2).sum((1, 2))
    error = float(np.abs(own.energies(torch.tensor(x).float()).numpy() / expected - 1).max())
    words = f"energies within {error:.0e} of scipy's, in float32"
    return [Finding("filter bank", "ok" if error < 1e-5 else "fault", words)]


def room() -> list[Finding]:
    """Free space where cubes are written by default: here."""
    free = shutil.disk_usage(Path.cwd()).free
    return [
        Finding("disk", "ok" if free > ROOM else "note", f"{free / (1 << 30):.1f} GB free in this folder's file system")
    ]


def bundled() -> list[Finding]:
    """The weights that come with this package."""
    from spectra.model_files import check_folder
    from spectra.models import MODELS

    found = []
    for name, model in MODELS.items():
        if model.bundled and Path(model.location).is_dir():
            check_folder(Path(model.location))
            found.append(Finding(f"model {name}", "ok", "its files are whole"))
    return found


def about_model(name: str) -> list[Finding]:
    """What spectra will do with a model: its family, its scheduler, and what can be recorded of it."""
    from spectra.families import family_of
    from spectra.models import load_pipeline, model_hash

    pipe = load_pipeline(name)
    family = family_of(pipe)
    if family.name == "unknown":
        kind = Finding(
            "family", "note", f"{type(pipe).__name__} is unknown: plain latents work, packed ones need layout="
        )
    else:
        kind = Finding("family", "ok", f"{type(pipe).__name__} is recorded as {family.name}")
    found = [Finding(f"model {name}", "ok", model_hash(pipe)), kind, *_guarded("signals", lambda: [_signals(pipe)])]
    found += _guarded("guidance", lambda: [_guidance(pipe, family)])
    return [*found, *_guarded("blocks", lambda: [_blocks(pipe, family)])]


def _guidance(pipe: Any, family: Family) -> Finding:
    """Whether the predictions with and without the prompt can be told apart."""
    from spectra.recording.arguments import names_of

    kind: Any = type(pipe)
    names = [name for name in ("true_cfg_scale", "guidance_scale") if name in names_of(kind)]
    if "true_cfg_scale" in names and (family.embedded or "guidance_scale" not in names):
        words = "cond, uncond and guidance can be told apart with --call true_cfg_scale=4 and a negative_prompt"
        return Finding("guidance", "ok", words)
    if family.embedded or not names:
        why = "the scale is an input of the network" if family.embedded else "its call takes no guidance scale"
        return Finding("guidance", "note", f"there is no cond and uncond to tell apart: {why}")
    words = (
        f"cond, uncond and guidance can be told apart where --guidance-scale is above {family.guidance_off:g} and "
        "guidance is uncond + w (cond - uncond), which is checked at each step"
    )
    if family.name == "unknown":
        return Finding("guidance", "note", f"not tried with this pipeline: {words}")
    return Finding("guidance", "ok", words)


def _blocks(pipe: Any, family: Family) -> Finding:
    """Which blocks --signals latent,blocks records."""
    from spectra.recording.blocks import blocks_of

    try:
        names = list(blocks_of(family.denoiser(pipe)))
    except UserError as error:
        return Finding("blocks", "note", str(error))
    stacks = Counter(name.partition(".")[0] for name in names)
    listed = ", ".join(f"{stack} ({number})" for stack, number in stacks.items())
    return Finding("blocks", "ok", f"energies of {len(names)} blocks can be recorded: {listed}")


def _signals(pipe: Any) -> Finding:
    from spectra.setting import timed
    from spectra.signals import schedule_of

    scheduler = timed(pipe.scheduler)
    name = type(scheduler).__name__
    try:
        schedule = schedule_of(scheduler, ("latent", "x0", "eps", "prediction"))
    except UserError as error:
        return Finding("signals", "note", str(error))
    words = f"{name}: {schedule.space} states, predicts {schedule.prediction_type}; x0 and eps can be recorded"
    return Finding("signals", "ok", re.sub(r"_", " ", words))


def about_cube(store: str | os.PathLike[str]) -> list[Finding]:
    """Every value of a cube, read."""
    from spectra.cube import validate

    return [Finding(f"cube {store}", "ok", f"all values of {validate(store)} complete runs can be read")]
