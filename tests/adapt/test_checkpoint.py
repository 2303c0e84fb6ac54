"""A checkpoint is whole or is never used, and removing old ones never leaves less than one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adapt import checkpoint, checkpoint_settings
from adapt.checkpoint_tree import load_tree, save_tree
from adapt.config import TrainConfig
from spectra.errors import UserError


def fill(folder: Path) -> None:
    (folder / "adapter").mkdir()
    (folder / "adapter" / "weights").write_bytes(b"0123456789")
    (folder / "numbers").write_text("1")


def states(folder: Path, *steps: int) -> Path:
    for step in steps:
        checkpoint.write(folder, step, fill)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_complete_one_is_found(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) == checkpoint.Found(None, 0, ())
    states(tmp_path, 9, 10, 2_000_000)
    assert checkpoint.newest(tmp_path) == checkpoint.Found(tmp_path / "step-2000000", 2_000_000, ())
    checkpoint.verify(tmp_path / "step-000010")


def shorten(folder: Path) -> None:
    (folder / "adapter" / "weights").write_bytes(b"01234")


def flip(folder: Path) -> None:
    (folder / "adapter" / "weights").write_bytes(b"0123456780")


def lose(folder: Path) -> None:
    (folder / "numbers").unlink()


def add(folder: Path) -> None:
    (folder / "more").write_text("2")


def unmark(folder: Path) -> None:
    (folder / checkpoint.MARKER).unlink()


def cut_marker(folder: Path) -> None:
    (folder / checkpoint.MARKER).write_text("{")


def rename(folder: Path) -> None:
    folder.rename(folder.with_name("step-000011"))


@pytest.mark.parametrize(
    ("tear", "words"),
    [
        (shorten, "adapter/weights in step-000010 is not what was written"),
        (flip, "adapter/weights in step-000010 is not what was written"),
        (lose, "numbers in step-000010 is not what was written"),
        (add, "more in step-000010 is not what was written"),
        (unmark, "step-000010 has no complete.json"),
        (cut_marker, "complete.json of step-000010 cannot be read"),
        (rename, "complete.json of step-000011 is that of another state"),
    ],
)
def test_a_torn_one_is_passed_over_by_name(tmp_path: Path, tear: Callable[[Path], None], words: str) -> None:
    states(tmp_path, 5, 10)
    tear(tmp_path / "step-000010")
    found = checkpoint.newest(tmp_path)
    assert (found.path, found.step) == (tmp_path / "step-000005", 5)
    assert len(found.torn) == 1
    assert words in found.torn[0]


def test_old_ones_go_only_after_the_new_one_is_complete(tmp_path: Path) -> None:
    states(tmp_path, 1, 2, 3)
    unmark(tmp_path / "step-000003")
    (tmp_path / ".step-000004.partial").mkdir()
    states(tmp_path, 4)
    (tmp_path / "step-000009").mkdir()  # torn, of an earlier life that came further
    checkpoint.prune(tmp_path, 4, keep=2)
    assert names(tmp_path) == ["step-000002", "step-000004"]
    checkpoint.prune(tmp_path, 4, keep=1)
    assert names(tmp_path) == ["step-000004"]


def test_a_full_disk_is_a_sentence_and_the_earlier_state_stays(tmp_path: Path) -> None:
    states(tmp_path, 1)

    def full(folder: Path) -> None:
        fill(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"cannot save the state of step 2 .*No space left.*step-000001 is whole"):
        checkpoint.write(tmp_path, 2, full)
    assert names(tmp_path) == ["step-000001"]
    checkpoint.verify(tmp_path / "step-000001")


def test_every_bit_of_a_tree_comes_back(tmp_path: Path) -> None:
    shared = torch.randn(3, 2)
    tree = {
        "step": 7, "nothing": None, "text": "ü", "yes": True, "rate": 0.1 + 0.2, "huge": float("inf"),
        "betas": (0.9, 0.999), "rows": [{"step": torch.tensor(3.0), "small": torch.arange(5, dtype=torch.uint8)}, {}],
        "by number": {0: {"error": shared}, 12: {"error": shared.T}}, "$tensor": "a name", "half": shared.bfloat16(),
        "empty": torch.empty(0, 4), "nan": torch.tensor([torch.nan, 1.0]),
    }  # fmt: skip
    save_tree(tree, tmp_path)
    found = load_tree(tmp_path)
    assert found.keys() == tree.keys()
    for name in ("step", "nothing", "text", "yes", "rate", "huge", "betas", "$tensor"):
        assert (found[name], type(found[name])) == (tree[name], type(tree[name]))
    assert found["by number"].keys() == {0, 12}
    assert torch.equal(found["by number"][12]["error"], shared.T)
    assert found["rows"][0]["small"].dtype == torch.uint8
    assert found["rows"][0]["step"].shape == ()
    assert found["half"].dtype == torch.bfloat16
    assert found["empty"].shape == (0, 4)
    assert torch.equal(found["nan"].isnan(), torch.tensor([True, False]))


def test_a_tree_holds_nothing_that_needs_pickle(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="/rows/0 is a set"):
        save_tree({"rows": [{1}]}, tmp_path)


def made(**changes: object) -> TrainConfig:
    return TrainConfig(**({"model": "m", "data": "d", "out": Path("runs/a")} | changes))


def saved(**changes: object) -> dict[str, object]:
    found = made().record() | {"lr": 0.1, "targets": ["x"]} | changes
    return {"config": found, "model_hash": "1", "data_hash": "2", "prior_hash": None}


def test_settings_that_leave_the_result_alone_may_change() -> None:
    changed = made(
        out=Path("b"), threads=3, checkpoint_every=5, keep_checkpoints=4, trackers=["tensorboard"], preview_every=2,
        data="elsewhere", accumulate=2, checkpointing=True, lr=0.1,
    )  # fmt: skip
    checkpoint_settings.check_settings(saved(), changed, Path("b"))


def test_settings_that_decide_the_result_may_not_and_are_listed() -> None:
    words = r"lr: 0\.1 -> 0\.2; rank: 12 -> 24; steps: 400 -> 800\); give the saved ones.*resume=false --overwrite"
    with pytest.raises(UserError, match=words):
        checkpoint_settings.check_settings(saved(), made(steps=800, rank=24, lr=0.2), Path("a"))


def test_other_data_or_another_model_under_the_same_name_is_refused() -> None:
    now = saved(targets=["y"]) | {"data_hash": "3"}
    with pytest.raises(UserError, match=r'targets: \["x"\] -> \["y"\]; the pictures or captions are other ones'):
        checkpoint_settings.check_resolved(saved(), now, Path("a"))


def test_every_setting_is_either_free_or_fixed() -> None:
    unknown = checkpoint_settings.MAY_CHANGE - TrainConfig.model_fields.keys()
    assert not unknown
    for name in ("steps", "warmup", "seed", "batch", "method", "rank", "optimizer", "lr_schedule", "precision", "ema"):
        assert name not in checkpoint_settings.MAY_CHANGE


def test_only_states_and_drafts_are_removed(tmp_path: Path) -> None:
    states(tmp_path, 1)
    (tmp_path / "my notes").mkdir()
    checkpoint.prune(tmp_path, 2, keep=1)
    assert names(tmp_path) == ["my notes", "step-000001"]
    checkpoint.check_names(tmp_path)
    (tmp_path / "my notes" / checkpoint.MARKER).write_text("{}")
    with pytest.raises(UserError, match="my notes holds a state under a name that is not a state's"):
        checkpoint.check_names(tmp_path)
