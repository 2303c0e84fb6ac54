"""What the processes of `test_distributed` do: `python -m tests.adapt.together train|resume|shard FOLDER`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from adapt.config import TrainConfig


def config(folder: Path, out: str, **changes: Any) -> TrainConfig:
    """A run on the model and data that the test has put into the folder."""
    settings: dict[str, Any] = {
        "model": str(folder / "model"), "data": folder / "data" / "train", "out": folder / out, "method": "fera",
        "cache": folder / "cache", "steps": 3, "batch": 4, "eval_samples": 2, "eval_levels": 3, "eval_every": 3,
        "sample_prompts": 1, "sample_steps": 2, "threads": 1, "ema": 0.5, "optimizer": "sgd", "lr": 0.5,
    }  # fmt: skip
    return TrainConfig(**(settings | changes))


CASES: dict[str, dict[str, Any]] = {
    "fera": {},
    "parts": {"fecl_weight": 0.1, "accumulate": 2, "lr": 0.1},
    "text": {"method": "lora", "text_encoder": True, "ema": None, "lr": 0.1},
}
"""What one process and two train alike: accumulated parts, and encoders outside the wrapped denoiser, too."""


def run(folder: Path, name: str = "two") -> None:
    """Train every case."""
    from adapt.loop import train

    for case, changes in CASES.items():
        train(config(folder, f"{name}-{case}", **changes))


def stop_and_resume(folder: Path) -> None:
    """Every process is told to stop, all stop at one step, and a second training goes on from there."""
    from adapt.loop import TrainingStoppedError, train

    settings = config(folder, "resumed", steps=12, eval_every=12)

    def told(phase: str, done: int, total: int) -> None:
        if phase == "train" and done == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        train(settings, told)
    except TrainingStoppedError as error:
        stopped = error.step
    assert stopped == 10, stopped  # processes look together every ten steps
    train(settings)


def shard(folder: Path) -> None:
    """Adapter weights of a sharded model are gathered, saved and restored whole."""
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    from adapt.checkpoint_tree import copy_into, load_tree, save_tree, whole
    from adapt.optimisers import optimizer_state, restore_optimizer
    from adapt.processes import gathered

    dist.init_process_group("gloo")

    def made() -> tuple[Any, Any]:
        torch.manual_seed(0)
        model: Any = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))
        fully_shard(model)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def steps(model: Any, optimizer: Any, count: range) -> None:
        for index in count:
            x = torch.randn(4, 6, generator=torch.Generator().manual_seed(index))
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    model, optimizer = made()
    steps(model, optimizer, range(2))
    weights = {name: whole(p.detach()) for name, p in model.named_parameters()}
    with gathered(model):
        assert all(type(p.data) is torch.Tensor or not hasattr(p, "full_tensor") for p in model.parameters())
        assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    tree = {"weights": weights, "optimizer": optimizer_state(optimizer)}
    if dist.get_rank() == 0:
        save_tree(tree, folder)
    dist.barrier()
    other, fresh = made()
    saved = load_tree(folder)
    for name, parameter in other.named_parameters():
        copy_into(parameter, saved["weights"][name])
    restore_optimizer(fresh, saved["optimizer"])
    steps(model, optimizer, range(2, 5))
    steps(other, fresh, range(2, 5))
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(whole(a.detach()), whole(b.detach())) for a, b in pairs)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    {"train": run, "resume": stop_and_resume, "shard": shard}[sys.argv[1]](Path(sys.argv[2]))
