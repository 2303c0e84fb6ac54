"""Tables beside pictures: several captions, several formats, and what is said of disorder."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets_cache import Reading, open_dataset
from spectra.errors import UserError
from tests.adapt.small import write_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path in write_pictures(tmp_path, 2).glob("*.txt"):
        path.unlink()
    return tmp_path


def captions(folder: Path, **changes: object) -> list[tuple[str, ...]]:
    return [item.captions for item in open_dataset(folder, Reading(**changes))]  # type: ignore[arg-type]


def test_tables_of_every_format_say_the_same(folder: Path) -> None:
    rows = [("0.png", "a, b\n c"), ("1.png", 'a "word"')]
    expected = [("a, b c",), ('a "word"',)]
    lines = "\n".join(json.dumps({"file_name": name, "text": text}) for name, text in rows)
    (folder / "metadata.jsonl").write_text(lines)
    assert captions(folder) == expected
    (folder / "metadata.jsonl").unlink()
    (folder / "metadata.csv").write_text('file_name,text\n0.png,"a, b\n c"\n1.png,"a ""word"""\n')
    assert captions(folder) == expected
    (folder / "metadata.csv").unlink()
    names, texts = zip(*rows, strict=True)
    pq.write_table(pa.table({"file_name": names, "text": texts}), folder / "metadata.parquet")
    assert captions(folder) == expected
    (folder / "metadata.csv").write_text("file_name,text\n")
    with pytest.raises(UserError, match=r"has metadata\.csv and metadata\.parquet; keep one of them"):
        open_dataset(folder)


def test_a_picture_may_have_several_captions(folder: Path) -> None:
    rows = [{"file_name": "0.png", "text": ["one", " two ", "", None]}, {"file_name": "1.png", "text": "three"}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert captions(folder) == [("one", "two"), ("three",)]
    pq.write_table(
        pa.table({"file_name": ["0.png", "1.png"], "text": [["one", "two"], ["three"]]}), folder / "metadata.parquet"
    )
    (folder / "metadata.jsonl").unlink()
    assert captions(folder) == [("one", "two"), ("three",)]


def test_another_column_of_captions_is_taken_when_it_is_named_and_no_other_instead(folder: Path) -> None:
    rows = [{"file_name": f"{i}.png", "text": "short", "long": f"long {i}"} for i in range(2)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert captions(folder, caption_column="long") == [("long 0",), ("long 1",)]
    with pytest.raises(
        UserError, match=r"no caption for '0\.png'; write it under 'lnog'; its other columns are long, text"
    ):
        captions(folder, caption_column="lnog")


def test_pictures_without_a_caption_get_the_default_one_only_if_there_is_one(folder: Path) -> None:
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png", "text": ""}')
    with pytest.raises(UserError, match=r"no caption for '0\.png'"):
        captions(folder)
    assert captions(folder, default_caption="a photo of sks dog") == [("a photo of sks dog",)] * 2
    (folder / "metadata.jsonl").unlink()
    (folder / "0.txt").write_text("own")
    with pytest.raises(
        UserError, match=r"without a caption file: 1\.png; write x\.txt beside x\.png, or give a default"
    ):
        captions(folder)
    assert captions(folder, default_caption="sks") == [("own",), ("sks",)]


@pytest.mark.parametrize(("value", "name"), [('{"a": 1}', "metadata.jsonl"), ("[1]", "metadata.jsonl")])
def test_captions_of_another_kind_are_named(folder: Path, value: str, name: str) -> None:
    (folder / name).write_text(f'{{"file_name": "0.png", "text": {value}}}')
    with pytest.raises(UserError, match=r"line 1: the caption of '0\.png' is neither a text nor a list of texts"):
        captions(folder)


def test_captions_may_hold_any_separator_of_lines(folder: Path) -> None:
    odd = "a\u2028b\x85c"
    rows = [{"file_name": f"{i}.png", "text": odd} for i in range(2)]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    assert captions(folder) == [("a b c",)] * 2
    (folder / "metadata.jsonl").unlink()
    (folder / "metadata.csv").write_text(f"file_name,text\n0.png,{odd}\n1.png,{odd}\n")
    assert captions(folder) == [("a b c",)] * 2


def test_half_a_character_is_named_by_its_line(folder: Path) -> None:
    rows = ['{"file_name": "0.png", "text": "a"}', r'{"file_name": "1.png", "text": "a \ud83d dog"}']
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    with pytest.raises(UserError, match=r"metadata\.jsonl, line 2 holds half of a character"):
        captions(folder)


def test_a_damaged_csv_table_is_one_sentence(folder: Path) -> None:
    (folder / "metadata.csv").write_text("file_name,text\n0.png," + "x" * 200_000)
    with pytest.raises(UserError, match=r"metadata\.csv, line 1 is not CSV: field larger than field limit"):
        captions(folder)


def test_a_damaged_parquet_table_is_one_sentence(folder: Path) -> None:
    (folder / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"cannot read the captions in .*metadata\.parquet"):
        captions(folder)
