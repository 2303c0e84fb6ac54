"""Writers, crashes, full disks and readers in any order, against a list that is assumed perfect."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from zarr.storage import LocalStore

from spectra import cube
from spectra.cube import Writer
from spectra.errors import UserError
from spectra.schema import Runs
from tests.spectra.test_cube import HEADER, CutError, runs

WRITERS = ("ann", "bob")
OPERATIONS = 60  # more than the writes of any one call


@contextmanager
def failing(after: int, error: BaseException) -> Iterator[list[int]]:
    """Let so many changes of files through; from then on none is made."""
    left = [after]

    def limited(original: Any) -> Any:
        async def change(self: Any, *args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise error
            return await original(self, *args, **kwargs)

        return change

    with pytest.MonkeyPatch.context() as patch:
        for name in ("set", "delete", "delete_dir"):
            patch.setattr(LocalStore, name, limited(getattr(LocalStore, name)))
        yield left


class Machine(RuleBasedStateMachine):
    """`known` are the runs that a call returned for; a call that failed may have added all of its runs, or none."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.place = self.folder / "c.zarr"
        self.known: list[str] = []
        self.values: dict[str, np.ndarray] = {}
        self.writers: dict[str, Writer] = {}
        self.next = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def batch(self, count: int) -> Runs:
        self.next += 1
        made = runs(count, self.next)
        self.values |= dict(zip(made.prompt, made.energy, strict=True))
        return made

    def writer(self, who: str) -> Writer:
        return self.writers.setdefault(who, Writer(self.place, reserve=3))

    def there(self) -> list[str]:
        if not self.place.exists():
            return []
        found = cube.open_cube(self.place)
        for text, energy in zip(found.prompt.values, found.energy.values, strict=True):
            np.testing.assert_array_equal(energy, self.values[text])
        return [str(text) for text in found.prompt.values]

    @initialize(data=st.integers(1, 3), labels=st.integers(1, 4), exists=st.booleans())
    def begin(self, data: int, labels: int, exists: bool) -> None:
        if exists:
            cube.create(self.place, HEADER, cube.Layout(data=data, labels=labels, status=64))

    @rule(who=st.sampled_from(WRITERS), count=st.integers(1, 4))
    def write(self, who: str, count: int) -> None:
        batch = self.batch(count)
        self.writer(who).write(HEADER, batch)
        self.known += batch.prompt

    @precondition(lambda self: self.place.exists())
    @rule(count=st.integers(1, 3))
    def append(self, count: int) -> None:
        batch = self.batch(count)
        cube.append(self.place, batch)
        self.known += batch.prompt

    @rule(who=st.sampled_from(WRITERS), count=st.integers(1, 4), after=st.integers(0, OPERATIONS))
    def crash(self, who: str, count: int, after: int) -> None:
        """The process ends at a write; what it held in memory is gone."""
        batch = self.batch(count)
        with failing(after, CutError()):
            try:
                self.writer(who).write(HEADER, batch)
                self.known += batch.prompt
            except CutError:
                self.writers.pop(who)

    @rule(who=st.sampled_from(WRITERS), count=st.integers(1, 4), after=st.integers(0, OPERATIONS))
    def full(self, who: str, count: int, after: int) -> None:
        """The disk is full for one call; the writer goes on afterwards."""
        batch = self.batch(count)
        with failing(after, OSError(errno.ENOSPC, "No space left on device")):
            try:
                self.writer(who).write(HEADER, batch)
                said = None
            except UserError as error:
                said = str(error)
        self.known += batch.prompt if said is None else []
        assert said is None or "No space left on device" in said

    @rule(who=st.sampled_from(WRITERS), after=st.integers(0, OPERATIONS))
    def flush_and_crash(self, who: str, after: int) -> None:
        with failing(after, CutError()):
            try:
                self.writer(who).flush()
            except CutError:
                self.writers.pop(who)

    @rule(who=st.sampled_from(WRITERS))
    def close(self, who: str) -> None:
        self.writer(who).close()

    @precondition(lambda self: self.place.exists())
    @rule()
    def resume(self) -> None:
        cube.resume(self.place, HEADER)
        with pytest.raises(UserError, match="radial_bins was 5, is 6"):
            cube.resume(self.place, replace(HEADER, radial_bins=6))
        assert cube.validate(self.place) == len(self.known)

    @precondition(lambda self: self.place.exists())
    @rule()
    def compact(self) -> None:
        cube.compact(self.place, self.folder / "packed.zarr")
        assert cube.open_cube(self.folder / "packed.zarr").prompt.values.tolist() == self.known
        shutil.rmtree(self.folder / "packed.zarr")

    @invariant()
    def holds_what_is_known(self) -> None:
        assert self.there() == self.known
        assert {path.name for path in self.folder.iterdir()} <= {"c.zarr"}


TestStore = Machine.TestCase
TestStore.settings = settings(max_examples=5, stateful_step_count=8, deadline=None)


@pytest.mark.slow
def test_long_histories() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Machine, settings=settings(max_examples=15, stateful_step_count=20, deadline=None))


def test_a_reader_in_the_midst_of_a_write_sees_whole_runs_only(tmp_path: Path) -> None:
    """At every single change of a file, a cube opened then holds the runs of before, or those of after."""
    place = tmp_path / "c.zarr"
    with Writer(place, reserve=2) as writer:
        writer.write(HEADER, runs(3, 1))
    seen: list[int] = []
    original = LocalStore.set

    async def observed(self: Any, *args: Any, **kwargs: Any) -> None:
        await original(self, *args, **kwargs)
        copied = tmp_path / f"copy{len(seen)}"
        shutil.copytree(place, copied)
        seen.append(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalStore, "set", observed)
        Writer(place, reserve=2).append(runs(2, 2))
    sizes = [cube.open_cube(tmp_path / f"copy{i}").sizes["run"] for i in range(len(seen))]
    assert sizes[0] == 3
    assert sizes[-1] == 5
    assert set(sizes) == {3, 5}
    assert sizes == sorted(sizes)
