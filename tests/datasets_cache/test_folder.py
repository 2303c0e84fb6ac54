"""Image folders: what is listed, and which sentence each kind of disorder ends with."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from datasets_cache import find_splits, open_dataset
from spectra.errors import UserError
from tests.adapt.small import write_pictures


def test_pictures_are_listed_by_name_with_their_captions(tmp_path: Path) -> None:
    items = open_dataset(write_pictures(tmp_path, 3))
    assert [(item.path.name, item.caption) for item in items] == [(f"{i}.png", f"ramp 0 {i}") for i in range(3)]


def test_metadata_says_the_same_as_text_files(tmp_path: Path) -> None:
    expected = open_dataset(write_pictures(tmp_path, 3))
    rows = [json.dumps({"file_name": item.path.name, "text": item.caption}) for item in reversed(expected)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows) + "\n\n")
    for path in tmp_path.glob("*.txt"):
        path.unlink()
    assert open_dataset(tmp_path) == expected


def _unlink(name: str):  # type: ignore[no-untyped-def]
    return lambda folder: (folder / name).unlink()


def _write(name: str, content: bytes):  # type: ignore[no-untyped-def]
    return lambda folder: (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (_unlink("1.txt"), "without a caption file: 1.png"),
        (_unlink("1.png"), "without a picture: 1.txt"),
        (_write("1.txt", b" \n"), "1.txt is empty"),
        (_write("1.txt", b"\xff\xfe\xff"), "not UTF-8"),
        (
            lambda folder: [(folder / "1.txt").unlink(), (folder / "1.txt").mkdir()],
            r"cannot read the captions in .*1\.txt",
        ),
        (_write("1.jpg", b""), "several pictures of one name"),
        (_write("metadata.jsonl", b"{}"), "keep one of the two"),
    ],
)
def test_disorder_in_a_folder_is_named(tmp_path: Path, break_it, sentence: str) -> None:  # type: ignore[no-untyped-def]
    break_it(write_pictures(tmp_path, 2))
    with pytest.raises(UserError, match=sentence):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ('{"file_name": "0.png"', "line 1 is not JSON"),
        ('{"file_name": "../0.png", "text": "x"}', "names a picture in the same folder"),
        ('["0.png"]', "names a picture in the same folder"),
        ('{"file_name": "0.png"}', "no caption for '0.png'"),
        ('{"file_name": "0.png", "text": "x"}\n{"file_name": "0.png", "text": "y"}', "listed twice"),
        ('{"file_name": "0.png", "text": "x"}', "without a caption in metadata.jsonl: 1.png"),
        ('{"file_name": "9.png", "text": "x"}', "without a picture in .*: 9.png"),
    ],
)
def test_disorder_in_metadata_is_named(tmp_path: Path, lines: str, sentence: str) -> None:
    for path in write_pictures(tmp_path, 2).glob("*.txt"):
        path.unlink()
    (tmp_path / "metadata.jsonl").write_text(lines)
    with pytest.raises(UserError, match=sentence):
        open_dataset(tmp_path)


def test_hidden_files_are_no_pictures_and_no_captions(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    for name in ("._0.png", "._0.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [item.path.name for item in open_dataset(tmp_path)] == ["0.png"]


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no pictures"):
        open_dataset(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        open_dataset(tmp_path / "missing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is not a folder"):
        open_dataset(tmp_path / "file")


def test_long_lists_of_names_are_cut(tmp_path: Path) -> None:
    for path in write_pictures(tmp_path, 9).glob("*.txt"):
        path.unlink()
    with pytest.raises(UserError, match=r"0.png, 1.png, 2.png, 3.png, 4.png and 4 more"):
        open_dataset(tmp_path)


def test_the_heldout_folder_is_found_beside_or_inside(tmp_path: Path) -> None:
    assert find_splits(tmp_path) == (tmp_path, None)
    (tmp_path / "train").mkdir()
    assert find_splits(tmp_path) == (tmp_path / "train", None)
    (tmp_path / "heldout").mkdir()
    assert find_splits(tmp_path) == find_splits(tmp_path / "train") == (tmp_path / "train", tmp_path / "heldout")


def test_metadata_in_another_encoding_are_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    (tmp_path / "0.txt").unlink()
    (tmp_path / "metadata.jsonl").write_bytes(b'{"file_name": "0.png", "text": "caf\xe9"}')
    with pytest.raises(UserError, match=r"metadata\.jsonl is not UTF-8 text"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("own", [0, 2])
def test_pictures_in_a_sub_folder_are_refused_and_not_ignored(tmp_path: Path, own: int) -> None:
    write_pictures(tmp_path / "train", own)
    write_pictures(tmp_path / "train" / "sub" / "deep", 1)
    with pytest.raises(UserError, match=re.escape(f"in its sub-folder {tmp_path / 'train' / 'sub' / 'deep'}, ")):
        open_dataset(tmp_path / "train")


def test_sub_folders_without_pictures_and_hidden_ones_and_splits_are_no_matter(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", 2)
    (folder / "notes").mkdir()
    (folder / "notes" / "readme.txt").write_text("x")
    write_pictures(folder / ".thumbnails", 1)
    held = write_pictures(folder / "held", 1)
    assert len(open_dataset(folder, apart=[held])) == 2
    split, _ = find_splits(write_pictures(tmp_path / "data" / "train", 2).parent)
    write_pictures(tmp_path / "data" / "heldout", 1)
    assert len(open_dataset(split)) == 2
