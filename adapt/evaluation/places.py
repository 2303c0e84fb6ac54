"""Paths as a store keeps them: those of this machine whole, so that a later call from any folder finds them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasets_cache.sources import decide
from spectra.errors import UserError
from spectra.models import MODELS


def whole(path: str) -> str:
    """A path of this machine without the folder that it was given in; `..` is worked out, links are kept."""
    return os.path.abspath(Path(path).expanduser())


def of_model(named: str) -> str:
    """A model: bundled names, aliases and hub ids are kept."""
    return whole(named) if named not in MODELS and Path(named).expanduser().is_dir() else named


def of_data(named: str) -> str:
    """Pictures, of a folder or of files; data sets of the hub, URLs and what is not there are kept."""
    try:
        return named if decide(named)[0] == "hub" else whole(named)
    except UserError:
        return named


def of_network(named: str) -> str:
    """A feature network such as `clip=FOLDER`; hub ids are kept."""
    kind, equals, place = named.partition("=")
    return f"{kind}={whole(place)}" if equals and Path(place).expanduser().is_dir() else named


@contextmanager
def named_by(store: Path, pictures: list[str]) -> Iterator[None]:
    """Inside, pictures that cannot be read are said to be named by a store, where they are not on this machine.

    Stores of earlier versions keep paths as they were given, which mean nothing in another folder.
    """
    gone = [place for place in dict.fromkeys(pictures) if not Path(place).expanduser().exists()]
    try:
        yield
    except UserError as error:
        if not gone:
            raise
        raise UserError(
            f"{store} names the pictures {' and '.join(gone)}, which cannot be read from here: {error}; give the "
            "held-out and the training pictures (data, train) as they are found from here"
        ) from error
