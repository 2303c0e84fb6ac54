"""Pictures in tables, read through Hugging Face `datasets`: parquet, tar shards, saved data sets and the hub."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tarfile import TarError
from typing import Any

from datasets_cache.items import CAPTION_FIELDS, BadPicture, Item, Reading, listed, read_bytes, tidy
from spectra.errors import UserError

TAR_TEXTS = ("txt", "caption", "text")
"""Fields of a tar shard that hold one caption."""
TAR_TABLE = "json"
"""Field of a tar shard that holds a record, with captions among others."""

Column = tuple[str, ...]
"""Name of a column, or of a column of records and of the field in it."""


def open_files(builder: str, files: Sequence[Path], name: str, reading: Reading) -> list[Item]:
    """The pictures in parquet files or tar shards (`builder` is `parquet` or `webdataset`)."""
    from datasets import load_dataset

    with _one_sentence(name), _quiet():
        table = load_dataset(
            builder, data_files=[str(file) for file in files], split="train", cache_dir=_cache(reading)
        )
    return items_of(table, name, reading, [file.parent for file in files])


def open_folder_of_files(folder: Path, reading: Reading) -> list[Item]:
    """The pictures in a folder of parquet files or tar shards, whose splits `datasets` finds by their names."""
    from datasets import load_dataset

    with _one_sentence(str(folder)), _quiet():
        table = load_dataset(str(folder), split=reading.split, cache_dir=_cache(reading))
    return items_of(table, str(folder), reading, [folder])


def open_saved(folder: Path, reading: Reading) -> list[Item]:
    """The pictures of a data set that `save_to_disk` wrote; of one of its splits, if it has some."""
    from datasets import load_from_disk

    with _one_sentence(str(folder)), _quiet():
        table = load_from_disk(str(folder))
    if isinstance(table, dict):
        if reading.split not in table:
            raise UserError(f"{folder} has no split {reading.split!r}; its splits are {listed(table)}")
        table = table[reading.split]
    return items_of(table, str(folder), reading, [folder])


def open_hub(name: str, reading: Reading) -> list[Item]:
    """The pictures of a data set of the hub, downloaded if they are not yet on this machine."""
    from datasets import config, load_dataset

    with _one_sentence(name), _quiet():
        try:
            table = load_dataset(name, split=reading.split)
        except OSError as error:  # no connection, no such data set, or not for this person
            raise UserError(
                f"there is no folder or file {name!r}, and no data set of that name can be had from the hub "
                f"({str(error).splitlines()[0]}); check the name or the connection"
            ) from None
    return items_of(table, name, reading, [Path(config.HF_CACHE_HOME)])


def items_of(table: Any, name: str, reading: Reading, folders: Sequence[Path]) -> list[Item]:
    """One item a row.

    Args:
        table: a `datasets.Dataset`.
        name: what sentences call it.
        reading: its columns.
        folders: where pictures that are named by path may lie, in sub-folders too.

    Raises:
        UserError: a column that is missing or of another kind, rows without a caption, no rows.
    """
    from datasets import Image

    if not len(table):
        raise UserError(f"{name} has no rows; give data with pictures")
    image = _image_column(table, name, reading.image_column)
    captions = _captions(table, name, reading)
    places = _places(table, name, image)
    pictures = table.cast_column(image, Image(decode=False)).select_columns([image])

    def item(row: int) -> Item:
        return Item(places[row], captions[row], lambda: (_bytes(pictures[row][image], places[row], folders),))

    return [item(row) for row in range(len(table))]


def _image_column(table: Any, name: str, asked: str) -> str:
    from datasets import Image, Value

    columns = list(table.features)
    drawn = [column for column, feature in table.features.items() if isinstance(feature, Image)]
    if asked not in columns and asked == Reading.image_column and len(drawn) == 1:
        return str(drawn[0])
    if asked not in columns:
        raise UserError(f"{name} has no column {asked!r} for the pictures (image_column); it has {_shown(columns)}")
    feature = table.features[asked]
    if isinstance(feature, Image) or (isinstance(feature, Value) and feature.dtype in _PICTURE_TYPES):
        return asked
    if isinstance(feature, dict) and "bytes" in feature:
        return asked
    raise UserError(f"the column {asked!r} of {name} holds no pictures (image_column); it has {_shown(columns)}")


_PICTURE_TYPES = ("binary", "large_binary", "string", "large_string")


def _captions(table: Any, name: str, reading: Reading) -> list[tuple[str, ...]]:
    """Captions of every row, the default one where a row has none."""
    column = _caption_column(table, name, reading)
    values = [None] * len(table) if column is None else _values(table, column)
    try:
        found = [tidy(value) for value in values]
    except TypeError as error:
        where = ".".join(column or ())
        raise UserError(f"the column {where!r} of {name} holds no captions (caption_column): {error}") from None
    bare = [f"row {row}" for row, captions in enumerate(found, start=1) if not captions]
    if bare and reading.default_caption is None:
        raise UserError(f"{name} has pictures without a caption: {listed(bare)}; add one, or give a default_caption")
    return [captions or (reading.default_caption or "",) for captions in found]


def _caption_column(table: Any, name: str, reading: Reading) -> Column | None:
    asked = reading.caption_column
    default = asked == CAPTION_FIELDS[0]
    fields = table.features[TAR_TABLE] if isinstance(table.features.get(TAR_TABLE), dict) else {}
    for wanted in (*CAPTION_FIELDS, *TAR_TEXTS) if default else (asked,):
        if wanted in table.features:
            return (wanted,)
    for wanted in CAPTION_FIELDS if default else (asked,):
        if wanted in fields:
            return (TAR_TABLE, wanted)
    if default and reading.default_caption is not None:
        return None
    has = [*table.features, *(f"{TAR_TABLE}.{field}" for field in fields)]
    raise UserError(f"{name} has no column {asked!r} for the captions (caption_column); it has {_shown(has)}")


def _values(table: Any, column: Column) -> list[Any]:
    values = list(table.select_columns([column[0]])[column[0]])
    return [(value or {}).get(column[1]) for value in values] if len(column) == 2 else values


def _places(table: Any, name: str, image: str) -> list[Path]:
    """What each picture is called in sentences: its name in the tar shard, or its row."""
    if "__key__" in table.features and "__url__" in table.features:
        keys = table.select_columns(["__url__", "__key__"])
        return [Path(row["__url__"]) / f"{row['__key__']}.{image}" for row in keys]
    return [Path(name) / f"row {row}" for row in range(1, len(table) + 1)]


def _bytes(cell: Any, place: Path, folders: Sequence[Path]) -> bytes:
    """Bytes in one cell: they lie there, or in the file that it names."""
    if cell is not None and cell.get("bytes") is not None:
        return bytes(cell["bytes"])
    path = str(cell["path"]) if cell is not None and cell.get("path") else None
    if path is None:
        raise BadPicture(place, "is missing")
    for folder in folders:  # a table from elsewhere must not make other files of this machine part of the data
        file = Path(os.path.abspath(folder / path))
        if file.is_relative_to(os.path.abspath(folder)) and file.is_file():
            return read_bytes(file)
    raise BadPicture(place, f"names {path}, which is no file in the folder of its table")


def _shown(columns: Sequence[str]) -> str:
    return listed((column for column in columns if not column.startswith("__")), 20)


def _cache(reading: Reading) -> str | None:
    return None if reading.tables is None else str(reading.tables)


@contextmanager
def _one_sentence(name: str) -> Iterator[None]:
    """What `datasets` and arrow say about a source, in one sentence."""
    import pyarrow as pa
    from datasets.exceptions import DatasetsError

    try:
        yield
    except UserError:
        raise
    except (DatasetsError, pa.ArrowException, TarError, OSError, ValueError, TypeError, KeyError) as error:
        cause = error.__cause__ or error
        said = str(cause).strip().splitlines() or [type(cause).__name__]
        raise UserError(f"the data set {name} cannot be read: {said[0]}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of `datasets`, whose steps are short beside the encoding, and no log: errors are sentences."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before, logs = are_progress_bars_disabled(), [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [log.level for log in logs]
    disable_progress_bars()
    for log in logs:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
        if not before:
            enable_progress_bars()
