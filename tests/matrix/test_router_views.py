"""What FeRA's router reads in a running pipeline is what the recorder saw at the scheduler, for every family.

The recorder lays latents out by what the pipeline knows and stands at `scheduler.step`; the router sees nothing but the
arguments of the denoiser.  Shares do not depend on scale, so they have to agree to float accuracy, in both halves of a
guided batch; so do noise levels, up to what a scheduler's rounding of its timesteps hides from the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest
import torch
import xarray as xr
from peft import inject_adapter_in_model
from torch import Tensor, nn

import spectra
from adapt.fera import FeraConfig, FeraRouter
from adapt.fera.features import Reader, latent_energy
from adapt.fera.noise import Clock, schedule_of
from adapt.trajectory import MOST_LOG_SNR as MOST
from spectra.process import forward_levels
from tests.matrix.router_cases import NAMES, Start, started

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")

SCALES = (0.8, 1.7)
BANK = spectra.FilterBank(SCALES)
ROUNDED = {"SanaPipeline", "wan", "wan-2.2", "wan-per-token", "sana-video", "skyreels"}
"""Their schedulers round sigma * 1000 down to a whole timestep, so the network is told a level that is a bit lower."""


@dataclass(frozen=True)
class Heard:
    """What the routers of a pipeline were given, call by call."""

    latents: list[Tensor] = field(default_factory=list)
    timesteps: list[Tensor] = field(default_factory=list)
    gates: list[Tensor] = field(default_factory=list)

    def listen(self, router: nn.Module, given: tuple[Any, ...], gates: Tensor) -> None:
        latent, _, timestep = given
        self.latents.append(latent.clone())
        self.timesteps.append(timestep.clone())
        self.gates.append(gates.detach())


@dataclass(frozen=True)
class Run:
    name: str
    start: Start
    clock: Clock
    heard: Heard
    cube: xr.Dataset

    @property
    def steps(self) -> list[int]:
        """The step that each call belongs to; pipelines that guide by two calls make both in a row."""
        calls, steps = len(self.heard.latents), self.cube.sizes["step"] - 1
        assert calls % steps == 0
        return [call // (calls // steps) for call in range(calls)]

    @property
    def energy(self) -> np.ndarray[Any, Any]:
        """As recorded, over channels and frames, (run, step, band)."""
        energy = self.cube.energy.sel(signal="latent")
        energy = energy.sum([axis for axis in ("frame", "channel") if axis in energy.dims])
        found: np.ndarray[Any, Any] = energy.transpose("run", "step", "band").values
        return found


def adapted(denoiser: nn.Module, grid: tuple[int, ...], schedule: Mapping[str, Any], **settings: Any) -> FeraRouter:
    """An adapter, on one attention layer if nothing else is said; it is zero, so the pipeline runs as without it."""
    linear = [name for name, module in denoiser.named_modules() if isinstance(module, nn.Linear)]
    target = next((name for name in linear if name.endswith(("to_q", "to_query"))), linear[-1])
    usual = {"features": ("shares", "log_snr"), "target_modules": [target], "noise_schedule": dict(schedule)}
    size = {"scales": SCALES, "grid": (grid[-2], grid[-1])}
    inject_adapter_in_model(FeraConfig(r=1, **{**size, **usual, **settings}), denoiser, "default")
    router = denoiser.fera
    assert isinstance(router, FeraRouter)
    return router


@pytest.fixture(scope="module", params=NAMES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    start, heard, folder = started(request.param), Heard(), tmp_path_factory.mktemp("views")
    schedule = schedule_of(start.pipe.scheduler)
    for denoiser in start.denoisers:
        adapted(denoiser, start.grid, schedule).register_forward_hook(heard.listen)
    with spectra.record(start.pipe, folder / "c.zarr", bank=BANK, signals=("latent",)):
        start.run()
    return Run(request.param, start, Clock.of(schedule), heard, spectra.open_cube(folder / "c.zarr"))


def test_the_router_reads_the_shares_that_are_recorded(run: Run) -> None:
    recorded = run.energy / run.energy.sum(2, keepdims=True)
    for step, latent in zip(run.steps, run.heard.latents, strict=True):
        assert (
            latent.shape[-len(run.start.grid) :] == run.start.grid
        )  # shares alone would not tell a picture from its transpose
        energy = latent_energy(latent, BANK)
        halves, rest = divmod(len(latent), len(recorded))
        assert (halves in (1, 2, 3), rest) == (True, 0)
        np.testing.assert_allclose(energy / energy.sum(1, keepdim=True), np.tile(recorded[:, step], (halves, 1)),
                                   atol=1e-6)  # fmt: skip


def test_the_router_reads_the_noise_level_that_is_recorded(run: Run) -> None:
    for step, timestep in zip(run.steps, run.heard.timesteps, strict=True):
        found = run.clock.log_snr(timestep).numpy()
        wanted = np.clip(run.cube.log_snr.values[step], -MOST, MOST)
        if run.name in ROUNDED:
            below = run.clock.log_snr(timestep + 1).numpy()
            assert (below - 1e-4 <= wanted).all()
            assert (wanted <= found + 1e-4).all()
        else:
            np.testing.assert_allclose(found, np.full(len(found), wanted), atol=1e-4)


def test_energies_over_those_of_the_noise_are_those_of_the_recording(run: Run) -> None:
    """At the scheduler's own scale of the state, which is not that of the network's input."""
    reader = Reader(("snr",), BANK.bands, BANK, run.clock, (0.0,) * 3, (1.0,) * 3, 1.0)
    fields = run.heard.latents[0][0].numel() / np.prod(run.start.grid[-2:])
    noise = run.cube.noise_level.values[:, None] ** 2 * fields * BANK.white_noise(*run.start.grid[-2:]).mean
    recorded = np.log(run.energy[:, :-1] / noise[:-1])
    for step, latent, timestep in zip(run.steps, run.heard.latents, run.heard.timesteps, strict=True):
        halves = len(latent) // len(recorded)
        np.testing.assert_allclose(reader(latent, timestep), np.tile(recorded[:, step], (halves, 1)), atol=0.02)


def test_gates_belong_to_the_samples_of_the_call(run: Run) -> None:
    for latent, gates in zip(run.heard.latents, run.heard.gates, strict=True):
        assert gates.shape == (len(latent), 3)
        torch.testing.assert_close(gates.mean(1), torch.ones(len(latent)))
        for part in gates.split(run.cube.sizes["run"]):  # with and without the prompt, the latents are the same
            torch.testing.assert_close(part, gates[: len(part)])


def test_training_levels_are_those_of_the_forward_process(run: Run) -> None:
    """The same schedule, by spectra's own account of how networks are trained."""
    if run.clock.kind in ("edm", "trig") or run.name.startswith("StableCascade"):
        pytest.skip("spectra knows no forward process for this scheduler")
    noise = forward_levels(run.start.pipe.scheduler, 20)
    inside = [i for i, (a, b) in enumerate(zip(noise.signal, noise.noise, strict=True)) if a > 1e-3 and b > 1e-3]
    wanted = [2 * np.log(noise.signal[i] / noise.noise[i]) for i in inside]
    found = run.clock.log_snr(torch.tensor([noise.timestep[i] for i in inside]))
    np.testing.assert_allclose(found, wanted, atol=1e-3)


@pytest.mark.parametrize(
    "name",
    ["StableDiffusionPipeline", "FluxPipeline", "ZImagePipeline", "svd", "animatediff", "latte", "wan",
     "cogvideox-ddim", "ltx"],
)  # fmt: skip
def test_a_sample_is_adapted_by_its_own_gates(name: str) -> None:
    """Also in layers that fold frames or pixels into the batch: a batch gives what its samples give one by one."""
    start, calls = started(name), []
    (denoiser,) = start.denoisers
    router = adapted(denoiser, start.grid, {}, features=("shares",), noise_schedule=None,
                     target_modules=["to_q", "to_v"])  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    for key, parameter in denoiser.named_parameters():
        if "fera_B" in key:
            parameter.data = torch.randn(parameter.shape, generator=draw)

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append({**dict(zip(router.view.names, args, strict=False)), **kwargs})

    handle = denoiser.register_forward_pre_hook(keep, with_kwargs=True)
    start.run(steps=2)
    handle.remove()
    rows, _ = router.view.batch((), calls[0])
    gates = 3 * torch.eye(3)[[0, 1, 2, 1][:rows]]  # each sample has an expert to itself
    with torch.no_grad():
        together = _with_gates(denoiser, calls[0], gates)
        swapped = _with_gates(denoiser, calls[0], gates.roll(1, 0))
        alone = [_with_gates(denoiser, _part(calls[0], i, rows), gates[i : i + 1]) for i in range(rows)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-3, atol=1e-4)
    assert (together - swapped).abs().max() > 1e-2


def _with_gates(denoiser: nn.Module, call: dict[str, Any], gates: Tensor) -> Tensor:
    """The answer with gates that the router did not choose."""
    router = cast(FeraRouter, denoiser.fera)
    handle = router.register_forward_hook(lambda *_: gates)
    try:
        return _output(denoiser(**call))
    finally:
        handle.remove()


def _output(answer: Any) -> Tensor:
    found = answer[0] if isinstance(answer, tuple) else answer.sample
    return found if isinstance(found, Tensor) else torch.stack(list(found))


def _part(call: dict[str, Any], i: int, rows: int) -> dict[str, Any]:
    """The arguments of one sample; those of frames come in as many rows for each."""

    def part(name: str, value: Any) -> Any:
        if isinstance(value, list) and len(value) == rows:
            return value[i : i + 1]
        if not isinstance(value, Tensor) or value.ndim == 0 or name in ("img_ids", "txt_ids"):
            return value
        return value.chunk(rows)[i]

    return {name: part(name, value) for name, value in call.items()}
