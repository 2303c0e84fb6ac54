"""Switching experts off: what is left is the mixture without them, in closed form where the network is linear."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from adapt.fera import cell_of, checkpointing_function, gates_of
from adapt.fera.ablation import ablate, edited_gates, switched_off
from adapt.loop import train
from adapt.octaves import BANDS
from adapt.task import Task, prepare
from adapt.validate import Grid, band_energies, cells_of, make_grid, validate
from spectra.errors import UserError
from tests.adapt.fera.conftest import adapted, run
from tests.adapt.instruments.linear import EXPERTS, fera_task
from tests.adapt.small import config, finished
from tests.adapt.worlds import SHAPE, data, task


def test_only_the_gate_of_that_expert_is_zero(denoiser: nn.Module) -> None:
    adapted(denoiser)
    run(denoiser)
    whole = gates_of(denoiser)
    assert whole is not None
    for expert in range(EXPERTS):
        with switched_off(denoiser, expert):
            run(denoiser)
            found = gates_of(denoiser)
        assert found is not None
        assert torch.equal(found[:, expert], torch.zeros(2))
        others = [one for one in range(EXPERTS) if one != expert]
        assert torch.equal(found[:, others], whole[:, others])


def test_an_expert_that_is_off_counts_for_nothing(denoiser: nn.Module) -> None:
    """As if its columns of B were zero, in every layer."""
    adapted(denoiser)
    with switched_off(denoiser, 1), torch.no_grad():
        off = run(denoiser)
    with torch.no_grad():
        for name, value in denoiser.named_parameters():
            if name.endswith("fera_B.default"):
                value[:, 4:8] = 0
        torch.testing.assert_close(run(denoiser), off)


def test_gates_come_back_even_after_an_error(denoiser: nn.Module) -> None:
    adapted(denoiser)
    with torch.no_grad():
        before = run(denoiser)
        with pytest.raises(ZeroDivisionError), switched_off(denoiser, 0):
            raise ZeroDivisionError
        assert torch.equal(run(denoiser), before)
    assert not cell_of(denoiser).edits


def test_two_experts_may_be_off_at_once(denoiser: nn.Module) -> None:
    adapted(denoiser)
    with switched_off(denoiser, 0), switched_off(denoiser, 2):
        run(denoiser)
        found = gates_of(denoiser)
    assert found is not None
    assert torch.equal(found[:, [0, 2]], torch.zeros(2, 2))
    assert (found[:, 1] > 0).all()


def test_edits_follow_the_order_in_which_they_were_entered(denoiser: nn.Module) -> None:
    adapted(denoiser)
    with edited_gates(denoiser, torch.ones_like), edited_gates(denoiser, lambda gates: gates + 1):
        run(denoiser)
        assert torch.equal(cast(Tensor, gates_of(denoiser)), torch.full((2, EXPERTS), 2.0))


def test_other_adapters_keep_their_gates(transformer: nn.Module) -> None:
    adapted(transformer)
    adapted(transformer, "second", seed=8)
    cast(Any, transformer).set_adapters(["default", "second"])
    run(transformer)
    before = gates_of(transformer, "second")
    with switched_off(transformer, 0, "default"):
        run(transformer)
        assert torch.equal(cast(Tensor, gates_of(transformer, "second")), cast(Tensor, before))
        assert torch.equal(cast(Tensor, gates_of(transformer, "default"))[:, 0], torch.zeros(2))


def test_uniform_gates_can_be_switched_off_too(denoiser: nn.Module) -> None:
    adapted(denoiser, gates="uniform")
    with switched_off(denoiser, 2):
        run(denoiser)
        assert torch.equal(cast(Tensor, gates_of(denoiser)), torch.tensor([[1.0, 1.0, 0.0]] * 2))


@pytest.mark.slow
def test_a_compiled_network_notices_and_compiles_nothing_anew(transformer: nn.Module) -> None:
    adapted(transformer)
    with torch.no_grad(), switched_off(transformer, 1):
        expected = run(transformer)
    torch._dynamo.reset()
    compiled = cast(nn.Module, torch.compile(transformer, backend="eager"))
    with torch.no_grad():
        whole = run_compiled(compiled, transformer)
        with torch._dynamo.config.patch(error_on_recompile=True), switched_off(compiled, 1):
            off = run_compiled(compiled, transformer)
    torch.testing.assert_close(off, expected)
    assert not torch.equal(off, whole)


def run_compiled(compiled: nn.Module, like: nn.Module) -> Tensor:
    from tests.adapt.fera.conftest import arguments

    output: Tensor = compiled(**arguments(like)).sample
    return output


def test_checkpointed_gradients_are_those_without_the_expert(transformer: nn.Module) -> None:
    """The recomputation sees the gates of the pass, also when it happens after the expert is on again."""
    adapted(transformer)
    plain = copy.deepcopy(transformer)
    cast(Any, transformer).enable_gradient_checkpointing(checkpointing_function(cell_of(transformer)))
    gradients = []
    for model in (plain, transformer):
        model.train()
        with switched_off(model, 0):
            answer = run(model)
        answer.square().mean().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, one in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], one)


def test_what_is_not_there_cannot_be_switched_off(denoiser: nn.Module) -> None:
    with pytest.raises(UserError, match="no FeRA adapter 'default' whose gates"), switched_off(denoiser, 0):
        pass
    adapted(denoiser)
    with pytest.raises(UserError, match="experts 0 to 2, and no expert 3"), switched_off(denoiser, 3):
        pass
    with pytest.raises(UserError, match="no FeRA adapter 'other'"), switched_off(denoiser, 0, "other"):
        pass


def parts(the: Task, grid: Grid) -> tuple[Tensor, Tensor]:
    """What each expert adds, (level, sample, draw, expert, c, h, w), and the error of all, (level, sample, draw, ...).

    By hand: gate x s B_m A_m x, with the gates that validation saw.
    """
    layer, r = the.denoiser.mix, 4
    A, B = layer.fera_A["default"].detach(), layer.fera_B["default"].detach()
    added = torch.zeros(*grid.shape, EXPERTS, *SHAPE)
    residual = torch.zeros(*grid.shape, *SHAPE)
    for cells in cells_of(the, grid):
        residual[cells.where] = cells.answer(the).detach() - cells.target
        gates = cast(Tensor, gates_of(the.denoiser)).detach()
        for m in range(EXPERTS):
            rows = slice(m * r, (m + 1) * r)
            update = torch.einsum("or,ri,nihw->nohw", B[:, rows], A[rows], cells.noisy) * layer.scaling["default"]
            added[*cells.where, torch.tensor(m)] = gates[:, m, None, None, None] * update
    return added, residual


def test_in_a_linear_network_effects_are_what_the_experts_add() -> None:
    the = fera_task()
    grid = make_grid(the)
    found = ablate(the, grid)
    added, residual = parts(the, grid)
    effect = band_energies(added.flatten(0, 3)).unflatten(0, added.shape[:4]).mean(2)
    torch.testing.assert_close(found.effect, effect)
    without = residual[:, :, :, None] - added
    error = band_energies(without.flatten(0, 3)).unflatten(0, added.shape[:4])
    whole = band_energies(residual.flatten(0, 2)).unflatten(0, residual.shape[:3])
    torch.testing.assert_close(found.error, (error - whole[:, :, :, None]).mean(2), atol=1e-6, rtol=1e-4)
    total = without.square().mean((-3, -2, -1)) - residual.square().mean((-3, -2, -1))[:, :, :, None]
    torch.testing.assert_close(found.total, total.mean(2), atol=1e-6, rtol=1e-4)
    assert (found.effect > 0).all()


def test_in_a_linear_network_the_experts_effects_add_up_to_the_adapters() -> None:
    the = fera_task()
    grid = make_grid(the)
    added, _ = parts(the, grid)
    with torch.no_grad():
        for cells in cells_of(the, grid):
            whole = cells.answer(the)
            with the.method.base(the.denoiser):
                base = cells.answer(the)
            torch.testing.assert_close(whole - base, added[cells.where].sum(1))


def test_an_expert_whose_gate_is_zero_already_has_no_effect() -> None:
    the = fera_task()
    with edited_gates(the.denoiser, lambda gates: gates * torch.tensor([1.0, 0.0, 2.0])):
        found = ablate(the, make_grid(the))
    assert torch.equal(found.effect[:, :, 1], torch.zeros(3, 4, BANDS))
    assert torch.equal(found.error[:, :, 1], torch.zeros(3, 4, BANDS))
    assert torch.equal(found.total[:, :, 1], torch.zeros(3, 4))
    assert (found.effect[:, :, [0, 2]] > 0).all()


def test_ablation_leaves_the_adapter_as_it_was_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    import adapt.validate as module

    the = fera_task()
    grid = make_grid(the)
    before, whole = validate(the, grid), ablate(the, grid)
    monkeypatch.setattr(module, "CHUNK", 5)
    some = ablate(the, grid)
    torch.testing.assert_close(some.effect, whole.effect)
    torch.testing.assert_close(some.total, whole.total, atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(validate(the, grid).error, before.error)


def test_an_adapter_without_experts_is_refused() -> None:
    the = task(FlowMatchEulerDiscreteScheduler(), heldout=data(2), eval_samples=2, eval_draws=1, eval_levels=2)
    with pytest.raises(UserError, match="no FeRA adapter"):
        ablate(the, make_grid(the))


def numbers(run: Path) -> xr.Dataset:
    found: xr.Dataset = xr.open_zarr(run / "metrics.zarr", consolidated=False).load()
    return found


@pytest.mark.parametrize("family", ["sd", "sd3"])
def test_a_finished_run_says_what_its_experts_do(family: str) -> None:
    run = finished("fera", family)
    found = numbers(run.path)
    assert found.expert_effect.dims == found.expert_error.dims == ("level", "sample", "expert", "band")
    assert found.expert_total.dims == ("level", "sample", "expert")
    assert found.expert_effect.shape == (3, 2, EXPERTS, BANDS)
    assert float(found.expert_effect.min()) > 0
    the = prepare(config(run.path.parent / "again", family, method="fera", start_from=run.path), torch.device("cpu"))
    grid = make_grid(the)
    whole = validate(the, grid)
    np.testing.assert_allclose(whole.error, found.validation_error[-1], rtol=1e-4)
    with switched_off(the.denoiser, 2):
        lacking = validate(the, grid)
    difference = (lacking.error - whole.error).mean(2)
    np.testing.assert_allclose(found.expert_total[:, :, 2], difference, rtol=1e-2, atol=1e-5)
    bands = (lacking.band_error - whole.band_error).mean(2)
    np.testing.assert_allclose(found.expert_error[:, :, 2], bands, rtol=1e-2, atol=1e-5)


def test_it_is_left_out_where_nobody_asks_or_there_are_no_experts(tmp_path: Path) -> None:
    run = train(config(tmp_path / "run", method="fera", steps=1, ablate=False))
    assert "expert_effect" not in numbers(run.path)
    assert "expert_effect" not in numbers(finished("lora").path)


def test_it_is_measured_in_half_precision_too(tmp_path: Path) -> None:
    run = train(config(tmp_path / "run", "sd3", method="fera", steps=2, precision="bf16"))
    found = numbers(run.path)
    assert np.isfinite(found.expert_effect).all()
    assert float(found.expert_effect.min()) > 0
