"""Every kind of source gives the same pictures and captions, and each disorder ends with one sentence."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets_cache import Reading, open_dataset, splits_of
from datasets_cache.sources import decide, expand, matching
from spectra.errors import UserError
from tests.adapt.small import write_pictures
from tests.datasets_cache.sources import KINDS, add, as_parquet, as_saved, as_tar, captions, picture, table

SIZES = [(8, 8)] * 5


def reading(tmp_path: Path, **changes: object) -> Reading:
    return Reading(tables=tmp_path / "tables", **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_gives_the_same_pictures_with_all_their_captions(tmp_path: Path, kind: str) -> None:
    items = open_dataset(KINDS[kind](tmp_path / "data", SIZES), reading(tmp_path))
    assert [(item.read(), list(item.captions)) for item in items] == [
        ((picture(number, (8, 8)),), captions(number)) for number in range(5)
    ]
    assert len({item.path for item in items}) == 5


def test_what_is_given_decides_how_it_is_read(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 1)
    as_parquet(tmp_path / "parquet", SIZES)
    as_saved(tmp_path / "saved", SIZES)
    as_tar(tmp_path / "tar", SIZES)
    (tmp_path / "empty").mkdir()
    expected = {
        "pictures": "pictures", "empty": "pictures", "saved": "saved", "parquet": "files", "tar": "files",
        "parquet/part-0.parquet": "parquet", "parquet/*.parquet": "parquet", "tar/shard-00[01].tar": "webdataset",
        "tar/shard-{000,001}.tar": "webdataset",
    }  # fmt: skip
    assert {name: decide(str(tmp_path / name))[0] for name in expected} == expected
    assert decide("owner/some-name.v2") == ("hub", [])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("picturs", r"^the data folder picturs does not exist \(is it pictures\?\); give a folder"),
        ("pictures/trian", r"^the data folder pictures/trian does not exist \(is it pictures/train\?\); give a folder"),
        ("pictures/other", r"^the data folder pictures/other does not exist; give a folder"),
        ("nowhere/part.parquet", r"^the data folder nowhere/part\.parquet does not exist; give a folder"),
    ],
)
def test_a_mistyped_name_of_this_machine_is_not_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    write_pictures(tmp_path / "pictures" / "train", 1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        open_dataset(name)
    assert decide("elsewhere/train") == ("hub", [])


def test_braces_and_wildcards_name_files_in_order(tmp_path: Path) -> None:
    assert expand("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expand("{a,b}-{0..1}") == ["a-0", "a-1", "b-0", "b-1"]
    for name in ("b.tar", "a.tar"):
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in matching(str(tmp_path / "*.tar"))] == ["a.tar", "b.tar"]
    with pytest.raises(UserError, match=r"some files of .* do not exist: .*c\.tar"):
        matching(str(tmp_path / "{a,c}.tar"))


def test_files_of_several_or_unknown_kinds_are_refused(tmp_path: Path) -> None:
    as_parquet(tmp_path, SIZES)
    as_tar(tmp_path, SIZES)
    (tmp_path / "notes.md").write_text("x")
    for name in ("*", "notes.md"):
        with pytest.raises(UserError, match=r"nor files of one kind \(\.parquet or \.tar\)"):
            open_dataset(tmp_path / name)


@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_a_wrong_column_names_those_that_exist(tmp_path: Path, kind: str) -> None:
    data = KINDS[kind](tmp_path / "data", SIZES)
    with pytest.raises(UserError, match=r"no column 'photo' for the pictures \(image_column\); it has image, text"):
        open_dataset(data, reading(tmp_path, image_column="photo"))
    with pytest.raises(UserError, match=r"no column 'words' for the captions \(caption_column\); it has image, text"):
        open_dataset(data, reading(tmp_path, caption_column="words"))
    with pytest.raises(UserError, match=r"the column 'text' of .* holds no pictures"):
        open_dataset(data, reading(tmp_path, image_column="text"))
    with pytest.raises(UserError, match=r"the column 'image' of .* holds no captions .*: a value of type bytes is"):
        open_dataset(data, reading(tmp_path, caption_column="image"))


def test_columns_of_other_names_are_taken_when_they_are_named(tmp_path: Path) -> None:
    renamed = table(SIZES).rename_columns(["photo", "words"])
    pq.write_table(renamed, tmp_path / "x.parquet")
    chosen = reading(tmp_path, image_column="photo", caption_column="words")
    assert [list(item.captions) for item in open_dataset(tmp_path / "x.parquet", chosen)] == [
        captions(number) for number in range(5)
    ]


def test_captions_of_tar_shards_are_text_files_or_fields_of_records(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "text.tar", "w") as tar:
        add(tar, "0.png", picture(0))
        add(tar, "0.txt", b"  a  text\n")
    assert open_dataset(tmp_path / "text.tar", reading(tmp_path))[0].captions == ("a text",)
    with tarfile.open(tmp_path / "record.tar", "w") as tar:
        add(tar, "0.png", picture(0))
        add(tar, "0.json", json.dumps({"long": ["one", "two"], "caption": "short"}).encode())
    assert open_dataset(tmp_path / "record.tar", reading(tmp_path))[0].captions == ("short",)
    chosen = reading(tmp_path, caption_column="long")
    found = open_dataset(tmp_path / "record.tar", chosen)[0]
    assert found.captions == ("one", "two")
    assert found.path == tmp_path / "record.tar" / "0.png"
    with pytest.raises(UserError, match=r"it has png, json, json\.long, json\.caption"):
        open_dataset(tmp_path / "record.tar", reading(tmp_path, caption_column="none"))


def test_rows_without_a_caption_are_named_or_get_the_default_one(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [picture(0)] * 3, "text": ["a", None, " "]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="pictures without a caption: row 2, row 3; add one"):
        open_dataset(tmp_path / "x.parquet", reading(tmp_path))
    found = open_dataset(tmp_path / "x.parquet", reading(tmp_path, default_caption="sks"))
    assert [item.caption for item in found] == ["a", "sks", "sks"]
    pq.write_table(pa.table({"image": [picture(0)]}), tmp_path / "bare.parquet")
    assert open_dataset(tmp_path / "bare.parquet", reading(tmp_path, default_caption="x"))[0].caption == "x"


def test_an_edited_file_is_read_anew(tmp_path: Path) -> None:
    for words in ("before", "after, and longer"):
        pq.write_table(pa.table({"image": [picture(0)], "text": [words]}), tmp_path / "x.parquet")
        assert open_dataset(tmp_path / "x.parquet", reading(tmp_path))[0].caption == words


def test_a_split_is_chosen_and_a_wrong_one_names_those_that_exist(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    both = DatasetDict(train=Dataset(table(SIZES)), test=Dataset(table(SIZES[:2])))
    both.save_to_disk(str(tmp_path / "saved"))
    assert splits_of(tmp_path / "saved") == (str(tmp_path / "saved"), None)
    assert len(open_dataset(tmp_path / "saved", reading(tmp_path))) == 5
    assert len(open_dataset(tmp_path / "saved", reading(tmp_path, split="test"))) == 2
    with pytest.raises(UserError, match="no split 'validation'; its splits are train, test"):
        open_dataset(tmp_path / "saved", reading(tmp_path, split="validation"))


def test_the_hub_out_of_reach_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^there is no folder or file 'some-owner/some-name', and no data set") as said:
        open_dataset("some-owner/some-name", reading(tmp_path))
    assert "\n" not in str(said.value)


def test_damaged_files_are_one_sentence(tmp_path: Path) -> None:
    for name in ("x.parquet", "x.tar"):
        (tmp_path / name).write_bytes(b"not such a file")
        with pytest.raises(UserError, match=r"the data set .* cannot be read: ") as said:
            open_dataset(tmp_path / name, reading(tmp_path))
        assert "\n" not in str(said.value)


def test_a_data_set_of_the_hub_is_read_like_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def answer(name: str, split: str) -> datasets.Dataset:
        asked.append((name, split))
        return datasets.Dataset(table(SIZES))

    monkeypatch.setattr(datasets, "load_dataset", answer)
    items = open_dataset("owner/name", reading(tmp_path, split="validation"))
    assert asked == [("owner/name", "validation")]
    assert [(item.read(), list(item.captions)) for item in items] == [
        ((picture(number, (8, 8)),), captions(number)) for number in range(5)
    ]
    assert str(items[1].path) == "owner/name/row 2"
