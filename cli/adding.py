"""Adding to an evaluation: what it says in the place of options, and of adapters, that were not given."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli.common import Progress, count, note
from spectra.errors import UserError

if TYPE_CHECKING:
    from adapt.evaluation.protocol import Protocol

MOST = 8
"""How many seeds, or adapters, are listed."""
ADAPTERS = "runs of `adapt train`, adapter folders, LoRA files or merged checkpoints"


def named(adapters: Sequence[str] | None, out: Path, model: bool = False, prompts: bool = False) -> list[str]:
    """The adapters that were given; none, for the base alone, where a `model` and `prompts` were given.

    Raises:
        UserError: nothing was given that could be evaluated: what there is at `out`, and what to give.
    """
    if adapters or (model and prompts):  # the base alone begins, goes on, or is there already
        return list(adapters or ())
    held = labels_in(out)
    if held is None:
        missing = "; --model is missing" if prompts else "; prompts are missing" if model else ""
        raise UserError(
            f"nothing was given to evaluate, and there is no evaluation at {out}; give {ADAPTERS} to compare with the "
            f"base, or only --model and --prompt TEXT (or --prompts FILE) to measure the base alone{missing}"
        )
    page = f", or look at it with `adapt report {shlex.quote(str(out))}`" * (len(held) > 1)
    raise UserError(f"nothing was given to evaluate, and {out} holds {_models(held)}; give {ADAPTERS} to add{page}")


def labels_in(out: Path) -> list[str] | None:
    """The whole models of an evaluation, the base among them; None where there is no evaluation."""
    from adapt.evaluation.store import exists, known_in

    place = out.expanduser()
    return [one.label for one in known_in(place)] if exists(place) else None


def _models(held: Sequence[str]) -> str:
    """What an evaluation holds, in words."""
    if len(held) < 2:
        return "the base alone" if held else "nothing whole yet"
    adapters = held[1:]
    more = f" and {len(adapters) - MOST} more" if len(adapters) > MOST else ""
    return f"the base and {count(len(adapters), 'adapter')} ({', '.join(adapters[:MOST])}{more})"


def taken(out: Path, given: Mapping[str, object]) -> str:
    """What an evaluation says of options that were not given (None, or empty); empty where there is none yet.

    Raises:
        UserError: there is something else at `out`.
    """
    from adapt.evaluation.store import exists, read_protocol

    place = out.expanduser()
    says = _words(read_protocol(place)) if exists(place) else {}
    found = [words for name, words in says.items() if words and given[name] in (None, [])]
    return f"Taken from {out}: {', '.join(found)}" if found else ""


def whole_in(out: Path) -> int:
    """How many models an evaluation holds, the base among them; 0 where there is none."""
    return len(labels_in(out) or ())


def nothing_to_do(adapters: Sequence[str], out: Path) -> str:
    """Said where all adapters that were named are in an evaluation."""
    from adapt.evaluation.request import unrepeated

    named = unrepeated(adapters)
    what = f"all {len(named)} adapters are" if len(named) > 1 else f"{named[0] if named else 'the base'} is"
    return f"Nothing to do: {what} in {out} already"


def begun_without(protocol: Protocol) -> str:
    """Said when an evaluation of the base alone has begun: what cannot be added to it; empty where all was given."""
    from adapt.evaluation.protocol import BEGUN_WITH, not_measured

    left = " and ".join(words for words in not_measured(protocol) if words != BEGUN_WITH["train"])
    return f"This evaluation was begun without {left}, which cannot be added later" if left else ""


def saying(words: str, progress: Progress) -> Progress:
    """Progress that prints a sentence on stderr when pictures begin to be made: by then, everything is checked."""
    left = [words] * bool(words)

    def told(phase: str, done: int, total: int) -> None:
        if phase == "sample" and left:
            note(left.pop())
        progress(phase, done, total)

    return told


def _words(protocol: Protocol) -> dict[str, str]:
    """Option -> what a protocol says there; empty where that is nothing."""
    networks = [str(one["name"]) for one in protocol.networks]
    return {
        "model": f"model {protocol.model}",
        "prompts": count(len(protocol.prompts), "prompt"),
        "unrelated": count(len(protocol.unrelated), "unrelated prompt") if protocol.unrelated else "",
        "seeds": _seeds(protocol.seeds),
        "steps": count(protocol.steps, "step"),
        "guidance": f"guidance {protocol.guidance:g}",
        "resolution": f"{protocol.sizes['width']} x {protocol.sizes['height']} pixels",
        "data": f"held-out pictures {protocol.data}" if protocol.data else "",
        "train": f"training pictures {protocol.train}" if protocol.train else "",
        "networks": f"features by {' and '.join(networks)}" if networks else "",
        "batch": f"batches of {protocol.batch}",
    }


def _seeds(seeds: Sequence[int]) -> str:
    """Seeds as `--seeds` takes them; of many without order, their number."""
    first, last = seeds[0], seeds[-1]
    if len(seeds) == 1:
        return f"seed {first}"
    if list(seeds) == list(range(first, last + 1)):
        return f"seeds {first}:{last + 1}"
    return f"seeds {','.join(map(str, seeds))}" if len(seeds) <= MOST else f"{len(seeds)} seeds"
