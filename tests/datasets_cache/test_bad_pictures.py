"""Pictures that cannot be trained on are named together, before anything is encoded; left out only if asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets_cache import Preparation, Reading, encode
from datasets_cache.encoding import encode_items
from datasets_cache.items import BadPicture, Item
from spectra.errors import UserError
from tests.adapt.small import write_pictures
from tests.datasets_cache.sources import picture
from tests.tiny import tiny_sd


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_sd()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures: the second is damaged, the third none, the fourth small."""
    folder = write_pictures(tmp_path / "data", 6)
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "2.png").write_text("no picture")
    (folder / "3.png").write_bytes(picture(0, (20, 70)))
    return folder


def cached(root: Path) -> list[Path]:
    return list((root / "cache").rglob("*.zarr"))


def test_all_of_them_are_named_and_nothing_is_encoded(folder: Path, pipe: Any) -> None:
    with pytest.raises(UserError) as said:
        encode(folder, pipe, folder.parent / "cache", preparation=Preparation(smallest=21))
    assert str(said.value) == (
        "3 pictures cannot be trained on: 1.png is damaged, 2.png is not a picture, "
        "3.png is 70 x 20 pixels, with a side below 21; replace or remove them, or leave them out with skip_bad"
    )
    assert cached(folder.parent) == []


def test_those_that_are_left_out_are_named_too(folder: Path, pipe: Any) -> None:
    chosen = Preparation(smallest=21, skip_bad=True)
    with pytest.warns(UserWarning, match=r"3 pictures are left out: 1\.png is damaged, 2\.png is not") as said:
        data = encode(folder, pipe, folder.parent / "cache", preparation=chosen)
    assert [path.name for path in data.paths] == ["0.png", "4.png", "5.png"]
    assert data.captions == ("ramp 0 0", "ramp 0 4", "ramp 0 5")
    assert data.notes == (str(said[0].message),)


def test_small_pictures_are_fine_unless_a_limit_is_set(folder: Path, pipe: Any) -> None:
    for number in (1, 2):
        (folder / f"{number}.png").write_bytes(picture(number))
    assert len(encode(folder, pipe, folder.parent / "cache")) == 6
    with pytest.raises(UserError, match=r"picture .*3\.png is 70 x 20 pixels, with a side below 21; .* with skip_bad$"):
        encode(folder, pipe, folder.parent / "cache", preparation=Preparation(smallest=21))


def test_a_long_list_is_cut(tmp_path: Path, pipe: Any) -> None:
    folder = write_pictures(tmp_path / "data", 8)
    for number in range(7):
        (folder / f"{number}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"^7 pictures cannot be .* 4\.png is not a picture and 2 more; "):
        encode(folder, pipe, tmp_path / "cache")


def test_nothing_left_is_an_error(tmp_path: Path, pipe: Any) -> None:
    folder = write_pictures(tmp_path / "data", 1)
    (folder / "0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"no picture is left: 0\.png is not a picture"):
        encode(folder, pipe, tmp_path / "cache", preparation=Preparation(skip_bad=True))


def test_rows_of_tables_are_named_by_number(tmp_path: Path, pipe: Any) -> None:
    pq.write_table(pa.table({"image": [picture(0), None, b"x"], "text": ["a", "b", "c"]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="2 pictures cannot be trained on: row 2 is missing, row 3 is not a picture;"):
        encode(tmp_path / "x.parquet", pipe, tmp_path / "cache")


def test_a_table_names_pictures_in_its_folder_only(tmp_path: Path, pipe: Any) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "secret.png").write_bytes(picture(0))
    table = tmp_path / "data" / "x.parquet"
    for name in ("gone.png", "../secret.png", str(tmp_path / "secret.png")):
        pq.write_table(pa.table({"image": [name], "text": ["a"]}), table)
        with pytest.raises(UserError, match=rf"row 1 names {name}, which is no file in the folder of its table"):
            encode(table, pipe, tmp_path / "cache")


def test_a_clip_that_is_too_short_is_a_bad_picture(tmp_path: Path) -> None:
    from tests.matrix.train_models import wan

    folder = write_pictures(tmp_path / "data", 1)
    with pytest.raises(UserError, match=r"0\.png has 1 frame of the 5 that are needed"):
        encode(
            folder, wan(), tmp_path / "cache", reading=Reading(clips=True),
            preparation=Preparation(frames=5, resolution=32),
        )  # fmt: skip


def test_what_was_encoded_before_an_interruption_is_found_again(tmp_path: Path, pipe: Any) -> None:
    folder, done = write_pictures(tmp_path / "data", 5), []

    def stop_after_three(count: int, total: int) -> None:
        done.append(count)
        if count == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(folder, pipe, tmp_path / "cache", progress=stop_after_three)
    assert done == [0, 1, 2, 3]
    data = encode(folder, pipe, tmp_path / "cache", progress=lambda count, total: done.append(count))
    assert done[4:] == [3, 4, 5]
    assert data.hits == 3
    assert not list((tmp_path / "cache").rglob(".new-*"))


def test_a_picture_that_changes_while_it_is_encoded_is_not_mistaken(
    tmp_path: Path, pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets_cache.encoding.PIXELS", 0)  # so that it is read a second time
    answers = iter([(picture(0),), (picture(1),)])
    item = Item(Path("x.png"), ("x",), lambda: next(answers))
    with pytest.raises(UserError, match=r"the picture x\.png changed while the data were being encoded"):
        encode_items([[item]], pipe, tmp_path / "cache", preparations=[Preparation()])


def test_a_bad_picture_is_a_sentence_and_a_reason() -> None:
    bad = BadPicture("a/b.png", "is damaged")
    assert (str(bad), bad.reason) == ("the picture a/b.png is damaged; replace or remove it", "is damaged")
