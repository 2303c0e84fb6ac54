"""Two processes train as one: the router runs inside whatever wraps the denoiser."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adapt.fera import load_fera
from adapt.fera.experts import EXPERTS
from tests.adapt.fera import processes
from tests.adapt.fera.conftest import fera_parameters, run
from tests.tiny import tiny_sd

pytestmark = pytest.mark.slow


def launch(task: str, expert: str, out: Path, count: int = 2) -> None:
    """Run a task of `processes` in two processes that meet over gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "PYTHONPATH": str(Path(processes.__file__).parents[3]),
    }
    command = [sys.executable, "-m", processes.__name__, task, expert, str(out)]
    started = [
        subprocess.Popen(
            command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank in range(count)
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=100)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in started:
            process.kill()


def of_one_process(expert: str) -> dict[str, Tensor]:
    """Gradients of the same step in one process with the whole batch."""
    model: nn.Module = processes.model(expert).train()
    model(**processes.whole_batch(model)).sample.square().mean().backward()
    return {name: p.grad for name, p in fera_parameters(model).items() if p.grad is not None}


def agree(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("expert", EXPERTS)
def test_gradients_under_ddp_are_those_of_one_process_with_the_whole_batch(expert: str, tmp_path: Path) -> None:
    launch("ddp", expert, tmp_path / "gradients.pt")
    agree(torch.load(tmp_path / "gradients.pt"), of_one_process(expert))


@pytest.mark.parametrize("expert", EXPERTS)
def test_gradients_under_fsdp_are_those_of_one_process_and_the_adapter_saves_whole(expert: str, tmp_path: Path) -> None:
    launch("fsdp", expert, tmp_path / "step.pt")
    expected = of_one_process(expert)
    agree(torch.load(tmp_path / "step.pt"), expected)
    stepped, loaded = processes.model(expert), tiny_sd().unet.eval()
    with torch.no_grad():
        for name, parameter in fera_parameters(stepped).items():
            parameter.sub_(0.1 * expected[name])
    load_fera(loaded, tmp_path / "step")
    torch.testing.assert_close(run(loaded), run(stepped), rtol=1e-4, atol=1e-5)
