"""What a caller of `adapt.evaluate` asked for, and what it means where it was left open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt.evaluation.adapters import BASE, Adapter
from adapt.evaluation.protocol import Protocol
from adapt.evaluation.store import Known
from spectra.errors import UserError

STEPS, GUIDANCE, SEEDS, BATCH = 20, 3.0, (0, 1, 2, 3), 8


@dataclass(frozen=True)
class Request:
    """The arguments of `adapt.evaluate` that say what is drawn; None leaves it to the store, then to the runs."""

    model: str | None
    prompts: list[str]
    seeds: list[int]
    unrelated: list[str]
    data: str | None
    train: str | None
    networks: list[str]
    steps: int | None
    guidance: float | None
    resolution: int | None
    frames: int | None
    batch: int

    @classmethod
    def of(cls, given: Mapping[str, Any], stored: Protocol | None) -> Request:
        """The arguments; of those that were left out (None), what runs do not say is as the store has it."""
        defaults: dict[str, Any] = {"prompts": (), "seeds": SEEDS, "unrelated": (), "batch": BATCH}
        if given["data"] is not None or given["train"] is not None:  # else the store's own way of reading both
            defaults |= {"data": None, "train": None}
        known = defaults if stored is None else {name: getattr(stored, name) for name in defaults}
        found = {**given, **{name: value for name, value in known.items() if given[name] is None}}
        plain = {name: text(found[name]) for name in ("model", "data", "train")}
        lists = {name: texts(found[name], name) for name in ("prompts", "unrelated")}
        seeds, networks = list(dict.fromkeys(map(int, found["seeds"]))), list(found["networks"])
        return cls(**{**found, **plain, **lists, "seeds": seeds, "networks": networks})

    def check(self) -> None:
        """UserError for what makes no sense, before anything is opened."""
        if not self.prompts or not self.seeds:
            raise UserError("an evaluation needs at least one prompt and one seed")
        if both := set(self.prompts) & set(self.unrelated):
            raise UserError(f"the prompt {min(both)!r} is given as asked and as unrelated; give it once")
        if any(not 0 <= seed < 2**63 for seed in self.seeds):
            raise UserError("a seed is a whole number from 0 to 2^63 - 1")
        for name in ("steps", "batch", "resolution", "frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is at least 1, and {value} was given")
        if self.guidance is not None and not 0 <= self.guidance < float("inf"):
            raise UserError(f"guidance is a number of at least 0, and {self.guidance} was given")


def text(given: object) -> str | None:
    """A name or a path as text."""
    return None if given is None else str(given)


def texts(given: Sequence[str], what: str) -> list[str]:
    """A list of texts, each once; UserError for one text alone, which would be read letter by letter."""
    if isinstance(given, str):
        raise UserError(f"{what} is a list of texts, and one text was given")
    return list(dict.fromkeys(str(one) for one in given))


def settings_of(adapters: Iterable[Adapter]) -> list[Mapping[str, Any]]:
    """The configurations of those adapters that are runs."""
    return [adapter.record.get("config", {}) for adapter in adapters if adapter.record is not None]


def agreed(settings: Sequence[Mapping[str, Any]], name: str) -> Any:
    """What all runs say of a setting; None where they differ, or there is no run."""
    found = [one.get(name) for one in settings]
    return found[0] if found and all(one == found[0] for one in found) else None


def model_of(request: Request, stored: Protocol | None, adapters: Sequence[Adapter]) -> str:
    """The base model; UserError where nobody names it, or runs name several."""
    if request.model is not None or stored is not None:
        return request.model or (stored.model if stored else "")
    named = {str(adapter.record["model"]): str(adapter.record["model_hash"]) for adapter in adapters if adapter.record}
    if len(named) > 1:
        listed = ", ".join(sorted(named))
        if len(set(named.values())) == 1:
            raise UserError(f"the runs name their model in {len(named)} ways ({listed}); give the model")
        raise UserError(
            f"the runs belong to {len(named)} models ({listed}), and an evaluation has one; evaluate the runs of each "
            "model into a place of its own"
        )
    if not named:
        raise UserError("no run among the adapters says which model they belong to; give the model")
    return next(iter(named))


def steps_of(request: Request, stored: Protocol | None, settings: Sequence[Mapping[str, Any]]) -> int:
    """Sampler steps."""
    return int(request.steps or (stored.steps if stored else agreed(settings, "sample_steps") or STEPS))


def guidance_of(request: Request, stored: Protocol | None, settings: Sequence[Mapping[str, Any]]) -> float:
    """Scale of the guidance."""
    if request.guidance is not None:
        return float(request.guidance)
    known = stored.guidance if stored else agreed(settings, "guidance")
    return GUIDANCE if known is None else float(known)


def sizes_of(
    pipe: Any, request: Request, stored: Protocol | None, settings: Sequence[Mapping[str, Any]]
) -> dict[str, int]:
    """Sizes of the pictures or clips, in pixels: as asked, as in the store, as the runs were trained, the model's."""
    from adapt.generating import sizes_of_run

    known = dict(stored.sizes) if stored else {}
    if known and request.resolution is None:
        return known | ({} if request.frames is None else {"num_frames": request.frames})
    frames = request.frames or known.get("num_frames") or agreed(settings, "frames") or _frames(pipe)
    named = {"resolution": request.resolution or agreed(settings, "resolution"), "frames": frames}
    return sizes_of_run(pipe, {name: value for name, value in named.items() if value is not None})


def _frames(pipe: Any) -> int | None:
    """Frames of a clip that a pipeline makes where it is not told; None where it makes pictures, or does not say."""
    from datasets_cache.families import encoding_family
    from datasets_cache.families.text import argument
    from spectra.families import family_of

    if not encoding_family(pipe).video:
        return None
    told = argument(pipe, "num_frames")
    config: Any = family_of(pipe).denoiser(pipe).config
    return int(told) if isinstance(told, int) else config.get("num_frames")


def labels_of(
    adapters: Sequence[Adapter], names: Sequence[str] | None, known: Sequence[Known], repeated: Sequence[str] = ()
) -> list[str]:
    """A label for each adapter: that of the store, the one given, or its name, with a number where that is taken.

    `repeated` are those that were given more than once.

    Raises:
        UserError: too many or too few names, one that is given twice or taken, or another for an adapter that has one;
            an adapter that is in the store with other weights.
    """
    if names is not None and len(names) != len(adapters):
        many = "adapter" if len(adapters) == 1 else "adapters"
        again = f" ({', '.join(repeated)} was given more than once)" if repeated else ""
        raise UserError(f"{len(names)} names were given for {len(adapters)} {many}{again}; give one each")
    found: list[str] = []
    for place, adapter in enumerate(adapters):
        wanted = None if names is None else str(names[place]).strip()
        before = recognised(adapter, wanted or adapter.name, known)
        used = {BASE, *(one.label for one in known), *found}
        if wanted is not None:
            _check_name(wanted, before, used, adapter.path)
        found.append(before.label if before else wanted or _free(adapter.name, used))
    return found


def recognised(adapter: Adapter, name: str, known: Sequence[Known]) -> Known | None:
    """What a store has of an adapter already: by its path, or by its name and weights where it was moved.

    Raises:
        UserError: other weights lay at this path.
    """
    for one in known:
        if one.path and adapter.same_place(one.path):
            if one.digest != adapter.digest:
                raise UserError(
                    f"{adapter.path} has other weights than when it was evaluated as {one.label!r}; "
                    "give the adapter another path, or evaluate into another place"
                )
            return one
    return next((one for one in known if one.digest and (one.label, one.digest) == (name, adapter.digest)), None)


def _check_name(wanted: str, before: Known | None, used: set[str], path: str) -> None:
    if not wanted:
        raise UserError(f"the name of {path} is empty; give one")
    if before is not None and wanted != before.label:
        raise UserError(f"{path} is in this evaluation already, as {before.label!r}; leave the name {wanted!r} out")
    if before is None and wanted in used:
        raise UserError(f"the name {wanted!r} is taken; give {path} another")


def _free(name: str, used: set[str]) -> str:
    """A name that is not used, with a number behind it where it has to be."""
    numbered = (name if number == 1 else f"{name} ({number})" for number in range(1, len(used) + 2))
    return next(one for one in numbered if one not in used)


def unrepeated(given: Iterable[str | Path]) -> list[str]:
    """The adapters that were named, each once, by whatever path; the word base names what is always there."""
    return [words[0] for words in _by_place(given)]


def repeated(given: Iterable[str | Path]) -> list[str]:
    """Those that were named more than once, by whatever path, each by its first."""
    return [words[0] for words in _by_place(given) if len(words) > 1]


def _by_place(given: Iterable[str | Path]) -> list[list[str]]:
    """The words that name each adapter, in their order."""
    found: dict[Path, list[str]] = {}
    for word in map(str, given):
        found.setdefault(Path(word).expanduser().resolve(), []).append(word)
    return [words for words in found.values() if _is_adapter(words[0])]


def _is_adapter(word: str) -> bool:
    return word != BASE or Path(word).exists()
