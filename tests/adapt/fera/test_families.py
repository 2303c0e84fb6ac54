"""In every family, each sample of a batch gets its own gates in every layer, however the layers fold the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import inject_adapter_in_model
from torch import Tensor, nn

from adapt.fera import FeraConfig
from adapt.fera.layer import FeraProjection
from adapt.targets import TARGETS, default_targets
from spectra.errors import UserError
from tests.matrix.router_cases import NAMES, started

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")

WITHOUT_TARGETS = {
    "Krea2Pipeline",
    "NucleusMoEImagePipeline",
    "LuminaPipeline",
    "HiDreamImagePipeline",
    "Kandinsky3Pipeline",
    "Kandinsky5T2IPipeline",
    "kandinsky5",
    "StableCascadePriorPipeline",
    "StableCascadeDecoderPipeline",
    "ltx-2",
}
"""Families whose denoisers have no default targets: some route tokens to experts of their own, out of their rows."""


class CallSeenError(Exception):
    """Ends a pipeline's call at the denoiser's first."""


def first_call(name: str) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """A family's denoiser and the arguments that its pipeline gives it first."""
    start = started(name)
    denoiser: Any = start.denoisers[0]
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append((args, kwargs))
        raise CallSeenError

    with denoiser.register_forward_pre_hook(see, with_kwargs=True), pytest.raises(CallSeenError):
        start.run(2)
    return denoiser, *seen[0]


def adapt(denoiser: Any) -> None:
    torch.manual_seed(0)
    targets = default_targets(denoiser)
    inject_adapter_in_model(FeraConfig(r=1, num_experts=2, target_modules=targets, grid=(8, 8)), denoiser)
    for name, parameter in denoiser.named_parameters():
        if "fera_B" in name:
            nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHOUT_TARGETS])
def test_every_sample_gets_its_own_gates_in_every_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser, args, kwargs = first_call(name)
    adapt(denoiser)
    layers = {key: module for key, module in denoiser.named_modules() if isinstance(module, FeraProjection)}
    called: set[str] = set()
    for key, layer in layers.items():
        layer.register_forward_hook(lambda *_, key=key: called.add(key))

    def answer(gates: Tensor | None) -> Tensor:
        held = None if gates is None else {"default": gates}
        monkeypatch.setattr(denoiser.fera, "write", lambda *_: setattr(denoiser.fera.cell, "gates", held))
        with torch.no_grad():
            output = denoiser(*args, **kwargs)
        first = output[0] if isinstance(output, tuple) else output.sample
        return torch.stack(list(first)) if isinstance(first, list | tuple) else first

    batch = len(answer(None))
    assert batch >= 2
    one, other = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    ones, others = answer(one.repeat(batch, 1)), answer(other.repeat(batch, 1))
    mixed = answer(torch.stack([one] * (batch - 1) + [other]))
    assert (ones - others).abs().max() > 1e-3
    torch.testing.assert_close(mixed[:-1], ones[:-1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[-1], others[-1], rtol=1e-4, atol=1e-5)
    assert called == set(layers)


def test_families_without_default_targets_say_so() -> None:
    for name in WITHOUT_TARGETS & set(NAMES):
        denoiser = started(name).denoisers[0]
        assert type(denoiser).__name__ not in TARGETS
        with pytest.raises(UserError, match="no default targets are known"):
            default_targets(denoiser)
