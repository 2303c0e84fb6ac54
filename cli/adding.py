"""Adding to an evaluation that exists: what it says in the place of options that were not given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli.common import Progress, count, note

if TYPE_CHECKING:
    from adapt.evaluation.protocol import Protocol

MOST = 8
"""How many seeds are listed."""


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
    from adapt.evaluation.store import exists, known_in

    place = out.expanduser()
    return len(known_in(place)) if exists(place) else 0


def nothing_to_do(adapters: Sequence[str], out: Path) -> str:
    """Said where all adapters that were named are in an evaluation."""
    from adapt.evaluation.request import unrepeated

    named = unrepeated(adapters)
    what = f"all {len(named)} adapters are" if len(named) > 1 else f"{named[0] if named else 'the base'} is"
    return f"Nothing to do: {what} in {out} already"


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
