"""Chance is a function of seed and step."""

from __future__ import annotations

import torch

from adapt.draws import draw, generator, grid_noise, rows_of

SHAPE = (4, 16, 16)


def test_equal_seeds_draw_the_same_and_others_do_not() -> None:
    one, same, other, later = (draw(seed, step, 4, 10, SHAPE, 0.5) for seed, step in ((0, 3), (0, 3), (1, 3), (0, 4)))
    assert one.rows == same.rows
    assert torch.equal(one.noise, same.noise)
    assert torch.equal(one.quantiles, same.quantiles)
    assert torch.equal(one.dropped, same.dropped)
    assert not torch.equal(one.noise, other.noise)
    assert not torch.equal(one.noise, later.noise)


def test_every_epoch_shows_every_picture_once_in_a_new_order() -> None:
    rows = [row for step in range(7) for row in rows_of(0, step, 4, 14)]
    first, second = rows[:14], rows[14:]
    assert sorted(first) == sorted(second) == list(range(14))
    assert first != second


def test_a_batch_may_be_larger_than_the_data() -> None:
    rows = rows_of(0, 0, 8, 3)
    assert len(rows) == 8
    assert sorted(rows[:3]) == sorted(rows[3:6]) == [0, 1, 2]


def test_each_step_sees_the_whole_noise_range() -> None:
    quantiles = draw(0, 0, 16, 10, SHAPE, 0.0).quantiles
    assert (quantiles * 16).long().tolist() == list(range(16))


def test_captions_are_dropped_as_often_as_asked() -> None:
    dropped = torch.cat([draw(0, step, 100, 10, (1,), 0.1).dropped for step in range(50)])
    assert abs(dropped.float().mean() - 0.1) < 0.02


def test_processes_share_a_batch_without_overlap() -> None:
    whole = draw(0, 2, 6, 10, SHAPE, 0.5)
    parts = [whole.part(index, 2) for index in range(2)]
    assert sorted(whole.rows) == sorted(parts[0].rows + parts[1].rows)
    assert torch.equal(torch.stack([parts[0].noise, parts[1].noise], 1).flatten(0, 1), whole.noise)


def test_neighbouring_keys_have_unrelated_streams() -> None:
    streams = torch.stack([torch.randn(4096, generator=generator(0, 2, step)) for step in range(8)])
    assert (torch.corrcoef(streams) - torch.eye(8)).abs().max() < 0.08


def test_a_larger_grid_begins_with_the_smaller_one() -> None:
    small, large = grid_noise(2, 1, SHAPE), grid_noise(3, 2, SHAPE)
    assert torch.equal(large[:2, :1], small)
