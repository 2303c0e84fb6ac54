"""From the arguments of a denoiser's forward to plain latents and the scheduler's timestep: views, as data.

Denoisers are told their latents in many ways: packed into tokens whose grid stands in position ids or in other
arguments, frames first, channels last, as lists, with pictures to start from in further channels or tokens.  A `Recipe`
says how one class of denoiser is to be read; `adapt.fera.recipes` holds those that are known.  A class that it does not
hold is read as it is, where its latents are (b, c, h, w) or (b, c, t, h, w).

Nothing here waits for the device in a step, but for position ids that are seen for the first time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spectra.errors import UserError

Lookup = Callable[[str], Any]
"""From the name of an argument to its value in this call; None where it has none."""


class Reading(NamedTuple):
    """What one call of a denoiser is given: latent (b, c, [t], h, w), and the scheduler's timestep (b,) if any."""

    latent: Tensor
    timestep: Tensor | None


class Call(NamedTuple):
    """A call as a recipe sees it: what was given as latent, other arguments by name, and the denoiser's settings.

    `grid` is that of FeraConfig, for tokens whose grid nothing else tells.
    """

    given: Any
    lookup: Lookup
    settings: Mapping[str, Any]
    kind: str
    grid: tuple[int, int] | None

    def tensor(self, axes: int) -> Tensor:
        """The latent argument as a tensor of so many axes; UserError for anything else."""
        if not isinstance(self.given, Tensor) or self.given.ndim != axes:
            shape = tuple(self.given.shape) if isinstance(self.given, Tensor) else type(self.given).__name__
            raise UserError(f"FeRA reads the latents of {self.kind} as a tensor of {axes} axes, got {shape}")
        return self.given


@dataclass(frozen=True)
class Recipe:
    """How one class of denoiser is read.

    `plain` lays the latents out.  The denoiser is told `per` times the scheduler's timestep, plus `start`.  `usual` is
    the grid of latents at the size that the model is mostly used at, for models that do not say it themselves.
    """

    plain: Callable[[Call], Tensor]
    latent: str = "hidden_states"
    timestep: str = "timestep"
    per: float = 1.0
    start: float = 0.0
    usual: tuple[int, int] | None = None


@dataclass(frozen=True)
class View:
    """The reading of one denoiser: `name` and `position` of its latent argument, and all names in their order."""

    recipe: Recipe
    name: str
    position: int
    names: tuple[str, ...]
    kind: str
    settings: Mapping[str, Any] = field(repr=False)
    grid: tuple[int, int] | None = None

    def read(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], timed: bool = True) -> Reading:
        """Plain latents and timestep of a call; without `timed` the timestep is not looked at.

        Raises:
            UserError: no latent in this call, or one whose layout cannot be known.
        """
        find = self._lookup(args, kwargs)
        latent = self.recipe.plain(Call(self._given(find), find, self.settings, self.kind, self.grid))
        return Reading(latent, self._timestep(find(self.recipe.timestep), latent) if timed else None)

    def batch(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, torch.device]:
        """Number of samples of a call, and where they are, without laying anything out."""
        given = self._given(self._lookup(args, kwargs))
        return len(given), given[0].device

    def _given(self, find: Lookup) -> Any:
        found = find(self.name)
        if not isinstance(found, Tensor | list | tuple) or not len(found):
            raise UserError(f"FeRA reads the denoiser's argument {self.name!r}; this call has no tensor there")
        return found

    def _lookup(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Lookup:
        def find(name: str) -> Any:
            if name in kwargs:
                return kwargs[name]
            place = self.names.index(name) if name in self.names else len(args)
            return args[place] if place < len(args) else None

        return find

    def _timestep(self, told: Any, latent: Tensor) -> Tensor | None:
        """One timestep per sample; where tokens or frames have their own, their mean."""
        if told is None:
            return None
        rows = len(latent)
        value = told.to(latent.device) if isinstance(told, Tensor) else torch.full((), told, device=latent.device)
        value = value.float().flatten(1).mean(1) if value.ndim > 1 else value.float()
        if value.numel() not in (1, rows):
            raise UserError(f"{self.kind} was given {value.numel()} timesteps for {rows} latents: give each its own")
        return (value.expand(rows) - self.recipe.start) / self.recipe.per


def view_of(model: nn.Module, latent_argument: str | None = None, grid: tuple[int, int] | None = None) -> View:
    """How FeRA reads a denoiser.

    `latent_argument` names another argument than the usual one, which is then taken as plain latents; `grid` is the
    height and width of latents that come as tokens (b, h w, c) without telling their grid.

    Raises:
        UserError: the denoiser's forward has no argument of that name.
    """
    from adapt.fera.recipes import recipe_of, unknown

    name, position = latent_name(model, latent_argument)
    recipe = recipe_of(model)
    if recipe is None or recipe.latent != name:
        recipe = unknown(name, "timestep" if recipe is None else recipe.timestep)
    settings = getattr(model, "config", None)
    known = dict(settings) if isinstance(settings, Mapping) else {}
    return View(recipe, name, position, _names(model), type(model).__name__, known, grid)


def latent_name(model: nn.Module, name: str | None) -> tuple[str, int]:
    """Name and position of the denoiser's latent: `name` if given, else the usual one, else the first argument."""
    from adapt.fera.recipes import recipe_of

    names = _names(model)
    if not names:
        raise UserError(f"{type(model).__name__}.forward names no argument: FeRA cannot tell which one is the latent")
    if name is not None and name not in names:
        raise UserError(f"{type(model).__name__}.forward has no argument {name!r}; it has {', '.join(names)}")
    recipe = recipe_of(model)
    usual = recipe.latent if recipe is not None and recipe.latent in names else names[0]
    chosen = usual if name is None else name
    return chosen, names.index(chosen)


def usual_grid(model: nn.Module) -> tuple[int, int] | None:
    """Height and width of a denoiser's latents at the size that it is mostly used at; None where nothing tells."""
    from adapt.fera.recipes import recipe_of

    size = getattr(getattr(model, "config", None), "sample_size", None)
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2:
        return int(size[0]), int(size[1])
    recipe = recipe_of(model)
    return None if recipe is None else recipe.usual


def _names(model: nn.Module) -> tuple[str, ...]:
    skip = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return tuple(p.name for p in inspect.signature(model.forward).parameters.values() if p.kind not in skip)
