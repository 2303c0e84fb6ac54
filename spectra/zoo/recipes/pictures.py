"""Write the world as a data set: `python -m spectra.zoo.recipes.pictures --out world --count 60000 --heldout 256`.

Two parquet files of PNG pictures and captions, `train.parquet` and `heldout.parquet`: the pictures that the bundled
denoisers learned (the stream and the captions of `spectra.zoo.recipes.latents`), and such whose combination of shape,
colour, texture and background was held out.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from spectra.zoo import world
from spectra.zoo.recipes.latents import SEED

HELDOUT_SEED = 2


def rows(seed: int, count: int, held_out: bool) -> Iterator[tuple[bytes, str]]:
    """PNG bytes and caption of the first pictures of a stream."""
    for index in range(count):
        scene, picture = world.scene_at(seed, index, held_out)
        file = io.BytesIO()
        Image.fromarray(np.round(picture * 255).astype(np.uint8)).save(file, format="PNG")
        yield file.getvalue(), world.loose_caption(scene, np.random.default_rng([seed, index, 1]))


def write(path: Path, seed: int, count: int, held_out: bool) -> Path:
    """A parquet file with the columns `image` and `text`."""
    import pyarrow as pa
    from pyarrow import parquet

    pictures, captions = zip(*rows(seed, count, held_out), strict=True)
    names = [f"{index:06d}.png" for index in range(count)]
    image = pa.array([{"bytes": data, "path": name} for data, name in zip(pictures, names, strict=True)])
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table({"image": image, "text": pa.array(captions)}), path)
    return path


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=60_000)
    parser.add_argument("--heldout", type=int, default=256)
    args = parser.parse_args()
    write(args.out / "train.parquet", SEED, args.count, held_out=False)
    write(args.out / "heldout.parquet", HELDOUT_SEED, args.heldout, held_out=True)


if __name__ == "__main__":
    main()
