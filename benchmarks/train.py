"""What training with FeRA costs, as ratios: against PEFT's LoRA, against the published layer, against its own parts.

Every arm has its own copy of one denoiser with random weights and takes one whole training step (forward, backward,
AdamW) in turn, in one process.  Prints and writes (benchmarks/results/train.json) the medians of paired ratios:

    A  FeRA without consistency loss / LoRA of equal total rank: time, and memory for backward
    B  FeRA with consistency loss / without (each step; every 4th step; on half of the batch)
    C  the published layer / FeRA, on q, k and v alone: whole step, adapter activations kept for backward, and one layer
       by itself (forward and backward)
    D  band energies and router alone, as a share of the step
    E  activations kept for backward, of which "frozen" are those that gradients through the frozen network need
    F  FeRA, LoRA and the published layer / training the normalisation layers alone (the floor)
    G  seconds to encode a picture (cold and from the cache), to save and to load an adapter

    python benchmarks/train.py [--repeats 9]
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parts.clock import by_turns
from parts.cold import cold_start
from parts.denoisers import DEVICE, Size, denoiser, moved, sizes
from parts.published import QKV, PublishedFera, PublishedLinear
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from adapt.fera import FeraConfig, FeraLinear, GateCell, base_output, fecl
from adapt.fera.model import router_of
from spectra.bands import FilterBank

EXPERTS, RANK, BANDS = 3, 4, 3
TARGETS = [*QKV, "to_out.0"]
OUT = Path(__file__).parent / "results" / "train.json"


class Arm:
    """One way of training one denoiser: a step that can be timed, and what it keeps for the backward pass."""

    def __init__(
        self, name: str, size: Size, model: nn.Module, batch: int, before: Callable[[], None] | None = None
    ) -> None:
        self.name, self.model, self.before = name, model, before
        self.network: Any = model.denoiser if isinstance(model, PublishedFera) else model
        self.inputs = moved(size.inputs(batch), size.dtype)
        self.latent: Tensor = self.inputs[size.latent]
        self.target = torch.zeros_like(self.latent)
        self.consistency: Callable[[int], float] = lambda step: 0.0  # share of the batch that gets the loss at a step
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters or [torch.zeros(1)], lr=1e-4, fused=True)
        if not self.parameters:  # gradients flow through all of the network, and none of it learns
            self.latent.requires_grad_()
        self.bank = FilterBank.octaves(BANDS, (32, 32))

    def predict(self, count: int | None = None) -> Tensor:
        """The network's answer for the first `count` samples."""
        chosen = _first(self.inputs, count)
        prediction: Tensor = self.network(**chosen, return_dict=False)[0]
        return prediction

    def loss(self, step: int = 0) -> Tensor:
        """Mean squared error, with the consistency loss on some samples if the arm has it."""
        count = round(self.consistency(step) * len(self.latent))
        base = None
        if count:
            with torch.no_grad(), base_output(self.model):
                base = self.predict(count)
        if isinstance(self.model, PublishedFera):
            self.model.route(self.latent)
        prediction = self.predict()
        error = (prediction - self.target).square().mean()
        if base is None:
            return error
        return error + 0.1 * fecl(prediction[:count], base, self.target[:count], self.bank)

    def step(self, number: int = 0) -> float:
        """Seconds of one training step, all work on the device done."""
        synchronise()
        start = time.perf_counter()
        self.loss(number).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        synchronise()
        return time.perf_counter() - start

    def kept(self) -> int:
        """Bytes of activations that the graph of one loss keeps alive, weights left out, each storage once."""
        own = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        found: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                found[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = self.loss()
        total = sum(found.values())
        del loss
        return total

    def peak(self) -> int | None:
        """Most bytes of device memory that a step takes above what lies there before it; None without CUDA."""
        if DEVICE != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.step()
        return torch.cuda.max_memory_allocated() - before


def _first(inputs: dict[str, Any], count: int | None) -> dict[str, Any]:
    """The first samples of every input that has one row a sample."""
    if count is None:
        return inputs
    whole = max(len(value) for name, value in inputs.items() if name == "timestep")
    cut = {
        n: _first(v, count) if isinstance(v, dict) else v[:count] if len(v) == whole else v for n, v in inputs.items()
    }
    return cut


def synchronise() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def floor(model: nn.Module) -> nn.Module:
    """Only the normalisation layers learn."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("norm" in name)
    return model


def lora(model: nn.Module) -> nn.Module:
    """PEFT's LoRA of the total rank of FeRA."""
    rank = EXPERTS * RANK
    return inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS), model)


def fera(targets: list[str], grid: tuple[int, int]) -> Callable[[nn.Module], nn.Module]:
    """FeRA on the given layers."""
    config = FeraConfig(r=RANK, num_experts=EXPERTS, bands=BANDS, target_modules=targets, grid=grid)
    return lambda model: inject_adapter_in_model(config, model)


def arms_of(size: Size, batch: int) -> dict[str, Arm]:
    """Every arm on its own copy of the denoiser."""
    model = denoiser(size)
    side = 128 if DEVICE == "cuda" else 32
    made: dict[str, Callable[[nn.Module], nn.Module]] = {
        "frozen": lambda model: model,
        "floor": floor,
        "lora": lora,
        "fera": fera(TARGETS, (side, side)),
        "fera qkv": fera(list(QKV), (side, side)),
        "published qkv": lambda model: PublishedFera(model, RANK, EXPERTS, BANDS),
        "fera + fecl": fera(TARGETS, (side, side)),
        "fera + fecl, every 4th": fera(TARGETS, (side, side)),
        "fera + fecl, half": fera(TARGETS, (side, side)),
    }
    if size.name.startswith("FLUX"):  # the published layer reads latents with four axes only
        del made["published qkv"]
    arms = {name: Arm(name, size, make(copy.deepcopy(model)), batch) for name, make in made.items()}
    arms["fera + fecl"].consistency = lambda step: 1.0
    arms["fera + fecl, every 4th"].consistency = lambda step: 0.0 if step % 4 else 1.0
    arms["fera + fecl, half"].consistency = lambda step: 0.5
    return arms


def take_turns(arms: dict[str, Arm], repeats: int) -> dict[str, np.ndarray]:
    """Seconds of four steps of each arm, by round; who goes first rotates."""
    names = [name for name in arms if arms[name].parameters]
    for name in names:
        arms[name].step()
    return by_turns(names, repeats, lambda name: sum(arms[name].step(number) for number in range(4)))


def ratio(above: np.ndarray, below: np.ndarray) -> dict[str, Any]:
    """Median and quartiles of paired ratios."""
    paired = above / below
    return {"median": float(np.median(paired)), "quartiles": [float(q) for q in np.quantile(paired, (0.25, 0.75))]}


def routing(arm: Arm, repeats: int) -> float:
    """Median seconds of the energies and the gates alone, forward and backward."""
    router = router_of(arm.model)
    assert router is not None
    times = []
    for _ in range(repeats + 1):
        synchronise()
        start = time.perf_counter()
        router.write((), arm.inputs)
        assert router.cell.gates is not None
        next(iter(router.cell.gates.values())).square().sum().backward()
        synchronise()
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def one_layer(repeats: int, shape: tuple[int, int, int] = (2, 4096, 640)) -> dict[str, Any]:
    """C for one linear layer of 640 features and 4096 tokens: paired ratio of forward and backward, and bytes kept."""
    x = torch.randn(shape, device=DEVICE, requires_grad=True)
    gates = torch.ones(shape[0], EXPERTS, device=DEVICE)
    base = nn.Linear(shape[-1], shape[-1], device=DEVICE).requires_grad_(False)
    config = FeraConfig(r=RANK, num_experts=EXPERTS, target_modules=["0"])
    ours, theirs = FeraLinear(copy.deepcopy(base), cell := GateCell()), PublishedLinear(base, RANK, EXPERTS, 1.0)
    ours.update_layer("default", config)
    ours.set_adapter("default")
    cell.gates, theirs.gates = {"default": gates}, gates / EXPERTS
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(4 * repeats + 1):
        for name, layer in (("ours", ours), ("theirs", theirs))[:: 1 if turn % 2 else -1]:
            synchronise()
            start = time.perf_counter()
            layer(x).sum().backward()
            synchronise()
            times[name].append(time.perf_counter() - start)
    paired = [np.array(times[name][1:]) for name in ("theirs", "ours")]
    return {"shape": shape, "seconds": {name: float(np.median(found)) for name, found in times.items()},
            "ratio": ratio(*paired)}  # fmt: skip


def measure(size: Size, repeats: int) -> dict[str, Any]:
    """All ratios of one denoiser."""
    arms = arms_of(size, size.batch)
    times = take_turns(arms, repeats)
    kept = {name: arm.kept() for name, arm in arms.items()}
    above = {name: count - kept["frozen"] for name, count in kept.items()}
    found: dict[str, Any] = {
        "model": size.name, "batch": size.batch, "dtype": str(size.dtype),
        "step_seconds": {name: float(np.median(seconds)) / 4 for name, seconds in times.items()},
        "A time": ratio(times["fera"], times["lora"]), "A memory": kept["fera"] / kept["lora"],
        "B": ratio(times["fera + fecl"], times["fera"]),
        "B every 4th": ratio(times["fera + fecl, every 4th"], times["fera"]),
        "B half": ratio(times["fera + fecl, half"], times["fera"]),
        "D share": routing(arms["fera"], 20) / (float(np.median(times["fera"])) / 4),
        "E kept MiB": {name: count / 2**20 for name, count in kept.items()},
        "E peak MiB": {name: peak and peak / 2**20 for name, peak in ((n, arms[n].peak()) for n in times)},
        "F": {name: ratio(times[name], times["floor"]) for name in times if name in ("lora", "fera")},
    }  # fmt: skip
    if "published qkv" in arms:
        found["C time"] = ratio(times["published qkv"], times["fera qkv"])
        found["C memory"] = above["published qkv"] / above["fera qkv"]
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    if DEVICE == "cpu":
        torch.set_num_threads(1)
    rows = []
    for size in sizes():
        rows.append(measure(size, repeats))
        print(json.dumps(rows[-1], indent=1), flush=True)
    around = cold_start(min(repeats, 5))
    print(json.dumps(around, indent=1))
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(report(rows, around, repeats), indent=1) + "\n", encoding="utf-8")


def report(rows: list[dict[str, Any]], around: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Everything that a reader needs to judge the numbers."""
    versions = {name: version(name) for name in ("torch", "diffusers", "peft", "numpy")}
    command = f"python benchmarks/train.py --repeats {repeats}"
    setting = {"experts": EXPERTS, "rank": RANK, "bands": BANDS, "threads": torch.get_num_threads(), "device": DEVICE}
    whole = {"command": command, "versions": versions, "setting": setting, "models": rows, "G seconds": around}
    return whole | {"C layer": one_layer(repeats)}


if __name__ == "__main__":
    main()
