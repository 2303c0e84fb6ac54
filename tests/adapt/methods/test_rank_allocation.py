"""AdaLoRA lowers the ranks to the budget, and can be interrupted anywhere."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, AdaLoraModel

from adapt.methods import METHODS, NAME, load_adapter
from tests.adapt.methods.conftest import attach, fresh, train

ADALORA = METHODS["adalora"]


def mean_rank(denoiser: Any) -> float:
    """By the pattern, whose other singular values must be zero."""
    values = {name: p.detach().flatten() for name, p in denoiser.named_parameters() if f".lora_E.{NAME}" in name}
    pattern = denoiser.peft_config[NAME].rank_pattern or {name: [True] * len(e) for name, e in values.items()}
    assert pattern.keys() == values.keys()
    assert all((values[name][~torch.tensor(kept)] == 0).all() for name, kept in pattern.items())
    return sum(sum(kept) for kept in pattern.values()) / len(pattern)


def test_the_mean_rank_falls_from_half_as_much_again_to_the_rank_asked_for() -> None:
    model = fresh("sd3")
    attach(model, "adalora", steps=12)
    assert model.peft_config[NAME].init_r == 9
    counts = []
    for step in range(12):
        train(model, "adalora", steps=1, first=step, total=12)
        counts.append(mean_rank(model))
    assert counts[0] == 9
    assert counts[-1] == pytest.approx(6, abs=0.1)
    assert all(later <= earlier for earlier, later in pairwise(counts))


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_short_runs_end_at_the_budget_too(steps: int) -> None:
    model = fresh("sd3")
    attach(model, "adalora", steps=steps)
    train(model, "adalora", steps=steps, total=steps)
    assert mean_rank(model) == pytest.approx(6, abs=0.1)


@pytest.mark.parametrize("stop", [2, 9])
def test_an_interrupted_run_ends_as_the_undisturbed_one(tmp_path: Path, stop: int) -> None:
    whole = fresh("sd3")
    attach(whole, "adalora", steps=12)
    train(whole, "adalora", steps=12, total=12)
    first = fresh("sd3")
    attach(first, "adalora", steps=12)
    train(first, "adalora", steps=stop, total=12)
    saved, weights = ADALORA.state(first), first.state_dict()
    second = fresh("sd3")
    attach(second, "adalora", steps=12, seed=9)
    second.load_state_dict(weights)
    ADALORA.restore(second, saved)
    train(second, "adalora", steps=12 - stop, first=stop, total=12)
    for (name, one), other in zip(whole.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_the_penalty_is_the_one_that_peft_adds_to_a_loss() -> None:
    mine = fresh("sd3")
    attach(mine, "adalora")
    theirs = AdaLoraModel(fresh("sd3"), {NAME: AdaLoraConfig(**_options())}, NAME)
    theirs.model.load_state_dict(mine.state_dict())

    class Answer:
        loss = torch.zeros(())

    theirs.model.forward = lambda *args, **kwargs: Answer()
    expected = theirs.forward().loss
    found = ADALORA.penalty(mine)
    assert found is not None
    torch.testing.assert_close(found, expected)
    assert found.requires_grad
    assert METHODS["lora"].penalty(mine) is None


def _options() -> dict[str, Any]:
    made = fresh("sd3")
    attach(made, "adalora")
    targets = made.peft_config[NAME].target_modules
    return {"init_r": 9, "target_r": 6, "total_step": 8, "tfinal": 2, "target_modules": targets}


def test_a_saved_adapter_keeps_the_ranks_that_were_cut(tmp_path: Path) -> None:
    model = fresh("sd3")
    attach(model, "adalora", steps=8)
    train(model, "adalora", steps=8)
    ADALORA.save(model, tmp_path)
    loaded = fresh("sd3")
    load_adapter(loaded, tmp_path)
    cut = {name: torch.tensor(kept) for name, kept in model.peft_config[NAME].rank_pattern.items()}
    for name, parameter in loaded.named_parameters():
        if name in cut:
            assert (parameter.flatten()[~cut[name]] == 0).all()
            assert not parameter.requires_grad
