"""One LoRA per expert, played by stock diffusers, is FeRA whose gates follow the same schedule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from adapt.export import ScheduledLoras
from adapt.export.watching import forced, watching
from adapt.methods import METHODS, load_adapter
from spectra.errors import UserError
from tests.adapt.export.conftest import PIPES, call_of, denoiser_of, exported, saved


def latents(pipe: Any, family: str, **more: Any) -> torch.Tensor:
    text = {} if call_of(family) else {"prompt": ["a", "b c"]}
    noise = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    with torch.no_grad():
        made: torch.Tensor = pipe(
            **text, **call_of(family), generator=noise, num_inference_steps=3, guidance_scale=1.0,
            output_type="latent", **more,
        )[0]  # fmt: skip
    return made


@pytest.mark.parametrize(
    "family", ["sd", "flux", *(pytest.param(family, marks=pytest.mark.slow) for family in ("sd3", "sdxl"))]
)
def test_playing_the_schedule_is_fera_with_these_gates(tmp_path: Path, family: str) -> None:
    facts = exported(family, "fera", "scheduled-loras", tmp_path / "out")
    assert facts["relative_to_fera_with_these_gates"] < 1e-5
    assert 1e-7 < facts["relative_to_fera"] < 1

    schedule = json.loads((tmp_path / "out" / "gates.json").read_text())
    own = PIPES[family]()
    load_adapter(denoiser_of(own), saved(family, "fera"))
    rows = [torch.tensor(row) for row in schedule["gates"]]
    with forced(denoiser_of(own), lambda step: rows[step]) as advance:
        expected = latents(own, family, callback_on_step_end=lambda pipe, i, t, kw: advance() or kw)
    stock = PIPES[family]()
    player = ScheduledLoras.load(stock, tmp_path / "out")
    for _ in range(2):  # a player serves one call after another
        found = latents(stock, family, callback_on_step_end=player)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    still = latents(stock, family)
    assert float((still - expected).abs().max()) > 1e-4  # without the player the gates do not move


def test_the_always_on_part_and_uneven_schedules_are_played(tmp_path: Path) -> None:
    from adapt.export import export

    folder = saved("sd", "fera", shared_rank=3, rank=9)
    made = export(folder, tmp_path / "out", "scheduled-loras", pipe=PIPES["sd"](), prompts=["a"], steps=3, guidance=1.0)
    facts = json.loads((made / "export.json").read_text())
    assert facts["relative_to_fera_with_these_gates"] < 1e-5
    schedule = json.loads((made / "gates.json").read_text())
    assert schedule["shared"] == ["shared"]
    assert len(schedule["gates"]) == len(schedule["timestep"]) == 3


def test_gates_between_and_beyond_the_levels_of_the_schedule() -> None:
    player = ScheduledLoras(["a", "b"], [2.0, -2.0, 0.0], [[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]], [])
    assert player.gates(0.0) == [1.0, 1.0]
    assert player.gates(1.0) == [1.5, 0.5]
    assert player.gates(-9.0) == [0.0, 2.0]
    assert player.gates(9.0) == [2.0, 0.0]


def test_a_schedule_is_a_mean_over_samples_of_the_gates_of_each_step() -> None:
    pipe = PIPES["sd"]()
    load_adapter(pipe.unet, saved("sd", "fera"))
    by_hand: list[torch.Tensor] = []

    def note(p: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        found = METHODS["fera"].gates(pipe.unet)
        assert found is not None
        by_hand.append(found.mean(0))
        return kwargs

    with watching(pipe, pipe.unet, 3, METHODS["fera"].gates) as seen:
        latents(pipe, "sd", callback_on_step_end=note)
    torch.testing.assert_close(seen.mean_gates, torch.stack(by_hand))
    assert seen.timesteps == [float(t) for t in pipe.scheduler.timesteps]
    assert "step" not in vars(pipe.scheduler)


@pytest.mark.parametrize("text", ["", "{}", '{"format": 2, "gates": [], "log_snr": []}', "[1]"])
def test_a_damaged_schedule_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "gates.json").write_text(text)
    with pytest.raises(UserError, match="schedule of gates"):
        ScheduledLoras.load(PIPES["sd"](), tmp_path)
