"""What is said about a data set is so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datasets_cache import Preparation, describe, encode
from datasets_cache.report import lines, shared
from tests.datasets_cache.sources import as_folder, picture
from tests.tiny import tiny_sd

SIZES = [(64, 64), (96, 64), (40, 40), (64, 64)]


@pytest.mark.filterwarnings("ignore:.*(is cut|enlarged)")
def test_a_data_set_is_described(tmp_path: Path) -> None:
    folder, pipe = Path(as_folder(tmp_path / "data", SIZES)), tiny_sd()
    (folder / "3.png").write_bytes(picture(0, (64, 64)))
    table = folder / "metadata.jsonl"
    table.write_text(table.read_text().replace("pic 3 word 0", "pic 3 has many more words"))
    chosen = Preparation(buckets=True, bucket_step=16)
    found = describe(encode(folder, pipe, tmp_path / "cache", preparation=chosen), pipe)
    json.dumps(found)
    assert found["pictures"] == 4
    assert found["captions"] == {"all": 7, "fewest": 1, "most": 3, "longest": 6}
    assert found["cut"] == {"captions": 1, "tokens": 16, "first": str(folder / "3.png")}
    assert found["sizes"] == {"smallest": (40, 40), "largest": (96, 64), "enlarged": 1}
    assert [(one["height"], one["width"], one["pictures"]) for one in found["buckets"]] == [(64, 64, 3), (80, 48, 1)]
    lost = 1 - (96 / 64) / (80 / 48)
    assert found["buckets"][1]["crop_loss"] == pytest.approx(lost)
    assert found["crop_loss"] == {
        "mean": pytest.approx(lost / 4),
        "most": pytest.approx(lost),
        "picture": str(folder / "1.png"),
    }
    assert found["duplicates"] == [[str(folder / "0.png"), str(folder / "3.png")]]
    assert (found["hits"], found["misses"]) == (
        1,
        11,
    )  # the equal picture; three pictures, seven captions, the empty one
    text = "\n".join(lines(found))
    for words in (
        "4 pictures with 7 captions, from 40 x 40 to 64 x 96",
        "64 x 64: 3, 48 x 80: 1",
        "1 caption is cut after 16",
        "1 picture is enlarged",
        f"equal pictures: {folder / '0.png'} = ",
        "the picture is new",
    ):
        assert words in text


def test_pictures_on_both_sides_are_named(tmp_path: Path) -> None:
    pipe = tiny_sd()
    data = encode(as_folder(tmp_path / "data", [(64, 64)] * 3), pipe, tmp_path / "cache")
    assert shared(data.take([0, 1]), data.take([1, 2])) == [str(data.paths[1])]
    assert shared(data.take([0, 1]), data.take([2])) == []
