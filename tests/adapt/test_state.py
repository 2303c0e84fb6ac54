"""What lies at the name of a run is a whole run, or an unfinished one that says so; nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from adapt import state
from spectra.errors import UserError


def begin_run(out: Path, overwrite: bool = False, resume: bool = True) -> state.Home:
    home = state.claim(out, overwrite=overwrite, resume=resume)
    state.begin(home.folder, {"config": {}})
    return home


def write_run(out: Path, text: str = "first", overwrite: bool = False) -> None:
    home = begin_run(out, overwrite)
    state.place(home.folder, "file", lambda path: path.write_text(text))
    state.publish(home, {"name": out.name})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_is_unfinished_until_its_record_is_written(tmp_path: Path) -> None:
    home = begin_run(tmp_path / "runs" / "a")
    assert names(home.out) == ["config.json", "state"]
    with pytest.raises(UserError, match=r"not a finished run.*its training is unfinished"):
        state.read_record(home.out)
    state.publish(home, {"name": "a"})
    assert state.read_record(home.out)["name"] == "a"
    assert names(home.out) == ["run.json"]
    assert names(home.out.parent) == ["a"]


def test_an_unfinished_run_goes_on_unless_it_may_not(tmp_path: Path) -> None:
    kept = begin_run(tmp_path / "a").folder / "state" / "step-000001"
    kept.mkdir()
    assert state.claim(tmp_path / "a").folder == tmp_path / "a"
    with pytest.raises(UserError, match=r"unfinished run; let it go on .* or give --overwrite to begin it anew"):
        state.claim(tmp_path / "a", resume=False)
    assert state.claim(tmp_path / "a", overwrite=True).states.is_dir()
    assert kept.exists()
    state.claim(tmp_path / "a", resume=False, overwrite=True)
    assert names(tmp_path / "a") == ["state"]
    assert not kept.exists()


def test_an_existing_run_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    out = tmp_path / "a"
    write_run(out)
    with pytest.raises(UserError, match="exists; choose another name, remove it, or give --overwrite"):
        write_run(out, "second")
    assert (out / "file").read_text() == "first"
    write_run(out, "second", overwrite=True)
    assert (out / "file").read_text() == "second"
    assert names(tmp_path) == ["a"]


def test_the_old_run_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "a"
    write_run(out)
    home = begin_run(out, overwrite=True)
    assert home.folder != out
    assert (out / "file").read_text() == "first"
    assert state.read_record(out)
    assert begin_run(out, overwrite=True) == home  # given again, the replacement goes on
    state.give_up(home.folder)
    assert names(tmp_path) == ["a"]


class Killed(BaseException):
    pass


def test_a_replacement_that_was_killed_half_way_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a"
    write_run(out)

    def killed_after(renames: int) -> Callable[[Path, Path], Path]:
        real, left = Path.rename, [renames]

        def rename(path: Path, target: Path) -> Path:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(path, target)

        return rename

    for renames, text in ((0, "second"), (1, "third")):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", killed_after(renames))
            with pytest.raises(Killed):
                write_run(out, text, overwrite=True)
        with pytest.raises(UserError, match="exists"):
            state.claim(out)
        assert (out / "file").read_text() == text
        assert names(tmp_path) == ["a"]


def test_a_failed_replacement_keeps_the_old_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a"
    write_run(out)
    real = Path.rename

    def full(path: Path, target: Path) -> Path:
        if path.name == ".a.replacing":
            raise OSError(28, "No space left on device")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space"):
        write_run(out, "second", overwrite=True)
    assert (out / "file").read_text() == "first"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.png").write_text("x")
    with pytest.raises(UserError, match=r"photos exists.*; choose another name"):
        state.claim(tmp_path / "photos", overwrite=overwrite, resume=not overwrite)
    assert names(tmp_path / "photos") == ["me.png"]


def test_a_run_that_was_killed_before_it_began_is_no_obstacle(tmp_path: Path) -> None:
    home = state.claim(tmp_path / "a")
    (home.folder / ".config.json.partial").write_text("{")
    assert state.claim(tmp_path / "a") == home
    state.begin(home.folder, {})
    assert names(home.folder) == ["config.json", "state"]


def test_what_kept_no_state_leaves_nothing_but_what_is_somebody_elses(tmp_path: Path) -> None:
    state.give_up(begin_run(tmp_path / "a").folder)
    assert names(tmp_path) == []
    kept = begin_run(tmp_path / "b")
    (kept.states / "step-000002").mkdir()
    state.give_up(kept.folder)
    assert names(tmp_path / "b") == ["config.json", "state"]
    other = begin_run(tmp_path / "c")
    (other.folder / "notes.txt").write_text("mine")
    state.give_up(other.folder)
    assert names(tmp_path / "c") == ["notes.txt"]


def test_a_place_that_cannot_be_written_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write to"):
        state.claim(tmp_path / "file" / "a")
    with pytest.raises(UserError, match="is no name for a run"):
        state.claim(Path("/"))
    begin_run(tmp_path / "b")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"cannot write to .*/b: Permission denied; choose another place"):
        state.claim(tmp_path / "b")


def test_two_trainings_of_one_run_exclude_each_other(tmp_path: Path) -> None:
    home = begin_run(tmp_path / "a")
    held, refused = state.held, pytest.raises(UserError, match="another process is training")
    with held(home.folder), refused, held(home.folder):
        pytest.fail("the body must not run")
    with state.held(home.folder):
        assert home.folder.is_dir()


@pytest.mark.parametrize("stop", ["write", "sync"])
def test_a_file_is_placed_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str) -> None:
    state.write_json(tmp_path / "x.json", {"a": 1})

    def write(partial: Path) -> None:
        partial.write_text("half")
        if stop == "write":
            raise OSError(28, "No space left on device")

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    if stop == "sync":
        monkeypatch.setattr(state, "sync", full)
    with pytest.raises(OSError, match="No space"):
        state.place(tmp_path, "x.json", write)
    assert names(tmp_path) == ["x.json"]
    assert "1" in (tmp_path / "x.json").read_text()


def test_a_folder_that_cannot_be_cleared_does_not_hide_what_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that still write into it can make a folder impossible to remove; the next attempt removes it."""

    def write(partial: Path) -> None:
        partial.mkdir()
        (partial / "a").write_text("half")
        raise OSError(28, "No space left on device")

    def busy(path: Path, *_: object, **__: object) -> None:
        raise OSError(39, "Directory not empty", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("adapt.state.shutil.rmtree", busy)
        with pytest.raises(OSError, match="No space"):
            state.place(tmp_path, "x", write)
    state.place(tmp_path, "x", lambda partial: partial.mkdir())
    assert names(tmp_path) == ["x"]
    assert not list((tmp_path / "x").iterdir())


def test_only_complete_records_are_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a finished run"):
        state.read_record(tmp_path)
    for text in ("{", "[]", '{"format": 99, "status": "complete"}', '{"format": 1, "status": "running"}'):
        (tmp_path / state.RECORD).write_text(text)
        with pytest.raises(UserError):
            state.read_record(tmp_path)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "the run in runs/a: No space left on device"),
        (OSError(28, "No space left on device", "/cache/x"), "/cache/x: No space left on device"),
        (FileNotFoundError(2, "No such file", "runs/a/state/x"), "the run in runs/a: No such file"),
        (SafetensorError("I/O error: full (os error 28)"), "the run in runs/a: I/O error: full (os error 28)"),
        (SafetensorError("Error while deserializing header"), None),
        (ConnectionResetError(104, "Connection reset by peer"), None),
        (FileNotFoundError(2, "No such file", "/elsewhere/x"), None),
    ],
)
def test_only_errors_of_storage_are_said_to_be(error: Exception, words: str | None) -> None:
    assert state.unwritable(error, Path("runs/a")) == words
