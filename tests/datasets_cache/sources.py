"""The same captioned pictures in every kind of source."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Sizes = list[tuple[int, int]]


def picture(number: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """A PNG of noise of its own, (height, width)."""
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    return png(Image.fromarray(pixels))


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def captions(number: int) -> list[str]:
    """One to three captions that name the picture."""
    return [f"pic {number} word {word}" for word in range(1 + number % 3)]


def as_folder(root: Path, sizes: Sizes) -> str:
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, size in enumerate(sizes):
        (root / f"{number}.png").write_bytes(picture(number, size))
        rows.append(json.dumps({"file_name": f"{number}.png", "text": captions(number)}))
    (root / "metadata.jsonl").write_text("\n".join(rows))
    return str(root)


def table(sizes: Sizes) -> pa.Table:
    return pa.table(
        {
            "image": [picture(number, size) for number, size in enumerate(sizes)],
            "text": [captions(number) for number in range(len(sizes))],
        }
    )


def as_parquet(root: Path, sizes: Sizes) -> str:
    root.mkdir(parents=True, exist_ok=True)
    whole, half = table(sizes), len(sizes) // 2
    pq.write_table(whole.slice(0, half), root / "part-0.parquet")
    pq.write_table(whole.slice(half), root / "part-1.parquet")
    return str(root / "part-*.parquet")


def as_folder_of_parquet(root: Path, sizes: Sizes) -> str:
    as_parquet(root, sizes)
    return str(root)


def as_paths(root: Path, sizes: Sizes) -> str:
    """A parquet file that names pictures beside it."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "files").mkdir()
    for number, size in enumerate(sizes):
        (root / "files" / f"{number}.png").write_bytes(picture(number, size))
    names = [f"files/{number}.png" for number in range(len(sizes))]
    pq.write_table(pa.table({"image": names, "text": table(sizes)["text"]}), root / "list.parquet")
    return str(root / "list.parquet")


def as_tar(root: Path, sizes: Sizes) -> str:
    root.mkdir(parents=True, exist_ok=True)
    half = len(sizes) // 2
    for shard, numbers in enumerate((range(half), range(half, len(sizes)))):
        with tarfile.open(root / f"shard-{shard:03d}.tar", "w") as tar:
            for number in numbers:
                add(tar, f"{number:04d}.png", picture(number, sizes[number]))
                add(tar, f"{number:04d}.json", json.dumps({"text": captions(number)}).encode())
    return str(root / "shard-{000..001}.tar")


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def as_saved(root: Path, sizes: Sizes) -> str:
    from datasets import Dataset

    Dataset(table(sizes)).save_to_disk(str(root))
    return str(root)


KINDS: dict[str, Callable[[Path, Sizes], str]] = {
    "folder": as_folder,
    "parquet": as_parquet,
    "folder of parquet": as_folder_of_parquet,
    "parquet of paths": as_paths,
    "tar": as_tar,
    "saved": as_saved,
}
