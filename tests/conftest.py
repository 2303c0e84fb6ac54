"""Settings of the whole suite: no network, no display, one thread, and no file outside the test's own folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# Before any library reads them.
os.environ.update(HF_HUB_OFFLINE="1", MPLBACKEND="Agg", TOKENIZERS_PARALLELISM="false")
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from hypothesis import HealthCheck, settings  # noqa: E402

# Examples are the same in every run, and a busy machine is not a failure.
settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The encoding cache of the suite is not the user's."""
    before = os.environ.get("SPECTRA_CACHE")
    os.environ["SPECTRA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["SPECTRA_CACHE"]
    else:
        os.environ["SPECTRA_CACHE"] = before


@dataclass(frozen=True)
class Outcome:
    """What a command did: its exit code and what it printed."""

    code: int
    out: str
    err: str

    def refused(self) -> str:
        """The one sentence of a refusal; fails unless that is all there is."""
        assert self.code == 2, self
        assert self.out == "", self
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].endswith((".", "?")), self.err
        assert "Traceback" not in self.err
        return lines[0]


Command = Callable[..., Outcome]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """Call `spectra` or `adapt` within this process: `command("spectra", "show", path)`."""
    from cli import adapt_app, spectra_app
    from cli.common import run

    apps = {"spectra": spectra_app.app, "adapt": adapt_app.app}

    def call(name: str, *argv: object) -> Outcome:
        capfd.readouterr()
        code = run(apps[name], name, [str(word) for word in argv])
        return Outcome(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Stable Diffusion folder; do not change it."""
    from tests.tiny import tiny_sd_folder

    return tiny_sd_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small image folder with captions, and a held-out one beside it; do not change it."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    for part, count in (("train", 4), ("heldout", 2)):
        (folder / part).mkdir()
        for index in range(count):
            pixels = np.random.default_rng([count, index]).integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(folder / part / f"{index}.png")
            (folder / part / f"{index}.txt").write_text("a dot")
    return folder


@pytest.fixture(scope="session")
def probed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube of two runs of `model`; do not change it."""
    from spectra.probe import probe

    store = tmp_path_factory.mktemp("cube") / "tiny.zarr"
    probe(str(model), ["a dot"], [0, 1], 3, store)
    return store


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube of the same two runs under two labels; do not change it."""
    from spectra.probe import probe

    store = tmp_path_factory.mktemp("mixed") / "mixed.zarr"
    for label in ("one", "two"):
        probe("gaussian:2x8x8", ["a dot"], [0, 1], 3, store, label=label)
    return store
