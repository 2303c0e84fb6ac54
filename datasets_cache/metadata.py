"""Captions in a table beside the pictures: `metadata.jsonl`, `metadata.csv` or `metadata.parquet`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasets_cache.items import CAPTION_FIELDS, Item, Reading, listed, names, tidy
from spectra.errors import UserError

Row = dict[str, Any]


def find_metadata(folder: Path) -> Path | None:
    """The table of a folder; UserError where there are several."""
    found = [folder / name for name in READERS if (folder / name).exists()]
    if len(found) > 1:
        raise UserError(f"{folder} has {' and '.join(path.name for path in found)}; keep one of them")
    return found[0] if found else None


def from_metadata(metadata: Path, pictures: list[Path], reading: Reading) -> list[Item]:
    """The pictures of a folder with the captions of its table.

    Raises:
        UserError: caption files beside the table, a row without picture or caption, a picture without a row.
    """
    folder = metadata.parent
    if any(folder.glob("*.txt")):
        raise UserError(f"{folder} has both {metadata.name} and caption files (*.txt); keep one of the two")
    captions: dict[Path, tuple[str, ...]] = {}
    for where, row in READERS[metadata.name](metadata):
        name = _name(where, row)
        if folder / name in captions:
            raise UserError(f"{where}: {name!r} is listed twice")
        captions[folder / name] = _captions(where, name, row, reading)
    stray = sorted(captions.keys() - set(pictures))
    if stray:
        raise UserError(f"{metadata} has captions without a picture in {folder}: {names(stray)}")
    bare = [path for path in pictures if path not in captions]
    if bare and reading.default_caption is None:
        raise UserError(f"{folder} has pictures without a caption in {metadata.name}: {names(bare)}")
    return [Item(path, captions.get(path) or (reading.default_caption or "",)) for path in pictures]


def _name(where: str, row: Row) -> str:
    """The file name in a row, which stays inside the folder."""
    name = row.get("file_name")
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise UserError(f"{where} needs a 'file_name' that names a picture in the same folder")
    return name


def _captions(where: str, name: str, row: Row, reading: Reading) -> tuple[str, ...]:
    column = caption_field(row, reading.caption_column)
    try:
        found = tidy(row.get(column)) if column else ()
    except TypeError:
        raise UserError(f"{where}: the caption of {name!r} is neither a text nor a list of texts") from None
    if not found and reading.default_caption is None:
        other = sorted(set(row) - {"file_name"})
        has = f"; its other columns are {listed(other)}" if other and not column else ""
        raise UserError(f"{where} has no caption for {name!r}; write it under {reading.caption_column!r}{has}")
    return found or (reading.default_caption or "",)


def caption_field(row: Row, asked: str) -> str | None:
    """The column of a row that holds captions: the one asked for, or another usual one where that is the default."""
    wanted = CAPTION_FIELDS if asked == CAPTION_FIELDS[0] else (asked,)
    return next((name for name in wanted if row.get(name)), None)


def read_text(path: Path) -> str:
    """Text of a caption file or table; UserError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"cannot read the captions in {path}: {error.strerror}") from None


def _json_lines(path: Path) -> Iterator[tuple[str, Row]]:
    # Not `splitlines`: captions may hold separators of lines that are none in JSON, such as U+2028.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        where = f"{path}, line {number}"
        if line.strip():
            try:
                row = json.loads(line)
                json.dumps(row, ensure_ascii=False).encode()
            except json.JSONDecodeError:
                raise UserError(f"{where} is not JSON; write one object a line") from None
            except UnicodeEncodeError:  # an escape of UTF-16 without its other half
                raise UserError(f"{where} holds half of a character; write it whole") from None
            yield where, row if isinstance(row, dict) else {}


def _csv(path: Path) -> Iterator[tuple[str, Row]]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        for row in reader:
            yield f"{path}, line {reader.line_num}", {str(name): value for name, value in row.items()}
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num} is not CSV: {error}") from None


def _parquet(path: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot read the captions in {path}: {str(error).splitlines()[0]}") from None
    for number, row in enumerate(rows, start=1):
        yield f"{path}, row {number}", row


READERS: dict[str, Callable[[Path], Iterator[tuple[str, Row]]]] = {
    "metadata.jsonl": _json_lines,
    "metadata.csv": _csv,
    "metadata.parquet": _parquet,
}
