"""The average is the recursion that it says, and borrowing it leaves the weights as they were."""

from __future__ import annotations

import torch
from torch import nn

from adapt.ema import RISE, Ema


def averaged(steps: int, decay: float) -> tuple[Ema, nn.Parameter, float]:
    """An average of a parameter that takes the values 1, 2, 3 ...; the same in plain numbers."""
    parameter = nn.Parameter(torch.zeros(2))
    ema, expected = Ema({"w": parameter}, decay), 0.0
    for n in range(steps):
        parameter.data.fill_(n + 1.0)
        ema.update()
        d = min(decay, (1 + n) / (RISE + n))
        expected = d * expected + (1 - d) * (n + 1)
    return ema, parameter, expected


def test_the_average_follows_its_recursion() -> None:
    for steps, decay in ((3, 0.999), (200, 0.9)):
        ema, _, expected = averaged(steps, decay)
        torch.testing.assert_close(ema.averages["w"], torch.full((2,), expected))


def test_late_averages_forget_the_start() -> None:
    ema, _, _ = averaged(1000, 0.9)
    torch.testing.assert_close(ema.averages["w"], torch.full((2,), 1000 - 9.0), rtol=1e-4, atol=0)


def test_weights_come_back_to_the_bit() -> None:
    ema, parameter, _ = averaged(5, 0.5)
    before = parameter.detach().clone()
    with ema.in_place():
        assert torch.equal(parameter, ema.averages["w"])
        assert not torch.equal(parameter, before)
    assert torch.equal(parameter, before)


def test_a_saved_average_goes_on_as_the_undisturbed_one() -> None:
    whole, parameter, _ = averaged(4, 0.9)
    other = Ema({"w": nn.Parameter(parameter.detach().clone())}, 0.9)
    other.restore(whole.state())
    for ema in (whole, other):
        ema.parameters["w"].data.fill_(7.0)
        ema.update()
    assert torch.equal(whole.averages["w"], other.averages["w"])
    assert whole.updates == other.updates == 5
