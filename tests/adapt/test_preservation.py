"""Prior preservation: the class beside the subject, once each, under their own captions."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image

from adapt.config import TrainConfig
from adapt.draws import Draws, draw
from adapt.preservation import _draw, _key, check_shapes, class_data_of, class_draws, class_rows, drawn_class
from adapt.step import step_loss
from adapt.task import Task
from spectra.errors import UserError
from tests.adapt.small import write_pictures
from tests.adapt.worlds import SHAPE, Data, data, embedding, task
from tests.tiny import tiny_sd


def with_class(**changes: Any) -> Task:
    return task(DDPMScheduler(), class_set=data(4, name="class", offset=0.3), **changes)


def drawn(the: Task, step: int = 0) -> Draws:
    return draw(the.config.seed, step, the.config.batch, len(the.train), SHAPE, 0.0)


def classes_of(the: Task) -> Any:
    return the.class_data


def test_a_step_has_as_many_class_pictures_as_subject_pictures_each_under_its_own_caption() -> None:
    the = with_class()
    draws = drawn(the)
    step_loss(the, the.denoiser, draws)
    (asked,) = the.denoiser.asked
    assert len(asked["noisy"]) == 12
    mine, theirs = asked["text"].split(6)
    chance = class_draws(the, classes_of(the), draws)
    for i in range(6):
        assert torch.equal(mine[i], embedding(f"subject {draws.rows[i]} 0"))
        assert torch.equal(theirs[i], embedding(f"class {chance.rows[i]} 0"))
    level = (chance.quantiles * 1000).long()
    noisy = DDPMScheduler().add_noise(classes_of(the).latents(chance.rows), chance.noise, level)
    torch.testing.assert_close(asked["noisy"][6:], noisy)


def test_the_loss_is_the_subjects_mean_plus_the_weighted_mean_of_the_class() -> None:
    the = with_class(class_weight=0.5, weighting="debiased")
    alone = task(DDPMScheduler(), weighting="debiased")
    found, without = (step_loss(one, one.denoiser, drawn(one)) for one in (the, alone))
    torch.testing.assert_close(found.parts["error"], without.loss.detach())
    torch.testing.assert_close(found.loss, found.parts["error"] + found.parts["class"])
    assert torch.equal(found.error, without.error)
    assert found.error.shape == found.quantile.shape == (6,)

    asked = the.denoiser.asked[0]
    noise = class_draws(the, classes_of(the), drawn(the)).noise
    answer = the.denoiser(asked["noisy"], asked["timestep"].float(), asked["text"]).detach()[6:]
    weight = the.objective.weight(asked["timestep"][6:])
    expected = 0.5 * (weight * (answer - noise).square().flatten(1).mean(1)).mean()
    torch.testing.assert_close(found.parts["class"], expected, rtol=1e-4, atol=1e-6)


def gradient(the: Task) -> torch.Tensor:
    loss = step_loss(the, the.denoiser, drawn(the)).loss
    return torch.cat([one.flatten() for one in torch.autograd.grad(loss, [*the.denoiser.parameters()])])


def test_the_class_adds_its_own_gradient_and_changes_nothing_of_the_subjects() -> None:
    none, half, whole = (gradient(with_class(class_weight=weight)) for weight in (0.0, 0.5, 1.0))
    torch.testing.assert_close(none, gradient(task(DDPMScheduler())))
    torch.testing.assert_close(half - none, (whole - none) / 2, rtol=1e-3, atol=1e-6)
    assert (whole - none).abs().max() > 1e-3


def test_draws_of_the_class_are_a_function_of_seed_and_step_and_not_those_of_the_subject() -> None:
    the = with_class()
    one, same, later = (class_draws(the, classes_of(the), drawn(the, step)) for step in (2, 2, 3))
    assert one.rows == same.rows
    assert torch.equal(one.noise, same.noise)
    assert not torch.equal(one.noise, later.noise)
    assert not torch.equal(one.noise, drawn(the, 2).noise)
    assert not torch.equal(one.quantiles, drawn(the, 2).quantiles)


def test_processes_share_the_class_as_one_would_have_it() -> None:
    the = with_class()
    whole = class_draws(the, classes_of(the), drawn(the))
    parts = [class_draws(the, classes_of(the), drawn(the).part(index, 2)) for index in range(2)]
    assert whole.rows[::2] + whole.rows[1::2] == parts[0].rows + parts[1].rows
    assert torch.equal(torch.cat([part.noise for part in parts]), torch.cat([whole.noise[::2], whole.noise[1::2]]))


def test_every_class_picture_is_seen_as_often_as_the_others() -> None:
    the = with_class()
    rows = [row for step in range(4) for row in class_draws(the, classes_of(the), drawn(the, step)).rows]
    assert sorted(rows) == sorted([0, 1, 2, 3] * 6)


def test_class_pictures_of_a_step_have_the_shape_of_its_subjects() -> None:
    wide = (4, 8, 12)
    train = Data((SHAPE,) * 3, (("a",),) * 3)
    classes = Data((wide, SHAPE, wide, SHAPE), (("b",),) * 4)
    the = task(DDPMScheduler(), train, class_set=classes)
    chance = class_draws(the, classes_of(the), drawn(the))
    assert set(chance.rows) == {1, 3}
    for step in range(5):
        draws = drawn(the, step)
        expected = class_draws(the, classes_of(the), draws).rows
        assert class_rows(the, classes_of(the), the.train.shapes[draws.rows[0]], step) == expected
    step_loss(the, the.denoiser, drawn(the))
    check_shapes(the.train, classes_of(the))
    with pytest.raises(UserError, match=r"no class picture has the latent shape \(4, 8, 8\) of 0.png"):
        check_shapes(the.train, data(2, shape=wide))  # type: ignore[arg-type]


@cache
def pipe() -> Any:
    made = tiny_sd()
    made.set_progress_bar_config(disable=True)
    return made


def config(tmp_path: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "model": "m", "data": "d", "out": tmp_path / "run", "cache": tmp_path / "cache", "class_caption": "a dog",
        "class_count": 3, "sample_steps": 2,
    }  # fmt: skip
    return TrainConfig(**(settings | changes))


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def told(log: list[tuple[str, int, int]]) -> Any:
    return lambda *report: log.append(report)


def test_the_base_draws_class_pictures_once_and_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    log: list[tuple[str, int, int]] = []
    folder = drawn_class(config(tmp_path), pipe(), told(log))
    first = pictures(folder)
    assert sorted(first) == ["00000.png", "00001.png", "00002.png"]
    assert {path.read_text() for path in folder.glob("*.txt")} == {"a dog\n"}
    assert log == [("draw", 3, 3)]
    assert len(set(first.values())) == 3

    (folder / "00001.txt").unlink()  # as if it had been interrupted before the picture was whole
    (folder / "00001.png").write_bytes(b"torn")
    drawn_class(config(tmp_path), pipe(), told(log))
    again = pictures(folder)
    assert again.keys() == first.keys()
    assert again["00000.png"] == first["00000.png"]
    redrawn, before = (np.asarray(Image.open(BytesIO(found["00001.png"]))).astype(int) for found in (again, first))
    assert abs(redrawn - before).max() <= 1  # a unit of rounding: it was drawn in other company
    assert log[1:] == [("draw", 3, 3)]
    drawn_class(config(tmp_path), pipe(), told(log))
    assert len(log) == 2


def test_a_seed_draws_the_same_picture_in_any_company(tmp_path: Path) -> None:
    few, many = (drawn_class(config(tmp_path / str(n), class_count=n), pipe(), told([])) for n in (1, 3))
    one, other = (np.asarray(Image.open(folder / "00000.png")).astype(int) for folder in (few, many))
    assert abs(one - other).max() <= 1  # a unit of rounding


def test_another_caption_or_setting_has_another_folder(tmp_path: Path) -> None:
    base = config(tmp_path)
    others = [
        config(tmp_path, **change) for change in ({"class_caption": "a cat"}, {"sample_steps": 3}, {"guidance": 1.0})
    ]
    keys = {_key(one, pipe()) for one in [base, *others]}
    assert len(keys) == 4
    assert _key(config(tmp_path, class_count=9, seed=3), pipe()) == _key(base, pipe())


def test_drawn_pictures_are_encoded_under_the_class_caption_and_no_more_than_asked_for(tmp_path: Path) -> None:
    drawn_class(config(tmp_path, class_count=4), pipe(), told([]))
    found = class_data_of(config(tmp_path), pipe(), told([]))
    assert found is not None
    assert found.captions == ("a dog",) * 3
    assert [path.name for path in found.paths] == ["00000.png", "00001.png", "00002.png"]


def test_given_class_pictures_are_used_with_their_captions_or_the_classs(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "class", 3)
    (folder / "1.txt").unlink()
    found = class_data_of(config(tmp_path, class_data=folder), pipe(), told([]))
    assert found is not None
    assert sorted(found.captions) == ["a dog", "ramp 0 0", "ramp 0 2"]
    assert not (tmp_path / "cache" / "class").exists()


def test_without_a_class_there_is_none(tmp_path: Path) -> None:
    assert class_data_of(config(tmp_path, class_caption=None), pipe(), told([])) is None


def test_a_video_model_is_asked_for_no_class_pictures(tmp_path: Path) -> None:
    class WanPipeline:
        pass

    with pytest.raises(UserError, match="a WanPipeline draws no pictures of the class; give them as class_data"):
        _draw(config(tmp_path), WanPipeline(), [0])
