from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import spectra
from spectra.errors import UserError
from spectra.families import family_of
from spectra.record import record
from spectra.recording.blocks import BlockWatcher, blocks_of, field_of
from tests.spectra.recording.test_record_lifecycle import Loop
from tests.spectra.witness import BANK, CALL, seeded
from tests.tiny import tiny_sd, tiny_sd3

HALVED = spectra.FilterBank(scale / 2 for scale in BANK.scales)


def outputs_of(module: torch.nn.Module) -> list[Any]:
    kept: list[Any] = []
    module.register_forward_hook(lambda module, args, out: kept.append(out))
    return kept


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_blocks_of_a_unet_have_the_energies_of_their_outputs_with_the_prompt(scale: float, tmp_path: Path) -> None:
    pipe = tiny_sd()
    down, up = outputs_of(pipe.unet.down_blocks[0]), outputs_of(pipe.unet.up_blocks[1])
    with record(pipe, tmp_path / "c.zarr", bank=BANK, signals=("latent", "blocks")):
        pipe(["a", "b"], generator=seeded(1, 2), **CALL | {"guidance_scale": scale})
    cube = spectra.open_cube(tmp_path / "c.zarr")
    names = ["down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"]
    assert cube.block.values.tolist() == names
    for i, (one, two) in enumerate(zip(down, up, strict=True)):
        for name, field, bank in (("down_blocks.0", one[0], HALVED), ("up_blocks.1", two, BANK)):
            expected = bank.energies(field[-2:].double()).sum(1)
            np.testing.assert_allclose(cube.block_energy.sel(block=name).isel(step=i), expected, rtol=1e-4)
    assert np.isnan(cube.block_energy.isel(step=-1)).all()


def test_blocks_of_a_transformer_are_measured_on_the_grid_of_their_tokens(tmp_path: Path) -> None:
    pipe = tiny_sd3()
    kept = outputs_of(pipe.transformer.transformer_blocks[0])
    with record(pipe, tmp_path / "c.zarr", bank=BANK, blocks=True):
        pipe("a", generator=seeded(1), **CALL | {"guidance_scale": 3.0})
    cube = spectra.open_cube(tmp_path / "c.zarr")
    assert cube.block.values.tolist() == ["transformer_blocks.0", "transformer_blocks.1"]
    for i, (_, tokens) in enumerate(kept):
        field = tokens[1].T.reshape(-1, 8, 8)
        expected = HALVED.energies(field.double()).sum(0)
        np.testing.assert_allclose(cube.block_energy[0, i, 0], expected, rtol=1e-4)


def test_networks_that_take_turns_have_their_blocks_in_common(tmp_path: Path) -> None:
    from tests.spectra.guided import wan

    pipe, call = wan()
    kept: list[torch.Tensor] = []
    for network in (pipe.transformer, pipe.transformer_2):
        network.blocks[0].register_forward_hook(lambda module, args, output: kept.append(output))
    pipe.set_progress_bar_config(disable=True)
    with record(pipe, tmp_path / "c.zarr", bank=BANK, blocks=True):
        pipe(**call, generator=torch.Generator().manual_seed(0))
    cube = spectra.open_cube(tmp_path / "c.zarr")
    prompted = torch.stack(kept[::2]).transpose(2, 3).unflatten(-1, (2, 2, 2))  # (step, b, c, t, h, w)
    expected = HALVED.energies(prompted.float()).sum((2, 3)).squeeze(1)
    np.testing.assert_allclose(cube.block_energy.isel(run=0, block=0)[:-1], expected, rtol=1e-4)


def test_a_prompt_that_changes_nothing_leaves_nothing_to_be_told_apart(tmp_path: Path) -> None:
    pipe = tiny_sd()
    with record(pipe, tmp_path / "c.zarr", bank=BANK, blocks=True):
        pipe("", negative_prompt="", generator=seeded(1), **CALL | {"guidance_scale": 3.0})
        pipe("", generator=seeded(1), **CALL)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    np.testing.assert_allclose(cube.block_energy[0, 0], cube.block_energy[1, 0], rtol=1e-4)


def test_where_guidance_is_not_linear_the_half_cannot_be_told(tmp_path: Path) -> None:
    pipe = tiny_sd()
    with (
        record(pipe, tmp_path / "c.zarr", blocks=True),
        pytest.raises(UserError, match="with the prompt only, but the prediction is not"),
    ):
        pipe("a", **CALL | {"guidance_scale": 3.0, "guidance_rescale": 0.7})


def test_compiled_blocks_are_refused_because_their_hooks_do_not_fire(tmp_path: Path) -> None:
    whole, inner = tiny_sd(), tiny_sd3()
    whole.unet = torch.compile(whole.unet, backend="eager")
    inner.transformer.transformer_blocks[1].compile(backend="eager")
    for pipe in (whole, inner):
        with record(pipe, tmp_path / "c.zarr", blocks=True), pytest.raises(UserError, match="is compiled, and hooks"):
            pipe("a", **CALL)


def test_hooks_are_gone_when_the_call_is_over_however_it_ends(tmp_path: Path) -> None:
    pipe = tiny_sd()

    def fail(*args: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    with record(pipe, tmp_path / "c.zarr", blocks=True), pytest.raises(KeyboardInterrupt):
        pipe("a", callback_on_step_end=fail, **CALL)
    assert not any(module._forward_hooks for module in pipe.unet.modules())


def test_networks_without_known_blocks_are_refused(tmp_path: Path) -> None:
    pipe = Loop()
    pipe.transformer = torch.nn.Linear(2, 2)
    with record(pipe, tmp_path / "c.zarr", blocks=True), pytest.raises(UserError, match="Linear has no blocks"):
        pipe("a")


@pytest.mark.parametrize(
    ("output", "shape"),
    [
        (torch.zeros(2, 3, 4, 4), (2, 3, 4, 4)),
        ((torch.zeros(2, 3, 4, 4), (torch.zeros(1),)), (2, 3, 4, 4)),
        ((torch.zeros(2, 5, 7), torch.zeros(2, 32, 7)), (2, 7, 4, 8)),
        ((None, torch.zeros(2, 8, 7)), (2, 7, 2, 4)),
    ],
)
def test_outputs_become_fields(output: Any, shape: tuple[int, ...]) -> None:
    assert field_of("one", output, (2, 4, 8, 16)).shape == shape


def test_tokens_of_a_video_keep_their_frames() -> None:
    tokens = torch.arange(3 * 4 * 8.0).reshape(1, -1, 1)
    field = field_of("one", tokens, (1, 16, 3, 8, 16))
    assert field.shape == (1, 1, 3, 4, 8)
    assert torch.equal(field.flatten(), tokens.flatten())


@pytest.mark.parametrize("output", [torch.zeros(2, 33, 7), (torch.zeros(2, 32, 7), torch.zeros(2, 32, 7)), None])
def test_outputs_without_a_grid_are_refused(output: Any) -> None:
    with pytest.raises(UserError, match="the grid of the picture cannot be told"):
        field_of("one", output, (2, 4, 8, 16))


def test_a_block_that_does_not_run_is_refused() -> None:
    pipe = tiny_sd()
    watcher = BlockWatcher(pipe, family_of(pipe))
    with watcher.watching(), pytest.raises(UserError, match=r"down_blocks.0 did not run once"):
        watcher.take((1, 4, 16, 16), "guidance is off", BANK)
    assert set(watcher.outputs) == set(blocks_of(pipe.unet))
