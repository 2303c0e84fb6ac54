"""LoRA files for stock diffusers: exact where the adapter is a LoRA or the gates are constant, else measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from adapt.export import ScheduledLoras, export
from adapt.export import factors as lowrank
from adapt.export.files import write_lora
from adapt.fera import unload
from adapt.methods import attach_text_encoders, load_adapter, save_text_encoders
from tests.adapt.export.conftest import PIPES, exported, saved, worst
from tests.adapt.methods.conftest import answer, attach, fresh, settings, train


@pytest.mark.parametrize(
    ("family", "method"),
    [
        *((family, "lora") for family in PIPES),
        ("sd3", "dora"),
        *(pytest.param(family, "dora", marks=pytest.mark.slow) for family in ("sd", "sdxl", "flux")),
    ],
)
def test_a_lora_is_read_by_diffusers_as_the_adapter_itself(tmp_path: Path, family: str, method: str) -> None:
    facts = exported(family, method, "static-lora", tmp_path / "out")
    assert worst(facts) < 1e-5
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md", "export.json", "pytorch_lora_weights.safetensors"
    ]  # fmt: skip


@pytest.mark.parametrize("family", [pytest.param("sd", marks=pytest.mark.slow), "sd3"])
@pytest.mark.parametrize("method", ["adalora", "loha", "lokr", "oft"])
def test_other_methods_come_near_and_their_error_is_measured(tmp_path: Path, family: str, method: str) -> None:
    whole = exported(family, method, "static-lora", tmp_path / "whole", rank=1000)
    cut = exported(family, method, "static-lora", tmp_path / "cut", rank=1)
    assert worst(whole) < 1e-3
    assert worst(cut) > 10 * worst(whole)
    assert "rank 1 or less" in cut["how"]


def test_ia3_loses_what_it_does_to_biases_and_the_error_says_so(tmp_path: Path) -> None:
    assert 1e-3 < worst(exported("sd", "ia3", "static-lora", tmp_path / "out", rank=1000)) < 1


@pytest.mark.parametrize(("expert", "shared"), [("lora", 0), ("lora", 3), ("loha", 3), ("dora", 3), ("ia3", 3)])
def test_fera_at_constant_gates_is_exactly_the_exported_lora(tmp_path: Path, expert: str, shared: int) -> None:
    model = _without_biases(fresh("sd")) if expert == "ia3" else fresh("sd")
    attach(model, "fera", expert=expert, shared_rank=shared, rank=6 + shared, alpha=9.0, router="uniform")
    train(model, "fera", steps=4, lr=0.05)
    gates = torch.ones(3)
    with torch.no_grad():
        expected = answer(model)
    found = lowrank.of_fera(model, gates, 1000)
    write_lora(tmp_path / "lora.safetensors", {"unet": found})
    unload(model)
    model.load_lora_adapter(str(tmp_path), weight_name="lora.safetensors", prefix="unet")
    with torch.no_grad():
        torch.testing.assert_close(answer(model), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("expert", ["lora", "loha"])
def test_gates_held_at_any_value_are_exactly_the_exported_lora(expert: str) -> None:
    from adapt.export.watching import forced

    model = fresh("sd3")
    attach(model, "fera", expert=expert, shared_rank=3, rank=9)
    train(model, "fera", steps=4, lr=0.05)
    gates = torch.tensor([2.1, 0.7, 0.2])
    with torch.no_grad(), forced(model, lambda step: gates):
        expected = answer(model)
    found = lowrank.of_fera(model, gates)
    for name, one in lowrank.by_expert(model).items():
        weight = 1.0 if name == "shared" else float(gates[int(name.removeprefix("expert"))])
        for layer, part in one.items():
            found[layer] = found[layer]._replace(up=torch.cat([found[layer].up, -weight * part.up], 1),
                                                 down=torch.cat([found[layer].down, part.down]))  # fmt: skip
    assert max(float(one.delta.abs().max()) for one in found.values()) < 1e-6
    with torch.no_grad():
        assert float((answer(model) - expected).abs().max()) > 1e-3


def test_fera_at_its_mean_gates_has_a_small_error_that_is_written_down(tmp_path: Path) -> None:
    facts = exported("sd", "fera", "static-lora", tmp_path / "out")
    assert len(facts["error"]) == 3
    assert 1e-6 < worst(facts) < 0.5
    assert sum(facts["mean_gates"]) == pytest.approx(3, abs=1e-4)
    levels = [row["noise_level"] for row in facts["error"]]
    assert levels == sorted(levels, reverse=True)
    text = (tmp_path / "out" / "README.md").read_text()
    assert all(f"{row['of_effect']:.3g}" in text for row in facts["error"])


def test_the_error_is_that_of_the_predictions_and_not_zero_by_itself(tmp_path: Path) -> None:
    """Against a second measurement by hand: base, adapter and exported LoRA on one latent."""
    facts = exported("sd", "loha", "static-lora", tmp_path / "out", rank=1)
    pipe = PIPES["sd"]()
    with torch.no_grad():
        base = answer(pipe.unet.eval())
        load_adapter(pipe.unet, saved("sd", "loha"))
        own = answer(pipe.unet)
        unload(pipe.unet)
        pipe.load_lora_weights(str(tmp_path / "out"))
        cut = answer(pipe.unet)
    assert float((cut - own).norm() / (own - base).norm()) == pytest.approx(worst(facts), rel=0.5)


def test_the_file_says_its_ranks_and_alphas(tmp_path: Path) -> None:
    exported("sd", "loha", "static-lora", tmp_path / "out", rank=3)
    with safe_open(tmp_path / "out" / "pytorch_lora_weights.safetensors", "pt") as file:
        assert '"unet.r": 3' in file.metadata()["lora_adapter_metadata"]
        assert all(key.startswith("unet.") for key in file.keys())  # noqa: SIM118


def test_measuring_a_merge_leaves_the_layers_as_they_were() -> None:
    for method in ("loha", "oft", "ia3", "dora"):
        model = fresh("sd3")
        attach(model, method)
        train(model, method)
        with torch.no_grad():
            before = answer(model)
            lowrank.nearest(model, 2)
            assert torch.equal(answer(model), before)


def _without_biases(model: Any) -> Any:
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d) and module.bias is not None:
                module.bias.zero_()
    return model


@pytest.mark.parametrize(
    "form", ["static-lora", *(pytest.param(form, marks=pytest.mark.slow) for form in ("kohya", "scheduled-loras"))]
)
def test_trained_text_encoders_are_exported_with_the_denoiser(tmp_path: Path, form: str) -> None:
    method = "fera" if form == "scheduled-loras" else "lora"
    folder, pipe = tmp_path / "adapter", PIPES["sd"]()
    shutil.copytree(saved("sd", method), folder)
    attach_text_encoders(pipe, settings("lora", text_encoder=True, alpha=2.0))
    with torch.no_grad():
        for p in pipe.text_encoder.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(0)), alpha=0.3)
        expected = pipe.encode_prompt("b c", "cpu", 1, False)[0]
        plain = PIPES["sd"]().encode_prompt("b c", "cpu", 1, False)[0]
    assert float((expected - plain).abs().max()) > 1e-2
    save_text_encoders(pipe, folder)
    made = export(folder, tmp_path / "out", form, pipe=PIPES["sd"](), prompts=["a"], steps=2, guidance=1.0)
    other = PIPES["sd"]()
    if form == "scheduled-loras":
        ScheduledLoras.load(other, made)
    else:
        name = json.loads((made / "export.json").read_text()).get("file", "pytorch_lora_weights.safetensors")
        other.load_lora_weights(str(made), weight_name=name)
    with torch.no_grad():
        torch.testing.assert_close(other.encode_prompt("b c", "cpu", 1, False)[0], expected, rtol=1e-4, atol=1e-4)
