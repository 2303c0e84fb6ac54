"""Memory by parts: what autograd keeps is counted exactly, on shapes alone as on real numbers."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from adapt import processes
from adapt.plan import make_plan
from adapt.plan.memory import MIB, STATE_BYTES, checkpointed, estimate, kept_for_backward, meta_twin
from adapt.step import step_loss
from adapt.task import prepare
from adapt.trainer import Trainer, draws_of
from spectra.models import load_pipeline
from tests.adapt.small import config

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]


@cache
def unet() -> Any:
    return load_pipeline("mini").unet.requires_grad_(False)


def call(model: Any, batch: int, device: str) -> Any:
    """One forward pass of mini's UNet."""
    dims = model.config.cross_attention_dim
    return model(
        torch.zeros(batch, 4, 16, 16, device=device),
        torch.zeros(batch, dtype=torch.long, device=device),
        torch.zeros(batch, 24, dims, device=device),
    ).sample


def twin(rank: int = 4) -> Any:
    made = meta_twin(unet())
    made.add_adapter(LoraConfig(r=rank, target_modules=TARGETS))
    return made


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_trained_layer_keeps_its_input_and_a_frozen_one_nothing(device: str) -> None:
    layer = nn.Linear(8, 5, device=device)
    x = torch.zeros(3, 8, device=device)
    assert kept_for_backward(layer, lambda: layer(x)) == 3 * 8 * 4
    layer.requires_grad_(False)
    assert kept_for_backward(layer, lambda: layer(x)) == 0


def test_a_low_rank_update_keeps_input_and_small_activation() -> None:
    model = inject_adapter_in_model(LoraConfig(r=2, target_modules=["0"]), nn.Sequential(nn.Linear(8, 5)))
    x = torch.zeros(3, 8)
    assert kept_for_backward(model, lambda: model(x)) == (3 * 8 + 3 * 2) * 4


def test_one_tensor_that_is_kept_twice_counts_once() -> None:
    w = torch.ones(7, requires_grad=True)
    x = torch.ones(7)
    assert kept_for_backward(nn.Module(), lambda: (w * x) + (w * x)) == 7 * 4


def test_shapes_alone_tell_what_real_numbers_keep() -> None:
    real = load_pipeline("mini").unet.requires_grad_(False)
    real.add_adapter(LoraConfig(r=4, target_modules=TARGETS))
    real.train()
    shapes = twin()
    found = kept_for_backward(shapes, lambda: call(shapes, 4, "meta"))
    assert found == pytest.approx(kept_for_backward(real, lambda: call(real, 4, "cpu")), rel=0.1)


def test_activations_grow_with_the_batch() -> None:
    model = twin()
    one, four = (kept_for_backward(model, partial(call, model, n, "meta")) for n in (1, 4))
    assert four == pytest.approx(4 * one, rel=0.01)


def test_checkpointing_keeps_the_inputs_of_blocks_and_one_block_at_a_time() -> None:
    plain, saving = twin(), twin()
    counted = checkpointed(saving)
    rest = kept_for_backward(saving, lambda: call(saving, 4, "meta"))
    inputs, most = counted()
    whole = kept_for_backward(plain, lambda: call(plain, 4, "meta"))
    assert 0 < inputs < whole
    assert 0 < most < whole
    assert rest + inputs + most < 0.8 * whole


def test_parts_are_counted_from_the_trained_numbers() -> None:
    model, pipe = twin(), load_pipeline("mini")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    found = estimate(pipe, pipe.unet, [model], None, "adamw", ema=True)
    weights = sum(p.numel() * 4 for p in pipe.unet.parameters())
    assert found.denoiser == pytest.approx(weights / MIB, rel=1e-6)
    assert found.adapter == pytest.approx(2 * 4 * trained / MIB)
    assert found.gradients == pytest.approx(4 * trained / MIB)
    assert found.optimizer == pytest.approx(8 * trained / MIB)
    assert found.activations is None
    parts = (found.denoiser, found.others, found.adapter, found.gradients, found.optimizer)
    assert found.total == pytest.approx(sum(parts))


REAL: list[tuple[str, dict[str, Any]]] = [
    ("lora", {}), ("fera", {}), ("full", {"ema": 0.9}), ("lora", {"text_encoder": True}),
    ("lora", {"class_caption": "a ramp", "class_count": 1}), ("lora", {"accumulate": 3}),
    ("lora", {"optimizer": "sgd"}), ("lora", {"optimizer": "adafactor"}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "changes"), REAL)
def test_a_plan_foretells_what_a_real_step_keeps(method: str, changes: dict[str, Any], tmp_path: Path) -> None:
    settings = config(tmp_path / "run", method=method, **changes)
    with processes.accelerated(settings) as accelerator:
        trainer = Trainer.of(prepare(settings, accelerator.device), accelerator)
        mine = draws_of(trainer.task, 0, accelerator).part(0, settings.accumulate)
        kept = kept_for_backward(trainer.denoiser, lambda: step_loss(trainer.task, trainer.denoiser, mine).loss)
        trainer.advance()
    states = [value for state in trainer.optimizer.state.values() for value in state.values()]
    found = make_plan(settings).memory
    assert found.activations is not None
    assert found.activations * MIB == pytest.approx(kept, rel=0.1)
    assert found.gradients * MIB == 4 * sum(p.numel() for p in trainer.parameters.values())
    assert found.optimizer * MIB == pytest.approx(
        sum(v.numel() * v.element_size() for v in states if isinstance(v, torch.Tensor) and v.ndim), rel=1e-3
    )


def test_adamw_keeps_eight_bytes_a_number() -> None:
    weight = nn.Parameter(torch.ones(1000))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    kept = sum(v.numel() * v.element_size() for v in optimizer.state[weight].values() if v.numel() > 1)
    assert kept == STATE_BYTES["adamw"] * 1000
