"""What each of several processes does in `test_distributed.py`: `python -m tests.adapt.fera.processes TASK OUT`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from adapt.fera import cell_of, checkpointing_function, save_fera
from tests.adapt.fera.conftest import adapted, arguments, fera_parameters
from tests.tiny import tiny_sd, tiny_sd3

BATCH = 4
TARGETS = ["to_q", "to_out.0", "ff.net.2"]


def model(expert: str = "lora", kind: str = "unet") -> Any:
    """The same adapted model in every process."""
    made = tiny_sd().unet if kind == "unet" else tiny_sd3().transformer
    return adapted(made.eval(), expert=expert, target_modules=TARGETS)


def whole_batch(denoiser: nn.Module) -> dict[str, Tensor]:
    """Arguments of one call for all processes together."""
    return arguments(denoiser, seed=3, batch=BATCH)


def share_of_batch(call: dict[str, Tensor]) -> dict[str, Tensor]:
    """This process' rows."""
    rows = BATCH // dist.get_world_size()
    start = dist.get_rank() * rows
    return {name: value[start : start + rows] for name, value in call.items()}


def ddp(expert: str, out: Path) -> None:
    """Gradients of a step under DDP, with checkpointing that restores gates."""
    accelerator = Accelerator(cpu=True)
    plain = model(expert)
    plain.enable_gradient_checkpointing(checkpointing_function(cell_of(plain)))
    wrapped = accelerator.prepare(plain.train())
    loss = wrapped(**share_of_batch(whole_batch(plain))).sample.square().mean()
    accelerator.backward(loss)
    if dist.get_rank() == 0:
        torch.save({name: p.grad for name, p in fera_parameters(plain).items()}, out)


def fsdp(expert: str, out: Path) -> None:
    """Gradients, and the adapter saved after a step, with the calls of accelerate's FSDP2, which has no CPU mode."""
    dist.init_process_group("gloo")
    mesh, plain = init_device_mesh("cpu", (dist.get_world_size(),)), model(expert)
    call = share_of_batch(whole_batch(plain))
    plain.enable_gradient_checkpointing(checkpointing_function(cell_of(plain)))
    for block in [m for m in plain.modules() if type(m).__name__ == "BasicTransformerBlock"]:
        fully_shard(block, mesh=mesh)
    fully_shard(plain.train(), mesh=mesh)
    named = fera_parameters(plain)
    optimiser = torch.optim.SGD(named.values(), lr=0.1)
    plain(**call).sample.square().mean().backward()
    gradients = {name: p.grad.full_tensor() for name, p in named.items() if isinstance(p.grad, DTensor)}
    optimiser.step()
    state = get_model_state_dict(plain, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if dist.get_rank() == 0:
        save_fera(plain, out.with_suffix(""), state_dict=state)
        torch.save(gradients, out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"ddp": ddp, "fsdp": fsdp}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
    dist.destroy_process_group()
