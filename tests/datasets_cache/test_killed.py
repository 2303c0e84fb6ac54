"""An encoder that is killed leaves whole entries or none, and no lock."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from datasets_cache import encode, store
from tests.adapt.small import write_pictures
from tests.tiny import tiny_sd

PROGRAM = """
import sys
from datasets_cache import encode
from tests.tiny import tiny_sd
encode(sys.argv[1], tiny_sd(), __import__("pathlib").Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_what_a_killed_encoder_finished_is_found_and_the_rest_is_made(tmp_path: Path) -> None:
    folder, cache = write_pictures(tmp_path / "data", 60), tmp_path / "cache"
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), str(cache)], cwd=root)
    try:
        deadline = time.monotonic() + 60
        while len(list(cache.glob("latents/*/*.zarr"))) < 5 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    done = list(cache.glob("latents/*/*.zarr"))
    assert 5 <= len(done) < 60
    assert all(store.read(entry) is not None for entry in done)
    data = encode(folder, tiny_sd(), cache)
    assert (data.hits, data.misses) == (len(done), 121 - len(done))
    assert data.notes == ()
