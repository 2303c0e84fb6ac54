"""Every optimizer trains, says clearly what it lacks, and goes on from a checkpoint as if nothing had happened."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from adapt import optimisers
from adapt.checkpoint_tree import load_tree, save_tree
from adapt.config import TrainConfig
from adapt.optimisers import NEEDS, OPTIMIZERS, make_optimizer, optimizer_state, peak_rate, rate, restore_optimizer
from spectra.errors import UserError

CPU = torch.device("cpu")


def made(**changes: Any) -> TrainConfig:
    return TrainConfig(**({"model": "m", "data": "d", "out": Path("a")} | changes))


def model_and_optimizer(name: str) -> tuple[nn.Linear, Any]:
    torch.manual_seed(0)
    model = nn.Linear(64, 80)
    groups = [{"params": [model.weight], "lr": 1e-2, "weight_decay": 0.1}, {"params": [model.bias], "lr": 1e-2}]
    return model, make_optimizer(made(optimizer=name), groups, CPU)


def step(model: nn.Linear, optimizer: Any, index: int) -> float:
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(index))
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def needed(name: str) -> None:
    package = NEEDS.get(name)
    if package and find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_goes_on_from_its_state_bit_for_bit(name: str, tmp_path: Path) -> None:
    needed(name)
    model, optimizer = model_and_optimizer(name)
    losses = [step(model, optimizer, index) for index in range(3)]
    save_tree({"weights": list(model.parameters()), "optimizer": optimizer_state(optimizer)}, tmp_path)
    later, fresh = model_and_optimizer(name)
    tree = load_tree(tmp_path)
    for parameter, value in zip(later.parameters(), tree["weights"], strict=True):
        parameter.data.copy_(value)
    restore_optimizer(fresh, tree["optimizer"])
    for index in range(3, 7):
        losses.append(step(model, optimizer, index))
        assert step(later, fresh, index) == losses[-1]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), later.parameters(), strict=True))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_a_missing_package_is_a_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimisers, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=f"optimizer '{name}' needs the package {NEEDS[name]}; install it with"):
        model_and_optimizer(name)


def test_prodigy_refuses_several_learning_rates() -> None:
    needed("prodigy")
    parts = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    with pytest.raises(UserError, match="leave router_lr at 1"):
        make_optimizer(
            made(optimizer="prodigy"), [{"params": [p], "lr": float(i + 1)} for i, p in enumerate(parts)], CPU
        )


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    rates = [rate(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 1e-3
    assert 0 < rate(0, 1, 1.0) <= 1


def test_schedules_differ_after_the_same_rise() -> None:
    courses = {name: [rate(s, 40, 0.25, name) for s in range(40)] for name in ("cosine", "linear", "constant")}
    assert courses["cosine"][:10] == courses["linear"][:10] == courses["constant"][:10]
    assert courses["linear"][10:] == pytest.approx([1 - s / 30 for s in range(30)])
    assert set(courses["constant"][10:]) == {1.0}
    assert courses["cosine"][25] == pytest.approx(0.5)


def test_the_peak_is_the_persons_the_optimizers_or_the_methods() -> None:
    assert peak_rate(made(lr=0.3, optimizer="prodigy"), 10) == 0.3
    assert peak_rate(made(optimizer="prodigy"), 10) == 1.0
    assert peak_rate(made(), 10) > peak_rate(made(), 10**9)
