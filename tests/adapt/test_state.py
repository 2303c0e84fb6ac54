"""What has the name of a run is a whole run."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapt import state
from spectra.errors import UserError


def write_run(out: Path, text: str = "first", overwrite: bool = False) -> None:
    with state.run_directory(out, overwrite=overwrite) as folder:
        (folder / "file").write_text(text)
        state.write_record(folder, {"name": out.name})


def test_a_run_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "a"
    with state.run_directory(out) as folder:
        assert not out.exists()
        assert folder.name.startswith(".")
        state.write_record(folder, {"name": "a"})
    assert state.read_record(out)["name"] == "a"
    assert [path.name for path in out.parent.iterdir()] == ["a"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, UserError, MemoryError])
def test_an_interruption_leaves_nothing(tmp_path: Path, interruption: type[BaseException]) -> None:
    def interrupted() -> None:
        with state.run_directory(tmp_path / "a") as folder:
            state.write_record(folder, {})
            raise interruption

    with pytest.raises(interruption):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write the run .*: No space left"), state.run_directory(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_run_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    out = tmp_path / "a"
    write_run(out)
    with pytest.raises(UserError, match="exists; choose another name, remove it, or give --overwrite"):
        write_run(out, "second")
    assert (out / "file").read_text() == "first"
    write_run(out, "second", overwrite=True)
    assert (out / "file").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_failed_replacement_keeps_the_old_run(tmp_path: Path) -> None:
    out = tmp_path / "a"
    write_run(out)
    with pytest.raises(UserError), state.run_directory(out, overwrite=True):
        raise UserError("the loss is not a number")
    assert (out / "file").read_text() == "first"


def test_a_folder_that_is_no_run_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match="not a finished run, so it will not be overwritten"):
        write_run(tmp_path / "photos", overwrite=True)


def test_a_place_that_cannot_be_written_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write to"), state.run_directory(tmp_path / "file" / "a"):
        pytest.fail("the body must not run")


def test_only_complete_records_are_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a finished run"):
        state.read_record(tmp_path)
    for text in ("{", "[]", '{"format": 99, "status": "complete"}', '{"format": 1, "status": "running"}'):
        (tmp_path / state.RECORD).write_text(text)
        with pytest.raises(UserError):
            state.read_record(tmp_path)
