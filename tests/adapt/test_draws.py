"""Chance is a function of seed and step."""

from __future__ import annotations

from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

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


def epochs_of_old(seed: int, step: int, batch: int, size: int) -> list[int]:
    """One group, as plain as it can be said: all permutations in a row, cut into batches."""
    end = (step + 1) * batch
    rows: list[int] = []
    for epoch in range(end // size + 1):
        rows += torch.randperm(size, generator=generator(seed, 1, epoch)).tolist()
    return rows[end - batch : end]


@given(st.integers(0, 9), st.integers(0, 40), st.integers(1, 9), st.integers(1, 12))
def test_with_one_shape_batches_are_cut_from_permutations_without_a_seam(
    seed: int, step: int, batch: int, size: int
) -> None:
    assert rows_of(seed, step, batch, size) == epochs_of_old(seed, step, batch, size)
    assert rows_of(seed, step, batch, size, [3] * size) == epochs_of_old(seed, step, batch, size)


def steps_by_waiting(seed: int, steps: int, batch: int, groups: list[int]) -> list[list[int]]:
    """The definition, with memory: pictures wait by group, and a full group is a step."""
    waiting: dict[int, list[int]] = {group: [] for group in groups}
    made: list[list[int]] = []
    epoch = 0
    while len(made) < steps:
        for row in torch.randperm(len(groups), generator=generator(seed, 1, epoch)).tolist():
            waiting[groups[row]].append(row)
            if len(waiting[groups[row]]) == batch:
                made.append(waiting[groups[row]])
                waiting[groups[row]] = []
        epoch += 1
    return made[:steps]


GROUPS = st.lists(st.integers(0, 3), min_size=1, max_size=14)


@given(st.integers(0, 9), st.integers(1, 7), GROUPS)
def test_a_step_anywhere_is_that_of_a_run_from_the_start(seed: int, batch: int, groups: list[int]) -> None:
    expected = steps_by_waiting(seed, 12, batch, groups)
    order = [7, 0, 11, 3, *range(12)]
    assert [rows_of(seed, step, batch, len(groups), groups) for step in order] == [expected[step] for step in order]


@given(st.integers(0, 9), st.integers(1, 7), GROUPS, st.integers(1, 40))
def test_no_picture_is_lost_and_no_step_mixes_shapes(seed: int, batch: int, groups: list[int], steps: int) -> None:
    made = [rows_of(seed, step, batch, len(groups), groups) for step in range(steps)]
    assert all(len(rows) == batch and len({groups[row] for row in rows}) == 1 for rows in made)
    seen = Counter(row for rows in made for row in rows)
    for group in set(groups):  # equally often within a shape, at every step
        counts = [seen[row] for row, mine in enumerate(groups) if mine == group]
        assert max(counts) - min(counts) <= 1


@given(st.integers(0, 9), st.integers(1, 7), GROUPS, st.integers(1, 6))
def test_after_an_epoch_fewer_than_a_batch_of_each_shape_still_wait(
    seed: int, batch: int, groups: list[int], epochs: int
) -> None:
    members = Counter(groups)
    steps = sum(epochs * count // batch for count in members.values())
    seen = Counter(groups[row] for step in range(steps) for row in rows_of(seed, step, batch, len(groups), groups))
    assert all(0 <= epochs * count - seen[group] < batch for group, count in members.items())


def test_the_noise_of_a_step_has_the_shape_of_its_pictures() -> None:
    shapes = [(4, 8, 16), (4, 16, 8), (4, 8, 16), (4, 16, 8), (4, 8, 16)]
    seen = set()
    for step in range(12):
        found = draw(0, step, 2, 5, (4, 1, 1), 0.0, shapes)
        assert {shapes[row] for row in found.rows} == {tuple(found.noise.shape[1:])}
        seen.add(tuple(found.noise.shape[1:]))
    assert seen == set(shapes)
    same = draw(0, 3, 2, 5, SHAPE, 0.0, [SHAPE] * 5)
    assert torch.equal(same.noise, draw(0, 3, 2, 5, SHAPE, 0.0).noise)
    assert same.rows == draw(0, 3, 2, 5, SHAPE, 0.0).rows
